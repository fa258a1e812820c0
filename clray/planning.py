"""What a sweep comes down to: which of its trials are finished, half-done, stale or to do, and what they will cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from clray.execution import Task
from clray.provenance import code_digest
from clray.results import Problem, Record, Store
from clray.spec import Cell, Sweep
from clray.tracks import track

State = Literal["finished", "stale", "half-done", "to do"]


@dataclass(frozen=True)
class Planned:
    """A trial of a sweep, and what the store knows of it.

    Attributes:
        state: ``finished``; ``stale``: finished, but by other code than this; ``half-done``: it has a checkpoint;
            ``to do``.
        failure: why its last attempt failed, if it did.
        seconds: what the trial took, or is expected to take on one core or GPU.
        memory: the most GPU memory that it took so far, where it ran on one (``clray.gpu.peak``).
        metrics: what a line about it shows: the columns of its sweep's table.
    """

    sweep: str
    cell: Cell
    id: str
    data: dict[str, Any]
    state: State
    failure: dict[str, Any] | None
    seconds: float
    memory: dict[str, int] = field(default_factory=dict)
    metrics: Sequence[str] = ("RA", "LA", "BTI")

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
    records, problems = store.records()
    by_id = {record.id: record for record in records}
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
            record = by_id.get(id)
            digest = code_digest(sweep.track, side.module_of(cell.trial.method))
            state: State
            if record is not None:
                state = "finished" if record.provenance.get("code") == digest else "stale"
            else:
                state = "half-done" if store.has_checkpoint(id) else "to do"
            seconds = _seconds(record) or side.estimate(cell.trial)
            failure = None if record is not None else store.failure(id)
            memory = _memory(record or (store.read(id, "running") if state == "half-done" else None))
            trials[id] = Planned(name, cell, id, data, state, failure, seconds, memory, sweep.metrics)
    return Plan(list(trials.values()), problems)


def _seconds(record: Record | None) -> float | None:
    return record.provenance.get("seconds") if record else None


def _memory(record: Record | Problem | None) -> dict[str, int]:
    return record.provenance.get("gpu_memory", {}) if isinstance(record, Record) else {}
