"""A plan: which trials of some sweeps are finished, half-done, stale or to do, and what these will cost."""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from clray.data_sets import data_set_of, data_sets
from clray.durations import Durations
from clray.equal_code import is_equal
from clray.errors import DataError, StoreError
from clray.limits import NO_LIMITS, Limits
from clray.provenance import code_digest, own_texts
from clray.record import Record
from clray.store import Problem, Store
from clray.sweep import Cell, Sweep
from clray.tracks import track
from clray.trial import Trial
from clray.work import Task, lacking

State = Literal["finished", "stale", "half-done", "to do"]


@dataclass(frozen=True)
class Planned(Cell):
    """A trial at its place in a sweep, and what the store knows of it.

    Attributes:
        code: the digest of the code that runs it.
        state: ``finished``; ``stale``: finished, but by other code than this; ``half-done``: it has a checkpoint,
            which is looked into when the trial is taken up; ``to do``.
        failure: why its last attempt failed, if it did.
        seconds: the time that the trial took or is expected to take, on cores that no other program uses.
        memory: the most GPU memory that it took so far, where it ran on one (``clray.gpu.peak``).
        metrics: the columns of its sweep's table, which a line about it shows.
        diverged: it is over, and its loss or weights were not finite any more.
        limits: the time and memory that it may take.
        lacking: it is finished, and lacks these things, which its sweep asks to keep.
    """

    sweep: str
    id: str
    data: dict[str, Any]
    code: str
    state: State
    failure: dict[str, Any] | None
    seconds: float
    memory: dict[str, int] = field(default_factory=dict)
    metrics: Sequence[str] = ("RA", "LA", "BTI")
    diverged: bool = False
    limits: Limits = NO_LIMITS
    lacking: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For a line of text."""
        return f"{self.variant} seed {self.trial.seed}"

    def task(self, **changes: Any) -> Task:
        """The trial as it is handed to whoever runs it."""
        return Task(
            id=self.id,
            variant=self.variant,
            sweep=self.sweep,
            trial=self.trial,
            data=self.data,
            cpu=self.resources.cpu,
            code=self.code,
            keep=self.keep,
            own_code=own_texts(self.trial),
            **{"threads": max(1, int(self.resources.cpu)), "limits": self.limits, **changes},
        )


@dataclass(frozen=True)
class OtherId:
    """A record that lies in the store under another id than a trial that has none.

    Attributes:
        name: the trial's.
        record: the id of the record.
        differences: the dotted names of what differs between the two declarations; ``data`` where that is another.
    """

    name: str
    record: str
    differences: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """The trials of some sweeps in their order, each once.

    Attributes:
        problems: files of the store that could not be read.
        other_ids: records of the same variant, seed and task order as a trial to do, under other ids; one a trial.
    """

    trials: list[Planned]
    problems: list[Problem]
    other_ids: list[OtherId] = field(default_factory=list)

    def in_state(self, *states: State) -> list[Planned]:
        return [trial for trial in self.trials if trial.state in states]

    def left(self, rerun_stale: bool = False, rerun_lacking: bool = False) -> list[Planned]:
        """The trials that a launch would run.

        Args:
            rerun_stale: also those whose records other code made.
            rerun_lacking: also the finished ones that lack something which their sweep asks to keep.
        """
        states = ("to do", "half-done", *(("stale",) if rerun_stale else ()))
        return [trial for trial in self.trials if trial.state in states or (rerun_lacking and trial.lacking)]

    def core_hours(self, rerun_stale: bool = False, rerun_lacking: bool = False) -> float:
        """The core hours that a launch is expected to take, half-done trials counted as whole ones."""
        return core_hours(self.left(rerun_stale, rerun_lacking))


def core_hours(trials: Iterable[Planned]) -> float:
    """The core hours that trials are expected to take."""
    return sum(trial.seconds * trial.resources.cpu for trial in trials) / 3600


def plan(sweeps: Mapping[str, Sweep], store: Store, download: bool = False, reference: Iterable[Record] = ()) -> Plan:
    """Look up every trial of some sweeps in the store.

    Args:
        sweeps: by name.
        store: where records and checkpoints are.
        download: data that is not here may be fetched.
        reference: runs that tell how long trials take of which the store has none.

    Raises:
        DataError: the data that a sweep insists on cannot be had.
    """
    found = _Found(store, reference)
    trials: dict[str, Planned] = {}
    for name, sweep in sweeps.items():
        for planned in found.in_sweep(name, sweep, download):
            trials[planned.id] = _of_both(trials.get(planned.id), planned)
    for planned in trials.values():
        if planned.state == "finished":
            found.remove_leftovers(planned.id)
    return Plan(list(trials.values()), found.problems, found.other_ids(list(trials.values())))


def _of_both(first: Planned | None, second: Planned) -> Planned:
    """A trial that two sweeps share: as the first one has it, and it keeps what either of them asks for."""
    if first is None:
        return second
    keep, lacks = ((*one, *(what for what in other if what not in one))
                   for one, other in ((first.keep, second.keep), (first.lacking, second.lacking)))  # fmt: skip
    return replace(first, keep=keep, lacking=lacks)


class _Found:
    """Everything that a store holds of trials: its records, and by the names of their files the rest."""

    def __init__(self, store: Store, reference: Iterable[Record]) -> None:
        self._store = store
        records, self.problems = store.records(measurements=False)
        self._durations = Durations([*reference, *records])
        self.records = {record.id: record for record in records}
        self._by_declaration: dict[str, list[Record]] = defaultdict(list)
        for record in records:
            self._by_declaration[record.trial.declaration].append(record)
        self._best: dict[str, Sequence[str]] = {}
        self.checkpointed, self.failed = store.checkpointed(), store.failed()
        self._running, self._leased = store.running(), store.leased()
        self._artifacts: Mapping[str, Collection[str]] | None = None

    def in_sweep(self, name: str, sweep: Sweep, download: bool) -> Iterator[Planned]:
        """The trials of a sweep.

        Each is planned on the data that is here. Where a paper's numbers would not be compared with that (it is a part
        of the data, or the embedded digits, or there is none), and the store has records on better data, those count:
        a table shows them, too.

        Raises:
            DataError: a trial has no record, and the data that it insists on cannot be had.
        """
        located: dict[str, dict[str, Any] | DataError] = {}
        for cell in sweep.cells:
            key = json.dumps([cell.trial.benchmark, cell.trial.model], sort_keys=True)
            if key not in located:
                try:
                    located[key] = track(sweep.track).data(cell.trial, download)
                except DataError as error:
                    located[key] = error
            data = located[key]
            here = None if isinstance(data, DataError) else data
            if here is None or data_set_of(here).not_comparable_because:
                best = self._best_data(name, sweep)
                known = [r for r in self._by_declaration[cell.trial.declaration] if r.data["fingerprint"] in best]
                here = known[0].data if known else here
            if here is None:
                assert isinstance(data, DataError)
                raise data
            yield self._planned(cell, name, here, sweep)

    def _best_data(self, name: str, sweep: Sweep) -> Sequence[str]:
        """The fingerprints of the data set that the sweep's table shows, if it may be compared with a paper."""
        if name not in self._best:
            declarations = dict.fromkeys(cell.trial.declaration for cell in sweep.cells)
            there = data_sets(record for d in declarations for record in self._by_declaration.get(d, ()))
            self._best[name] = there[0].fingerprints if there and not there[0].not_comparable_because else ()
        return self._best[name]

    def _planned(self, cell: Cell, name: str, data: dict[str, Any], sweep: Sweep) -> Planned:
        """A trial, and what is known of it.

        Args:
            name: of the sweep.
        """
        trial_id, code = cell.trial.id(data["fingerprint"]), code_digest(cell.trial)
        record, state = self.records.get(trial_id), self.state(trial_id, code)
        begun = self._store.read(trial_id, "running", False) if record is None and state == "half-done" else None
        return Planned(
            variant=cell.variant,
            trial=cell.trial,
            resources=cell.resources,
            sweep=sweep.name,
            id=trial_id,
            data=data,
            code=code,
            state=state,
            failure=self._store.failure(trial_id) if record is None and trial_id in self.failed else None,
            seconds=self._durations.of(cell.trial),
            memory=_memory(record or begun),
            metrics=sweep.metrics,
            diverged=record is not None and record.status == "diverged",
            limits=sweep.limits_of(cell),
            keep=cell.keep,
            lacking=self._lacking(record, cell.keep) if record is not None and state == "finished" else (),
        )

    def _lacking(self, record: Record, keep: Sequence[str]) -> tuple[str, ...]:
        """The things of ``keep`` that a finished trial lacks; the store's artifacts are listed once, where any asks."""
        if keep and self._artifacts is None:
            self._artifacts = self._store.all_artifacts()
        return lacking(record, keep, (self._artifacts or {}).get(record.id, ()))

    def other_ids(self, trials: Sequence[Planned]) -> list[OtherId]:
        """The records of trials to do that lie under another id.

        A record counts where it was made for the same sweep and variant, or where the two declarations differ only by
        settings that one of them lacks; with the same track, method, seed and task order in any case.
        """
        planned = {trial.id for trial in trials}
        by_run: dict[Any, list[tuple[Record, dict[str, Any]]]] = defaultdict(list)
        for record in self.records.values():
            if record.id not in planned:
                by_run[_run_of(record.trial)].append((record, _flat(record.trial.model_dump(mode="json"))))
        found = []
        for trial in trials:
            if trial.state not in ("to do", "half-done"):
                continue
            mine = _flat(trial.trial.model_dump(mode="json"))
            for record, theirs in by_run.get(_run_of(trial.trial), ()):
                one_lacks = mine.keys() ^ theirs.keys()
                differ = [key for key in mine.keys() & theirs.keys() if mine[key] != theirs[key]]
                if not differ or (record.sweep, record.variant) == (trial.sweep, trial.variant):
                    names = sorted([*differ, *one_lacks]) or ["data"]
                    found.append(OtherId(trial.name, record.id, tuple(names)))
                    break
        return found

    def state(self, trial_id: str, code: str) -> State:
        """The state of a trial.

        Args:
            code: the digest of the code that would run it.
        """
        if record := self.records.get(trial_id):
            return "finished" if is_equal(record.provenance.get("code"), code) else "stale"
        return "half-done" if trial_id in self.checkpointed else "to do"

    def remove_leftovers(self, trial_id: str) -> None:
        """Remove what an execution left of a finished trial after another one had finished it.

        This keeps what belongs to an execution that goes on, or that was begun in order to run the trial again: by
        other code, or for the files that a sweep asks for.
        """
        if trial_id in self._leased or trial_id not in self.checkpointed | self._running | self.failed:
            return
        made_by = self.records[trial_id].provenance["code"]
        with contextlib.suppress(StoreError):
            begun = self._store.read(trial_id, "running", measurements=False)
            again = isinstance(begun, Record) and begun.provenance.get("again")
            if not isinstance(begun, Record) or (begun.provenance.get("code") == made_by and not again):
                self._store.remove_leftovers(trial_id)


def _run_of(trial: Trial) -> Any:
    """The parts of a declaration that two records of the same run have in common, whatever its settings."""
    order = None if trial.task_order is None else tuple(trial.task_order)
    return trial.track, trial.method, trial.benchmark.get("name"), trial.seed, order


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _memory(record: Record | Problem | None) -> dict[str, int]:
    return record.provenance.get("gpu_memory", {}) if isinstance(record, Record) else {}
