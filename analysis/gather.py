"""Reads the results store, and gathers the runs of a table's variants, all from one data set.

A trial's id contains the fingerprint of the data that the trial read, and the analysis does not know which data that
was. So records are matched to trials by the trial's declaration. A store may hold the same trials on several data sets:
then one data set fills the whole table, and the notes below it name the others. Nothing is averaged silently: the notes
also say which runs are missing, unfinished, diverged or collapsed.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from clray.analysis.failures import failures
from clray.analysis.runs import DIVERGED, Run, Runs, diverged_run, mark_collapsed, order_of, run_of
from clray.data_sets import DataSet, data_sets
from clray.equal_code import representative
from clray.metrics import final_matrix
from clray.record import Record
from clray.store import Problem, Store
from clray.sweep import Cell, Sweep

# --------------------------------------------------------------------------------------------------------------
# The store, read once


@dataclass(frozen=True)
class Results:
    """All records of a store, by the declaration of their trial.

    Attributes:
        finished: the records of finished trials; trials that diverged are among them.
        running: the records of trials that have begun and are not finished.
        problems: the files that cannot be used, each with the reason.
        stale: the ids of finished records that other code made than the code here.
        failed: the reason why a trial failed, by its declaration and by its id.
        shipped: the ids of finished records that ship with clray, where they stand in for records of the store.
    """

    finished: Mapping[str, Sequence[Record]]
    running: Mapping[str, Sequence[Record]]
    problems: Sequence[Problem]
    stale: frozenset[str] = frozenset()
    failed: Mapping[str, str] = field(default_factory=dict)
    shipped: frozenset[str] = frozenset()


def read(store: Store, is_current: Callable[[Record], bool] | None = None) -> Results:
    """Read the whole store once.

    Args:
        is_current: tells if the code here made a record; without it no record counts as stale.
    """
    problems: list[Problem] = []
    folders = {}
    for folder in ("records", "running"):
        records, unreadable = store.records(folder)
        problems += unreadable
        usable = []
        for record in records:
            if reason := _reason_against(record, folder):
                problems.append(Problem(store.path(folder, f"{record.id}.parquet"), reason))
            else:
                usable.append(record)
        folders[folder] = usable
    return replace(
        results_of(folders["records"], is_current),
        running=_by_declaration(folders["running"]),
        problems=problems,
        failed=failures(store),
    )


def results_of(records: Iterable[Record], is_current: Callable[[Record], bool] | None = None) -> Results:
    """The results that finished records give; ``is_current`` as for ``read``."""
    finished = _by_declaration(records)
    stale = [r.id for of in finished.values() for r in of if is_current is not None and not is_current(r)]
    return Results(finished, {}, [], frozenset(stale))


def filled_up(own: Results, reference: Results, fingerprints: Sequence[str] | None = None) -> Results:
    """A store's results, and a reference run for each trial of which the store has no finished record on that data.

    Args:
        fingerprints: the data sets of the reference runs to take; None for all.
    """
    finished, added = dict(own.finished), set()
    for declaration, records in reference.finished.items():
        there = own.finished.get(declaration, ())
        read = {record.data["fingerprint"] for record in there}
        wanted = [r for r in records if fingerprints is None or r.data["fingerprint"] in fingerprints]
        new = [record for record in wanted if record.data["fingerprint"] not in read]
        if new:
            finished[declaration] = [*there, *new]
            added |= {record.id for record in new}
    return replace(own, finished=finished, stale=own.stale | (reference.stale & added), shipped=frozenset(added))


def _by_declaration(records: Iterable[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        found[record.trial.declaration].append(record)
    return dict(found)


def _reason_against(record: Record, folder: str) -> str:
    """The reason why a readable record cannot be used; empty where it can."""
    fingerprint = record.data.get("fingerprint")
    if not isinstance(fingerprint, str):
        return "it does not say which data it read"
    if record.trial.id(fingerprint) != record.id:
        return "its id is not that of its declaration and data"
    if folder == "running" or record.status == DIVERGED:
        return ""
    if record.status != "finished":
        return f"a record of a trial that is {record.status!r}"
    matrix, _ = final_matrix(record.measurements, record.sharing)
    declared = record.trial.benchmark.get("tasks", len(matrix))
    tasks = len(declared) if isinstance(declared, list) else declared
    if not len(matrix) or len(matrix) != tasks or np.isnan(matrix[-1]).any():
        return f"finished, but not measured on all {tasks} tasks after the last"
    return ""


# --------------------------------------------------------------------------------------------------------------
# One data set a table


@dataclass(frozen=True)
class Gathered:
    """The runs of a table's variants.

    Attributes:
        variants: the runs of each variant, by the variant's name.
        data: the data set that fills the table; None without any record.
        other_data_sets: data sets that also have records of these trials; none of them was used.
        chance: the accuracy of guessing in per cent, as measured before training; NaN where it was not measured.
        mixed_code: a sentence for each variant whose runs were made by more than one version of the code.
    """

    variants: Mapping[str, Runs]
    data: DataSet | None
    other_data_sets: Sequence[DataSet] = ()
    chance: float = field(default=float("nan"))
    mixed_code: Sequence[str] = ()

    @property
    def runs(self) -> list[Run]:
        return [run for variant in self.variants.values() for run in variant.runs]


def gather(sweep: Sweep, variants: Sequence[str], results: Results) -> Gathered:
    """Gather the runs of these variants of a sweep, all from one data set."""
    cells: dict[str, list[Cell]] = {name: [] for name in variants}
    for cell in sweep.cells:
        if cell.variant in cells:
            cells[cell.variant].append(cell)
    # Two variants may declare the very same trial and share its record: it is counted once.
    declarations = dict.fromkeys(cell.trial.declaration for group in cells.values() for cell in group)
    found = data_sets(r for d in declarations for r in results.finished.get(d, ()))
    data, others = (found[0], found[1:]) if found else (None, [])
    if data is None and (begun := data_sets(r for d in declarations for r in results.running.get(d, ()))):
        data = replace(begun[0], records=0)
    fingerprints = data.fingerprints if data else []
    gathered = {name: _runs_of(name, group, results, fingerprints) for name, group in cells.items()}
    runs = [r for variant in gathered.values() for r in variant.runs]
    chance = _chance(runs)
    marked = {name: _with_collapsed_marked(variant, chance) for name, variant in gathered.items()}
    return Gathered(marked, data, others, chance, _mixed_code(gathered))


def _runs_of(name: str, cells: Sequence[Cell], results: Results, fingerprints: Sequence[str]) -> Runs:
    def on_this_data(records: Mapping[str, Sequence[Record]], cell: Cell) -> list[Record]:
        return [r for r in records.get(cell.trial.declaration, ()) if r.data["fingerprint"] in fingerprints]

    runs, diverged, missing, failed, half_done = [], [], [], {}, 0
    for cell in cells:
        finished = on_this_data(results.finished, cell)
        if finished and finished[0].status == DIVERGED:
            diverged.append(diverged_run(finished[0]))
        elif finished:
            runs.append(run_of(finished[0], finished[0].id in results.stale, finished[0].id in results.shipped))
        else:
            missing.append((cell.trial.seed, order_of(cell.trial.task_order)))
            for known in (cell.trial.declaration, *(cell.trial.id(fingerprint) for fingerprint in fingerprints)):
                if known in results.failed:
                    failed[missing[-1]] = results.failed[known]
            half_done += bool(on_this_data(results.running, cell))
    tasks = cells[0].trial.benchmark.get("tasks") if cells else None
    orders = list(dict.fromkeys(order_of(cell.trial.task_order) for cell in cells))
    task_names = tasks if isinstance(tasks, list) else ()
    return Runs(name, runs, len(cells), missing, half_done, diverged, task_names, orders, failed)


def _chance(runs: Sequence[Run]) -> float:
    """The median over runs of the mean accuracy before any training, in per cent."""
    measured = [100 * float(b.mean()) for r in runs if len(b := r.baseline[~np.isnan(r.baseline)])]
    return statistics.median(measured) if measured else float("nan")


def _with_collapsed_marked(variant: Runs, chance: float) -> Runs:
    """Mark a run as collapsed when its learning accuracy or its retained accuracy has collapsed."""
    marks = np.zeros(len(variant.runs), dtype=bool)
    for metric in ("LA", "RA"):
        if all(metric in r.metrics for r in variant.runs):
            marks |= np.array(mark_collapsed([r.metrics[metric] for r in variant.runs], chance), dtype=bool)
    runs = [replace(r, collapsed=bool(mark)) for r, mark in zip(variant.runs, marks, strict=True)]
    return replace(variant, runs=runs)


def _mixed_code(variants: Mapping[str, Runs]) -> list[str]:
    """Say which variants have runs that different code made.

    A digest covers the code that a trial runs, so two variants of a method may have different digests, such as with two
    networks. Within a variant, digests of code that gives the same numbers count as one (``clray.equal_code``).
    """
    versions = {name: Counter(representative(r.code or "unknown") for r in v.runs) for name, v in variants.items()}
    return [
        f"{name}: runs of {len(codes)} versions of the code ("
        + ", ".join(f"{n} of {code[:8]}" for code, n in codes.most_common())
        + ")"
        for name, codes in versions.items()
        if len(codes) > 1
    ]


# --------------------------------------------------------------------------------------------------------------
# Comparable with the paper or not


def not_comparable_because(sweep: Sweep, gathered: Gathered) -> list[str]:
    """The reasons why a table shows another experiment than the published one; empty where it shows the same."""
    return [*sweep.selection.changes, *(gathered.data.not_comparable_because if gathered.data else [])]


def not_comparable_warning(reasons: Sequence[str]) -> str:
    """The label of a table whose numbers must not be compared with the paper; empty without a reason."""
    return f"NOT COMPARABLE WITH THE PAPER ({', '.join(reasons)})" if reasons else ""
