"""Reads the results store, and gathers the runs of a table's variants, all from one data set.

A trial's id contains the fingerprint of the data that the trial read, and the analysis does not know which data that
was. So records are matched to trials by the trial's declaration. A store may hold the same trials on several data sets:
then one data set fills the whole table, and the notes below it name the others. Nothing is averaged silently: the notes
also say which runs are missing, unfinished, diverged or collapsed.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from clray.analysis.failures import failures
from clray.analysis.runs import DIVERGED, Run, Runs, diverged_run, mark_collapsed, order_of, run_of
from clray.metrics import final_matrix
from clray.record import Record
from clray.store import Problem, Store
from clray.sweep import Cell, Sweep

EMBEDDED = "embedded"
"""The ``source`` of the small data set that ships in a dependency. Its numbers are never judged against a paper."""


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
    """

    finished: Mapping[str, Sequence[Record]]
    running: Mapping[str, Sequence[Record]]
    problems: Sequence[Problem]
    stale: frozenset[str] = frozenset()
    failed: Mapping[str, str] = field(default_factory=dict)


def read(store: Store, is_current: Callable[[Record], bool] | None = None) -> Results:
    """Read the whole store once.

    Args:
        is_current: tells if the code here made a record; without it no record counts as stale.
    """
    problems: list[Problem] = []
    stale: set[str] = set()
    folders = {}
    for folder in ("records", "running"):
        by_declaration: dict[str, list[Record]] = defaultdict(list)
        records, unreadable = store.records(folder)
        problems += unreadable
        for record in records:
            if reason := _reason_against(record, folder):
                problems.append(Problem(store.path(folder, f"{record.id}.parquet"), reason))
            else:
                by_declaration[record.trial.declaration].append(record)
                if folder == "records" and is_current is not None and not is_current(record):
                    stale.add(record.id)
        folders[folder] = dict(by_declaration)
    return Results(folders["records"], folders["running"], problems, frozenset(stale), failures(store))


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
    matrix, _ = final_matrix(record.measurements)
    declared = record.trial.benchmark.get("tasks", len(matrix))
    tasks = len(declared) if isinstance(declared, list) else declared
    if not len(matrix) or len(matrix) != tasks or np.isnan(matrix[-1]).any():
        return f"finished, but not measured on all {tasks} tasks after the last"
    return ""


# --------------------------------------------------------------------------------------------------------------
# One data set a table


@dataclass(frozen=True)
class DataSet:
    """A data set that trials of a table have read.

    Attributes:
        name: its name, or several names joined by commas.
        source: the places that it was read from, such as ``cache``.
        fingerprint: the hash that it is known by; that of the texts alone where several models read the same texts.
        records: the number of finished records on it.
        partial: the part of the published data that it is; empty where it is the whole.
        fingerprints: the fingerprints of its records, sorted: several where several models read the same texts.
    """

    name: str
    source: str
    fingerprint: str
    records: int
    partial: str
    fingerprints: Sequence[str]

    @property
    def embedded(self) -> bool:
        """True where all of it is the small embedded data set."""
        return self.source == EMBEDDED

    @property
    def not_comparable_because(self) -> list[str]:
        """The reasons why its numbers are not compared with a paper; empty where they are.

        A data set of several parts names the source of each part. One embedded part is enough.
        """
        parts = {part for joined in self.source.split(" and ") for part in joined.split(", ")}
        found = []
        if EMBEDDED in parts:
            found.append("embedded data" if self.embedded else "embedded data in place of a part")
        return found + ([f"only a part of the data: {self.partial}"] if self.partial else [])

    def __str__(self) -> str:
        return f"{self.name} ({self.source}, {self.fingerprint.removeprefix(f'{EMBEDDED}-')[:8]})"


def data_sets(records: Iterable[Record]) -> list[DataSet]:
    """The data sets of these records; the first is the one to use.

    Real data come before embedded data, whole data before a part, then more records before fewer. The last criterion is
    the fingerprint, so that the choice never depends on the order of files.

    A language trial also reads a model, whose weights or vocabulary are part of its data's fingerprint. Trials on the
    same texts stand together, whatever their models are. But where one declared model has several contents, each of
    them is a data set of its own, and only the first one stands with the other models.
    """
    by_fingerprint: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_fingerprint[record.data["fingerprint"]].append(record)
    contents = sorted((_data_set([f], group) for f, group in by_fingerprint.items()), key=_preference)
    taken: dict[str, set[str]] = defaultdict(set)
    together: dict[str, list[str]] = {}
    for content in contents:
        (fingerprint,) = content.fingerprints
        first = by_fingerprint[fingerprint][0]
        texts = _texts_of(first)
        models = {json.dumps(record.trial.model, sort_keys=True) for record in by_fingerprint[fingerprint]}
        key = fingerprint if texts is None or taken[texts] & models else f"texts {texts}"
        if texts is not None:
            taken[texts] |= models
        together.setdefault(key, []).append(fingerprint)
    found = [_data_set(group, [r for f in group for r in by_fingerprint[f]]) for group in together.values()]
    return sorted(found, key=_preference)


def _preference(data: DataSet) -> tuple[bool, bool, int, str]:
    return data.embedded, bool(data.not_comparable_because), -data.records, data.fingerprint


def _data_set(fingerprints: Sequence[str], records: Sequence[Record]) -> DataSet:
    texts = _texts_of(records[0])
    return DataSet(
        name=", ".join(sorted({str(r.data.get("name", "data")) for r in records})),
        source=" and ".join(sorted({str(r.data.get("source", "unknown source")) for r in records})),
        fingerprint=fingerprints[0] if texts is None or len(fingerprints) == 1 else texts,
        records=len(records),
        partial=", ".join(sorted({str(r.data["partial"]) for r in records if r.data.get("partial")})),
        fingerprints=sorted(fingerprints),
    )


def _texts_of(record: Record) -> str | None:
    """The fingerprint of the texts alone, where the data description has it."""
    texts = record.data.get("texts")
    fingerprint = texts.get("fingerprint") if isinstance(texts, Mapping) else None
    return fingerprint if isinstance(fingerprint, str) else None


@dataclass(frozen=True)
class Gathered:
    """The runs of a table's variants.

    Attributes:
        variants: the runs of each variant, by the variant's name.
        data: the data set that fills the table; None without any record.
        other_data_sets: data sets that also have records of these trials; none of them was used.
        chance: the accuracy of guessing in per cent, as measured before training; NaN where it was not measured.
        mixed_code: a sentence for each method whose runs were made by more than one version of the code.
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
    return Gathered(marked, data, others, chance, _mixed_code(runs))


def _runs_of(name: str, cells: Sequence[Cell], results: Results, fingerprints: Sequence[str]) -> Runs:
    def on_this_data(records: Mapping[str, Sequence[Record]], cell: Cell) -> list[Record]:
        return [r for r in records.get(cell.trial.declaration, ()) if r.data["fingerprint"] in fingerprints]

    runs, diverged, missing, failed, half_done = [], [], [], {}, 0
    for cell in cells:
        finished = on_this_data(results.finished, cell)
        if finished and finished[0].status == DIVERGED:
            diverged.append(diverged_run(finished[0]))
        elif finished:
            runs.append(run_of(finished[0], finished[0].id in results.stale))
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


def _mixed_code(runs: Sequence[Run]) -> list[str]:
    """Each method has a code digest of its own, so versions are told apart method by method."""
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
# Comparable with the paper or not


def not_comparable_because(sweep: Sweep, gathered: Gathered) -> list[str]:
    """The reasons why a table shows another experiment than the published one; empty where it shows the same."""
    return [*sweep.selection.changes, *(gathered.data.not_comparable_because if gathered.data else [])]


def not_comparable_warning(reasons: Sequence[str]) -> str:
    """The label of a table whose numbers must not be compared with the paper; empty without a reason."""
    return f"NOT COMPARABLE WITH THE PAPER ({', '.join(reasons)})" if reasons else ""
