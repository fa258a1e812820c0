"""The vision track: one trial as a ``Training`` (see ``clray.training``), and what the track tells of its settings."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from clray.errors import CheckpointError, DeclarationError
from clray.metrics import Measurement
from clray.spec import SettingError, Trial, check_settings, one_of
from clray.vision import data as sources
from clray.vision.benchmarks import BENCHMARKS, build
from clray.vision.engines import Workshop
from clray.vision.methods import METHODS, find
from clray.vision.models import MODELS
from clray.vision.randomness import ClrayRandomness, OfficialRandomness

_STOP_AFTER = 10.0
"""Seconds of training after which ``advance`` returns even where there is nothing to evaluate yet."""
_LOOK_AT_CLOCK = 50
"""Examples between looks at the clock."""


def resolve(declared: dict[str, Any]) -> dict[str, Any]:
    """Check a variant's settings and fill in the defaults; see ``clray.tracks.Track``."""
    benchmark = declared["benchmark"]
    name = benchmark.get("name")
    if name not in BENCHMARKS:
        raise SettingError("benchmark", ["name"], f"{name!r} is not a benchmark; {one_of(str(name), BENCHMARKS)}")
    model = {"name": "mlp", **declared["model"]}
    if model["name"] not in MODELS:
        raise SettingError("model", ["name"], f"{model['name']!r} is not a model; {one_of(str(model['name']), MODELS)}")
    method = declared["method"]
    if method not in METHODS:
        raise SettingError("hyperparameters", ["method"], f"{method!r} is not a method; {one_of(str(method), METHODS)}")
    stream = check_settings("benchmark", BENCHMARKS[name], benchmark)
    settings = check_settings("hyperparameters", find(method).Settings, declared["hyperparameters"])
    kept = getattr(settings, "memories_per_task", 0)
    if kept > stream.train_per_task:  # type: ignore[attr-defined]
        raise SettingError(
            "hyperparameters",
            ["memories_per_task"],
            f"{kept} is more than a task has: train_per_task is {stream.train_per_task}",  # type: ignore[attr-defined]
        )
    return {
        "benchmark": stream.model_dump(mode="json"),
        "model": check_settings("model", MODELS[model["name"]], model).model_dump(mode="json"),
        "method": method,
        "hyperparameters": settings.model_dump(mode="json"),
    }


def data(trial: Trial, fetch: bool) -> dict[str, Any]:
    """The data set a trial would read here; see ``clray.tracks.Track``."""
    return sources.locate(trial.benchmark["dataset"], trial.benchmark["source"], fetch)


def train(trial: Trial, data: dict[str, Any], device: str) -> StreamTraining:
    """The trial, ready to begin."""
    return StreamTraining(trial, data, device)


def module_of(method: str) -> str:
    """The name of a method's file; see ``clray.tracks.Track``."""
    return METHODS[method].partition(":")[0]


def estimate(trial: Trial) -> float:
    """Seconds on one core with the fused engine; see ``clray.tracks.Track``. From docs/performance.md's figures."""
    settings, tasks = trial.hyperparameters, trial.benchmark["tasks"]
    examples = tasks * trial.benchmark["train_per_task"]
    gradients = examples * (settings.get("replay_batch", 0) + 1) * settings.get("batches_per_example", 1)
    seconds = 3 + gradients * 3.6e-6 + tasks * tasks * 0.010
    if trial.method == "ewc":
        seconds += examples * 60e-6
    if trial.method == "gem":
        seconds += examples * (0.4e-3 + tasks / 2 * settings["memories_per_task"] * 7e-6)
    return seconds


class StreamTraining:
    """One pass over a stream, one example at a time, with evaluations on every task between."""

    def __init__(self, trial: Trial, data: dict[str, Any], device: str = "cpu") -> None:
        if trial.engine == "fused" and (device != "cpu" or len(trial.model["hidden"]) != 2):
            raise DeclarationError(
                "engine: fused: this track's kernels are for two hidden layers on the CPU; allowed here: auto, eager"
            )
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
        if self._evaluation_is_due():
            self.evaluated = True
            return self._evaluate()
        deadline = time.monotonic() + _STOP_AFTER
        while self.position < self.length and not self._evaluation_is_due():
            self.method.observe(self.position)
            self.position += 1
            self.evaluated = False
            if self.position % _LOOK_AT_CLOCK == 0 and time.monotonic() > deadline:
                return []
        self.evaluated = True
        return self._evaluate()

    def _evaluation_is_due(self) -> bool:
        """Before any training, where a task ends, and every N examples where the trial says so."""
        if self.evaluated:
            return False
        here = self.position
        if here in (0, self.length) or self.stream.tasks[here] != self.stream.tasks[here - 1]:
            return True
        return self.trial.evaluate != "after_task" and here % self.trial.evaluate == 0

    def _evaluate(self) -> list[Measurement]:
        begun = int(self.stream.tasks[self.position - 1]) + 1 if self.position else 0
        measured = []
        for task in range(self.stream.task_count):
            accuracy = self.workshop.accuracy(self.method.weights(task), task)
            measured.append(Measurement(self.position, begun, task, "accuracy", accuracy))
        return measured

    def state_dict(self) -> dict[str, Any]:
        return {
            "position": self.position,
            "evaluated": self.evaluated,
            "randomness": self.randomness.state_dict(),
            "method": _tensors(self.method.state_dict()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        try:
            self.position, self.evaluated = state["position"], state["evaluated"]
            self.randomness.load_state_dict(state["randomness"])
            self.method.load_state_dict(_arrays(state["method"]))
        except (KeyError, ValueError, TypeError) as error:
            raise CheckpointError(f"this is no checkpoint of a {self.trial.method} trial: {error!r}") from None


def _tensors(state: Any) -> Any:
    """NumPy arrays as tensors: what ``torch.load(weights_only=True)`` accepts."""
    import torch

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
