"""MNIST with its pixels rearranged, learned in epochs: the rotations and permutations of Stable SGD and TAG.

Protocols: docs/papers/stable_sgd.md and tag.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from clray.vision.benchmarks.in_epochs import InEpochs
from clray.vision.benchmarks.pixels import PIXELS, SIDE, rotation_map
from clray.vision.datasets.published import ImageSet
from clray.vision.ranges import Rate

if TYPE_CHECKING:
    from clray.vision.draws import Draws
    from clray.vision.stream import Stream


class _RearrangedMnist(InEpochs):
    """The settings that these benchmarks share: each task shows MNIST with its pixels rearranged."""

    heads: Literal["single", "multi"] = "single"
    """``single``: ten logits for all tasks, and no task is told (Stable SGD). ``multi``: ten a task (TAG)."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = 0
    """Draws the angles or permutations; None draws them anew for every trial."""

    official = "clray.vision.official.tag"
    official_evaluation_draws = True

    @property
    def examples_of_task(self) -> float:
        return self.train_per_task or self.image_count

    datasets = ("mnist",)
    label_classes = 10

    def pixel_maps(self, rng: Any) -> NDArray[np.int16]:
        """The pixel maps [tasks, 784], as ``pixels.rotation_map`` makes them."""
        raise NotImplementedError

    def build(self, images: dict[str, ImageSet], draws: Draws) -> Stream:
        from clray.vision.stream import evenly, from_members, unit
        from clray.vision.stream import images as as_images

        digits = images["mnist"]
        rng = np.random.RandomState(self.seed) if self.seed is not None else draws.benchmark
        maps = self.pixel_maps(rng).astype(np.int64)
        train = evenly(np.arange(len(digits.train_labels)), self.train_per_task, f"{self.name}: train_per_task")
        test = evenly(np.arange(len(digits.test_labels)), self.test_per_task, f"{self.name}: test_per_task")
        multi = self.heads == "multi"
        return from_members(
            as_images(digits.train_images, digits.train_labels, (1, SIDE, SIDE)),
            as_images(digits.test_images, digits.test_labels, (1, SIDE, SIDE)),
            members=[train] * self.tasks,
            tests=[test] * self.tasks,
            heads=[(10 * t, 10 * t + 10) if multi else (0, 10) for t in range(self.tasks)],
            offsets=[10 * t if multi else 0 for t in range(self.tasks)],
            outputs=10 * self.tasks if multi else 10,
            scale=unit,
            pixel_maps=maps,
            label_classes=self.label_classes,
        )


class RotatedMnist(_RearrangedMnist):
    """Task t (from 0) is turned counter-clockwise by t * ``degrees`` minus an offset drawn from [0, ``degrees``)."""

    name: Literal["rotated-mnist"]
    degrees: Rate = 10.0
    angles: list[float] | None = None
    """Degrees, one a task, in place of drawn ones."""

    @model_validator(mode="after")
    def _one_angle_a_task(self) -> RotatedMnist:
        if self.angles is not None and len(self.angles) != self.tasks:
            raise ValueError(f"angles: {len(self.angles)} angles for {self.tasks} tasks")
        return self

    def pixel_maps(self, rng: Any) -> NDArray[np.int16]:
        angles = self.angles
        if angles is None:
            angles = [t * self.degrees - rng.random_sample() * self.degrees for t in range(self.tasks)]
        return np.stack([rotation_map(angle) for angle in angles])


class PermutedMnist(_RearrangedMnist):
    """The first task shows the digits unchanged; every other task permutes their pixels.

    The official scripts draw the permutations without a seed; here they have one.
    """

    name: Literal["permuted-mnist"]

    def pixel_maps(self, rng: Any) -> NDArray[np.int16]:
        others = [rng.permutation(PIXELS) for _ in range(self.tasks - 1)]
        return np.stack([np.arange(PIXELS), *others]).astype(np.int16)
