"""The metrics of lifelong learning of New et al. (2022, arXiv 2201.08278), as the code l2metrics computes them.

A learner's life is a list of blocks: it learns one task in each learning block, and is evaluated on tasks in
evaluation blocks between them. From these come performance maintenance, forward and backward transfer, and performance
recovery; relative performance and sample efficiency compare with experts, learners of the same kind on one task alone.

The functions are pure. ``blocks_of`` makes the blocks from a trial's measurements: an evaluation block after each task
from the row of the accuracy matrix, a learning block from the accuracies on a task that were measured while it was
learned (``evaluate: N``). ``clray.analysis.lifelong_table`` finds the experts among the runs of a sweep.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clray.metrics import Measurement, accuracy_matrix

Curve = NDArray[np.float64]
Experts = Mapping[str, Sequence[Curve]]
"""The learning curves of the experts on each task; a task may have several, or none."""

NO_EXPERTS: Experts = MappingProxyType({})
_TERMINAL = 0.1
"""The last part of a learning block whose mean is its terminal performance."""


@dataclass(frozen=True)
class Block:
    """The performance on one task in a learning block or an evaluation block; evaluations of several tasks follow one
    another as several of these."""

    learns: bool
    task: str
    curve: Curve

    @property
    def terminal(self) -> float:
        """The terminal performance: the mean of the last tenth of a learning block, and of all of an evaluation."""
        return float(np.mean(self.curve[int((1 - _TERMINAL) * len(self.curve)) if self.learns else 0 :]))


@dataclass(frozen=True)
class TaskMetrics:
    """The metrics of one task; None where they are not defined.

    Attributes:
        maintenance: mean change of the evaluations of this task since the first one after it was last learned.
        maintenance_of_learning: the same, from the terminal performance of the learning block.
        forward_ratio, forward_contrast: by another task: how learning this one changed the other, not yet learned one.
        backward_ratio, backward_contrast: the same for other tasks that were learned before.
        relative_performance: the area under its learning curve over that of its experts.
        sample_efficiency: how high its learning curve gets, and how soon, beside its experts.
        recovery: how much sooner each relearning reaches the performance of the one before.
        learning_performance, evaluation_performance: mean over its blocks.
    """

    maintenance: float | None
    maintenance_of_learning: float | None
    forward_ratio: Mapping[str, Sequence[float]]
    forward_contrast: Mapping[str, Sequence[float]]
    backward_ratio: Mapping[str, Sequence[float]]
    backward_contrast: Mapping[str, Sequence[float]]
    relative_performance: float | None
    sample_efficiency: float | None
    recovery: float | None
    learning_performance: float | None
    evaluation_performance: float | None


TRANSFERS = ("forward_ratio", "backward_ratio", "forward_contrast", "backward_contrast")
TITLES = {
    "maintenance": ("PM", "performance maintenance: change of an evaluation since the first one after the task"),
    "maintenance_of_learning": (
        "PM mrtlp",
        "change of an evaluation since the terminal performance of learning the task",
    ),
    "forward_ratio": ("FT ratio", "forward transfer: after over before learning another task, for tasks to come"),
    "backward_ratio": (
        "BT ratio",
        "backward transfer: after over before learning another task, for tasks learned before",
    ),
    "forward_contrast": (
        "FT contrast",
        "forward transfer: difference over sum, after and before learning another task",
    ),
    "backward_contrast": (
        "BT contrast",
        "backward transfer: difference over sum, after and before learning another task",
    ),
    "relative_performance": ("RP", "relative performance: area under the learning curve over that of the expert"),
    "sample_efficiency": ("SE", "sample efficiency: height and speed of learning beside the expert"),
    "recovery": ("PR", "performance recovery: how much sooner each relearning recovers"),
    "learning_performance": ("MTP", "mean performance in learning blocks"),
    "evaluation_performance": ("MEP", "mean performance in evaluation blocks"),
}
"""The short name and the meaning of each metric. More is better for all of them."""


# ----------------------------------------------------------------------------------------------------------------------
# Preparation


def smooth(curve: Curve, window: int | None = None) -> Curve:
    """A moving average as long as the curve, which is continued by its mirror image at both ends.

    Args:
        window: its length; by default a fifth of the curve, and at most 100. Nothing changes below 3.
    """
    size = min(int(0.2 * len(curve)), 100) if window is None else window
    if size < 3:
        return curve
    longer = np.concatenate([curve[size - 1 : 0 : -1], curve, curve[-2 : -size - 1 : -1]])
    averages = np.convolve(longer, np.full(size, 1 / size), mode="valid")
    first = size // 2 - 1
    return averages[first : first + len(curve)]


def prepared(
    log: Sequence[Block], experts: Experts, smoothed: bool = True, clamped: bool = False, normalised: bool = True
) -> tuple[list[Block], dict[str, list[Curve]]]:
    """The log and the experts before metrics are computed from them.

    Args:
        smoothed: smooth learning blocks and experts.
        clamped: clip each task's values to their 10% and 90% quantiles.
        normalised: bring each task's values, those of its experts included, to the range from 1 to 101. The ratios of
            transfer depend on this offset.
    """
    ready = [replace(b, curve=smooth(b.curve)) if smoothed and b.learns else b for b in log]
    others = {task: [smooth(c) if smoothed else c for c in curves] for task, curves in experts.items()}
    for task in _tasks(log):
        values = np.concatenate([*(b.curve for b in ready if b.task == task), *others.get(task, [])])
        low, high = np.quantile(values, [0.1, 0.9]) if clamped else (-math.inf, math.inf)
        values = np.clip(values, low, high)
        least, most = float(values.min()), float(values.max())

        def change(
            curve: Curve, low: float = low, high: float = high, least: float = least, most: float = most
        ) -> Curve:
            curve = np.clip(curve, low, high)
            if not normalised:
                return curve
            return np.ones_like(curve) if most == least else 100 * (curve - least) / (most - least) + 1

        ready = [replace(b, curve=change(b.curve)) if b.task == task else b for b in ready]
        if task in others:
            others[task] = [change(c) for c in others[task]]
    return ready, others


def _tasks(log: Sequence[Block]) -> list[str]:
    return list(dict.fromkeys(block.task for block in log))


# ----------------------------------------------------------------------------------------------------------------------
# The metrics of each task


def metrics_of_tasks(
    log: Sequence[Block], experts: Experts = NO_EXPERTS, averaging: Literal["metrics", "time"] = "metrics"
) -> dict[str, TaskMetrics]:
    """The metrics of each task of a log that was prepared.

    Args:
        averaging: of several experts, take the mean of the metrics or of the curves.
    """
    found = {}
    for task in _tasks(log):
        learning = [b for b in log if b.learns and b.task == task]
        evaluations = [b for b in log if not b.learns and b.task == task]
        transfers = {name: _transfers(log, task, name) for name in TRANSFERS}
        curves = list(experts.get(task, ()))
        if curves and averaging == "time":
            length = min(map(len, curves))
            curves = [np.mean([c[:length] for c in curves], axis=0)]
        learned = np.concatenate([b.curve for b in learning]) if learning else np.empty(0)
        compared = bool(curves) and bool(learning)
        found[task] = TaskMetrics(
            maintenance=_mean(_maintenance(log, task, of_learning=False)),
            maintenance_of_learning=_mean(_maintenance(log, task, of_learning=True)),
            relative_performance=_mean([_relative(learned, c) for c in curves]) if compared else None,
            sample_efficiency=_mean([_efficiency(learned, c) for c in curves]) if compared else None,
            recovery=_recovery(learning),
            learning_performance=_mean([float(b.curve.mean()) for b in learning]),
            evaluation_performance=_mean([float(b.curve.mean()) for b in evaluations]),
            **transfers,
        )
    return found


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _maintenance(log: Sequence[Block], task: str, of_learning: bool) -> list[float]:
    """The changes since the task was last learned, one an evaluation. The first evaluation after each learning block
    is a reference, and gives no change of its own."""
    changes: list[float] = []
    reference, last, due = None, None, False
    for block in log:
        if block.task != task:
            continue
        if block.learns:
            last, due = block, True
        elif due:
            reference, due = block, False
        elif reference is not None:
            since = last if of_learning else reference
            assert since is not None
            changes.append(block.terminal - since.terminal)
    return changes


def _transfers(log: Sequence[Block], task: str, kind: str) -> dict[str, list[float]]:
    """By other task: how learning ``task`` changed the evaluations of the other, block by block.

    Where several tasks are learned between two evaluations, the last of them in the order of their first appearance
    takes the credit, as in the code.
    """
    tasks = _tasks(log)
    found: dict[str, list[float]] = {}
    for other in (t for t in tasks if t != task):
        tested = [i for i, b in enumerate(log) if b.task == other and not b.learns]
        first = min((i for i, b in enumerate(log) if b.task == other and b.learns), default=len(log))
        for before, after in pairwise(tested):
            between = [i for i in range(before, after) if log[i].learns and log[i].task != other]
            learned = [i for i in between if (i < first) == kind.startswith("forward")]
            credited = max((log[i].task for i in learned), key=tasks.index, default=None)
            if credited != task:
                continue
            was, became = log[before].terminal, log[after].terminal
            divisor = was if kind.endswith("ratio") else was + became
            if divisor:
                found.setdefault(other, []).append((became if kind.endswith("ratio") else became - was) / divisor)
    return found


def _relative(learned: Curve, expert: Curve) -> float | None:
    count = min(len(learned), len(expert))
    area = float(expert[:count].sum())
    return float(learned[:count].sum()) / area if area else None


def _efficiency(learned: Curve, expert: Curve) -> float | None:
    """The ratio of the maxima of the smoothed curves, times that of the experiences until them, inverted.

    It is 0 where the learner reached less than a fifth of the expert's maximum, or got worse while it learned; it is
    not defined where either curve begins at its maximum.
    """
    curve, other = smooth(learned), smooth(expert)
    most, most_of_expert, at, at_of_expert = curve.max(), other.max(), int(curve.argmax()), int(other.argmax())
    if most < 0.2 * most_of_expert or (len(learned) > 1 and np.polyfit(np.arange(len(learned)), learned, 1)[0] < 0):
        return 0.0
    if at == 0 or at_of_expert == 0 or most_of_expert == 0:
        return None
    return float(most / most_of_expert * at_of_expert / at)


def recovery_times(learning: Sequence[Block]) -> list[int]:
    """For each learning block of a task but its first: the experiences until the terminal performance of the block
    before is reached; one more than there are where it is not."""
    times = []
    for before, block in pairwise(learning):
        reached = np.flatnonzero(block.curve >= before.terminal)
        times.append(int(reached[0]) if len(reached) else len(block.curve) + 1)
    return times


def _recovery(learning: Sequence[Block]) -> float | None:
    times = recovery_times(learning)
    if len(times) < 2:
        return None
    from scipy import stats

    return -float(stats.theilslopes(times)[0])


def of_life(tasks: Mapping[str, TaskMetrics]) -> dict[str, float]:
    """The metrics of a whole life, the mean over tasks; for transfer, over ordered pairs of tasks the first value."""
    found: dict[str, float | None] = {}
    for name in TITLES:
        if name in TRANSFERS:
            pairs = [values[0] for task in tasks.values() for values in getattr(task, name).values()]
            found[name] = _mean(pairs)
        else:
            found[name] = _mean(getattr(task, name) for task in tasks.values())
    return {name: value for name, value in found.items() if value is not None}


# ----------------------------------------------------------------------------------------------------------------------
# From a trial's measurements


def curve_of(measurements: Iterable[Measurement], task: int, metric: str = "accuracy") -> Curve:
    """The accuracies on a task that were measured while it was learned, in the order of their steps.

    Two measurements after one example, as at the end of a task, count once.
    """
    steps = {
        m.step: m.value
        for m in measurements
        if m.metric == metric and m.eval_task == task and m.trained_tasks == task + 1
    }
    return np.array([steps[step] for step in sorted(steps)])


def blocks_of(measurements: Iterable[Measurement], metric: str = "accuracy") -> list[Block]:
    """A trial's life in blocks: evaluations of all measured tasks before the first task, and after each."""
    measurements = list(measurements)
    R, b = accuracy_matrix(measurements, metric)
    log: list[Block] = []
    for trained in range(len(R) + 1):
        if trained and len(curve := curve_of(measurements, trained - 1, metric)):
            log.append(Block(True, str(trained - 1), curve))
        row = R[trained - 1] if trained else b
        log += [Block(False, str(j), np.array([row[j]])) for j in range(len(row)) if np.isfinite(row[j])]
    return log


def has_curves(measurements: Iterable[Measurement]) -> bool:
    """True where the accuracy on a task was measured more than once while it was learned."""
    steps: dict[int, set[int]] = {}
    for m in measurements:
        if m.metric == "accuracy" and m.eval_task + 1 == m.trained_tasks:
            steps.setdefault(m.eval_task, set()).add(m.step)
    return any(len(found) > 1 for found in steps.values())


def of_run(
    measurements: Iterable[Measurement], experts: Mapping[int, Sequence[Curve]] | None = None
) -> dict[str, float]:
    """The metrics of a trial's life.

    Args:
        experts: the learning curves of single-task experts, by task.
    """
    log = blocks_of(measurements)
    ready, others = prepared(log, {str(task): list(curves) for task, curves in (experts or {}).items()})
    return of_life(metrics_of_tasks(ready, others))
