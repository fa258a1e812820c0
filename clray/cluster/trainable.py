"""Trials as Ray Tune sees them: a worker that runs a pack of our trials one after the other.

Tune's own checkpoints are not used. Every trial continues from its checkpoint in the store, which outlives the
worker, the driver and the cluster: so a worker that Tune starts again after a crash just takes up where the store says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from ray import tune

from clray.errors import StoreError
from clray.execution import Execution, Task, describe_failure
from clray.provenance import code_digest
from clray.results import Record, Store
from clray.tracks import track


class PackTrainable(tune.Trainable):
    """Runs the tasks of ``config["pack"]`` in order; one ``step`` is one stop of the trial that is running.

    A trial that raises is noted in the store as failed, and the pack goes on: the same code would raise again. Only
    what may pass (the store cannot be written, memory ran out) and what kills the process is left to Tune's retries.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """Packs of one experiment may differ in what they ask of a machine."""
        return tune.PlacementGroupFactory([config["pack"]["resources"]])

    def setup(self, config: dict[str, Any]) -> None:
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take on another pack in the same process: nothing of the former one is kept."""
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._store = Store(config["store"])
        self._waiting = [Task(**task) for task in config["pack"]["tasks"]]
        self._current: Execution | None = None

    def step(self) -> dict[str, Any]:
        """Advance the current trial. Returns what the driver shows: how a trial ended, or how far it has come."""
        task = self._waiting[0]
        try:
            if self._current is None:
                self._current = Execution(self._fit(task), self._store)
            current = self._current
            if not current.done:
                current.step()
        except Exception as error:
            self._current = None  # raised in the middle of a step: no state to keep
            if _may_pass(error):
                raise
            self._store.write_failure(task.id, describe_failure(error))
            return self._end({"error": f"{type(error).__name__}: {error}"})
        if not current.done:
            return {"running": {task.id: (current.progress, current.resumed)}}
        facts = {"seconds": current.seconds, "resumed": current.resumed, "device": current.task.device}
        return self._end({"metrics": current.metrics, **facts})

    def _fit(self, task: Task) -> Task:
        """The task as this machine, and an earlier attempt, leave it to be done."""
        if task.rerun and made_by_this_code(self._store.read(task.id)):
            task = dataclasses.replace(task, rerun=False)
        if task.device != "cpu":
            import torch

            # Ray only keeps books of GPUs: the machine may have been said to own one that it has not.
            if not torch.cuda.is_available():
                task = dataclasses.replace(task, device="cpu")
        return task

    def _end(self, how: dict[str, Any]) -> dict[str, Any]:
        """Leave the current trial behind."""
        id = self._waiting.pop(0).id
        on_gpu = self._current is not None and self._current.task.device != "cpu"
        self._current = None
        if on_gpu:
            import torch

            torch.cuda.empty_cache()  # a worker that waits for its next trial keeps no memory from its neighbours
        return {"ended": {id: how}, "done": not self._waiting}

    def cleanup(self) -> None:
        """Keep what a trial has learned when it is stopped between two steps."""
        if self._current is not None and not self._current.done:
            self._current.save()


def _may_pass(error: Exception) -> bool:
    """Whether another attempt may fare better. A GPU's memory counts too: who shares the GPU changes all the time."""
    return isinstance(error, StoreError | MemoryError) or type(error).__name__ == "OutOfMemoryError"


def made_by_this_code(record: Any) -> bool:
    """Whether this is a record, and one that the code as it stands here made."""
    if not isinstance(record, Record):
        return False
    side = track(record.trial.track)
    return record.provenance.get("code") == code_digest(record.trial.track, side.module_of(record.trial.method))


class Watcher(tune.Callback):
    """Passes on what workers report, in the driver. A lost report loses nothing: the store has it too."""

    def __init__(self, ended: Callable[[str, dict[str, Any]], None], running: Callable[..., None]) -> None:
        """
        Args:
            ended: called with a trial's id and how it ended, possibly more than once.
            running: called with a trial's id, its progress, and where it was taken up.
        """
        self._ended, self._running = ended, running
        self._given_up: list[Any] = []

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks for a restore that clray never asks for

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any) -> None:
        for id, (progress, resumed) in result.get("running", {}).items():
            self._running(id, progress, resumed)
        for id, how in result.get("ended", {}).items():
            self._ended(id, how)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        self._given_up.append(trial)

    def errors(self) -> dict[str, Exception]:
        """By the ids of the trials in them, why packs were given up; to be read once the experiment is over.

        Tune's own results do not say which pack died where one died before its first report.
        """
        return {
            task["id"]: trial.get_pickled_error() or trial.get_error()
            for trial in self._given_up
            for task in trial.config["pack"]["tasks"]
        }


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
