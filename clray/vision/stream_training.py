"""Training on one example at a time: a trial on a stream of MNIST tasks as a ``Training`` (``clray.training``)."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from clray.errors import CheckpointError, DeclarationError, Diverged
from clray.metrics import Measurement
from clray.trial import Trial
from clray.vision import data as sources
from clray.vision.benchmarks import BENCHMARKS, build
from clray.vision.engines import Workshop
from clray.vision.methods import find
from clray.vision.models import MODELS
from clray.vision.randomness import ClrayRandomness, OfficialRandomness

_STOP_AFTER = 10.0
"""Seconds after which ``advance`` returns, in the middle of a task, or of an evaluation between two tasks."""
_LOOK_AT_CLOCK = 50
"""Examples between looks at the clock."""


class StreamTraining:
    """One pass over a stream, one example at a time, with evaluations on every task between."""

    def __init__(self, trial: Trial, data: dict[str, Any], device: str = "cpu") -> None:
        if trial.engine == "fused" and device != "cpu":
            raise DeclarationError("engine: fused: this track's kernels are for the CPU; allowed here: auto, eager")
        engine = "eager" if trial.engine == "auto" and len(trial.model["hidden"]) != 2 else trial.engine
        self.trial = trial
        settings = BENCHMARKS[trial.benchmark["name"]](**trial.benchmark)
        official = trial.randomness == "official"
        self.randomness = OfficialRandomness(trial.seed) if official else ClrayRandomness(trial.seed)
        self.stream = build(settings, sources.load(data), trial.task_order, self.randomness.choose)
        self.workshop = Workshop(self.stream, engine, device)
        method = find(trial.method)
        self.method = method(
            method.Settings(**trial.hyperparameters), MODELS["mlp"](**trial.model), self.workshop, self.randomness
        )
        self.position = 0
        """Examples learned so far."""
        self.evaluated = False
        """Whether the evaluation due before the next example is done."""
        self.scored = 0
        """Tasks that this evaluation has scored so far."""

    @property
    def length(self) -> int:
        return len(self.stream.labels)

    @property
    def progress(self) -> float:
        if self.position == self.length:
            return 1.0 if self.evaluated else 1.0 - 1e-9
        return self.position / self.length

    @property
    def facts(self) -> dict[str, Any]:
        return {"engine": self.workshop.name, "device": self.workshop.device}

    def advance(self) -> list[Measurement]:
        deadline = time.monotonic() + _STOP_AFTER
        while self.position < self.length and not self._evaluation_is_due():
            self._observe()
            if self.position % _LOOK_AT_CLOCK == 0 and time.monotonic() > deadline:
                break
        self._check_weights()
        return self._evaluate(deadline) if self._evaluation_is_due() else []

    def _observe(self) -> None:
        """Learn from the next example."""
        try:
            self.method.observe(self.position)
        except FloatingPointError as error:
            raise Diverged(self.position, int(self.stream.tasks[self.position]), str(error)) from None
        self.position += 1
        self.evaluated = False

    def _check_weights(self) -> None:
        """See that the weights that answer for each task are finite.

        Raises:
            Diverged: some are not.
        """
        for task in range(self.stream.task_count):
            if not all(np.isfinite(part).all() for part in self.method.weights(task)):
                raise Diverged(self.position, int(self.stream.tasks[max(self.position - 1, 0)]), "weights")

    def _evaluation_is_due(self) -> bool:
        """Before any training, where a task ends, and every N examples where the trial says so."""
        if self.evaluated:
            return False
        here = self.position
        if here in (0, self.length) or self.stream.tasks[here] != self.stream.tasks[here - 1]:
            return True
        return self.trial.evaluate != "after_task" and here % self.trial.evaluate == 0

    def _evaluate(self, deadline: float) -> list[Measurement]:
        """Score the tasks that are left to be scored, one at least, as far as the time allows."""
        begun = int(self.stream.tasks[self.position - 1]) + 1 if self.position else 0
        measured: list[Measurement] = []
        while not measured or (self.scored < self.stream.task_count and time.monotonic() <= deadline):
            accuracy = self.workshop.accuracy(self.method.weights(self.scored), self.scored)
            measured.append(Measurement(self.position, begun, self.scored, "accuracy", accuracy))
            self.scored += 1
        if self.scored == self.stream.task_count:
            self.evaluated, self.scored = True, 0
        return measured

    def state_dict(self) -> dict[str, Any]:
        return {
            "position": self.position,
            "evaluated": self.evaluated,
            "scored": self.scored,
            "randomness": self.randomness.state_dict(),
            "method": _tensors(self.method.state_dict()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        try:
            self.position, self.evaluated, self.scored = state["position"], state["evaluated"], state["scored"]
            self.randomness.load_state_dict(state["randomness"])
            self.method.load_state_dict(_arrays(state["method"]))
        except (KeyError, IndexError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"this is no checkpoint of a {self.trial.method} trial: {error!r}") from None


def _tensors(state: Any) -> Any:
    """NumPy arrays as tensors, and its numbers as Python's: what ``torch.load(weights_only=True)`` accepts."""
    import torch

    if isinstance(state, np.generic):
        return state.item()
    if isinstance(state, np.ndarray):
        return torch.from_numpy(state.copy())
    if isinstance(state, dict):
        return {key: _tensors(value) for key, value in state.items()}
    return [_tensors(value) for value in state] if isinstance(state, list | tuple) else state


def _arrays(state: Any) -> Any:
    """The inverse of ``_tensors``."""
    if hasattr(state, "numpy"):
        return state.numpy()
    if isinstance(state, dict):
        return {key: _arrays(value) for key, value in state.items()}
    return [_arrays(value) for value in state] if isinstance(state, list) else state
