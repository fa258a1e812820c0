"""Task-incremental benchmarks: tasks that come one after the other, each in minibatches and epochs.

A benchmark says which images a task has, which labels they carry, and how bytes become a network's input. Its images
lie once, as bytes, on the trial's device; a batch is gathered there. See docs/papers/tag.md and stable_sgd.md for
where each protocol comes from.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from clray.errors import DataError
from clray.vision.benchmarks import PIXELS, rotation_map
from clray.vision.data import ImageSet, Source
from clray.vision.datasets.resize import bilinear
from clray.vision.hessian import Curvature
from clray.vision.ranges import Count, Passes, Rate, Tasks

Images = dict[str, ImageSet]
"""The image sets that a benchmark reads, by name."""


class TaskBenchmark(BaseModel):
    """Settings that all of them share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    tasks: Tasks
    epochs: Passes = 1
    """Passes over a task's training images."""
    train_per_task: Count | None = None
    """Only so many of a task's training images, evenly spread over their published order; None for all."""
    test_per_task: Count | None = None
    """The same of its test images."""
    validation: bool = False
    """Hold out a tenth of each task's training images and evaluate on those: how hyper-parameters are searched.

    No test image is looked at then, so that ``test_per_task`` has no effect beside it.
    """
    source: Source = "auto"
    """``files``: the published files or an error; ``embedded``: what ships with clray (MNIST's 5,000 digits)."""
    curvature: Curvature | None = None
    """Measure the Hessian's top eigenvalues and the way that parameters went, after every task."""

    pixels: ClassVar[float] = 1.0
    """How many 32-pixel images a training image costs as much as, roughly. Plans tell of it, as of ``images``."""

    @property
    def images(self) -> int:
        """Training images of all tasks together in the whole data set, roughly."""
        return 60_000 * self.tasks

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the image sets it reads."""
        raise NotImplementedError

    @property
    def label_classes(self) -> int:
        """Classes of the data set: what a memory "per class" is counted in."""
        raise NotImplementedError

    @property
    def drops_last(self) -> bool:
        """Whether a last batch that is not full is left out."""
        return False

    @property
    def shuffles_while_validating(self) -> bool:
        """Whether training images are shuffled anew each epoch when a part is held out for validation."""
        return True

    def build(self, images: Images, seed: Any) -> TaskStream:
        """The tasks in their own order.

        Args:
            images: what ``datasets`` names.
            seed: numpy generator for what is drawn anew for every trial.

        Raises:
            DataError: there are fewer images than the settings ask for.
        """
        raise NotImplementedError


@dataclass
class Split:
    """The training or the test images of every task.

    Attributes:
        images: [N, C, H, W] uint8 (float32 in tests), all of them.
        labels: [N] int64, logits' indices for a task of label offset 0.
        members: by task, [n] int64: which images it has, in their published order.
    """

    images: Tensor
    labels: Tensor
    members: list[Tensor]

    def to(self, device: str) -> Split:
        return Split(self.images.to(device), self.labels.to(device), [indices.to(device) for indices in self.members])


@dataclass
class TaskStream:
    """A benchmark's tasks on the trial's device.

    Attributes:
        train, test: the images.
        offsets: by task, what is added to a label to name the logit it stands for.
        heads: by task, the first logit that is its own and the one after its last.
        outputs: logits of all tasks together.
        shape: channels, height and width of an image.
        pixel_maps: [T, pixels] which pixel of the original each pixel of a task shows (-1: none); None where images
            are shown as they are.
        scale: bytes to a network's input.
        label_classes: classes that a memory "per class" is counted in.
        drops_last, shuffles: the training loader's ways.
    """

    train: Split
    test: Split
    offsets: list[int]
    heads: list[tuple[int, int]]
    outputs: int
    shape: tuple[int, int, int]
    pixel_maps: Tensor | None
    scale: Callable[[Tensor], Tensor]
    label_classes: int
    drops_last: bool = False
    shuffles: bool = True

    @property
    def task_count(self) -> int:
        return len(self.heads)

    @property
    def device(self) -> torch.device:
        return self.train.images.device

    def to(self, device: str) -> TaskStream:
        """The same on another device."""
        maps = None if self.pixel_maps is None else self.pixel_maps.to(device)
        return replace(self, train=self.train.to(device), test=self.test.to(device), pixel_maps=maps)

    def reordered(self, order: Sequence[int]) -> TaskStream:
        """The same tasks in another order of learning."""

        def split(part: Split) -> Split:
            return replace(part, members=[part.members[t] for t in order])

        return replace(
            self,
            train=split(self.train),
            test=split(self.test),
            offsets=[self.offsets[t] for t in order],
            heads=[self.heads[t] for t in order],
            pixel_maps=None if self.pixel_maps is None else self.pixel_maps[list(order)],
        )

    def batch(self, task: int, indices: Tensor, split: str = "train") -> tuple[Tensor, Tensor]:
        """Inputs [n, C, H, W] float32 and labels [n] of the task's images ``indices``."""
        part: Split = getattr(self, split)
        members = part.members[task][indices]
        x = part.images[members]
        if self.pixel_maps is not None:
            x = self._shown(task, x)
        return self.scale(x), part.labels[members] + self.offsets[task]

    def _shown(self, task: int, images: Tensor) -> Tensor:
        """Images as a task shows them: a permutation of pixels, of which one more, at the end, is black."""
        assert self.pixel_maps is not None
        flat = torch.nn.functional.pad(images.flatten(1), (0, 1))
        return flat.index_select(1, self.pixel_maps[task] % flat.shape[1]).view(images.shape)

    def mixed_batch(self, tasks: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The same for training images ``indices`` [n] of the tasks ``tasks`` [n], as a memory holds them."""
        if len(unique := torch.unique(tasks).tolist()) == 1:
            return self.batch(unique[0], indices)
        x = torch.empty((len(tasks), *self.shape), device=self.device)
        y = torch.empty(len(tasks), dtype=torch.int64, device=self.device)
        for task in unique:
            own = tasks == task
            x[own], y[own] = self.batch(task, indices[own])
        return x, y


def unit(images: Tensor) -> Tensor:
    """[0, 1], as torchvision's ToTensor makes it."""
    return images.to(torch.float32).div_(255)


def centred(images: Tensor) -> Tensor:
    """[-1, 1], as TAG's code has it for mini-ImageNet."""
    return images.to(torch.float32).div_(255).sub_(0.5).mul_(2)


def _tensor(images: NDArray[np.uint8], shape: tuple[int, int, int]) -> Tensor:
    with warnings.catch_warnings():
        # A memory map cannot be written to, of which torch warns: nobody writes, and trials share its pages.
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(images).view(-1, *shape)


def _spread(indices: NDArray[np.int64], count: int | None, what: str) -> Tensor:
    """``count`` of ``indices``, evenly spread: where a data set goes class by class, its first images are of one."""
    if count is None:
        return torch.from_numpy(np.ascontiguousarray(indices))
    if count > len(indices):
        raise DataError(f"{what} is {count}, but a task has only {len(indices)} images here")
    return torch.from_numpy(indices[np.arange(count) * len(indices) // count])


class _MnistTasks(TaskBenchmark):
    """Tasks that show MNIST with rearranged pixels."""

    heads: Literal["single", "multi"] = "single"
    """``single``: ten logits for all tasks, and no task is told (Stable SGD). ``multi``: ten a task (TAG)."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = 0
    """Of the angles or permutations; None draws them anew for every trial."""

    @property
    def datasets(self) -> tuple[str, ...]:
        return ("mnist",)

    @property
    def label_classes(self) -> int:
        return 10

    def pixel_maps(self, rng: Any) -> NDArray[np.int16]:
        """[tasks, 784]."""
        raise NotImplementedError

    def build(self, images: Images, seed: Any) -> TaskStream:
        digits = images["mnist"]
        rng = np.random.RandomState(self.seed) if self.seed is not None else seed
        maps = torch.from_numpy(self.pixel_maps(rng).astype(np.int64))
        shape = (1, 28, 28)

        def split(pixels: NDArray[np.uint8], labels: NDArray[np.int64], count: int | None, what: str) -> Split:
            members = _spread(np.arange(len(labels)), count, f"{self.name}: {what}")
            return Split(_tensor(pixels, shape), torch.from_numpy(labels), [members] * self.tasks)

        multi = self.heads == "multi"
        return TaskStream(
            train=split(digits.train_images, digits.train_labels, self.train_per_task, "train_per_task"),
            test=split(digits.test_images, digits.test_labels, self.test_per_task, "test_per_task"),
            offsets=[10 * t if multi else 0 for t in range(self.tasks)],
            heads=[(10 * t, 10 * t + 10) if multi else (0, 10) for t in range(self.tasks)],
            outputs=10 * self.tasks if multi else 10,
            shape=shape,
            pixel_maps=maps,
            scale=unit,
            label_classes=self.label_classes,
        )


class RotatedMnist(_MnistTasks):
    """Task t (from 0) is turned by ``degrees`` t less an offset drawn from [0, ``degrees``), counter-clockwise."""

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


class PermutedMnist(_MnistTasks):
    """The first task shows the digits as they are, each other one with its pixels permuted.

    The official scripts draw the permutations without any seed; here they have one.
    """

    name: Literal["permuted-mnist"]

    def pixel_maps(self, rng: Any) -> NDArray[np.int16]:
        others = [rng.permutation(PIXELS) for _ in range(self.tasks - 1)]
        return np.stack([np.arange(PIXELS), *others]).astype(np.int16)


class _SplitClasses(TaskBenchmark):
    """Each task has the next few classes of one image set, in the order of their labels."""

    classes_per_task: Count | None = None
    """None divides all classes among the tasks. A number takes so many for each, and leaves the other classes out."""

    @property
    def label_classes(self) -> int:
        raise NotImplementedError

    def scale(self, images: Tensor) -> Tensor:
        return unit(images)

    @model_validator(mode="after")
    def _classes_divide(self) -> _SplitClasses:
        if self.classes_per_task is None and self.label_classes % self.tasks:
            raise ValueError(f"tasks: {self.label_classes} classes do not divide into {self.tasks} tasks")
        if self.tasks * (self.classes_per_task or 1) > self.label_classes:
            raise ValueError(f"classes_per_task: there are {self.label_classes} classes for {self.tasks} tasks")
        return self

    def build(self, images: Images, seed: Any) -> TaskStream:
        content = images[self.datasets[0]]
        shape = content.image_shape
        classes = self.classes_per_task or self.label_classes // self.tasks

        def split(pixels: NDArray[np.uint8], labels: NDArray[np.int64], count: int | None, what: str) -> Split:
            members = [
                _spread(np.flatnonzero(labels // classes == t), count, f"{self.name}: {what}")
                for t in range(self.tasks)
            ]
            return Split(_tensor(pixels, shape), torch.from_numpy(labels), members)

        return TaskStream(
            train=split(content.train_images, content.train_labels, self.train_per_task, "train_per_task"),
            test=split(content.test_images, content.test_labels, self.test_per_task, "test_per_task"),
            offsets=[0] * self.tasks,
            heads=[(t * classes, (t + 1) * classes) for t in range(self.tasks)],
            outputs=self.label_classes,
            shape=shape,
            pixel_maps=None,
            scale=self.scale,
            label_classes=self.label_classes,
            drops_last=self.drops_last,
            shuffles=self.shuffles_while_validating or not self.validation,
        )


class SplitCifar100(_SplitClasses):
    """CIFAR-100 in label order: 20 tasks of 5 classes, or 10 of 10."""

    name: Literal["split-cifar100"]
    tasks: Tasks = 20

    @property
    def images(self) -> int:
        return 50_000

    @property
    def datasets(self) -> tuple[str, ...]:
        return ("cifar100",)

    @property
    def label_classes(self) -> int:
        return 100

    @property
    def shuffles_while_validating(self) -> bool:
        return False


class SplitMiniImageNet(_SplitClasses):
    """mini-ImageNet at 84 pixels, 20 tasks of 5 classes; of every class 480 images for training, 120 for testing."""

    name: Literal["split-mini-imagenet"]
    tasks: Tasks = 20
    pixels = 7.0

    @property
    def images(self) -> int:
        return 48_000

    @property
    def datasets(self) -> tuple[str, ...]:
        return ("mini-imagenet",)

    @property
    def label_classes(self) -> int:
        return 100

    @property
    def drops_last(self) -> bool:
        return True

    def scale(self, images: Tensor) -> Tensor:
        return centred(images)


class SplitCub(_SplitClasses):
    """CUB-200 birds at 224 pixels, 20 tasks of 10 classes.

    As TAG's code scales them: the mean that is subtracted from red, green and blue is that of blue, green and red, and
    nothing is divided by 255, so that inputs run from about -250 to 300.
    """

    name: Literal["split-cub"]
    tasks: Tasks = 20

    @property
    def images(self) -> int:
        return 6_000

    @property
    def datasets(self) -> tuple[str, ...]:
        return ("cub",)

    @property
    def label_classes(self) -> int:
        return 200

    @property
    def drops_last(self) -> bool:
        return True

    def scale(self, images: Tensor) -> Tensor:
        mean = torch.tensor([103.94, 116.78, 123.68], device=images.device).view(3, 1, 1)
        return images.to(torch.float32).sub_(mean).sub_(0.5).mul_(2)


class FiveDatasets(TaskBenchmark):
    """CIFAR-10, MNIST, SVHN, notMNIST and Fashion-MNIST, ten classes each, at 32 pixels in colour.

    The network has 100 logits in the official code, of which the first 50 are used.
    """

    name: Literal["5-dataset"]
    tasks: Annotated[int, Field(ge=1, le=5)] = 5

    @property
    def images(self) -> int:
        return 260_000

    @property
    def datasets(self) -> tuple[str, ...]:
        return ("cifar10", "mnist", "svhn", "notmnist", "fashion-mnist")[: self.tasks]

    @property
    def label_classes(self) -> int:
        return 50

    @property
    def shuffles_while_validating(self) -> bool:
        return False

    def build(self, images: Images, seed: Any) -> TaskStream:
        def split(part: str, count: int | None) -> Split:
            pixels, labels, members, begin = [], [], [], 0
            for name in self.datasets:
                content = images[name]
                own = getattr(content, f"{part}_labels")
                chosen = _spread(np.arange(len(own)), count, f"{self.name}, {name}: {part}_per_task").numpy()
                raw = getattr(content, f"{part}_images")[chosen]
                pixels.append(_coloured(raw.reshape(-1, *content.image_shape)))
                labels.append(torch.from_numpy(own[chosen]))
                members.append(torch.arange(begin, begin + len(chosen)))
                begin += len(chosen)
            return Split(torch.cat(pixels), torch.cat(labels), members)

        return TaskStream(
            train=split("train", self.train_per_task),
            test=split("test", self.test_per_task),
            offsets=[10 * t for t in range(self.tasks)],
            heads=[(10 * t, 10 * t + 10) for t in range(self.tasks)],
            outputs=100,
            shape=(3, 32, 32),
            pixel_maps=None,
            scale=unit,
            label_classes=self.label_classes,
            shuffles=not self.validation,
        )


def _coloured(images: NDArray[np.uint8]) -> Tensor:
    """[n, 3, 32, 32] uint8 of images [n, 1 or 3, H, W]: enlarged bilinearly, grey in all three channels."""
    if images.shape[-2:] != (32, 32):
        parts = [bilinear(images[begin : begin + 4096], 32, 32) for begin in range(0, len(images), 4096)]
        images = np.concatenate([np.clip(part + 0.5, 0, 255).astype(np.uint8) for part in parts])
    return torch.from_numpy(np.ascontiguousarray(images)).expand(-1, 3, -1, -1).contiguous()


TASK_BENCHMARKS: dict[str, type[TaskBenchmark]] = {
    "rotated-mnist": RotatedMnist,
    "permuted-mnist": PermutedMnist,
    "split-cifar100": SplitCifar100,
    "split-mini-imagenet": SplitMiniImageNet,
    "split-cub": SplitCub,
    "5-dataset": FiveDatasets,
}


def hold_out(stream: TaskStream, rng: Any) -> TaskStream:
    """A tenth of each task's training images in place of its test images, drawn with ``rng``; the rest trains."""
    kept, held = [], []
    for members in stream.train.members:
        order = torch.from_numpy(rng.permutation(len(members)))
        share = len(members) // 10
        if not share:
            raise DataError(f"validation holds out a tenth of a task's images, and a task has only {len(members)} here")
        held.append(members[order[:share]])
        kept.append(members[order[share:]])
    return replace(stream, train=replace(stream.train, members=kept), test=replace(stream.train, members=held))
