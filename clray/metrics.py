"""The published metrics, computed from the accuracies that were measured: pure functions.

``R[i, j]`` is the accuracy on task ``j`` after training on task ``i`` (both from 0, a fraction), ``T`` the number of
tasks, ``b[j]`` the accuracy on task ``j`` before any training. A matrix entry that was not measured is NaN.

Two papers may use one name for two metrics. So each name here has one definition, and a reproduction file names the
metric that it compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


class Measurement(NamedTuple):
    """One number measured during a trial.

    Attributes:
        step: training examples seen by the learner so far; on the track of episodes, episodes.
        trained_tasks: tasks whose training has begun: 0 before any training, ``t + 1`` during and after task ``t``.
        eval_task: the task it was measured on, from 0.
        metric: its name, such as ``accuracy``.
        value: a fraction where the metric is a rate.
    """

    step: int
    trained_tasks: int
    eval_task: int
    metric: str
    value: float


def accuracy_matrix(measurements: Iterable[Measurement], metric: str = "accuracy") -> tuple[Matrix, Matrix]:
    """The matrix ``R`` [T, T] and the baseline ``b`` [T] from a record's measurements.

    Where a task was measured more than once while the same task was trained, the last measurement counts, as in the
    official MER code's ``metrics.py`` (the row taken just before the next task's first example).
    """
    latest: dict[tuple[int, int], tuple[int, float]] = {}
    for m in measurements:
        if m.metric == metric:
            key = (m.trained_tasks, m.eval_task)
            if key not in latest or latest[key][0] <= m.step:
                latest[key] = (m.step, m.value)
    tasks = max((max(trained, evaluated + 1) for trained, evaluated in latest), default=0)
    matrix = np.full((tasks, tasks), np.nan)
    baseline = np.full(tasks, np.nan)
    for (trained, evaluated), (_, value) in latest.items():
        if trained == 0:
            baseline[evaluated] = value
        else:
            matrix[trained - 1, evaluated] = value
    return matrix, baseline


def retained_accuracy(R: Matrix, b: Matrix) -> float:
    """RA of MER (Riemer 2019), ACC of GEM (Lopez-Paz 2017): mean of the last row."""
    return float(np.mean(R[-1]))


def learning_accuracy(R: Matrix, b: Matrix) -> float:
    """LA of MER: mean of the diagonal, each task's accuracy right after it was learned."""
    return float(np.mean(np.diag(R)))


def backward_transfer_interference(R: Matrix, b: Matrix) -> float:
    """BTI of MER: mean over all T tasks of R[T-1, j] - R[j, j]; the last term is zero. RA - LA exactly."""
    return float(np.mean(R[-1] - np.diag(R)))


def backward_transfer(R: Matrix, b: Matrix) -> float:
    """BWT as GEM's paper has it (eq. 4): the sum of the same differences over T - 1."""
    tasks = len(R)
    return float(np.sum(R[-1] - np.diag(R)) / (tasks - 1)) if tasks > 1 else float("nan")


def forward_transfer(R: Matrix, b: Matrix) -> float:
    """FWT as GEM's paper has it (eq. 5): mean over tasks 1 … T-1 of R[t-1, t] - b[t]."""
    tasks = len(R)
    return float(np.sum(np.diag(R, 1) - b[1:]) / (tasks - 1)) if tasks > 1 else float("nan")


def forward_transfer_over_all(R: Matrix, b: Matrix) -> float:
    """FWT as GEM's and MER's code have it: the same sum over T."""
    return float(np.sum(np.diag(R, 1) - b[1:]) / len(R))


def forgetting(R: Matrix, b: Matrix) -> float:
    """Average forgetting (Chaudhry 2018): over the first T - 1 tasks, the best earlier accuracy less the last one."""
    tasks = len(R)
    if tasks < 2:
        return float("nan")
    return float(np.mean([np.max(R[j : tasks - 1, j]) - R[-1, j] for j in range(tasks - 1)]))


def forgetting_as_coded(R: Matrix, b: Matrix) -> float:
    """F of TAG's and Stable SGD's code: over the first T - 1 tasks, the best accuracy ever less the last one.

    The best is taken over the last evaluation too, so F is never negative; the papers' formula, ``forgetting`` here,
    can be. Not available (NaN) where a task was only measured at the end.
    """
    tasks = len(R)
    if tasks < 2:
        return float("nan")
    return float(np.mean([np.max(R[j:, j]) - R[-1, j] for j in range(tasks - 1)]))


@dataclass(frozen=True)
class Metric:
    """A published metric: its formula, its full name, and the direction that is better."""

    compute: Callable[[Matrix, Matrix], float]
    title: str
    definition: str
    measured: str = "accuracy"
    """The name of the measurements whose matrix it is computed from."""
    lower_is_better: bool = False
    computed_from: tuple[str, ...] = ()
    """Other metrics from which it follows by arithmetic: beside them it gives no new information."""


METRICS: dict[str, Metric] = {
    "RA": Metric(retained_accuracy, "retained accuracy", "mean of the last row of the accuracy matrix"),
    "LA": Metric(learning_accuracy, "learning accuracy", "mean of its diagonal"),
    "BTI": Metric(
        backward_transfer_interference,
        "backward transfer and interference",
        "RA - LA: the mean over all T tasks",
        computed_from=("RA", "LA"),
    ),
    "ACC": Metric(retained_accuracy, "average accuracy", "mean of the last row of the accuracy matrix"),
    "BWT": Metric(
        backward_transfer,
        "backward transfer",
        "sum of R[T-1,j] - R[j,j], over T - 1",
        computed_from=("ACC", "LA"),
    ),
    "FWT": Metric(forward_transfer, "forward transfer", "sum of R[t-1,t] - b[t], over T - 1"),
    "FWT_T": Metric(forward_transfer_over_all, "forward transfer, as coded", "sum of R[t-1,t] - b[t], over T"),
    "forgetting": Metric(
        forgetting,
        "average forgetting",
        "best earlier accuracy less the last, over T - 1 tasks",
        lower_is_better=True,
    ),
    "F": Metric(
        forgetting_as_coded,
        "forgetting, as coded",
        "best accuracy, the last included, less the last, over T - 1 tasks",
        lower_is_better=True,
    ),
    "TestAcc": Metric(
        retained_accuracy, "test accuracy", "queries of the test split answered exactly, at the end", "test_accuracy"
    ),
    "ValAccRetrieval": Metric(
        retained_accuracy,
        "validation accuracy, retrieval",
        "queries that the support set shows, answered exactly, at the last report: mean over validation episodes",
        "val_retrieval",
    ),
    "ValAccGeneralize": Metric(
        retained_accuracy,
        "validation accuracy, generalisation",
        "all other queries answered exactly, at the last report: mean over validation episodes",
        "val_generalize",
    ),
}

FINAL = ("accuracy", "test_accuracy")
"""The measurement that a finished trial has on each of its tasks; the name depends on the track."""


def final_matrix(measurements: Iterable[Measurement]) -> tuple[Matrix, Matrix]:
    """``R`` and ``b`` of what the trial's track measures at the end, one of ``FINAL``; empty where there is nothing."""
    measurements = list(measurements)
    present = {m.metric for m in measurements}
    return accuracy_matrix(measurements, next((name for name in FINAL if name in present), FINAL[0]))


def summarize(measurements: Iterable[Measurement]) -> dict[str, float]:
    """Every metric of ``METRICS`` that the measurements allow, as fractions. Empty where there is no matrix."""
    measurements = list(measurements)
    matrices = {name: accuracy_matrix(measurements, name) for name in {metric.measured for metric in METRICS.values()}}
    values = {}
    for name, metric in METRICS.items():
        R, b = matrices[metric.measured]
        if len(R) and np.isfinite(value := metric.compute(R, b)):
            values[name] = value
    return values
