"""The worker of Ray Tune: it runs a pack of our trials one after the other.

Tune's own checkpoints are not used. Every trial continues from its checkpoint in the store, which outlives the
worker, the driver and the cluster: so a worker that Tune starts again after a crash just takes up where the store says.
"""

from __future__ import annotations

import dataclasses
import gc
import socket
from collections.abc import Callable
from typing import Any

import pydantic
import pydantic.dataclasses
from ray import tune

from clray import gpu
from clray.errors import ClusterError, StoreError
from clray.execution import Execution, Task, TrialEnd, describe_failure
from clray.leases import RunsElsewhere
from clray.store import Store


@pydantic.dataclasses.dataclass(frozen=True)
class Pack:
    """Tasks that one worker runs one after the other, and that ask for the same share of a machine.

    It travels as text: for every trial Tune copies the whole grid, deeply, and to copy a text is to point at it. With
    600 packs as mappings that doubled the time until the first of them began.
    """

    tasks: list[Task]
    require_gpu: bool = False

    @property
    def resources(self) -> dict[str, float]:
        return self.tasks[0].resources

    def to_json(self) -> str:
        return _PACK.dump_json(self).decode()

    @classmethod
    def of(cls, config: dict[str, Any]) -> Pack:
        """The pack that a point of Tune's grid stands for."""
        return _PACK.validate_json(config["pack"])


_PACK = pydantic.TypeAdapter(Pack)


class PackTrainable(tune.Trainable):
    """Runs the tasks of the pack in its config in order; one ``step`` is one stop of the trial that is running.

    A trial that raises is noted in the store as failed, and the pack goes on: the same code would raise again. So it
    does when another launch runs the trial: nobody waits here. Only what may pass (the store cannot be written, the
    machine's memory ran out) and what kills the process is left to Tune's retries.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """Packs of one experiment may differ in what they ask of a machine."""
        return tune.PlacementGroupFactory([Pack.of(config).resources])

    def setup(self, config: dict[str, Any]) -> None:
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take on another pack in the same process: nothing of the former one is kept."""
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._store = Store(config["store"])
        pack = Pack.of(config)
        self._resources = pack.resources
        self._require_gpu = pack.require_gpu
        self._remarks: list[str] = []
        self._waiting = list(pack.tasks)
        self._current: Execution | None = None

    def step(self) -> dict[str, Any]:
        """Advance the current trial. Returns a report: how a trial ended, or how far it has come."""
        task = self._waiting[0]
        try:
            if self._current is None:
                self._current = Execution(self._with_device(task), self._store)
            if not self._current.done:
                self._current.step()
        except RunsElsewhere as elsewhere:
            end = TrialEnd.running(elsewhere.lease.owner)
        except Exception as error:
            if _is_transient(error):
                self._current = None  # raised in the middle of a step: no state to keep
                raise
            end = self._failed(task, error)
        else:
            if not self._current.done:
                so_far = {task.id: (self._current.progress, self._current.resumed)}
                return self._report(running=so_far, told={task.id: self._current.passed_over})
            end = self._current.end
        told = self._current.passed_over if self._current else []
        return {**self._end(end), "told": {task.id: told}}

    def _with_device(self, task: Task) -> Task:
        """The task for a device of this machine: the CPU where a GPU was asked for and none can be used.

        Raises:
            ClusterError: the trial is to have a GPU, and there is none that can be used.
        """
        if task.device == "cpu":
            return task
        import torch

        # Ray only keeps books of GPUs: the machine may have been said to own one that it has not, or cannot use.
        if torch.cuda.is_available():
            return task
        why = f"No GPU can be used on {socket.gethostname()}: {gpu.why_unusable()}"
        if self._require_gpu:
            raise ClusterError(f"--require-gpu: {why}")
        self._remarks.append(f"{why}. Trials that ask for a share of a GPU run on the CPU there.")
        return dataclasses.replace(task, device="cpu", gpu=0.0)

    def _report(self, **facts: Any) -> dict[str, Any]:
        """A report to the driver, with the remarks on this machine that it has not got yet."""
        remarks, self._remarks = self._remarks, []
        return {**facts, **({"remarks": remarks} if remarks else {})}

    def _failed(self, task: Task, error: Exception) -> TrialEnd:
        """Note a failure in the store, and tell the driver."""
        failure = describe_failure(error) | {"declaration": task.trial.declaration}
        end = TrialEnd.failed(f"{type(error).__name__}: {error}")
        if gpu.is_out_of_memory(error):
            share = self._resources.get("GPU", 0.0)
            end = TrialEnd.failed(f"ran out of GPU memory with {gpu.share_words(share)}: {error}", share)
            failure["error"] = end.error
        self._store.write_failure(task.id, failure)
        return end

    def _end(self, end: TrialEnd) -> dict[str, Any]:
        """Leave the current trial behind: a worker that waits for its next one keeps no memory from its neighbours."""
        task = self._waiting.pop(0)
        self._current = None
        if task.device != "cpu":
            gc.collect()
            gpu.forget_peak()
        return self._report(ended={task.id: dataclasses.asdict(end)}, done=not self._waiting)

    def cleanup(self) -> None:
        """Keep what a trial has learned when it is stopped between two steps."""
        if self._current is not None:
            self._current.stop()
            self._current = None


def _is_transient(error: Exception) -> bool:
    """True where another attempt with the same share of a machine may succeed."""
    return isinstance(error, StoreError | MemoryError)


class Watcher(tune.Callback):
    """Passes on what workers report, in the driver. A lost report loses nothing: the store has it too."""

    def __init__(
        self,
        ended: Callable[[str, TrialEnd], None],
        running: Callable[..., None],
        told: Callable[[str, list[str]], None],
        remark: Callable[[str], None],
    ) -> None:
        """
        Args:
            ended: called with a trial's id and how it ended, possibly more than once.
            running: called with a trial's id, its progress, and where it was taken up.
            told: called with a trial's id and sentences about it, again and again.
            remark: called with a sentence about a worker's machine, possibly more than once.
        """
        self._ended, self._running, self._told, self._remark = ended, running, told, remark
        self._given_up: list[Any] = []

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks for a restore that clray never asks for

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any) -> None:
        for sentence in result.get("remarks", []):
            self._remark(sentence)
        for trial_id, (progress, resumed) in result.get("running", {}).items():
            self._running(trial_id, progress, resumed)
        for trial_id, lines in result.get("told", {}).items():
            self._told(trial_id, lines)
        for trial_id, end in result.get("ended", {}).items():
            self._ended(trial_id, TrialEnd(**end))

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        self._given_up.append(trial)

    def errors(self) -> dict[str, Exception | str]:
        """By the ids of the trials in them, why packs were given up; to be read once the experiment is over.

        Tune's own results do not say which pack died where one died before its first report.
        """
        found: dict[str, Exception | str] = {}
        for trial in self._given_up:
            error = _error_of(trial)
            found |= {task.id: error for task in Pack.of(trial.config).tasks if error is not None}
        return found


def _error_of(trial: Any) -> Exception | str | None:
    """Why Tune gave a pack up: the error itself, or where it could not be kept as such, its text; None if it is lost.

    Tune keeps both in files. Only what a worker raised is pickled, and not everything can be read back; of what Ray
    says of a worker it keeps the text alone, which its ``get_error`` hands out, whatever its annotation says.
    """
    for read in (trial.get_pickled_error, trial.get_error):
        try:
            if error := read():
                return error if isinstance(error, Exception) else str(error)
        except Exception:  # unpickling runs the error's own code
            continue
    return None


class StopWhen(tune.Stopper):
    """Ends the experiment once ``wish()`` is true; workers then finish their step, and save."""

    def __init__(self, wish: Callable[[], bool]) -> None:
        self._wish = wish

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._wish()
