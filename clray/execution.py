"""One trial against the results store: begun, continued or left alone, as the store says. Knows nothing of Ray.

``clray run``, ``--local`` and Ray's workers all come through here, so that a trial gives the same bits on any of them.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from typing import Any

from clray.errors import CheckpointError
from clray.metrics import Measurement, summarize
from clray.provenance import code_digest, provenance
from clray.results import Record, Store, checkpoint_bytes, checkpoint_state
from clray.spec import Trial
from clray.tracks import track
from clray.training import Training

CHECKPOINT_SECONDS = 15.0
"""A trial is at most this far, and one stop, behind when its process dies."""


@dataclass(frozen=True)
class Task:
    """A trial as it is handed to whoever runs it: plain data throughout."""

    id: str
    variant: str
    sweep: str
    trial: dict[str, Any]
    data: dict[str, Any]
    threads: int = 1
    device: str = "cpu"
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    rerun: bool = False
    """Run it although the store has a record of it."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Execution:
    """Runs one trial, stop by stop, and leaves its traces in the store.

    Attributes:
        done: whether the trial's record is in the store.
        progress: 0 to 1.
        resumed: how far the trial had come when this execution took it up.
    """

    def __init__(self, task: Task, store: Store) -> None:
        """Builds the trial, from its checkpoint where there is an intact one. A finished trial is not even built."""
        self.task, self.store = task, store
        self.measurements: list[Measurement] = []
        self.seconds = 0.0
        self.resumed = 0.0
        self.trial = Trial(**task.trial)
        self.done = False
        existing = None if task.rerun else store.read(task.id)
        if isinstance(existing, Record):
            self.done, self.measurements = True, existing.measurements
            self.seconds = existing.provenance.get("seconds", 0.0)
            return
        self._code = code_digest(self.trial.track, track(self.trial.track).module_of(self.trial.method))
        set_threads(task.threads)
        begun = time.perf_counter()
        self._training: Training = track(self.trial.track).train(self.trial, task.data, task.device)
        self._continue()
        self.seconds += time.perf_counter() - begun
        self._saved = time.monotonic()

    @property
    def progress(self) -> float:
        return 1.0 if self.done else self._training.progress

    @property
    def metrics(self) -> dict[str, float]:
        """The published metrics of what has been measured so far, as fractions."""
        return summarize(self.measurements)

    def _continue(self) -> None:
        for content in self.store.checkpoints(self.task.id):
            try:
                state = checkpoint_state(self.task.id, content)
                if state["code"] != self._code:
                    continue  # one trial, one code: its record names only one
                self._training.load_state_dict(state["training"])
                self.measurements = [Measurement(*row) for row in state["measurements"]]
                self.seconds = state["seconds"]
            except (CheckpointError, KeyError, TypeError, RuntimeError):
                # Not to be continued, though its checksum holds. The one before it may do, or the start.
                self._training = track(self.trial.track).train(self.trial, self.task.data, self.task.device)
                continue
            self.resumed = self._training.progress
            return

    def step(self) -> None:
        """Train to the next stop; write a checkpoint when one is due, the record when the trial is over."""
        begun = time.perf_counter()
        self.measurements += self._training.advance()
        self.seconds += time.perf_counter() - begun
        if self._training.progress >= 1:
            self.store.write(self._record("finished"))
            self.done = True
        elif time.monotonic() - self._saved >= self.task.checkpoint_seconds:
            self.save()

    def save(self) -> None:
        """Write a checkpoint and, for those who watch, the record so far."""
        state = {
            "training": self._training.state_dict(),
            "measurements": [list(m) for m in self.measurements],
            "seconds": self.seconds,
            "code": self._code,
        }
        self.store.write_checkpoint(self.task.id, checkpoint_bytes(self.task.id, state))
        self.store.write(self._record("running"))
        self._saved = time.monotonic()

    def _record(self, status: str) -> Record:
        facts = provenance(self.trial.track, track(self.trial.track).module_of(self.trial.method))
        facts |= {"seconds": self.seconds, "progress": self._training.progress, "saved": time.time()}
        facts |= self._training.facts
        return Record(
            id=self.task.id,
            trial=self.trial,
            data=self.task.data,
            measurements=self.measurements,
            provenance=facts,
            status=status,
            variant=self.task.variant,
            sweep=self.task.sweep,
        )


def set_threads(threads: int) -> None:
    """Pin this process to the threads a trial was given: libraries left free take every core, and get slower."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[variable] = str(threads)
    # A trial on the fused kernels may need no torch at all: importing it costs seconds and a quarter of a gigabyte.
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)


def describe_failure(error: BaseException) -> dict[str, Any]:
    """What the store keeps of a failed attempt."""
    import socket

    return {
        "error": str(error) or type(error).__name__,
        "kind": type(error).__name__,
        "traceback": "".join(traceback.format_exception(error)),
        "host": socket.gethostname(),
        "time": time.time(),
    }
