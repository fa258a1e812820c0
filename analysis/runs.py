"""The runs behind a row of a table, and the curves and marks that are computed from them."""

from __future__ import annotations

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from clray.analysis.verdict import Sample, sample
from clray.metrics import Matrix, Measurement, final_matrix
from clray.record import Record
from clray.trial import Trial

Order = tuple[int, ...] | None
"""A task order: task numbers from 0; None for the benchmark's own order."""

DIVERGED = "diverged"
"""The status of the record of a trial that ended because its loss or its weights were not finite."""


# --------------------------------------------------------------------------------------------------------------
# Pure functions on accuracy matrices


def mean_matrix(matrices: Sequence[Matrix]) -> Matrix:
    """The mean over runs of their accuracy matrices [T, T]; NaN wherever one run has no measurement."""
    return np.mean(np.stack(matrices), axis=0)


def seen_curve(matrix: Matrix, by_class: bool = False) -> NDArray[np.float64]:
    """Mean accuracy over the tasks seen so far, after each task: [T] from R [T, T].

    Args:
        by_class: tasks share classes, and ``R`` is [T, C]: the mean is over the classes seen so far.
    """
    if by_class:
        return np.array([np.nanmean(row) if np.isfinite(row).any() else np.nan for row in matrix])
    return np.array([row[: i + 1].mean() for i, row in enumerate(matrix)])


def overall_curve(matrix: Matrix) -> NDArray[np.float64]:
    """Mean accuracy over all tasks, those to come included, after each task: [T] from R [T, T]."""
    return matrix.mean(axis=1)


def mark_collapsed(accuracies: Sequence[float], chance: float) -> list[bool]:
    """Mark the runs of a variant that fell to guessing while the others did not: one mark a run.

    A run is marked where its accuracy is at most one and a half times chance, and also at least five robust standard
    deviations (1.4826 times the median absolute deviation, and no less than one point) below the median of the other
    runs. Marked runs stay in the mean. A variant whose every run guesses has none marked: nothing tells them apart.

    Args:
        accuracies: one number a run, in per cent.
        chance: the accuracy of guessing, in per cent; NaN where unknown, which marks nothing.
    """
    marks = []
    for i, value in enumerate(accuracies):
        others = [a for j, a in enumerate(accuracies) if j != i]
        if not others or not value <= 1.5 * chance:
            marks.append(False)
            continue
        middle = statistics.median(others)
        scale = max(1.0, 1.4826 * statistics.median(abs(a - middle) for a in others))
        marks.append(middle - value >= 5 * scale)
    return marks


# --------------------------------------------------------------------------------------------------------------
# Runs


@dataclass(frozen=True)
class Run:
    """A finished trial that did not diverge, as a table needs it.

    Attributes:
        metrics: published metrics in per cent.
        matrix: the accuracy matrix [T, T], fractions; [T, C] where tasks share classes and these were measured.
        baseline: the accuracy on each column before any training, fractions; NaN where it was not measured.
        data: the record's description of the data that the trial read.
        seconds: how long the trial took; None where its record does not say.
        code: the digest of the code that made the record.
        commit: the first ten digits of the git commit of that code.
        day: the day on which the trial finished, as 2026-11-28; empty where its record does not say.
        processor: the GPU or the processor that it ran on; empty where its record does not say.
        collapsed: the run fell to guessing while the other runs of its variant did not.
        stale: other code made the record than the code here.
        shipped: the record is a reference run that ships with clray, where it stands in for one that the store lacks.
        measurements: all measurements, for figures that show more than published metrics.
        trial: its declaration.
        by_class: the columns of the matrix are classes, which tasks share.
    """

    id: str
    method: str
    seed: int
    order: Order
    metrics: Mapping[str, float]
    matrix: Matrix
    baseline: Matrix
    data: Mapping[str, object]
    seconds: float | None = None
    code: str = ""
    commit: str = ""
    day: str = ""
    processor: str = ""
    collapsed: bool = False
    stale: bool = False
    shipped: bool = False
    measurements: Sequence[Measurement] = ()
    trial: Trial | None = None
    by_class: bool = False


@dataclass(frozen=True)
class DivergedRun:
    """A trial that ended because its loss or its weights were no longer finite. It has no result.

    Attributes:
        task: the task that it was learning, from 0; None where its record does not say.
        step: the number of training examples that it had seen; None where its record does not say.
        what: the quantity that was not finite, such as ``loss``.
    """

    id: str
    seed: int
    order: Order
    task: int | None
    step: int | None
    what: str

    def __str__(self) -> str:
        where = "" if self.task is None else f" in task {self.task + 1}"
        return f"seed {self.seed}{where}" + ("" if self.step is None else f" after {self.step:,} examples")


def diverged_run(record: Record) -> DivergedRun:
    """Turn the record of a trial that diverged into a ``DivergedRun``."""
    facts = record.provenance.get(DIVERGED)
    facts = facts if isinstance(facts, Mapping) else {}

    def whole(name: str) -> int | None:
        value = facts.get(name)
        return value if isinstance(value, int) else None

    what, order = str(facts.get("what", "")), order_of(record.trial.task_order)
    return DivergedRun(record.id, record.trial.seed, order, whole("task"), whole("step"), what)


def run_of(record: Record, stale: bool = False, shipped: bool = False) -> Run:
    """Turn a finished record into a ``Run``."""
    matrix, baseline = final_matrix(record.measurements, record.sharing)
    provenance = record.provenance
    git, machine = (provenance.get(key) or {} for key in ("git", "machine"))
    seconds, saved = provenance.get("seconds"), provenance.get("saved")
    processor = machine.get("gpu" if provenance.get("device") == "cuda" else "processor", "")
    return Run(
        id=record.id,
        method=record.trial.method,
        stale=stale,
        shipped=shipped,
        seed=record.trial.seed,
        order=order_of(record.trial.task_order),
        # per cent, rounded to a millionth of a point, so that a difference of floats that is zero prints as zero
        metrics={name: round(100 * value, 6) + 0.0 for name, value in record.metrics.items()},
        measurements=record.measurements,
        trial=record.trial,
        by_class=record.sharing is not None,
        matrix=matrix,
        baseline=baseline,
        data=record.data,
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
        code=str(provenance.get("code", "")),
        commit=str(git.get("commit", ""))[:10] + (" + changes" if git.get("uncommitted_changes") else ""),
        day=time.strftime("%Y-%m-%d", time.gmtime(saved)) if isinstance(saved, int | float) else "",
        processor=str(processor),
    )


def order_of(order: Sequence[int] | None) -> Order:
    """A task order as a tuple, which can be a dictionary's key."""
    return None if order is None else tuple(order)


@dataclass(frozen=True)
class Runs:
    """All runs of one variant: the finished ones, and an account of the others.

    Attributes:
        runs: the finished runs, in the sweep's order of task orders and seeds.
        expected: the number of runs that the sweep declares.
        missing: the (seed, task order) of each run without a finished record; begun ones are included.
        half_done: the number of missing runs that have begun.
        diverged: the runs that ended without a result.
        failed: the reason why the last attempt at a missing run failed, by its (seed, task order).
        tasks: the names of the benchmark's tasks in its own order; empty where they have none.
        orders: the task orders that the sweep declares.
    """

    variant: str
    runs: Sequence[Run]
    expected: int
    missing: Sequence[tuple[int, Order]] = ()
    half_done: int = 0
    diverged: Sequence[DivergedRun] = ()
    tasks: Sequence[str] = ()
    orders: Sequence[Order] = (None,)
    failed: Mapping[tuple[int, Order], str] = field(default_factory=dict)

    def at(self, order: Order) -> Runs:
        """The runs of one task order alone. ``half_done`` is 0: begun runs are not counted by order."""
        runs = [r for r in self.runs if r.order == order]
        missing = [place for place in self.missing if place[1] == order]
        diverged = [r for r in self.diverged if r.order == order]
        failed = {place: reason for place, reason in self.failed.items() if place[1] == order}
        expected = len(runs) + len(missing) + len(diverged)
        placed = replace(self, runs=runs, expected=expected, missing=missing, half_done=0, orders=(order,))
        return replace(placed, diverged=diverged, failed=failed)

    def values(self, metric: str) -> dict[tuple[int, Order], float]:
        """The metric by seed and task order, in per cent."""
        return {(r.seed, r.order): r.metrics[metric] for r in self.runs if metric in r.metrics}

    def all_values(self, metric: str) -> list[float]:
        """The metric of every declared run, in per cent; empty where one of them lacks it."""
        values = list(self.values(metric).values())
        return values if self.complete and len(values) == self.expected else []

    def sample(self, metric: str) -> Sample:
        """Mean, standard deviation and number of runs, in per cent."""
        return sample(list(self.values(metric).values()))

    @property
    def pooled(self) -> bool:
        """True where these are several runs of several task orders. Such runs are not independent."""
        orders = Counter(r.order for r in self.runs)
        return len(orders) > 1 and max(orders.values()) > 1

    @property
    def complete(self) -> bool:
        """True where every declared run has a result."""
        return not self.missing and not self.diverged

    @property
    def counted(self) -> str:
        """The number of runs as text: ``4 of 5 runs``, with the number of diverged runs where there are any."""
        lost = f", {len(self.diverged)} diverged" if self.diverged else ""
        return f"{len(self.runs)} of {self.expected} runs{lost}"

    @property
    def absent(self) -> str:
        """The missing runs as text; empty where none is missing."""
        if not self.missing:
            return ""
        by_order: dict[Order, list[str]] = defaultdict(list)
        for seed, order in self.missing:
            by_order[order].append(str(seed))
        alike: dict[str, list[str]] = defaultdict(list)
        for order, seeds in by_order.items():
            alike[f"seed{'s'[: len(seeds) > 1]} {', '.join(seeds)}"].append(order_name(order, self.tasks))
        if len(self.orders) == 1:
            parts = list(alike)
        else:
            parts = [f"{seeds} of order{'s'[: len(names) > 1]} {_some(names)}" for seeds, names in alike.items()]
        half = f" ({self.half_done} half-done)" if self.half_done else ""
        return f"without {' and '.join(parts)}{half}"

    @property
    def collapsed_runs(self) -> list[Run]:
        """The runs that fell to guessing while the others did not."""
        return [r for r in self.runs if r.collapsed]

    @cached_property
    def mean_matrix(self) -> Matrix | None:
        """Mean accuracy matrix over the runs [T, T], fractions."""
        return mean_matrix([r.matrix for r in self.runs]) if self.runs else None

    @cached_property
    def seen_curves(self) -> NDArray[np.float64]:
        """Mean accuracy over the tasks seen so far, after each task: [runs, T], fractions."""
        return np.array([seen_curve(r.matrix, r.by_class) for r in self.runs])

    @cached_property
    def overall_curves(self) -> NDArray[np.float64]:
        """Mean accuracy over all tasks after each task: [runs, T], fractions."""
        return np.array([overall_curve(r.matrix) for r in self.runs])


def _some(names: Sequence[str]) -> str:
    """The names, where there are more than ten the first six of them."""
    return ", ".join(names) if len(names) <= 10 else f"{', '.join(names[:6])} and {len(names) - 6} more"


def order_name(order: Order, tasks: Sequence[str] = ()) -> str:
    """A task order as text: ``sst → srl`` where the tasks have names, else ``1-0``. Long orders are cut to four."""
    if order is None and not tasks:
        return "identity"
    names = [tasks[place] if tasks else str(place) for place in (range(len(tasks)) if order is None else order)]
    joined = (" → " if tasks else "-").join(names if len(names) <= 6 else names[:4])
    return joined + ("…" if len(names) > 6 else "")
