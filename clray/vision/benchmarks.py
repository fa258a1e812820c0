"""Benchmarks: named streams of tasks, each with its data protocol.

An MNIST task is a rearrangement of pixels: a permutation, or a rotation with nearest-neighbour sampling, in which
every pixel of the turned image shows one pixel of the original or nothing. So a benchmark is the image set, once, and
a pixel map a task: nothing is generated or stored, where the published archives hold 4 to 21 GB.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from clray.errors import DataError
from clray.vision.data import ImageSet, Source
from clray.vision.ranges import Count, Tasks

PIXELS = 784
SIDE = 28


class MnistStream(BaseModel):
    """Settings of a stream of MNIST tasks that differ in how their pixels are arranged."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    tasks: Tasks
    train_per_task: Count
    """Training examples a task, drawn anew for each task and seed from all that there are."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of the benchmark itself: its angles or permutations."""
    source: Source = "auto"
    """``files``: the published files or an error; ``embedded``: the 5,000 digits that ship with clray."""
    last_test_example: Literal["skipped", "scored"] = "skipped"
    """The official code never scores the last test example, yet divides by all: ``skipped`` does as it does."""

    dataset: Literal["mnist"] = "mnist"


class MnistRotations(MnistStream):
    """MNIST rotations, as GEM's ``mnist_rotations.py`` makes them.

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
        """The angles in degrees. Python's generator, as in the script, but seeded: the script never seeds it."""
        if self.angles is not None:
            return self.angles
        rng, angles = random.Random(self.seed), []
        for t in range(self.tasks):
            low, high = t / self.tasks * 180.0, (t + 1) / self.tasks * 180.0
            angles.append(rng.random() * (high - low) + low)
        return angles

    def pixel_maps(self) -> NDArray[np.int16]:
        """[tasks, 784]: which pixel of the original each pixel of the task shows; -1 for none."""
        return np.stack([rotation_map(angle) for angle in self.task_angles()])


class MnistPermutations(MnistStream):
    """MNIST permutations, as GEM's ``mnist_permutations.py`` makes them: the first task is permuted too."""

    name: Literal["mnist-permutations", "mnist-many-permutations"]

    def pixel_maps(self) -> NDArray[np.int16]:
        """[tasks, 784]: which pixel of the original each pixel of the task shows."""
        import torch

        rng = torch.Generator().manual_seed(self.seed)
        return np.stack([torch.randperm(PIXELS, generator=rng).numpy() for _ in range(self.tasks)]).astype(np.int16)


BENCHMARKS: dict[str, type[MnistStream]] = {
    "mnist-rotations": MnistRotations,
    "mnist-permutations": MnistPermutations,
    "mnist-many-permutations": MnistPermutations,
}


def rotation_map(angle: float) -> NDArray[np.int16]:
    """The pixel map of a turn by ``angle`` degrees, by turning an image of pixel numbers with Pillow.

    Pillow's ``rotate`` samples the nearest pixel and fills with zero, which the numbers, counted from 1, keep apart.
    """
    from PIL import Image

    numbers = np.arange(1, PIXELS + 1, dtype=np.int32).reshape(SIDE, SIDE)
    turned = np.asarray(Image.fromarray(numbers, mode="I").rotate(angle))
    return (turned.reshape(-1) - 1).astype(np.int16)


def arrange(images: NDArray[np.uint8], pixel_map: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Images [n, 784] as a task with this pixel map shows them."""
    return np.where(pixel_map >= 0, images[:, pixel_map], 0).astype(np.uint8)


@dataclass(frozen=True)
class Stream:
    """The training examples of a trial in the order of their arrival, and the test set of every task.

    Attributes:
        images: [N, 784] uint8, as their tasks show them.
        labels: [N] int64.
        tasks: [N] int64, each example's task as it is numbered in the stream (0 is learned first).
        sources: [N] int64, which training image each example is.
        test_images: [M, 784] uint8, as published: a task shows them through its pixel map.
        test_labels: [M] int64.
        pixel_maps: [T, 784] int16, by task of the stream.
        scored: how many of the M test examples are scored; accuracies are over M all the same.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    tasks: NDArray[np.int64]
    sources: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    pixel_maps: NDArray[np.int16]
    scored: int
    classes: int = 10

    @property
    def task_count(self) -> int:
        return len(self.pixel_maps)

    @property
    def inputs(self) -> int:
        return int(self.images.shape[1])

    def x(self, positions: Any) -> NDArray[np.float32]:
        """Examples [n, 784] as float32 in [0, 1]."""
        return self.images[positions].astype(np.float32) / np.float32(255)

    def test_x(self, task: int) -> NDArray[np.float32]:
        """The scored test examples of a task, [scored, 784], as float32 in [0, 1]."""
        return arrange(self.test_images[: self.scored], self.pixel_maps[task]).astype(np.float32) / np.float32(255)


def build(settings: MnistStream, images: ImageSet, order: list[int] | None, choose: Any) -> Stream:
    """The stream of one trial.

    Args:
        settings: the benchmark's.
        images: the image set it rearranges.
        order: the benchmark's tasks in the order of learning; None for their own order.
        choose: ``choose(available, tasks, count)`` gives each task's training examples in order of arrival.

    Raises:
        DataError: there are fewer training images than a task asks for.
    """
    available = len(images.train_labels)
    if settings.train_per_task > available:
        raise DataError(
            f"{settings.name}: train_per_task is {settings.train_per_task}, but there are only {available} images here"
        )
    maps = settings.pixel_maps()  # type: ignore[attr-defined]
    if order is not None:
        maps = maps[order]
    chosen = choose(available, settings.tasks, settings.train_per_task)
    sources = np.concatenate(chosen)
    return Stream(
        images=np.concatenate([arrange(images.train_images[c], m) for c, m in zip(chosen, maps, strict=True)]),
        labels=images.train_labels[sources],
        tasks=np.repeat(np.arange(settings.tasks), settings.train_per_task),
        sources=sources,
        test_images=images.test_images,
        test_labels=images.test_labels,
        pixel_maps=maps,
        scored=len(images.test_labels) - (settings.last_test_example == "skipped"),
    )
