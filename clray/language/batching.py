"""Minibatches: which examples go together, and how their sequences become tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from clray.language.encoding import FILL, Encoded

if TYPE_CHECKING:
    from torch import Tensor

_EXPONENT = 1.163
"""How the memory that a sequence takes grows with its length, as the official code has it."""


def as_coded(
    lengths: Sequence[int], order: Sequence[int], budget: float, largest: int, train: bool = True
) -> list[list[int]]:
    """The minibatches of LAMOL's official code (``utils.py``, ``DynamicBatchSampler``).

    A minibatch is closed before an example with which its count times its longest length to the power 1.163 is more
    than the budget, and in training when it has ``largest`` examples. After one of those the code counts the next
    minibatch as one larger than it is: kept, because it decides what learns together.

    Args:
        lengths: of the examples' ``cqa``.
        order: indices of all examples as they come.
        budget: the official code makes it of the GPU's memory.
        train: in a test only the budget counts.

    Returns:
        Indices, in that order; every example is in exactly one minibatch. One that is over the budget by itself stands
        alone (the official code then also gives out an empty minibatch, and breaks off).
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
"""Rows of like length are sought among so many budgets' worth of tokens."""


def bucketed(
    lengths: Sequence[int], budget: int, rng: np.random.Generator, largest: int | None = None
) -> list[list[int]]:
    """Minibatches of rows of like length, in random order: little padding.

    All examples are shuffled, taken by pools of some sixty minibatches, and sorted by length within those: rows are of
    like length, and a minibatch is not the same in every epoch.

    Args:
        lengths: of the examples.
        budget: tokens of a minibatch, padding included: rows times the longest. A row longer than that stands alone.
        rng: what draws; the only thing that makes one epoch differ from the next.
        largest: the most rows.

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
    """Sequences of a minibatch, each field a 64-bit integer tensor [rows, longest], padded on the right.

    Attributes:
        cq, cqa, gen_X: padded with ``__pad__``.
        Y, gen_Y: as long as ``cqa`` and ``gen_X``; padded with ``FILL``.
        cq_lengths, cqa_lengths: [rows] without the padding.
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
    """[rows, longest] the rows one under the other, filled up on the right, or on the left."""
    import torch

    longest = max((len(row) for row in rows), default=0)
    table = np.full((len(rows), longest), fill, np.int64)
    for line, row in zip(table, rows, strict=True):
        line[longest - len(row) if left else 0 : longest if left else len(row)] = row
    return torch.from_numpy(table)
