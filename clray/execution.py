"""Runs one trial with the results store: begins it, continues it from a checkpoint, or leaves a finished one alone.

``clray run``, ``--local`` and Ray's workers all use this module, so that a trial gives the same bits on any of them.
"""

from __future__ import annotations

import contextlib
import socket
import time
import traceback
from collections.abc import Mapping
from time import monotonic as clock
from typing import IO, Any, Protocol, runtime_checkable

from clray import gpu, own_code, stored
from clray.checkpoints import Checkpoints, check_state, differs, outline, read_state, write_state
from clray.errors import CheckpointError, ClrayError, Diverged, OtherCodeError, StateError, StoreError
from clray.extras import require
from clray.leases import RunsElsewhere, acquire, solo_launch_id
from clray.limits import Watch
from clray.machine import keep_freed_memory, set_threads
from clray.metrics import Measurement, summarize
from clray.provenance import code_digest, loaded_digest, provenance
from clray.record import Record
from clray.store import Store
from clray.tracks import EXTRAS, track
from clray.training import Training
from clray.work import Task, TrialEnd

_SAVING_APART = 20.0
"""The time between two checkpoints is at least this many times what the former took: saving costs at most 5%."""


@runtime_checkable
class HasArtifacts(Protocol):
    """A ``Training`` that also writes files (artifacts) when it ends."""

    def artifacts(self) -> dict[str, bytes]:
        """The files by name. They are made and written after the trial's record, which is safe by then."""
        ...


class Execution:
    """Runs one trial, stop by stop, and leaves its traces in the store.

    It holds the lease on its trial (``clray.leases``) until the trial ends, an error is raised or ``stop`` is called.

    Attributes:
        done: the trial's record is in the store.
        diverged: where its loss or weights were not finite any more: ``step``, ``task`` (from 0) and ``what``; empty
            for a trial that was trained to its end.
        passed_over: the reasons why checkpoints of the trial were not used, a sentence each.
        progress: 0 to 1.
        resumed: the trial's progress when this execution took it up.
        executions: all known executions of the trial, this one last.
        memory: the most GPU memory that any of them took (``clray.gpu.peak``).
    """

    def __init__(self, task: Task, store: Store) -> None:
        """Builds the trial, from its checkpoint where there is an intact one. A finished trial is not even built.

        Raises:
            RunsElsewhere: another launch is running it.
            OtherCodeError: this process has other code than the launch was planned with.
            ExtraMissing: packages that its track needs are not installed here.
        """
        self.task, self.store = task, store
        own_code.adopt(task.own_code)
        self.measurements: list[Measurement] = []
        self.seconds = 0.0
        self._cpu_seconds: float | None = 0.0
        """CPU time, of all threads; None where a checkpoint that it continues from lacks it."""
        self.resumed = 0.0
        self.trial = task.trial
        self._checkpoints = Checkpoints(store, task.id)
        self.memory: dict[str, int] = {}
        self.executions: list[dict[str, Any]] = []
        self.diverged: dict[str, Any] = {}
        self.passed_over: list[str] = []
        self._replaces = False
        """The newest checkpoint in the store is one of those that were passed over."""
        self._checked = False
        """A state of this trial, as this process writes it, was read back."""
        self.launch = task.launch or solo_launch_id()
        self._code = task.code or code_digest(self.trial)
        self.done = self._is_finished()
        if self.done:
            return
        if extra := EXTRAS.get(self.trial.track):
            require(extra, f"the track {self.trial.track}")
        self._require_code(code_digest(self.trial))
        notes = {"variant": task.variant, "sweep": task.sweep, "seed": self.trial.seed, "device": task.device}
        self._holder = acquire(store, task.id, self.launch, task.dead_lease, **notes)
        try:
            self.done = self._is_finished()  # the former holder of the lease may have finished it
            if self.done:
                self._remove_leftovers()
                self._holder.release()
            else:
                self._begin()
        except BaseException:
            self._holder.release()
            raise

    def _is_finished(self) -> bool:
        record = self.store.read(self.task.id)
        if not isinstance(record, Record) or not self.task.is_done(record, self.store):
            return False
        self.measurements = record.measurements
        self.seconds = record.provenance.get("seconds", 0.0)
        self.memory = record.provenance.get("gpu_memory", {})
        self.executions = record.provenance.get("executions", [])
        self.diverged = record.provenance.get("diverged", {})
        return True

    def _require_code(self, code: str) -> None:
        """Check that this process has the code that the record will name.

        Raises:
            OtherCodeError: it has other code.
        """
        if code != self._code:
            raise OtherCodeError(
                f"{socket.gethostname()}: the code here is not the code that this launch was planned with: use the "
                "same clray, and the same package of your own, on all machines, and launch again where files were "
                "edited after the launch began"
            )

    def _begin(self) -> None:
        set_threads(self.task.threads)
        keep_freed_memory()
        gpu.forget_peak()
        begun = _clocks()
        self._training: Training = track(self.trial.track).train(self.trial, self.task.data, self.task.device)
        self._require_code(loaded_digest(self.trial))
        self.executions = self._holder.earlier
        self._continue()
        lease = self._holder.lease
        this = {"launch": lease.launch, "host": lease.host, "pid": lease.pid, "began": lease.acquired}
        this |= {"from": self.resumed} | ({"gpu": self.task.gpu} if self.task.gpu else {})
        this |= {"passed_over": self.passed_over} if self.passed_over else {}
        self.executions = [*self.executions, this]
        self._count_from(begun)
        self._due = clock() + self.task.checkpoint_seconds
        self._watch = Watch(self.task.limits)
        self._note_progress()
        self._holder.renew()  # if this process dies soon, the next holder finds it in the lease

    def _count_from(self, begun: tuple[float, float]) -> None:
        """Count the time since the ``_clocks`` of an earlier moment."""
        wall, cpu = _clocks()
        self.seconds += wall - begun[0]
        if self._cpu_seconds is not None:
            self._cpu_seconds += cpu - begun[1]

    def _note_progress(self) -> None:
        """Write the trial's progress into the lease, for processes that show it."""
        self._holder.note(progress=self.progress, executions=self.executions, gpu_memory=self.memory)

    @property
    def progress(self) -> float:
        return 1.0 if self.done else self._training.progress

    @property
    def metrics(self) -> dict[str, float]:
        """The published metrics of the measurements so far, as fractions; empty for a trial that diverged."""
        return {} if self.diverged else summarize(self.measurements, stored.sharing_tasks(self.trial.benchmark))

    @property
    def end(self) -> TrialEnd:
        """The trial's end, once it is done."""
        last = self.executions[-1] if self.executions else None
        others = last is not None and last.get("launch") != self.launch
        owner = f"{last.get('host', '?')}, process {last.get('pid', '?')}" if last is not None and others else ""
        return TrialEnd("finished", self.metrics, self.seconds, self.resumed, self.memory, self.diverged, owner)

    def _continue(self) -> None:
        """Continue from the newest usable checkpoint. A checkpoint is used only after all of it was checked."""
        fresh: Any = None
        for i, kept in enumerate(self._checkpoints.read()):
            try:
                if kept.content is None:
                    raise CheckpointError("it is torn")
                state = read_state(self.task.id, kept.content)
                if reason := stored.problem(stored.CHECKPOINT, state):
                    raise CheckpointError(reason)
                if state["code"] != self._code:
                    raise CheckpointError("other code made it")  # a record names only one code
                if fresh is None:
                    fresh = outline(self._training.state_dict())
                if reason := differs(fresh, state["training"], "training"):
                    raise CheckpointError(reason)
                self._training.load_state_dict(state["training"])
                resumed = float(self._training.progress)
                if not 0 <= resumed < 1:
                    raise CheckpointError(f"a trial in progress cannot be at {resumed:.0%}")
            except Exception as error:
                if gpu.is_out_of_memory(error) or (
                    isinstance(error, StoreError) and not isinstance(error, CheckpointError)
                ):
                    raise
                # It cannot be continued, although its checksum may be right. Try the one before it, or begin anew.
                self.passed_over.append(f"{kept.path}: passed over: {str(error) or type(error).__name__}")
                self._replaces = self._replaces or i == 0
                if kept.content is not None:
                    self._training = None  # type: ignore[assignment]  # large, and there may be no room for two
                    self._training = track(self.trial.track).train(self.trial, self.task.data, self.task.device)
                continue
            self.measurements = [Measurement(*row) for row in state["measurements"]]
            self.seconds, self.memory = state["seconds"], state.get("gpu_memory", {})
            self._cpu_seconds = state.get("cpu_seconds")
            # A checkpoint lists the executions that saved one; a dead process's lease also lists the others.
            self.executions = max(state.get("executions", []), self.executions, key=len)
            self.resumed = resumed
            return

    def step(self) -> None:
        """Train to the next stop; write a checkpoint when one is due, the record when the trial is over.

        Raises:
            RunsElsewhere: this process was out of reach for so long that another launch took the trial over.
            LimitExceeded: the trial needs more time or memory than it may have; its checkpoint stays.
        """
        try:
            if self._holder.lost:
                raise RunsElsewhere(self._holder.lease)
            if exceeded := self._watch.exceeded(self.seconds):
                raise exceeded
            begun = _clocks()
            try:
                self.measurements += self._watch.run(self._training.advance, self.seconds)
            except Diverged as end:
                self.diverged = {"step": end.step, "task": end.task, "what": end.what}
            except SystemExit as end:  # of the user's own code: it must end this trial alone, and not the launch
                said = RuntimeError(f"the trial's code called sys.exit({'' if end.code is None else repr(end.code)})")
                raise said.with_traceback(end.__traceback__) from end
            self._count_from(begun)
            self.memory = gpu.peak(self.memory)
            if self.diverged or self._training.progress >= 1:
                self._finish()
            elif exceeded := self._watch.exceeded(self.seconds):
                with contextlib.suppress(MemoryError):
                    self.save()
                raise exceeded
            elif clock() >= self._due:
                self.save()
            self._note_progress()
        except BaseException:
            self._release()
            raise
        if self.done:
            self._release()

    def _release(self) -> None:
        """Let the trial go: nobody watches it any more, and others may run it."""
        self._watch.close()
        self._holder.release()

    def _finish(self) -> None:
        """Write the record, then the artifacts. If those fail, the record is safe."""
        self._require_lease()
        record = self._record("diverged" if self.diverged else "finished")
        record.check()
        self.store.write(record)
        self.done = True
        if self.diverged:
            return
        missing = self._write_artifacts(self._training) if isinstance(self._training, HasArtifacts) else {}
        for what in self.task.keep:
            missing |= self._keep(what, record)
        if missing:
            record.provenance["missing_artifacts"] = missing
            with contextlib.suppress(StoreError):  # such as a full disk, which may be why the artifacts failed
                self.store.write(record)

    def _write_artifacts(self, training: HasArtifacts) -> dict[str, str]:
        """Write the trial's artifacts. Returns the reasons why some are missing, by name."""
        try:
            artifacts = training.artifacts()
        except Exception as error:
            return {"all": f"{type(error).__name__}: {error}"}
        return self._write_files(artifacts)

    def _keep(self, what: str, record: Record) -> dict[str, str]:
        """Write the files of something that the sweep asks to keep. Returns the reasons why some are missing."""
        about = {"id": record.id, "sweep": record.sweep, "variant": record.variant, "data": record.data}
        about |= {"clray": record.provenance["clray"], "code": self._code}
        try:
            files = track(self.trial.track).kept_files(what, self._training, about)
        except Exception as error:
            return {what: f"{type(error).__name__}: {error}"}
        return self._write_files(files)

    def _write_files(self, files: Mapping[str, bytes]) -> dict[str, str]:
        missing: dict[str, str] = {}
        for name, content in files.items():
            try:
                self.store.write_artifact(self.task.id, name, content)
            except StoreError as error:
                missing[name] = str(error)
        return missing

    def _require_lease(self) -> None:
        """Renew the lease. Without it this process must write nothing: another one runs the trial.

        Raises:
            RunsElsewhere: another process has taken the trial over.
        """
        self._holder.renew()
        if self._holder.lost:
            raise RunsElsewhere(self._holder.lease)

    def _remove_leftovers(self) -> None:
        """Remove the files that an execution saved after it had lost this trial and another one had finished it."""
        with contextlib.suppress(StoreError):
            self.store.remove_leftovers(self.task.id)

    def stop(self) -> None:
        """Save a checkpoint and release the lease. It is called between two steps."""
        try:
            if not self.done and not self._holder.lost:
                self.save()
        except RunsElsewhere:
            pass  # the process that took it over saves
        finally:
            if not self.done:
                self._release()

    def save(self) -> None:
        """Write a checkpoint and, for commands that show it, the record so far.

        Raises:
            RunsElsewhere: another launch took the trial over; nothing was written.
            StateError: the trial's state cannot be read back; nothing was written.
        """
        begun = clock()
        self._require_lease()
        state = {
            "training": self._training.state_dict(),
            "measurements": [[int(m[0]), int(m[1]), int(m[2]), str(m[3]), float(m[4])] for m in self.measurements],
            "seconds": self.seconds,
            **self._cpu_time,
            "gpu_memory": self.memory,
            "executions": self.executions,
            "code": self._code,
        }

        def fill(file: IO[bytes]) -> None:
            write_state(self.task.id, state, file)

        def check(file: IO[bytes]) -> None:
            check_state(self.task.id, file)
            if own_code.is_reference(self.trial.method):
                file.seek(0)
                self._require_loadable(file)

        self._checkpoints.write(fill, self._replaces, None if self._checked else check)
        self._replaces, self._checked = False, True
        self.store.write(self._record("running"))
        now, least = clock(), self.task.checkpoint_seconds
        self._due = now + (max(least, _SAVING_APART * (now - begun)) if least else 0.0)

    def _require_loadable(self, file: IO[bytes]) -> None:
        """Load a state into the training that gave it, as a continuation does: no test of clray's knows the method.

        Raises:
            StateError: it cannot be loaded, so that no checkpoint would be of use.
        """
        try:
            self._training.load_state_dict(read_state(self.task.id, file)["training"])
        except Exception as error:
            raise StateError(
                f"load_state_dict cannot take what state_dict gave: {failure_text(error)}; does the method's state "
                "hold that of its base class, as in `super().state_dict() | {…}`?"
            ) from error

    @property
    def _cpu_time(self) -> dict[str, float]:
        return {} if self._cpu_seconds is None else {"cpu_seconds": self._cpu_seconds}

    def _record(self, status: str) -> Record:
        facts = provenance(self._code)
        facts |= {"seconds": self.seconds, **self._cpu_time, "progress": self._training.progress, "saved": time.time()}
        facts |= {"executions": self.executions} | ({"gpu_memory": self.memory} if self.memory else {})
        facts |= self._training.facts
        facts |= {"diverged": self.diverged} if self.diverged else {}
        # Beside a finished record of the same code, this tells the progress of another run from a leftover.
        facts |= {"again": True} if self.task.rerun_lacking and status == "running" else {}
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


def _clocks() -> tuple[float, float]:
    """The time now, and the CPU time of this process, in seconds."""
    return time.perf_counter(), time.process_time()


def failure_text(error: BaseException) -> str:
    """An error as one line: its class, its text, and where the user's own code raised it."""
    return f"{type(error).__name__}: {_text(error)}{_in_own_code(error)}"


def _text(error: BaseException) -> str:
    """An error's text; empty where it has none. A method that a class of the user's own lacks raises an error without
    a text: then the text names both."""
    if str(error) or not isinstance(error, NotImplementedError) or error.__traceback__ is None:
        return str(error)
    step = error.__traceback__
    while step.tb_next is not None:
        step = step.tb_next
    code, owner = step.tb_frame.f_code, step.tb_frame.f_locals.get("self")
    if owner is None:
        return ""
    return f"{type(owner).__name__} has no {code.co_name}; the docstring of {code.co_qualname} says what it does"


def _in_own_code(error: BaseException) -> str:
    place = "" if isinstance(error, ClrayError) else own_code.place_in(error)
    return f" ({place})" if place else ""


def describe_failure(error: BaseException) -> dict[str, Any]:
    """The facts about a failed attempt that the store keeps."""
    return {
        "error": (_text(error) or type(error).__name__) + _in_own_code(error),
        "kind": type(error).__name__,
        "traceback": "".join(traceback.format_exception(error)),
        "host": socket.gethostname(),
        "time": time.time(),
    }
