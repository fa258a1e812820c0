"""The state of a results store: its finished, begun and failed trials, and the files that do not belong there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from clray.leases import Lease, LeaseMonitor
from clray.record import Record
from clray.store import Problem, Store


@dataclass(frozen=True)
class Begun:
    """A trial that was begun and is not finished.

    Attributes:
        progress: 0 to 1.
        state: ``running``: a process runs it; ``left``: its process is gone; ``stopped``: it was stopped.
        by: the machine and the process that run it or left it; the machine that it was stopped on.
        seen: seconds since a process that runs it was last seen; None where that is not known.
        gpu_memory: its peak (``clray.gpu.peak``), where it ran on a GPU.
    """

    id: str
    variant: str
    seed: int | None
    progress: float
    state: str
    by: str
    seen: float | None = None
    gpu_memory: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """A trial whose last attempt failed, and which was not finished since.

    Attributes:
        time: of the failure, in seconds since 1970; 0 where it is not known.
        error: the reason, on one line.
    """

    id: str
    host: str
    time: float
    error: str
    traceback: str = ""


@dataclass(frozen=True)
class StoreState:
    """The content of a store.

    Attributes:
        finished: the number of finished trials; those that diverged are among them.
    """

    uri: str
    finished: int
    diverged: int
    begun: list[Begun]
    failed: list[Failed]
    problems: list[Problem]


def state_of(store: Store) -> StoreState:
    """Read the state of a store.

    Raises:
        StoreError: it cannot be read.
    """
    records, problems = store.records(measurements=False)
    running, more = store.records("running", measurements=False)
    problems += more
    known = {record.id: record.provenance for record in records}
    # Where the same code has finished a trial since, the record of its progress is a leftover and is not shown.
    saved = {
        r.id: r
        for r in running
        if r.id not in known or known[r.id].get("code") != r.provenance.get("code") or r.provenance.get("again")
    }
    begun = list(_leased(store, saved, problems))
    begun += [_stopped(record) for record in running if record.id in saved]
    diverged = sum(record.status == "diverged" for record in records)
    return StoreState(store.uri, len(records), diverged, begun, list(_failed(store, known)), problems)


def _leased(store: Store, saved: dict[str, Record], problems: list[Problem]) -> Iterator[Begun]:
    """The trials that have a lease: a process runs them, or died while it ran them.

    They are removed from ``saved``. A file that is not a lease is added to ``problems``.
    """
    monitor, leased = LeaseMonitor(store), sorted(store.leased())
    now = store.clock() if leased else 0.0
    for trial_id in leased:
        found = store.read_lease(trial_id)
        if found is None:
            continue  # its holder has just released it
        lease, record = Lease.from_bytes(trial_id, found.content), saved.get(trial_id)
        if lease.foreign:
            problems.append(Problem(store.path("claims", f"{trial_id}.json"), f"not a lease: {lease.foreign}"))
            continue
        saved.pop(trial_id, None)
        notes, dead = lease.notes, monitor.is_dead(lease, found, now)
        memory = notes.get("gpu_memory") or (record.provenance.get("gpu_memory") if record else None)
        yield Begun(
            id=trial_id,
            variant=notes.get("variant", "?"),
            seed=notes.get("seed"),
            progress=notes.get("progress", 0.0),
            state="left" if dead else "running",
            by=lease.owner,
            seen=now - found.mtime if found.mtime and not dead else None,
            gpu_memory=memory or {},
        )


def _stopped(record: Record) -> Begun:
    """A trial that was begun and that no process runs now."""
    facts = record.provenance
    host, share = facts.get("machine", {}).get("host", "?"), facts.get("progress", 0.0)
    memory = facts.get("gpu_memory", {})
    return Begun(record.id, record.variant, record.trial.seed, share, "stopped", host, gpu_memory=memory)


def _failed(store: Store, known: Mapping[str, Mapping[str, Any]]) -> Iterator[Failed]:
    for trial_id in sorted(store.failed()):
        failure = store.failure(trial_id) or {}
        if trial_id in known and failure.get("time", 0) <= known[trial_id].get("saved", 0):
            continue  # the trial was finished after this failure
        reason = " ".join(str(failure.get("error")).split())
        told = str(failure.get("traceback", ""))
        yield Failed(trial_id, failure.get("host", "?"), failure.get("time", 0.0), reason, told)
