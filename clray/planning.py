"""What a sweep comes down to: which of its trials are finished, half-done, stale or to do, and what they will cost."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from clray.equal_code import is_equal
from clray.errors import StoreError
from clray.execution import Task
from clray.provenance import code_digest
from clray.record import Record
from clray.store import Problem, Store
from clray.sweep import Cell, Sweep
from clray.tracks import track

State = Literal["finished", "stale", "half-done", "to do"]


@dataclass(frozen=True)
class Planned:
    """A trial of a sweep, and what the store knows of it.

    Attributes:
        code: the digest of the code that runs it.
        state: ``finished``; ``stale``: finished, but by other code than this; ``half-done``: it has a checkpoint,
            which is looked into when the trial is taken up; ``to do``.
        failure: why its last attempt failed, if it did.
        seconds: what the trial took, or is expected to take on one core or GPU.
        memory: the most GPU memory that it took so far, where it ran on one (``clray.gpu.peak``).
        metrics: what a line about it shows: the columns of its sweep's table.
        diverged: it is over, and its loss or weights were not finite any more.
    """

    sweep: str
    cell: Cell
    id: str
    data: dict[str, Any]
    code: str
    state: State
    failure: dict[str, Any] | None
    seconds: float
    memory: dict[str, int] = field(default_factory=dict)
    metrics: Sequence[str] = ("RA", "LA", "BTI")
    diverged: bool = False

    @property
    def name(self) -> str:
        """For a line of text."""
        return f"{self.cell.variant} seed {self.cell.trial.seed}"

    def task(self, **changes: Any) -> Task:
        """The trial as it is handed to whoever runs it."""
        return Task(
            id=self.id,
            variant=self.cell.variant,
            sweep=self.sweep,
            trial=self.cell.trial.model_dump(mode="json"),
            data=self.data,
            declaration=self.cell.trial.declaration,
            code=self.code,
            **{"threads": max(1, int(self.cell.resources.cpu)), **changes},
        )


@dataclass(frozen=True)
class Plan:
    """The trials of some sweeps in their order, each once, and what in the store could not be read."""

    trials: list[Planned]
    problems: list[Problem]

    def in_state(self, *states: State) -> list[Planned]:
        return [trial for trial in self.trials if trial.state in states]

    def left(self, rerun_stale: bool = False) -> list[Planned]:
        """What a launch would run."""
        return self.in_state("to do", "half-done", *(("stale",) if rerun_stale else ()))


def plan(sweeps: Mapping[str, Sweep], store: Store, download: bool = False) -> Plan:
    """Look up every trial of some sweeps in the store.

    Args:
        sweeps: by name.
        store: where records and checkpoints are.
        download: whether data that is not here may be fetched.

    Raises:
        DataError: the data that a sweep insists on cannot be had.
    """
    located: dict[tuple[str, str], dict[str, Any]] = {}
    found = _Found(store)
    trials: dict[str, Planned] = {}
    for name, sweep in sweeps.items():
        side = track(sweep.track)
        for cell in sweep.cells:
            key = (sweep.track, json.dumps([cell.trial.benchmark, cell.trial.model], sort_keys=True))
            if key not in located:
                located[key] = side.data(cell.trial, download)
            data = located[key]
            id = cell.trial.id(data["fingerprint"])
            if id in trials:
                continue
            record = found.records.get(id)
            code = code_digest(cell.trial)
            state = found.state(id, code)
            if state == "finished":
                found.remove_leftovers(id)
            seconds = _seconds(record) or side.estimate(cell.trial)
            failure = store.failure(id) if record is None and id in found.failed else None
            memory = _memory(record or (store.read(id, "running", False) if state == "half-done" else None))
            diverged = record is not None and record.status == "diverged"
            trials[id] = Planned(name, cell, id, data, code, state, failure, seconds, memory, sweep.metrics, diverged)
    return Plan(list(trials.values()), found.problems)


class _Found:
    """What a store holds of trials: its records, and by the names of their files what else there is."""

    def __init__(self, store: Store) -> None:
        self._store = store
        records, self.problems = store.records(measurements=False)
        self.records = {record.id: record for record in records}
        self.checkpointed, self.failed = store.checkpointed(), store.failed()
        self._running, self._leased = store.running(), store.leased()

    def state(self, id: str, code: str) -> State:
        """What is to be done about a trial.

        Args:
            code: the digest of the code that would run it.
        """
        if record := self.records.get(id):
            return "finished" if is_equal(record.provenance.get("code"), code) else "stale"
        return "half-done" if id in self.checkpointed else "to do"

    def remove_leftovers(self, id: str) -> None:
        """Remove what an execution left of a finished trial after another one had finished it.

        What somebody holds, or other code began in order to run the trial again, is none of it.
        """
        if id in self._leased or id not in self.checkpointed | self._running | self.failed:
            return
        with contextlib.suppress(StoreError):
            begun = self._store.read(id, "running", measurements=False)
            if not isinstance(begun, Record) or begun.provenance.get("code") == self.records[id].provenance["code"]:
                self._store.remove_leftovers(id)


def _seconds(record: Record | None) -> float | None:
    return record.provenance.get("seconds") if record else None


def _memory(record: Record | Problem | None) -> dict[str, int]:
    return record.provenance.get("gpu_memory", {}) if isinstance(record, Record) else {}
