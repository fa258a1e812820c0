"""Minibatches: the choice of examples that belong together, and their sequences as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from clray.language.encoding import FILL, Encoded

if TYPE_CHECKING:
    from torch import Tensor

_EXPONENT = 1.163
"""The exponent with which a sequence's memory grows with its length, as in the official code."""


def as_coded(
    lengths: Sequence[int], order: Sequence[int], budget: float, largest: int, train: bool = True
) -> list[list[int]]:
    """The minibatches of LAMOL's official code (``utils.py``, ``DynamicBatchSampler``).

    A minibatch is closed before an example with which its count times its longest length to the power 1.163 is more
    than the budget, and in training when it has ``largest`` examples. After one of those the code counts the next
    minibatch as one larger than it is; this is kept, because it decides which examples are learned together.

    Args:
        lengths: the lengths of the examples' ``cqa``.
        order: the indices of all examples, in the order in which they are taken.
        budget: the memory budget; the official code computes it from the GPU's memory.
        train: False for a test, in which only the budget counts.

    Returns:
        Indices in that order; every example is in exactly one minibatch. An example that exceeds the budget is alone in
        its minibatch (the official code then also returns an empty minibatch, and fails).
    """
    batches: list[list[int]] = []
    batch: list[int] = []
    longest, too_many = 0, 0
    for index in order:
        longest = max(longest, lengths[index])
        if batch and longest**_EXPONENT * (len(batch) + 1 + too_many) > budget:
            batches.append(batch)
            batch, longest, too_many = [], lengths[index], 0
        batch.append(index)
        if train and len(batch) == largest:
            batches.append(batch)
            batch, longest, too_many = [], 0, 1
    return [*batches, batch] if batch else batches


_POOL = 64
"""A pool, inside which rows are sorted by length, has so many times the budget in tokens."""


def bucketed(
    lengths: Sequence[int], budget: int, rng: np.random.Generator, largest: int | None = None
) -> list[list[int]]:
    """Minibatches of rows of similar length, which need little padding, in random order.

    All examples are shuffled, divided into pools of some sixty minibatches, and sorted by length inside each pool. So
    rows have similar lengths, and the minibatches of two epochs are different.

    Args:
        lengths: the lengths of the examples.
        budget: the most tokens of a minibatch, with padding: rows times the longest row. A longer row is alone.
        rng: the random generator, the only source of differences between epochs.
        largest: the most rows of a minibatch.

    Returns:
        Indices; every example is in exactly one minibatch.
    """
    batches: list[list[int]] = []
    shuffled = rng.permutation(len(lengths))
    pools = np.cumsum(np.asarray(lengths, np.int64)[shuffled]) // max(_POOL * budget, 1)
    for pool in np.unique(pools):
        members = [int(i) for i in shuffled[pools == pool]]
        batch: list[int] = []
        for index in sorted(members, key=lambda i: lengths[i]):  # the sort keeps ties in their shuffled order
            if batch and (lengths[index] * (len(batch) + 1) > budget or len(batch) == largest):
                batches.append(batch)
                batch = []
            batch.append(index)
        batches.append(batch)
    return [batches[i] for i in rng.permutation(len(batches))]


class Collated(NamedTuple):
    """The sequences of a minibatch; each is a 64-bit integer tensor [rows, longest], padded on the right.

    Attributes:
        cq, cqa, gen_X: padded with ``__pad__``.
        Y, gen_Y: as long as ``cqa`` and ``gen_X``; padded with ``FILL``.
        cq_lengths, cqa_lengths: [rows] the lengths without padding.
    """

    cq: Tensor
    cq_lengths: Tensor
    cqa: Tensor
    cqa_lengths: Tensor
    Y: Tensor
    gen_X: Tensor
    gen_Y: Tensor


def collate(rows: Sequence[Encoded], pad: int) -> Collated:
    """The rows of a minibatch as tensors."""
    import torch

    return Collated(
        padded([row.cq for row in rows], pad),
        torch.tensor([len(row.cq) for row in rows]),
        padded([row.cqa for row in rows], pad),
        torch.tensor([len(row.cqa) for row in rows]),
        padded([row.Y for row in rows], FILL),
        padded([row.gen_X for row in rows], pad),
        padded([row.gen_Y for row in rows], FILL),
    )


def padded(rows: Sequence[Sequence[int]], fill: int, left: bool = False) -> Tensor:
    """[rows, longest] the rows, padded on the right, or on the left."""
    import torch

    longest = max((len(row) for row in rows), default=0)
    table = np.full((len(rows), longest), fill, np.int64)
    for line, row in zip(table, rows, strict=True):
        line[longest - len(row) if left else 0 : longest if left else len(row)] = row
    return torch.from_numpy(table)
