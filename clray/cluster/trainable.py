"""Trials as Ray Tune sees them: a worker that runs a pack of our trials one after the other.

Tune's own checkpoints are not used. Every trial continues from its checkpoint in the store, which outlives the
worker, the driver and the cluster: so a worker that Tune starts again after a crash just takes up where the store says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray import tune

from clray.errors import StoreError
from clray.execution import Execution, Task, describe_failure
from clray.results import Store


class PackTrainable(tune.Trainable):
    """Runs the tasks of ``config["pack"]`` in order; one ``step`` is one stop of the trial that is running.

    A trial that raises is noted in the store as failed, and the pack goes on: the same code would raise again. Only
    what may pass (the store cannot be written, memory ran out) and what kills the process is left to Tune's retries.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take on another pack in the same process: nothing of the former one is kept."""
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._store = Store(config["store"])
        self._waiting = [Task(**task) for task in config["pack"]]
        self._current: Execution | None = None
        self._ended: dict[str, dict[str, Any]] = {}

    def step(self) -> dict[str, Any]:
        """Advance the current trial. Returns what the driver shows: every ended trial, and the current one's progress."""
        task = self._waiting[0]
        try:
            if self._current is None:
                self._current = Execution(task, self._store)
            if not self._current.done:
                self._current.step()
            if self._current.done:
                self._end({"metrics": self._current.metrics, "seconds": self._current.seconds})
        except (StoreError, MemoryError):
            raise
        except Exception as error:
            self._store.write_failure(task.id, describe_failure(error))
            self._end({"error": f"{type(error).__name__}: {error}"})
        running = self._current
        return {
            "ended": self._ended,
            "running": {running.task.id: running.progress} if running else {},
            "done": not self._waiting,
        }

    def _end(self, how: dict[str, Any]) -> None:
        self._ended[self._waiting.pop(0).id] = how
        self._current = None

    def cleanup(self) -> None:
        """Keep what a trial has learned when it is stopped in the middle."""
        if self._current is not None and not self._current.done:
            self._current.save()


class Watcher(tune.Callback):
    """Passes on what workers report, in the driver. A lost report loses nothing: the store has it too."""

    def __init__(self, ended: Callable[[str, dict[str, Any]], None], running: Callable[[str, float], None]) -> None:
        """
        Args:
            ended: called with a trial's id and how it ended, possibly more than once.
            running: called with a trial's id and its progress.
        """
        self._ended, self._running = ended, running

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks for a restore that clray never asks for

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any) -> None:
        for id, progress in result.get("running", {}).items():
            self._running(id, progress)
        for id, how in result.get("ended", {}).items():
            self._ended(id, how)
