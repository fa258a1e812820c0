"""Image sets whose classes are divided among tasks: CIFAR-100, mini-ImageNet and CUB-200, as in TAG's code.

Protocols: docs/papers/tag.md and stable_sgd.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from clray.vision.benchmarks.dividing import refuse_rest
from clray.vision.benchmarks.in_epochs import InEpochs
from clray.vision.datasets.published import ImageSet
from clray.vision.ranges import Count, Tasks

if TYPE_CHECKING:
    from torch import Tensor

    from clray.vision.draws import Draws
    from clray.vision.stream import Stream


class SplitClasses(InEpochs):
    """Each task has the next few classes of one image set, in the order of their labels."""

    classes_per_task: Count | None = None
    """None divides all classes among the tasks. A number takes so many for each, and leaves the other classes out."""

    official = "clray.vision.official.tag"
    official_evaluation_draws = True

    def scale(self, images: Tensor) -> Tensor:
        """Scale bytes to a network's input."""
        from clray.vision.stream import unit

        return unit(images)

    @model_validator(mode="after")
    def _classes_divide(self) -> SplitClasses:
        if self.classes_per_task is None:
            refuse_rest(self.label_classes, self.tasks)
        if self.tasks * (self.classes_per_task or 1) > self.label_classes:
            raise ValueError(f"classes_per_task: there are {self.label_classes} classes for {self.tasks} tasks")
        return self

    def build(self, images: dict[str, ImageSet], draws: Draws) -> Stream:
        from clray.vision.stream import evenly, from_members
        from clray.vision.stream import images as as_images

        content = images[self.datasets[0]]
        self._check_classes(content)
        classes = self.classes_per_task or self.label_classes // self.tasks

        def of_tasks(labels: NDArray[np.int64], count: int | None, what: str) -> list[NDArray[np.int64]]:
            own = (np.flatnonzero(labels // classes == t) for t in range(self.tasks))
            return [evenly(indices, count, f"{self.name}: {what}") for indices in own]

        return from_members(
            as_images(content.train_images, content.train_labels, content.image_shape),
            as_images(content.test_images, content.test_labels, content.image_shape),
            members=of_tasks(content.train_labels, self.train_per_task, "train_per_task"),
            tests=of_tasks(content.test_labels, self.test_per_task, "test_per_task"),
            heads=[(t * classes, (t + 1) * classes) for t in range(self.tasks)],
            offsets=[0] * self.tasks,
            outputs=self.label_classes,
            scale=self.scale,
            label_classes=self.label_classes,
            drops_last=self.drops_last,
            shuffles=self.shuffles_while_validating or not self.validation,
        )

    def _check_classes(self, content: ImageSet) -> None:
        """Refuse a number of classes that is not the image set's.

        Raises:
            DataError: the labels have another number of classes than ``label_classes`` says.
        """
        from clray.errors import DataError

        known = int(content.train_labels.max()) + 1
        if known != self.label_classes:
            message = f"label_classes is {self.label_classes}, but {self.datasets[0]} has {known} classes here"
            raise DataError(f"{self.name}: {message}")


class SplitCifar100(SplitClasses):
    """CIFAR-100 in label order: 20 tasks of 5 classes, or 10 of 10."""

    name: Literal["split-cifar100"]
    tasks: Tasks = 20

    image_count = 50_000
    datasets = ("cifar100",)
    label_classes = 100
    shuffles_while_validating = False


class SplitMiniImageNet(SplitClasses):
    """mini-ImageNet at 84 pixels: 20 tasks of 5 classes, with 480 training and 120 test images for each class."""

    name: Literal["split-mini-imagenet"]
    tasks: Tasks = 20
    image_cost = 7.0

    image_count = 48_000
    datasets = ("mini-imagenet",)
    label_classes = 100
    drops_last = True

    def scale(self, images: Tensor) -> Tensor:
        from clray.vision.stream import centred

        return centred(images)


class SplitCub(SplitClasses):
    """CUB-200 birds at 224 pixels, 20 tasks of 10 classes.

    Images are scaled as in TAG's code: the means subtracted from red, green and blue are those of blue, green and red,
    and nothing is divided by 255. So inputs range from about -250 to 300.
    """

    name: Literal["split-cub"]
    tasks: Tasks = 20

    image_count = 6_000
    datasets = ("cub",)
    label_classes = 200
    drops_last = True

    def scale(self, images: Tensor) -> Tensor:
        import torch

        mean = torch.tensor([103.94, 116.78, 123.68], device=images.device).view(3, 1, 1)
        return images.to(torch.float32).sub_(mean).sub_(0.5).mul_(2)
