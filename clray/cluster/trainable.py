"""The worker of Ray Tune: it runs the trials of a pack one after the other.

Tune's own checkpoints are not used. Every trial continues from its checkpoint in the store, which outlives the
worker, the driver and the cluster: so a worker that Tune restarts after a crash continues from the store.
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
from clray.execution import Execution, describe_failure, failure_text
from clray.leases import RunsElsewhere
from clray.store import Store
from clray.work import Task, TrialEnd


@pydantic.dataclasses.dataclass(frozen=True)
class Pack:
    """Tasks that one worker runs one after the other, and that ask for the same share of a machine.

    Tune gets a pack as text. For every pack Tune makes a deep copy of the whole grid, which copies a mapping but only
    refers to a text. With 600 packs as mappings, the time until the first of them began was twice as long.
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
    """Runs the tasks of the pack in its config in order; one ``step`` runs the current trial to its next stop.

    Where a trial raises an error, the failure is written into the store and the pack continues with the next trial,
    because the same code would raise again. The pack also continues where another launch runs the trial: the worker
    does not wait. Tune's retries are only for errors that may pass (the store cannot be written, the machine's memory
    ran out) and for the death of the process.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """The resources that a pack asks for; packs of one experiment may differ in them."""
        return tune.PlacementGroupFactory([Pack.of(config).resources])

    def setup(self, config: dict[str, Any]) -> None:
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another pack in the same process, with no state of the former one."""
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
        """The task with a device that this machine has: the CPU where a GPU was asked for and none can be used.

        Raises:
            ClusterError: the trial must have a GPU, and none can be used.
        """
        if task.device == "cpu":
            return task
        import torch

        # Ray only counts the GPUs that a machine is declared to have. They may be missing, or unusable.
        if torch.cuda.is_available():
            return task
        why = f"No GPU can be used on {socket.gethostname()}: {gpu.why_unusable()}"
        if self._require_gpu:
            raise ClusterError(f"--require-gpu: {why}")
        self._remarks.append(f"{why}. Trials that ask for a share of a GPU run on the CPU there.")
        return dataclasses.replace(task, device="cpu", gpu=0.0)

    def _report(self, **facts: Any) -> dict[str, Any]:
        """A report to the driver, with the remarks on this machine that were not sent yet."""
        remarks, self._remarks = self._remarks, []
        return {**facts, **({"remarks": remarks} if remarks else {})}

    def _failed(self, task: Task, error: Exception) -> TrialEnd:
        """Write a failure into the store, and return it for the report to the driver."""
        failure = describe_failure(error) | {"declaration": task.trial.declaration}
        end = TrialEnd.failed(failure_text(error))
        if gpu.is_out_of_memory(error):
            share = self._resources.get("GPU", 0.0)
            end = TrialEnd.failed(f"ran out of GPU memory with {gpu.share_words(share)}: {error}", share)
            failure["error"] = end.error
        self._store.write_failure(task.id, failure)
        return end

    def _end(self, end: TrialEnd) -> dict[str, Any]:
        """End the current trial and free its GPU memory, which other workers may need while this one waits."""
        task = self._waiting.pop(0)
        self._current = None
        if task.device != "cpu":
            gc.collect()
            gpu.forget_peak()
        return self._report(ended={task.id: dataclasses.asdict(end)}, done=not self._waiting)

    def cleanup(self) -> None:
        """Save a checkpoint of a trial that is stopped between two steps."""
        if self._current is not None:
            self._current.stop()
            self._current = None


def _is_transient(error: Exception) -> bool:
    """True where another attempt with the same share of a machine may succeed."""
    return isinstance(error, StoreError | MemoryError)


class Watcher(tune.Callback):
    """In the driver, passes on the reports of workers. A lost report does no harm: the store has the same facts."""

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
            running: called with a trial's id, its progress, and its progress when this launch began to run it.
            told: called with a trial's id and sentences about it, repeatedly with the same ones.
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
        """The errors of packs that Tune gave up, by the ids of their trials. To be read after the experiment has ended.

        Tune's own results do not tell which pack died, if it died before its first report.
        """
        found: dict[str, Exception | str] = {}
        for trial in self._given_up:
            error = _error_of(trial)
            found |= {task.id: error for task in Pack.of(trial.config).tasks if error is not None}
        return found


def _error_of(trial: Any) -> Exception | str | None:
    """The error for which Tune gave a pack up, or its text where the error was not kept; None if both are lost.

    Tune keeps both in files. It pickles only errors that a worker raised, and some of these cannot be read back. Of
    Ray's own errors about a worker it keeps only the text, which ``get_error`` returns in spite of its annotation.
    """
    for read in (trial.get_pickled_error, trial.get_error):
        try:
            if error := read():
                return error if isinstance(error, Exception) else str(error)
        except Exception:  # unpickling runs the error's own code
            continue
    return None


class StopWhen(tune.Stopper):
    """Ends the experiment once ``wish()`` returns True; workers then finish their step, and save."""

    def __init__(self, wish: Callable[[], bool]) -> None:
        self._wish = wish

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._wish()
