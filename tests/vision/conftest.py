"""The embedded digits as streams, and trials on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from official import make_trial

from clray.vision import data as sources
from clray.vision.benchmarks import Stream, build, rotation_map
from clray.vision.data import ImageSet
from clray.vision.training import StreamTraining

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
"""A small setting of every method and algorithm."""


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
