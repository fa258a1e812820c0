"""MER's benchmarks: streams of single MNIST digits whose pixels are rearranged, differently in every task.

A task is a permutation of pixels, or a rotation with nearest-neighbour sampling. In a rotation every pixel of the
turned image shows one pixel of the original or nothing. So a benchmark stores the image set once, and a pixel map for
each task, while the published archives hold 4 to 21 GB. Protocol: docs/papers/mer.md.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from clray.errors import DataError
from clray.vision.benchmarks.base import Benchmark
from clray.vision.benchmarks.pixels import PIXELS, SIDE, rotation_map
from clray.vision.datasets.published import ImageSet
from clray.vision.ranges import Count

if TYPE_CHECKING:
    from clray.vision.draws import Draws
    from clray.vision.stream import Stream


class MnistStream(Benchmark):
    """Settings of a stream of MNIST tasks that differ in how their pixels are arranged."""

    train_per_task: Count
    """Training examples a task, drawn anew for each task and seed from all that there are."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """The seed of the benchmark itself: of its angles or permutations."""
    last_test_example: Literal["skipped", "scored"] = "skipped"
    """The official code never scores the last test example, yet divides by all: ``skipped`` does as it does."""

    dataset: Literal["mnist"] = "mnist"

    learner = "perceptron"
    official = "clray.vision.official.mer"
    measures_before_training = True
    measures_unseen = True

    datasets = ("mnist",)
    label_classes = 10

    @property
    def examples_of_task(self) -> float:
        return self.train_per_task

    @property
    def tests_of_task(self) -> float:
        return 10_000

    def pixel_maps(self) -> NDArray[np.int16]:
        """The pixel maps [tasks, 784]: the index of the original pixel that each pixel of a task shows; -1 for none."""
        raise NotImplementedError

    def stream(self, images: dict[str, ImageSet], draws: Draws, order: Sequence[int] | None) -> Stream:
        """Build the stream. Its examples are numbered in the order of their arrival."""
        from clray.vision.stream import from_members, unit
        from clray.vision.stream import images as as_images

        digits = images["mnist"]
        available = len(digits.train_labels)
        if self.train_per_task > available:
            raise DataError(
                f"{self.name}: train_per_task is {self.train_per_task}, but there are only {available} images here"
            )
        maps = self.pixel_maps().astype(np.int64)
        tests = len(digits.test_labels)
        stream = from_members(
            as_images(digits.train_images, digits.train_labels, (1, SIDE, SIDE)),
            as_images(digits.test_images, digits.test_labels, (1, SIDE, SIDE)),
            members=draws.examples(available, self.tasks, self.train_per_task),
            tests=[np.arange(tests - (self.last_test_example == "skipped"))] * self.tasks,
            heads=[(0, 10)] * self.tasks,
            offsets=[0] * self.tasks,
            outputs=10,
            scale=unit,
            pixel_maps=maps if order is None else maps[list(order)],
            shuffles=False,
        )
        return replace(stream, experiences=[replace(e, test_count=tests) for e in stream.experiences])


class MnistRotations(MnistStream):
    """MNIST rotations, made as in GEM's ``mnist_rotations.py``.

    Task t of T is turned by an angle drawn uniformly from [180 t / T, 180 (t + 1) / T) degrees.
    """

    name: Literal["mnist-rotations"]
    angles: list[float] | None = None
    """Degrees, counter-clockwise, one a task; None draws them from ``seed``."""

    @model_validator(mode="after")
    def _one_angle_a_task(self) -> MnistRotations:
        if self.angles is not None and len(self.angles) != self.tasks:
            raise ValueError(f"angles: {len(self.angles)} angles for {self.tasks} tasks")
        return self

    def task_angles(self) -> list[float]:
        """The angles in degrees, from Python's generator as in GEM's script, but seeded: the script never seeds it."""
        if self.angles is not None:
            return self.angles
        rng, angles = random.Random(self.seed), []
        for t in range(self.tasks):
            low, high = t / self.tasks * 180.0, (t + 1) / self.tasks * 180.0
            angles.append(rng.random() * (high - low) + low)
        return angles

    def pixel_maps(self) -> NDArray[np.int16]:
        return np.stack([rotation_map(angle) for angle in self.task_angles()])


class MnistPermutations(MnistStream):
    """MNIST permutations, made as in GEM's ``mnist_permutations.py``: the first task is permuted too."""

    name: Literal["mnist-permutations", "mnist-many-permutations"]

    def pixel_maps(self) -> NDArray[np.int16]:
        import torch

        rng = torch.Generator().manual_seed(self.seed)
        return np.stack([torch.randperm(PIXELS, generator=rng).numpy() for _ in range(self.tasks)]).astype(np.int16)
