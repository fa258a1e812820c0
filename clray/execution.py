"""One trial against the results store: begun, continued or left alone, as the store says. Knows nothing of Ray.

``clray run``, ``--local`` and Ray's workers all come through here, so that a trial gives the same bits on any of them.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from time import monotonic as clock
from typing import Any, Protocol, runtime_checkable

from clray import gpu
from clray.claims import RunsElsewhere, alone, take
from clray.errors import CheckpointError
from clray.metrics import Measurement, summarize
from clray.provenance import code_digest, provenance
from clray.results import Record, Store, checkpoint_bytes, checkpoint_state
from clray.spec import Trial
from clray.tracks import track
from clray.training import Training

CHECKPOINT_SECONDS = 15.0
"""A trial is at most this far, and one stop, behind when its process dies; or so far as ``_SAVING_APART`` says."""
_SAVING_APART = 20.0
"""Between two checkpoints lies at least so many times what the former took: saving costs less than 5% of the time."""


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
    """Least time between checkpoints; 0 is one at every stop, whatever that costs."""
    rerun: bool = False
    """Run it although the store has a record of it, unless the code as it stands here made that one."""
    launch: str = ""
    """The launch that this is part of; by default whoever runs it is one by himself."""
    gpu: float = 0.0
    """The share of a GPU that it was given."""
    declaration: str = ""
    """The trial's name before it was known which data it reads: a table knows a trial that failed by it."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@runtime_checkable
class Keeping(Protocol):
    """A ``Training`` of which more is kept than its record."""

    def artifacts(self) -> dict[str, bytes]:
        """Files by name, of the trial at its end; they lie in the store before its record does."""
        ...


class Execution:
    """Runs one trial, stop by stop, and leaves its traces in the store.

    From the first to the last it holds the trial's claim (``clray.claims``): it ends with the trial, with an error, or
    with ``stop``.

    Attributes:
        done: whether the trial's record is in the store.
        progress: 0 to 1.
        resumed: how far the trial had come when this execution took it up.
        executions: all that are known to have taken the trial up, this one last.
        memory: the most GPU memory that any of them took (``clray.gpu.peak``).
    """

    def __init__(self, task: Task, store: Store) -> None:
        """Builds the trial, from its checkpoint where there is an intact one. A finished trial is not even built.

        Raises:
            RunsElsewhere: another launch is running it.
        """
        self.task, self.store = task, store
        self.measurements: list[Measurement] = []
        self.seconds = 0.0
        self.resumed = 0.0
        self.trial = Trial(**task.trial)
        self.memory: dict[str, int] = {}
        self.executions: list[dict[str, Any]] = []
        self.launch = task.launch or alone()
        self._code = code_digest(self.trial.track, track(self.trial.track).module_of(self.trial.method))
        self.done = self._is_finished()
        if self.done:
            return
        notes = {"variant": task.variant, "sweep": task.sweep, "seed": self.trial.seed, "device": task.device}
        self._hold = take(store, task.id, self.launch, **notes)
        try:
            self.done = self._is_finished()  # by who held the claim until just now
            if self.done:
                self._hold.release()
            else:
                self._begin()
        except BaseException:
            self._hold.release()
            raise

    def _is_finished(self) -> bool:
        record = self.store.read(self.task.id)
        if not isinstance(record, Record) or (self.task.rerun and record.provenance.get("code") != self._code):
            return False
        self.measurements = record.measurements
        self.seconds = record.provenance.get("seconds", 0.0)
        self.memory = record.provenance.get("gpu_memory", {})
        self.executions = record.provenance.get("executions", [])
        return True

    def _begin(self) -> None:
        set_threads(self.task.threads)
        gpu.forget_peak()
        begun = time.perf_counter()
        self._training: Training = track(self.trial.track).train(self.trial, self.task.data, self.task.device)
        self.executions = self._hold.earlier
        self._continue()
        claim = self._hold.claim
        this = {"launch": claim.launch, "host": claim.host, "pid": claim.pid, "began": claim.taken}
        this |= {"from": self.resumed} | ({"gpu": self.task.gpu} if self.task.gpu else {})
        self.executions = [*self.executions, this]
        self.seconds += time.perf_counter() - begun
        self._due = clock() + self.task.checkpoint_seconds
        self._tell()
        self._hold.renew()  # whoever takes over from one that dies soon knows of it, too

    def _tell(self) -> None:
        """Note for those who watch how far the trial is."""
        self._hold.note(progress=self.progress, executions=self.executions, gpu_memory=self.memory)

    @property
    def progress(self) -> float:
        return 1.0 if self.done else self._training.progress

    @property
    def metrics(self) -> dict[str, float]:
        """The published metrics of what has been measured so far, as fractions."""
        return summarize(self.measurements)

    @property
    def ending(self) -> dict[str, Any]:
        """What is shown of a trial that is over; ``elsewhere`` where another launch ran it."""
        facts: dict[str, Any] = {"metrics": self.metrics, "seconds": self.seconds, "resumed": self.resumed}
        if self.memory:
            facts["gpu_memory"] = self.memory
        last = self.executions[-1] if self.executions else None
        if last and last["launch"] != self.launch:
            facts["elsewhere"] = f"{last['host']}, process {last['pid']}"
        return facts

    def _continue(self) -> None:
        for content in self.store.checkpoints(self.task.id):
            try:
                state = checkpoint_state(self.task.id, content)
                if state["code"] != self._code:
                    continue  # one trial, one code: its record names only one
                self._training.load_state_dict(state["training"])
                self.measurements = [Measurement(*row) for row in state["measurements"]]
                self.seconds, self.memory = state["seconds"], state.get("gpu_memory", {})
                # A checkpoint knows of those that saved, the claim of one who died also of those that did not.
                self.executions = max(state.get("executions", []), self.executions, key=len)
            except (CheckpointError, KeyError, TypeError, RuntimeError) as error:
                if gpu.is_out_of_memory(error):
                    raise
                # Not to be continued, though its checksum holds. The one before it may do, or the start.
                del self._training  # a large model, and there may be no room for two
                self._training = track(self.trial.track).train(self.trial, self.task.data, self.task.device)
                continue
            self.resumed = self._training.progress
            return

    def step(self) -> None:
        """Train to the next stop; write a checkpoint when one is due, the record when the trial is over.

        Raises:
            RunsElsewhere: this process was out of reach for so long that another launch took the trial over.
        """
        try:
            if self._hold.lost:
                raise RunsElsewhere(self._hold.claim)
            begun = time.perf_counter()
            self.measurements += self._training.advance()
            self.seconds += time.perf_counter() - begun
            self.memory = gpu.peak(self.memory)
            if self._training.progress >= 1:
                if isinstance(self._training, Keeping):
                    for name, content in self._training.artifacts().items():
                        self.store.write_artifact(self.task.id, name, content)
                self.store.write(self._record("finished"))
                self.done = True
            elif clock() >= self._due:
                self.save()
            self._tell()
        except BaseException:
            self._hold.release()
            raise
        if self.done:
            self._hold.release()

    def stop(self) -> None:
        """Keep what was learned, and let the trial go; between two steps, or not at all."""
        try:
            if not self.done and not self._hold.lost:
                self.save()
        finally:
            if not self.done:
                self._hold.release()

    def save(self) -> None:
        """Write a checkpoint and, for those who watch, the record so far."""
        begun = clock()
        state = {
            "training": self._training.state_dict(),
            "measurements": [list(m) for m in self.measurements],
            "seconds": self.seconds,
            "gpu_memory": self.memory,
            "executions": self.executions,
            "code": self._code,
        }
        self.store.write_checkpoint(self.task.id, checkpoint_bytes(self.task.id, state))
        self.store.write(self._record("running"))
        now, least = clock(), self.task.checkpoint_seconds
        self._due = now + (max(least, _SAVING_APART * (now - begun)) if least else 0.0)

    def _record(self, status: str) -> Record:
        facts = provenance(self.trial.track, track(self.trial.track).module_of(self.trial.method))
        facts |= {"seconds": self.seconds, "progress": self._training.progress, "saved": time.time()}
        facts |= {"executions": self.executions} | ({"gpu_memory": self.memory} if self.memory else {})
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


def made_by_this_code(record: Any) -> bool:
    """Whether this is a record, and one that the code as it stands here made."""
    if not isinstance(record, Record):
        return False
    side = track(record.trial.track)
    return record.provenance.get("code") == code_digest(record.trial.track, side.module_of(record.trial.method))


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
