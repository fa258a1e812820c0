"""The published metrics, computed from the accuracies that were measured: pure functions.

``R[i, j]`` is the accuracy on task ``j`` after training on task ``i`` (both from 0, a fraction), ``T`` the number of
tasks, ``b[j]`` the accuracy on task ``j`` before any training. A matrix entry that was not measured is NaN. On streams
whose tasks share classes, the classes are measured in place of the tasks: there ``j`` is a class, and ``R`` has more
columns than rows. A few metrics are computed from the course of a trial, which is all its measurements in their order.

Two papers may use one name for two metrics. So each name here has one definition, and a reproduction file names the
metric that it compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


class Measurement(NamedTuple):
    """One number measured during a trial.

    Attributes:
        step: training examples seen by the learner so far; on the track of episodes, episodes.
        trained_tasks: tasks whose training has begun: 0 before any training, ``t + 1`` during and after task ``t``.
        eval_task: the task it was measured on, from 0; the class, on streams whose tasks share classes.
        metric: its name, such as ``accuracy``.
        value: a fraction where the metric is a rate.
    """

    step: int
    trained_tasks: int
    eval_task: int
    metric: str
    value: float


def accuracy_matrix(
    measurements: Iterable[Measurement], metric: str = "accuracy", sharing: int | None = None
) -> tuple[Matrix, Matrix]:
    """The matrix ``R`` [T, T] and the baseline ``b`` [T] from a record's measurements.

    Where a task was measured more than once while the same task was trained, the last measurement counts, as in the
    official MER code's ``metrics.py`` (the row taken just before the next task's first example).

    Args:
        sharing: the number of tasks where tasks share classes, so that the classes were measured: then ``R`` is [T, C]
            and ``b`` is [C]. None for all other streams.
    """
    latest: dict[tuple[int, int], tuple[int, float]] = {}
    for m in measurements:
        if m.metric == metric:
            key = (m.trained_tasks, m.eval_task)
            if key not in latest or latest[key][0] <= m.step:
                latest[key] = (m.step, m.value)
    columns = max((evaluated + 1 for _, evaluated in latest), default=0)
    rows = max((trained for trained, _ in latest), default=0)
    if sharing is None:
        rows = columns = max(rows, columns)
    elif columns:
        rows = sharing
    matrix = np.full((rows, columns), np.nan)
    baseline = np.full(columns, np.nan)
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
    tasks = len(R)
    return float(np.sum(np.diag(R, 1) - b[1:]) / tasks) if tasks > 1 else float("nan")


def forgetting(R: Matrix, b: Matrix) -> float:
    """Average forgetting (Chaudhry 2018): over the first T - 1 tasks, the best earlier accuracy less the last one.

    Where a task was measured before it was learned, that accuracy is an earlier one, too, as in the paper's formula.
    """
    return _best_less_last(R, R[:-1])


def forgetting_as_coded(R: Matrix, b: Matrix) -> float:
    """F of TAG's and Stable SGD's code: over the first T - 1 tasks, the best accuracy ever less the last one.

    The best is taken over the last evaluation too, so F is never negative; the papers' formula, ``forgetting`` here,
    can be. Not available (NaN) where a task was only measured at the end.
    """
    return _best_less_last(R, R)


def _best_less_last(R: Matrix, among: Matrix) -> float:
    """The mean over the first T - 1 tasks of the best accuracy in some rows less the last one; NaN where a task was not
    measured after each task from its own on."""
    tasks = len(R)
    if tasks < 2 or np.isnan(R[np.tril_indices(tasks)][:-1]).any():
        return float("nan")
    return float(np.mean(np.nanmax(among[:, : tasks - 1], axis=0) - R[-1, : tasks - 1]))


def average_incremental_accuracy(R: Matrix, b: Matrix) -> float:
    """AAA of ER-ACE (Caccia 2022), Avg_Acc of RaptorMai's code: mean over tasks of the mean accuracy on tasks seen."""
    return float(np.mean([np.mean(R[i, : i + 1]) for i in range(len(R))]))


def forgetting_over_all(R: Matrix, b: Matrix) -> float:
    """Avg_End_Fgt of RaptorMai's ``compute_performance``: over all T tasks, the best accuracy ever less the last one.

    The last task adds zero unless it was measured before it was learned. The same code has a second function for the
    forgetting of a single run, which it uses while tuning. That one takes the best accuracy over tasks after one task,
    in place of the best over time on one task, so it measures something else, and is not offered here.
    """
    if np.isnan(np.diag(R)).any():
        return float("nan")
    return float(np.mean(np.nanmax(R, axis=0) - R[-1]))


def positive_backward_transfer(R: Matrix, b: Matrix) -> float:
    """BWT+ of one run (Diaz-Rodriguez 2018), ``Avg_Bwtp`` of RaptorMai's code: mean of R[i, j] - R[j, j] over all
    pairs j < i, and zero where that is negative."""
    tasks = len(R)
    below = np.tril_indices(tasks, -1)
    return float(np.maximum(np.mean((R - np.diag(R))[below]), 0.0)) if tasks > 1 else float("nan")


def average_over_seen_classes(R: Matrix, b: Matrix) -> float:
    """A_avg of Si-Blurry's code: the mean over tasks of the accuracy on the classes seen, measured after each task.

    A task that got no image (Si-Blurry draws such divisions) changes nothing: its accuracy is the one before it;
    before the first image no class is seen, and nothing is averaged. Not available (NaN) where nothing was measured
    after the last task: such a run is not over.
    """
    means: list[float] = []
    for row in R:
        measured = row[np.isfinite(row)]
        means += [float(np.mean(measured))] if len(measured) else means[-1:]
    return float(np.mean(means)) if np.isfinite(R[-1]).any() else float("nan")


def forgetting_of_classes(R: Matrix, b: Matrix) -> float:
    """F_last of Si-Blurry's and CLIB's code: mean over classes of the best accuracy after an earlier task less the
    last one. As in the code, a class that was never recognised after an earlier task takes no part."""
    earlier = np.max(np.nan_to_num(R[:-1]), axis=0, initial=0.0)
    known = earlier > 0
    return float(np.mean((earlier - R[-1])[known])) if known.any() else float("nan")


# ----------------------------------------------------------------------------------------------------------------------
# Metrics of the course of a trial


def mean_of_course(course: Sequence[Measurement]) -> float:
    """The mean of all measurements: the area under their curve, where they are equally far apart."""
    return float(np.mean([m.value for m in course]))


def minimum_accuracy(course: Sequence[Measurement]) -> float:
    """min-ACC (De Lange 2023, eq. 2): mean over tasks but the last of the lowest accuracy ever measured after the task
    was learned. Not available (NaN) where nothing was measured within tasks: the drop at the start of a task, which
    this metric is about, would not be in it."""
    last = max(m.trained_tasks for m in course)
    steps = {(m.trained_tasks, m.step) for m in course if m.trained_tasks > 1}
    if len(steps) == len({trained for trained, _ in steps}):
        return float("nan")
    lowest = [
        min((m.value for m in course if m.eval_task == task and m.trained_tasks > task + 1), default=float("nan"))
        for task in range(last - 1)
    ]
    return float(np.mean(lowest)) if lowest else float("nan")


def worst_case_accuracy(course: Sequence[Measurement]) -> float:
    """WC-ACC (De Lange 2023, eq. 3): of k tasks, the last one's accuracy at the end over k, and min-ACC times 1 - 1/k:
    the least that was guaranteed for each task once it was learned."""
    tasks = max(m.trained_tasks for m in course)
    R, _ = accuracy_matrix(course, course[0].metric)
    return float(R[-1, -1] / tasks + (1 - 1 / tasks) * minimum_accuracy(course))


# ----------------------------------------------------------------------------------------------------------------------
# By name


@dataclass(frozen=True)
class Metric:
    """A published metric: its formula, its full name, and the direction that is better."""

    compute: Callable[..., float]
    """The formula: of ``R`` and ``b``, or of the course, as ``reads`` says."""
    title: str
    definition: str
    measured: str = "accuracy"
    """The name of the measurements that it is computed from."""
    lower_is_better: bool = False
    computed_from: tuple[str, ...] = ()
    """Other metrics from which it follows by arithmetic: beside them it gives no new information."""
    columns: Literal["tasks", "classes", "any"] = "tasks"
    """The columns of the matrices that it is defined on."""
    reads: Literal["matrix", "course"] = "matrix"
    """``course``: it is computed from the list of all measurements of that name, in the order of their steps."""

    @property
    def sign(self) -> Literal[1, -1]:
        """-1 where lower is better, else 1: of two values, the better one is larger once it is multiplied by this."""
        return -1 if self.lower_is_better else 1


METRICS: dict[str, Metric] = {
    "RA": Metric(retained_accuracy, "retained accuracy", "mean of the last row of the accuracy matrix"),
    "LA": Metric(learning_accuracy, "learning accuracy", "mean of its diagonal"),
    "BTI": Metric(
        backward_transfer_interference,
        "backward transfer and interference",
        "RA - LA: the mean over all T tasks",
        computed_from=("RA", "LA"),
    ),
    "ACC": Metric(retained_accuracy, "average accuracy", "mean of the last row of the accuracy matrix", columns="any"),
    "TaskACC": Metric(
        retained_accuracy,
        "average accuracy, task given",
        "mean of the last row of the matrix of accuracies among each task's own classes",
        measured="task_accuracy",
    ),
    "AAA": Metric(
        average_incremental_accuracy,
        "average incremental accuracy",
        "mean over tasks of the mean accuracy on the tasks seen after it",
    ),
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
    "Avg_End_Fgt": Metric(
        forgetting_over_all,
        "forgetting, over all tasks",
        "best accuracy, the last included, less the last, over T tasks",
        lower_is_better=True,
    ),
    "Bwtp": Metric(
        positive_backward_transfer,
        "positive backward transfer",
        "mean of R[i,j] - R[j,j] over all pairs j < i, or 0 where that is negative",
    ),
    "min-ACC": Metric(
        minimum_accuracy,
        "minimum accuracy",
        "mean over tasks but the last of the lowest accuracy measured after the task was learned",
        reads="course",
    ),
    "WC-ACC": Metric(
        worst_case_accuracy,
        "worst-case accuracy",
        "accuracy on the last of k tasks over k, and min-ACC times 1 - 1/k",
        reads="course",
    ),
    "A_AUC": Metric(
        mean_of_course,
        "area under the accuracy curve",
        "mean of the accuracy on all classes seen so far, measured every N examples",
        measured="seen_accuracy",
        columns="any",
        reads="course",
    ),
    "A_avg": Metric(
        average_over_seen_classes,
        "average accuracy over tasks",
        "mean over tasks of the mean accuracy on the classes seen after it",
        columns="classes",
    ),
    "A_last": Metric(
        retained_accuracy,
        "last accuracy",
        "mean accuracy on the classes at the end",
        columns="classes",
        computed_from=("ACC",),
    ),
    "F_last": Metric(
        forgetting_of_classes,
        "forgetting of classes",
        "mean over classes of the best accuracy after an earlier task less the last; classes never recognised left out",
        lower_is_better=True,
        columns="classes",
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


def final_matrix(measurements: Iterable[Measurement], sharing: int | None = None) -> tuple[Matrix, Matrix]:
    """``R`` and ``b`` of what the trial's track measures at the end, one of ``FINAL``; empty where there is nothing.

    Args:
        sharing: as for ``accuracy_matrix``.
    """
    measurements = list(measurements)
    present = {m.metric for m in measurements}
    return accuracy_matrix(measurements, next((name for name in FINAL if name in present), FINAL[0]), sharing)


def summarize(measurements: Iterable[Measurement], sharing: int | None = None) -> dict[str, float]:
    """Every metric of ``METRICS`` that the measurements allow, as fractions. Empty where there is no matrix.

    Args:
        sharing: as for ``accuracy_matrix``.
    """
    courses: dict[str, list[Measurement]] = {metric.measured: [] for metric in METRICS.values()}
    for m in measurements:
        if m.metric in courses:
            courses[m.metric].append(m)
    for course in courses.values():
        course.sort(key=lambda m: m.step)
    matrices = {name: accuracy_matrix(course, name, sharing) for name, course in courses.items()}
    values = {}
    for name, metric in METRICS.items():
        R, b = matrices[metric.measured]
        if not len(R) or metric.columns not in ("any", "tasks" if sharing is None else "classes"):
            continue
        course = courses[metric.measured]
        value = metric.compute(R, b) if metric.reads == "matrix" else metric.compute(course)
        if np.isfinite(value):
            values[name] = value
    return values
