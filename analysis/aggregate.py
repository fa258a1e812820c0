"""From a sweep and the results store to the runs behind each row of a table.

A trial's id contains the fingerprint of the data it read, which the analysis does not know. So records are matched by
their declaration, and where a store holds the same trials on several data sets, one data set fills a whole table and
the rest is left aside and said so. Nothing is averaged silently: what is missing, half-done or suspect goes along.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from clray.analysis.failures import failures
from clray.analysis.verdict import Sample, sample
from clray.metrics import METRICS, Matrix, Measurement, final_matrix
from clray.record import Record
from clray.store import Problem, Store
from clray.sweep import Cell, Sweep

Order = tuple[int, ...] | None
"""A task order; None for the benchmark's own."""

DIVERGED = "diverged"
"""The status of a trial's record that ended because its loss or weights were not finite."""
EMBEDDED = "embedded"
"""The ``source`` of the small data set that ships in a dependency: never judged against a paper."""


# --------------------------------------------------------------------------------------------------------------
# The store, read once


@dataclass(frozen=True)
class Results:
    """All records of a store by the declaration of their trial, and the files that are no records.

    Attributes:
        failed: why trials failed, by their declarations and by their ids.
    """

    finished: Mapping[str, Sequence[Record]]
    """Those that have a result; trials that diverged are among them."""
    running: Mapping[str, Sequence[Record]]
    problems: Sequence[Problem]
    stale: frozenset[str] = frozenset()
    """The ids of finished records that other code made than the code here."""
    failed: Mapping[str, str] = field(default_factory=dict)


def read(store: Store, is_current: Callable[[Record], bool] | None = None) -> Results:
    """Read the whole store, once.

    Args:
        is_current: whether the code here made a record; without it no record counts as stale.
    """
    problems: list[Problem] = []
    stale: set[str] = set()
    folders = {}
    for folder in ("records", "running"):
        by_declaration: dict[str, list[Record]] = defaultdict(list)
        records, unreadable = store.records(folder)
        problems += unreadable
        for record in records:
            if reason := _unfit(record, folder):
                problems.append(Problem(store.path(folder, f"{record.id}.parquet"), reason))
            else:
                by_declaration[record.trial.declaration].append(record)
                if folder == "records" and is_current is not None and not is_current(record):
                    stale.add(record.id)
        folders[folder] = dict(by_declaration)
    return Results(folders["records"], folders["running"], problems, frozenset(stale), failures(store))


def _unfit(record: Record, folder: str) -> str:
    """Why a readable record cannot be used; empty where it can."""
    fingerprint = record.data.get("fingerprint")
    if not isinstance(fingerprint, str):
        return "it does not say which data it read"
    if record.trial.id(fingerprint) != record.id:
        return "its id is not that of its declaration and data"
    if folder == "running" or record.status == DIVERGED:
        return ""
    if record.status != "finished":
        return f"a record of a trial that is {record.status!r}"
    matrix, _ = final_matrix(record.measurements)
    declared = record.trial.benchmark.get("tasks", len(matrix))
    tasks = len(declared) if isinstance(declared, list) else declared
    if not len(matrix) or len(matrix) != tasks or np.isnan(matrix[-1]).any():
        return f"finished, but not measured on all {tasks} tasks after the last"
    return ""


# --------------------------------------------------------------------------------------------------------------
# Pure functions on accuracy matrices


def mean_matrix(matrices: Sequence[Matrix]) -> Matrix:
    """The mean over runs of their accuracy matrices [T, T]; NaN wherever one run has no measurement."""
    return np.mean(np.stack(matrices), axis=0)


def seen_curve(matrix: Matrix) -> NDArray[np.float64]:
    """Mean accuracy over the tasks seen so far, after each task: [T] from R [T, T]."""
    return np.array([row[: i + 1].mean() for i, row in enumerate(matrix)])


def overall_curve(matrix: Matrix) -> NDArray[np.float64]:
    """Mean accuracy over all tasks, those to come included, after each task: [T] from R [T, T]."""
    return matrix.mean(axis=1)


def collapsed(accuracies: Sequence[float], chance: float) -> list[bool]:
    """Which runs of a variant fell to guessing while the others did not.

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
        matrix: the accuracy matrix [T, T], fractions.
        baseline: the accuracy on each task before any training [T], fractions; NaN where it was not measured.
        seconds: what the trial took, None where its record does not say.
        code: the digest of the code that made it.
        collapsed: it fell to guessing while its fellows did not.
        stale: other code made it than the code here.
        measurements: all of them, for figures of what no published metric is made of.
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
    collapsed: bool = False
    stale: bool = False
    measurements: Sequence[Measurement] = ()


@dataclass(frozen=True)
class DivergedRun:
    """A trial that ended because its loss or weights were not finite any more: it has no result.

    Attributes:
        task: the task that it was learning, from 0; None where its record does not say.
        step: the training examples that it had seen, likewise.
        what: what was not finite.
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
    """The record of a trial that diverged."""
    facts = record.provenance.get(DIVERGED)
    facts = facts if isinstance(facts, Mapping) else {}

    def whole(name: str) -> int | None:
        value = facts.get(name)
        return value if isinstance(value, int) else None

    what, order = str(facts.get("what", "")), _order(record.trial.task_order)
    return DivergedRun(record.id, record.trial.seed, order, whole("task"), whole("step"), what)


def run(record: Record, stale: bool = False) -> Run:
    """A finished record as a run."""
    matrix, baseline = final_matrix(record.measurements)
    provenance = record.provenance
    git = provenance.get("git") or {}
    seconds = provenance.get("seconds")
    return Run(
        id=record.id,
        method=record.trial.method,
        stale=stale,
        seed=record.trial.seed,
        order=_order(record.trial.task_order),
        # per cent, rounded to a millionth of a point, so that a difference of floats that is zero prints as zero
        metrics={name: round(100 * value, 6) + 0.0 for name, value in record.metrics.items()},
        measurements=record.measurements,
        matrix=matrix,
        baseline=baseline,
        data=record.data,
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
        code=str(provenance.get("code", "")),
        commit=str(git.get("commit", ""))[:10] + (" + changes" if git.get("uncommitted_changes") else ""),
    )


def _order(order: Sequence[int] | None) -> Order:
    return None if order is None else tuple(order)


@dataclass(frozen=True)
class Runs:
    """All runs of one variant: those that are there, and what is not.

    Attributes:
        runs: the finished ones, by task order and seed as the sweep declares them.
        expected: how many the sweep declares.
        missing: the (seed, task order) of those without a finished record, half-done ones included.
        half_done: how many of the missing have begun.
        diverged: those that ended without a result.
        failed: why the last attempts at some of the missing failed, by their (seed, task order).
        tasks: the benchmark's tasks in its own order, where they have names.
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
        """The runs of one task order alone; of how many are half-done there is no account by order."""
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

    def sample(self, metric: str) -> Sample:
        """Mean, standard deviation and number of runs, in per cent."""
        return sample(list(self.values(metric).values()))

    @property
    def pooled(self) -> bool:
        """True where several runs of each of several task orders stand together: they are no independent runs."""
        orders = Counter(r.order for r in self.runs)
        return len(orders) > 1 and max(orders.values()) > 1

    @property
    def complete(self) -> bool:
        """True where every declared run has a result."""
        return not self.missing and not self.diverged

    @property
    def counted(self) -> str:
        """``4 of 5 runs``, and how many of the rest diverged."""
        lost = f", {len(self.diverged)} diverged" if self.diverged else ""
        return f"{len(self.runs)} of {self.expected} runs{lost}"

    @property
    def absent(self) -> str:
        """Which runs are missing, in words; empty where none is."""
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
            parts = [f"{seeds} of order{'s'[: len(names) > 1]} {', '.join(names)}" for seeds, names in alike.items()]
        half = f" ({self.half_done} half-done)" if self.half_done else ""
        return f"without {' and '.join(parts)}{half}"

    @property
    def suspects(self) -> list[Run]:
        return [r for r in self.runs if r.collapsed]

    @cached_property
    def mean_matrix(self) -> Matrix | None:
        """Mean accuracy matrix over the runs [T, T], fractions."""
        return mean_matrix([r.matrix for r in self.runs]) if self.runs else None

    @cached_property
    def seen_curves(self) -> NDArray[np.float64]:
        """Mean accuracy over the tasks seen so far, after each task: [runs, T], fractions."""
        return np.array([seen_curve(r.matrix) for r in self.runs])

    @cached_property
    def overall_curves(self) -> NDArray[np.float64]:
        """Mean accuracy over all tasks after each task: [runs, T], fractions."""
        return np.array([overall_curve(r.matrix) for r in self.runs])


def order_name(order: Order, tasks: Sequence[str] = ()) -> str:
    """A task order in words: ``sst → srl`` where the tasks have names, else ``1-0``; of many tasks the first four."""
    if order is None and not tasks:
        return "identity"
    names = [tasks[place] if tasks else str(place) for place in (range(len(tasks)) if order is None else order)]
    joined = (" → " if tasks else "-").join(names if len(names) <= 6 else names[:4])
    return joined + ("…" if len(names) > 6 else "")


# --------------------------------------------------------------------------------------------------------------
# One data set a table


@dataclass(frozen=True)
class DataSet:
    """A data set that trials of a table have read, and how many finished records it has there."""

    name: str
    source: str
    fingerprint: str
    records: int
    partial: str = ""
    """Which part of the published data it is; empty where it is the whole."""

    @property
    def embedded(self) -> bool:
        return self.source == EMBEDDED

    @property
    def bars(self) -> list[str]:
        """Why numbers from this data are not held against a paper; empty where they may be.

        A data set of several parts names the source of each, so one embedded part is enough.
        """
        parts = {part for joined in self.source.split(" and ") for part in joined.split(", ")}
        found = []
        if EMBEDDED in parts:
            found.append("embedded data" if self.embedded else "embedded data in place of a part")
        return found + ([f"only a part of the data: {self.partial}"] if self.partial else [])

    def __str__(self) -> str:
        return f"{self.name} ({self.source}, {self.fingerprint.removeprefix(f'{EMBEDDED}-')[:8]})"


def data_sets(records: Iterable[Record]) -> list[DataSet]:
    """The data sets of these records, the one to use first.

    A real one before the embedded one, a whole one before a part, then the one with the most records, then by
    fingerprint so that the choice never depends on the order of files.
    """
    counts: Counter[str] = Counter()
    names: dict[str, set[str]] = defaultdict(set)
    sources: dict[str, set[str]] = defaultdict(set)
    parts: dict[str, set[str]] = defaultdict(set)
    for record in records:
        fingerprint = record.data["fingerprint"]
        counts[fingerprint] += 1
        names[fingerprint].add(str(record.data.get("name", "data")))
        sources[fingerprint].add(str(record.data.get("source", "unknown source")))
        if part := record.data.get("partial"):
            parts[fingerprint].add(str(part))
    found = [
        DataSet(", ".join(sorted(names[f])), " and ".join(sorted(sources[f])), f, n, ", ".join(sorted(parts[f])))
        for f, n in counts.items()
    ]
    return sorted(found, key=lambda d: (d.embedded, bool(d.bars), -d.records, d.fingerprint))


@dataclass(frozen=True)
class Gathered:
    """The runs of a table's variants.

    Attributes:
        data: the data set that fills the table, None without any record.
        aside: other data sets that have records of these trials; none of them was used.
        chance: the accuracy of guessing in per cent, as measured before training; NaN where it was not.
        mixed_code: a sentence for each method whose runs were made by more than one version of the code.
    """

    variants: Mapping[str, Runs]
    data: DataSet | None
    aside: Sequence[DataSet] = ()
    chance: float = field(default=float("nan"))
    mixed_code: Sequence[str] = ()

    @property
    def runs(self) -> list[Run]:
        return [run for variant in self.variants.values() for run in variant.runs]


def gather(sweep: Sweep, variants: Sequence[str], results: Results) -> Gathered:
    """The runs of these variants of a sweep, all from one data set."""
    cells: dict[str, list[Cell]] = {name: [] for name in variants}
    for cell in sweep.cells:
        if cell.variant in cells:
            cells[cell.variant].append(cell)
    # Two variants may declare the very same trial, and share its record: counted once.
    declarations = dict.fromkeys(cell.trial.declaration for group in cells.values() for cell in group)
    found = data_sets(r for d in declarations for r in results.finished.get(d, ()))
    data, aside = (found[0], found[1:]) if found else (None, [])
    if data is None and (begun := data_sets(r for d in declarations for r in results.running.get(d, ()))):
        data = replace(begun[0], records=0)
    fingerprint = data.fingerprint if data else ""
    gathered = {name: _variant(name, group, results, fingerprint) for name, group in cells.items()}
    every = [r for variant in gathered.values() for r in variant.runs]
    chance = _chance(every)
    marked = {name: _marked(variant, chance) for name, variant in gathered.items()}
    return Gathered(marked, data, aside, chance, _mixed_code(every))


def _variant(name: str, cells: Sequence[Cell], results: Results, fingerprint: str) -> Runs:
    def on_this_data(records: Mapping[str, Sequence[Record]], cell: Cell) -> list[Record]:
        return [r for r in records.get(cell.trial.declaration, ()) if r.data["fingerprint"] == fingerprint]

    runs, diverged, missing, failed, half_done = [], [], [], {}, 0
    for cell in cells:
        finished = on_this_data(results.finished, cell)
        if finished and finished[0].status == DIVERGED:
            diverged.append(diverged_run(finished[0]))
        elif finished:
            runs.append(run(finished[0], finished[0].id in results.stale))
        else:
            missing.append((cell.trial.seed, _order(cell.trial.task_order)))
            for known in (cell.trial.declaration, cell.trial.id(fingerprint)):
                if known in results.failed:
                    failed[missing[-1]] = results.failed[known]
            half_done += bool(on_this_data(results.running, cell))
    tasks = cells[0].trial.benchmark.get("tasks") if cells else None
    orders = list(dict.fromkeys(_order(cell.trial.task_order) for cell in cells))
    named = tasks if isinstance(tasks, list) else ()
    return Runs(name, runs, len(cells), missing, half_done, diverged, named, orders, failed)


def _chance(runs: Sequence[Run]) -> float:
    """The median over runs of the mean accuracy before any training, in per cent."""
    measured = [100 * float(b.mean()) for r in runs if len(b := r.baseline[~np.isnan(r.baseline)])]
    return statistics.median(measured) if measured else float("nan")


def _marked(variant: Runs, chance: float) -> Runs:
    """A run has collapsed when its learning accuracy or its retained accuracy has."""
    marks = np.zeros(len(variant.runs), dtype=bool)
    for metric in ("LA", "RA"):
        if all(metric in r.metrics for r in variant.runs):
            marks |= np.array(collapsed([r.metrics[metric] for r in variant.runs], chance), dtype=bool)
    runs = [replace(r, collapsed=bool(mark)) for r, mark in zip(variant.runs, marks, strict=True)]
    return replace(variant, runs=runs)


def _mixed_code(runs: Sequence[Run]) -> list[str]:
    """Each method has a digest of its own, so versions are told apart method by method."""
    versions: dict[str, Counter[str]] = defaultdict(Counter)
    for one in {r.id: r for r in runs}.values():
        versions[one.method][one.code or "unknown"] += 1
    return [
        f"{method}: runs of {len(codes)} versions of the code ("
        + ", ".join(f"{n} of {code[:8]}" for code, n in codes.most_common())
        + ")"
        for method, codes in versions.items()
        if len(codes) > 1
    ]


# --------------------------------------------------------------------------------------------------------------
# Hyper-parameter searches


def select(points: Mapping[str, Runs], metric: str) -> str | None:
    """The point of a grid with the best mean of a metric; None where no point is complete.

    The metric says whether more or less of it is better. As official search loops do: points are taken in grid order,
    and a later one must be strictly better. A point that lacks runs, or of which a run diverged, takes no part, because
    fewer runs make a lucky mean likelier.
    """
    sign = -1 if METRICS[metric].lower_is_better else 1
    best, chosen = -np.inf, None
    for name, runs in points.items():
        values = runs.values(metric)
        if not runs.complete or not values:
            continue
        mean = sign * float(np.mean(list(values.values())))
        if mean > best:
            best, chosen = mean, name
    return chosen


def known_metrics(names: Iterable[str]) -> dict[str, str]:
    """What each metric is, in words."""
    return {name: f"{METRICS[name].title} ({METRICS[name].definition})" for name in names}
