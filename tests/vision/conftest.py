"""The embedded digits as streams, and trials on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from official import make_trial

from clray.trial import Trial
from clray.vision import data as sources
from clray.vision.benchmarks.pixels import rotation_map
from clray.vision.data import ImageSet
from clray.vision.learners.rows import Rows
from clray.vision.stream import Batch, Stream, from_members, unit
from clray.vision.stream import images as as_images
from clray.vision.training import resolve
from clray.vision.trial import VisionTraining

SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "online": ("online", {"lr": 0.01}),
    "independent": ("independent", {"lr": 0.01}),
    "task_input": ("task_input", {"lr": 0.01}),
    "ewc": ("ewc", {"lr": 0.01, "strength": 10.0, "memories_per_task": 10}),
    "gem": ("gem", {"lr": 0.01, "margin": 0.5, "memories_per_task": 12}),
    "gem-reservoir": ("gem", {"lr": 0.01, "margin": 0.5, "memories_per_task": 12, "memory": "reservoir"}),
    "er": ("er", {"lr": 0.05, "memories": 50, "replay_batch": 10}),
    "er5": ("er", {"algorithm": 5, "lr": 0.01, "memories": 50, "replay_batch": 10}),
    "er5-adam": (
        "er",
        {"algorithm": 5, "lr": 0.001, "memories": 50, "replay_batch": 10, "optimizer": "adam"},
    ),
    "er-rmsprop": ("er", {"lr": 0.0003, "memories": 50, "replay_batch": 10, "optimizer": "rmsprop"}),
    "er5-ring": ("er", {"algorithm": 5, "lr": 0.01, "memories": 50, "replay_batch": 10, "memory": "ring"}),
    "mer": (
        "mer",
        {"lr": 0.05, "memories": 50, "replay_batch": 5, "beta": 0.1, "gamma": 0.9, "batches_per_example": 2},
    ),
    "mer6": ("mer", {"algorithm": 6, "lr": 0.05, "memories": 50, "replay_batch": 6, "gamma": 0.3}),
    "mer7": ("mer", {"algorithm": 7, "lr": 0.02, "memories": 50, "replay_batch": 6, "gamma": 0.3, "s": 5.0}),
}
"""Small settings of methods that learn from one example at a time, with every algorithm and way."""

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
    "er_tiny": ("er_tiny", {"lr": 0.1, "memories_per_class": 2}),
    "er_tiny_ring": ("er_tiny", {"lr": 0.1, "memories_per_class": 2, "memory": "ring"}),
    "mer_batches": ("mer_batches", {"lr": 0.1, "memories_per_class": 2}),
}
"""Small settings of methods that learn in batches, with every optimizer and way."""


@pytest.fixture(scope="session")
def digits(embedded: dict[str, Any]) -> ImageSet:
    return sources.load(embedded)


@pytest.fixture
def train(embedded: dict[str, Any], kernels: None) -> Callable[..., VisionTraining]:
    """A small trial on embedded digits: ``train(name in SETTINGS, engine)`` and any setting of ``make_trial``."""

    def ready(name: str, engine: str = "fused", tasks: int = 3, per_task: int = 60, **changes: Any) -> VisionTraining:
        method, settings = SETTINGS[name]
        benchmark = {"name": "mnist-rotations", "tasks": tasks, "train_per_task": per_task, "source": "embedded"}
        changes = {"benchmark": benchmark | changes.pop("benchmark", {}), **changes}
        trial = make_trial(method, settings | changes.pop("settings", {}), engine=engine, **changes)
        return VisionTraining(trial, embedded)

    return ready


@pytest.fixture(scope="session")
def rows(digits: ImageSet) -> Rows:
    """200 examples of four turns of the digits."""
    rng = np.random.default_rng(0)
    maps = np.stack([rotation_map(angle) for angle in (0, 30, 75, 160)]).astype(np.int64)
    count = len(digits.test_labels)
    stream = from_members(
        as_images(digits.train_images, digits.train_labels, (1, 28, 28)),
        as_images(digits.test_images, digits.test_labels, (1, 28, 28)),
        members=[rng.permutation(len(digits.train_labels))[:50] for _ in range(4)],
        tests=[np.arange(count)] * 4,
        heads=[(0, 10)] * 4,
        offsets=[0] * 4,
        outputs=10,
        scale=unit,
        pixel_maps=maps,
        shuffles=False,
    )
    return Rows.of(stream)


def weights_of(training: VisionTraining, task: int = 0) -> list[np.ndarray]:
    """The weights that answer for a task in a method on perceptrons."""
    method: Any = training.method
    if hasattr(method, "nets"):
        return method.nets[task].weights()
    return method.weights(task) if hasattr(method, "weights") else method.net.weights()


def observe(training: VisionTraining, count: int) -> None:
    """Let the method learn from the stream's next ``count`` examples, one after the other, without evaluations."""
    for _ in range(count):
        number = np.array([training.step])
        training.method.observe(Batch(training.stream, number, int(training.stream.owner[training.step])))
        training.step += 1


def flat_parameters(training: VisionTraining) -> torch.Tensor:
    """[P] a copy of all parameters of a torch module."""
    return torch.cat([p.detach().flatten() for p in training.learner.parameters])


def shown(stream: Stream, experience: int, places: Any = slice(None), part: str = "train") -> tuple[Any, Any]:
    """Inputs and labels of an experience's training or test images, by their places among them."""
    if part == "train":
        return stream.examples(np.atleast_1d(stream.experiences[experience].examples[places]))
    x, y = stream.tests(experience)
    return x[places], y[places]


def heads(stream: Stream) -> list[tuple[int, int]]:
    return [e.logits for e in stream.experiences]


@pytest.fixture
def train_tasks(embedded: dict[str, Any]) -> Callable[..., VisionTraining]:
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
    ) -> VisionTraining:
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
        return VisionTraining(trial, embedded)

    return ready
