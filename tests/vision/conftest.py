"""The embedded digits as streams, and trials on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from official import make_trial

from clray.trial import Trial
from clray.vision import data as sources
from clray.vision.benchmarks import Stream, build, rotation_map
from clray.vision.data import ImageSet
from clray.vision.stream_training import StreamTraining
from clray.vision.task_training import TaskTraining
from clray.vision.training import resolve

SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "online": ("online", {"lr": 0.01}),
    "independent": ("independent", {"lr": 0.01}),
    "task_input": ("task_input", {"lr": 0.01}),
    "ewc": ("ewc", {"lr": 0.01, "strength": 10.0, "memories_per_task": 10}),
    "gem": ("gem", {"lr": 0.01, "margin": 0.5, "memories_per_task": 12}),
    "er": ("er", {"lr": 0.05, "memories": 50, "replay_batch": 10}),
    "er5": ("er", {"algorithm": 5, "lr": 0.01, "memories": 50, "replay_batch": 10}),
    "mer": (
        "mer",
        {"lr": 0.05, "memories": 50, "replay_batch": 5, "beta": 0.1, "gamma": 0.9, "batches_per_example": 2},
    ),
    "mer6": ("mer", {"algorithm": 6, "lr": 0.05, "memories": 50, "replay_batch": 6, "gamma": 0.3}),
    "mer7": ("mer", {"algorithm": 7, "lr": 0.02, "memories": 50, "replay_batch": 6, "gamma": 0.3, "s": 5.0}),
}
"""A small setting of every method and algorithm that learns from one example at a time."""

TASK_SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "naive": ("naive", {"lr": 0.1}),
    "rmsprop": ("naive", {"optimizer": "rmsprop", "lr": 0.003}),
    "adagrad": ("naive", {"optimizer": "adagrad", "lr": 0.03}),
    "adam": ("naive", {"optimizer": "adam", "lr": 0.01}),
    "tag-rmsprop": ("naive", {"optimizer": "tag-rmsprop", "lr": 0.001, "b": 5}),
    "tag-adagrad": ("naive", {"optimizer": "tag-adagrad", "lr": 0.01, "b": 5}),
    "tag-adam": ("naive", {"optimizer": "tag-adam", "lr": 0.003, "b": 5}),
    "stable_sgd": ("stable_sgd", {"lr": 0.1, "gamma": 0.8}),
    "ewc_online": ("ewc_online", {"lr": 0.1, "strength": 10.0, "fisher_images": 20}),
    "ewc_intended": ("ewc_online", {"lr": 0.1, "strength": 10.0, "fisher": "intended", "fisher_images": 20}),
    "agem": ("agem", {"lr": 0.1, "memories_per_class": 2}),
    "er_reservoir": ("er_reservoir", {"lr": 0.1, "memories_per_class": 2}),
    "tag-er": ("er_reservoir", {"optimizer": "tag-rmsprop", "lr": 0.001, "b": 5, "memories_per_class": 2}),
    "multitask_cyclic": ("multitask_cyclic", {"lr": 0.1, "cycles": 2}),
}
"""A small setting of every method that learns a task at a time, and of every optimizer."""


@pytest.fixture(scope="session", autouse=True)
def _data(read_data_once: None) -> None:
    pass


@pytest.fixture(scope="session")
def digits(embedded: dict[str, Any]) -> ImageSet:
    return sources.load(embedded)


@pytest.fixture
def train(embedded: dict[str, Any], kernels: None) -> Callable[..., StreamTraining]:
    """A small trial on embedded digits: ``train(name in SETTINGS, engine)`` and any setting of ``make_trial``."""

    def ready(name: str, engine: str = "fused", tasks: int = 3, per_task: int = 60, **changes: Any) -> StreamTraining:
        method, settings = SETTINGS[name]
        benchmark = {"name": "mnist-rotations", "tasks": tasks, "train_per_task": per_task, "source": "embedded"}
        changes = {"benchmark": benchmark | changes.pop("benchmark", {}), **changes}
        trial = make_trial(method, settings | changes.pop("settings", {}), engine=engine, **changes)
        return StreamTraining(trial, embedded)

    return ready


@pytest.fixture(scope="session")
def stream(digits: ImageSet) -> Stream:
    """200 examples of four tasks."""
    rng = np.random.default_rng(0)
    maps = [rotation_map(angle) for angle in (0, 30, 75, 160)]

    class Fixed:
        name, tasks, train_per_task, last_test_example = "fixed", 4, 50, "scored"

        def pixel_maps(self) -> Any:
            return np.stack(maps)

    return build(Fixed(), digits, None, lambda n, tasks, count: [rng.permutation(n)[:count] for _ in range(tasks)])  # type: ignore[arg-type]


@pytest.fixture
def train_tasks(embedded: dict[str, Any]) -> Callable[..., TaskTraining]:
    """A small task-incremental trial on embedded digits: ``train_tasks(name in TASK_SETTINGS)``, with changes."""

    def ready(
        name: str,
        tasks: int = 2,
        per_task: int = 50,
        model: dict[str, Any] | None = None,
        randomness: str = "clray",
        engine: str = "auto",
        seed: int = 0,
        order: list[int] | None = None,
        evaluate: Any = "after_task",
        **changes: Any,
    ) -> TaskTraining:
        method, settings = TASK_SETTINGS[name]
        benchmark = {
            "name": "rotated-mnist", "tasks": tasks, "heads": "multi", "degrees": 60.0, "train_per_task": per_task,
            "test_per_task": 100, "source": "embedded",
        }  # fmt: skip
        declared = {
            "benchmark": benchmark | changes.get("benchmark", {}),
            "model": model or {"name": "mlp", "hidden": [20, 20]},
            "method": method,
            "hyperparameters": settings | changes.get("settings", {}),
        }
        trial = Trial(
            version=1, track="vision", evaluate=evaluate, randomness=randomness, engine=engine, precision="float32",
            seed=seed, task_order=order, **resolve(declared),
        )  # fmt: skip
        return TaskTraining(trial, embedded)

    return ready
