"""Adaptive prototypical feedback (OnPro, ``modules/APF.py``): which memories are mixed, and how much.

Most of a batch of memories is mixed at random. The rest are images of two classes each, and the nearer the prototypes
of two classes are, the more images of them are mixed. A mixture is a list of pairs of slots, so that a batch needs two
gathers, one for the first images and one for the second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Mixture:
    """Pairs of memories to be mixed: 1 - ``share`` of the first and ``share`` of the second.

    Attributes:
        first, second: slots [n].
        share: [n] float32.
    """

    first: Numbers
    second: Numbers
    share: NDArray[np.float32]


def mixture(
    slots: Numbers,
    labels: Numbers,
    prototypes: NDArray[np.float32],
    rng: np.random.Generator,
    at_random: float,
    probability: float,
    largest: float,
    beta: float,
) -> Mixture:
    """Plan a batch of mixed memories.

    Args:
        slots: those drawn from the memory [n]; the mixture has as many images.
        labels: of all memories, by slot.
        prototypes: [classes, size], 0 where a class has none.
        rng: makes the draws.
        at_random: the share of the batch that is mixed at random; all of it where fewer than two classes have a
            prototype, or none of those has a memory.
        probability: that a mixture is one, for the batch at random, for each image in it, and for each pair of classes.
        largest: the largest share of the second image at random.
        beta: both parameters of the beta distribution of the share in mixtures of two classes.
    """
    if not np.isfinite(prototypes).all():
        raise FloatingPointError("the prototypes of the classes are not finite")
    known = np.flatnonzero(np.abs(prototypes).sum(1) > 0)
    held = np.intersect1d(labels, known)
    count = int(len(slots) * at_random) if len(known) > 1 and len(held) else len(slots)
    chosen = slots[rng.choice(len(slots), count, replace=False)]
    parts = [_at_random(chosen, rng, probability, largest)]
    if count < len(slots):
        pairs = np.stack(np.triu_indices(len(known), 1))
        own = prototypes[known]
        distances = np.linalg.norm(own[pairs[0]] - own[pairs[1]], axis=1)
        counts = shared_out(pair_odds(distances), len(slots) - count, rng)
        parts.append(_of_classes(known[pairs], counts, labels, held, rng, probability, beta))
    columns = zip(*((part.first, part.second, part.share) for part in parts), strict=True)
    first, second, share = (np.concatenate(column) for column in columns)
    return Mixture(first, second, share.astype(np.float32))


def pair_odds(distances: NDArray[np.float32]) -> NDArray[np.float64]:
    """The share [pairs] of each pair of classes: a softmax of one over the distance of their prototypes."""
    nearness = 1 / np.maximum(distances.astype(np.float64), 1e-6)
    odds = np.exp(nearness - nearness.max())
    return odds / odds.sum()


def shared_out(odds: NDArray[np.float64], count: int, rng: np.random.Generator) -> Numbers:
    """Whole numbers [pairs] that are near ``odds`` times ``count`` and sum to ``count``.

    What rounding leaves over is added to pairs drawn at random, and what it takes too much is taken from such.
    """
    counts = np.round(odds * count).astype(np.int64)
    left = count - int(counts.sum())
    among = np.arange(len(counts)) if left > 0 else np.flatnonzero(counts)
    if left:
        counts[among[rng.permutation(len(among))[: abs(left)]]] += np.sign(left)
    return counts


def _at_random(slots: Numbers, rng: np.random.Generator, probability: float, largest: float) -> Mixture:
    """Mix with partners among the same images (as ``RandomMixUpV2`` of kornia 0.6.8)."""
    if rng.random() >= probability:
        return Mixture(slots, slots, np.zeros(len(slots), np.float32))
    partners = slots[rng.permutation(len(slots))]
    share = rng.uniform(0, largest, len(slots)) * (rng.random(len(slots)) < probability)
    return Mixture(slots, partners, share.astype(np.float32))


def _of_classes(
    pairs: Numbers,
    counts: Numbers,
    labels: Numbers,
    held: Numbers,
    rng: np.random.Generator,
    probability: float,
    beta: float,
) -> Mixture:
    """Mix memories of two classes. A class without a memory is replaced by one drawn from ``held``, as in the code.

    Args:
        pairs: the classes [2, pairs].
        counts: the images of each pair [pairs].
    """
    missing = ~np.isin(pairs, held) & (counts > 0)
    pairs[missing] = rng.choice(held, int(missing.sum()))
    pair = np.repeat(np.arange(len(counts)), counts)
    by_class = np.argsort(labels, kind="stable")
    begin, end = (np.searchsorted(labels[by_class], pairs[:, pair], side) for side in ("left", "right"))
    first, second = by_class[begin + (rng.random(begin.shape) * (end - begin)).astype(np.int64)]
    mixes = rng.random(len(counts)) <= probability
    share = np.where(mixes[pair], rng.beta(beta, beta, len(pair)), 0)
    return Mixture(first, second, share.astype(np.float32))
