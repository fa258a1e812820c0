"""The work of a process that runs a trial: the trial as a launch hands it over, and its end as the process tells it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal

import pydantic
import pydantic.dataclasses

from clray.equal_code import is_equal
from clray.limits import NO_LIMITS, Limits
from clray.provenance import code_digest
from clray.record import Record
from clray.store import Problem, Store
from clray.track_interface import KEPT_FILES
from clray.trial import Trial

CHECKPOINT_SECONDS = 15.0
"""Seconds between two checkpoints, at least. A trial whose process dies loses the work since its last one."""


@pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(extra="forbid"))
class Task:
    """A trial as a launch hands it to the process that runs it, as JSON.

    Attributes:
        cpu: logical CPUs that Ray sets aside for it.
        gpu: the share of a GPU that it was given.
        threads: the threads that its libraries may use.
        checkpoint_seconds: least time between checkpoints; 0 for one at every stop.
        rerun: run it although the store has a record of it, unless the present code made that record.
        keep: the things that its sweep asks to keep of it (``KEPT_FILES``); they are written when it ends.
        rerun_lacking: run it although the store has a record of it, if that lacks a file of ``keep``.
        launch: the launch that this is part of; by default the process that runs it is a launch of its own.
        dead_lease: the name of a lease on this trial that the launch found dead (``clray.leases.acquire``).
        code: the digest of the code that the trial was planned with; empty where any code will do.
        own_code: the files of the user's own code that it runs (``clray.own_code.held_for``).
        limits: the time and memory that it may take.
    """

    id: str
    variant: str
    sweep: str
    trial: Trial
    data: dict[str, Any]
    cpu: float = 1.0
    gpu: float = 0.0
    threads: int = 1
    device: str = "cpu"
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    rerun: bool = False
    keep: tuple[str, ...] = ()
    rerun_lacking: bool = False
    launch: str = ""
    dead_lease: str = ""
    code: str = ""
    own_code: dict[str, Any] = field(default_factory=dict)
    limits: Limits = NO_LIMITS

    @property
    def resources(self) -> dict[str, float]:
        """The share of a machine that the trial asks Ray for."""
        return {"CPU": self.cpu, **({"GPU": self.gpu} if self.gpu else {})}

    def is_done(self, record: Record | Problem | None, store: Store) -> bool:
        """True where the store has the record that the task is to make.

        Args:
            record: what the store has of the trial.
        """
        if not isinstance(record, Record):
            return False
        if self.rerun and not is_equal(record.provenance.get("code"), self.code or code_digest(self.trial)):
            return False
        return not (self.rerun_lacking and lacking(record, self.keep, store.artifacts(self.id)))

    def to_json(self) -> str:
        return _TASK.dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Task:
        return _TASK.validate_json(text)


_TASK = pydantic.TypeAdapter(Task)


def lacking(record: Record, keep: Collection[str], files: Collection[str]) -> tuple[str, ...]:
    """The things of ``keep`` that a finished trial lacks. One that diverged keeps nothing, and lacks nothing.

    Args:
        files: the names of the files beside its record.
    """
    if record.status == "diverged":
        return ()
    return tuple(what for what in keep if not set(KEPT_FILES[what]) <= set(files))


@dataclass(frozen=True)
class TrialEnd:
    """The end of a trial in a launch.

    Attributes:
        state: ``finished``; ``failed``; or ``running``: another launch runs it, and this one has left it alone.
        metrics: of a finished trial, as fractions; none where it diverged.
        seconds: the time that a finished trial took.
        resumed: how far a finished trial had come when this launch took it up, 0 to 1.
        gpu_memory: its peak (``clray.gpu.peak``), where it ran on a GPU.
        diverged: ``step``, ``task`` and ``what`` of a trial that diverged, else empty.
        owner: the host and process of another launch that runs it, or ran it; else empty.
        error: why it failed.
        lacked_gpu: the share of a GPU whose memory was too little for it; 0 where it failed for another reason.
    """

    state: Literal["finished", "failed", "running"]
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    resumed: float = 0.0
    gpu_memory: dict[str, int] = field(default_factory=dict)
    diverged: dict[str, Any] = field(default_factory=dict)
    owner: str = ""
    error: str = ""
    lacked_gpu: float = 0.0

    @classmethod
    def failed(cls, error: str, lacked_gpu: float = 0.0) -> TrialEnd:
        return cls("failed", error=error, lacked_gpu=lacked_gpu)

    @classmethod
    def running(cls, owner: str) -> TrialEnd:
        return cls("running", owner=owner)

    @classmethod
    def of(cls, record: Record, owner: str) -> TrialEnd:
        """The end of a trial that another launch finished, from its record."""
        facts = record.provenance
        return cls(
            "finished",
            record.metrics,
            facts.get("seconds", 0.0),
            gpu_memory=facts.get("gpu_memory", {}),
            diverged=facts.get("diverged", {}),
            owner=owner,
        )
