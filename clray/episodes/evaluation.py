"""The evaluation of a network on an episode: the fractions of queries that it answers exactly."""

from __future__ import annotations

from typing import Any

import numpy as np

from clray.episodes.benchmarks import Benchmark, Drawn, Pairs
from clray.episodes.learner import Learner, as_episode

_AT_ONCE = 512
"""The number of queries that are answered together."""


def scores(learner: Learner, drawn: Drawn, asked: Pairs, benchmark: Benchmark, memory: bool) -> tuple[float, float]:
    """The fractions answered exactly: of the queries that the support set shows, and of all others; NaN for none.

    A query is shown where its command is in the support set, whatever its answer is. Contexts are padded as if all
    queries were answered at once.

    Args:
        asked: the queries.
        memory: True where the network reads the support set.
    """
    device, right = str(next(learner.network.parameters()).device), []
    support = drawn.support if memory else None
    for begin in range(0, len(asked), _AT_ONCE):
        part = asked.take(np.arange(begin, min(begin + _AT_ONCE, len(asked))))
        episode = as_episode(support, part, benchmark, device, steps=asked.commands.shape[1])
        right.append(learner.form.right(learner.network, episode, benchmark.actions.eos))
    shown = in_support(drawn, asked)
    answered = np.concatenate(right)
    return _mean(answered[shown]), _mean(answered[~shown])


def in_support(drawn: Drawn, asked: Pairs) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """[n] True where a query's command is among those of the support set."""
    if drawn.support is None:
        return np.zeros(len(asked), bool)
    shown = set(_rows(drawn.support))
    return np.array([row in shown for row in _rows(asked)])


def _rows(pairs: Pairs) -> list[tuple[int, ...]]:
    rows = zip(pairs.commands.tolist(), pairs.command_lengths, strict=True)
    return [tuple(row[:length]) for row, length in rows]


def _mean(right: np.ndarray[Any, Any]) -> float:
    return float(np.mean(right)) if len(right) else float("nan")
