"""A trial's examples: images that lie once on its device, and the experiences in which they arrive.

Every training example has a number, 0 to N - 1. Memories, batches, plans and kernels speak in numbers; which image an
example is, what its label is and which experience it belongs to are arrays by number. So a batch of examples of several
experiences is one gather.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clray.errors import DataError

Numbers = NDArray[np.int64]
"""Numbers of training examples, [n]."""


@dataclass(frozen=True)
class Experience:
    """What arrives between two changes of the stream: a task, where a benchmark has tasks.

    Attributes:
        examples: numbers of its training examples, in the order in which the data set or the benchmark has them.
        tests: which of the stream's test images are its own.
        logits: its first logit and the one after its last.
        label_offset: is added to an image's label to name its logit.
        test_count: by how many the right answers are divided; None: by as many as there are ``tests``.
    """

    examples: Numbers
    tests: NDArray[np.int64]
    logits: tuple[int, int]
    label_offset: int = 0
    test_count: int | None = None

    @property
    def accuracy_divisor(self) -> int:
        return len(self.tests) if self.test_count is None else self.test_count


@dataclass(frozen=True)
class Images:
    """Images [M, C, H, W], uint8 (float32 in tests), and their labels [M] int64 as the data set has them."""

    pixels: Tensor
    labels: Tensor

    def to(self, device: str) -> Images:
        return Images(self.pixels.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Stream:
    """All examples of a trial, on its device.

    Attributes:
        train, test: the images.
        image: [N] which training image each example is.
        owner: [N] the experience each example belongs to, as the stream numbers them (0 is learned first).
        experiences: in the order of learning.
        outputs: logits of all experiences together.
        scale: turns bytes into a network's input.
        pixel_maps: [experiences, pixels] int64: which pixel of the original each pixel shows in an experience, -1 for a
            black one; None where images are shown as they are.
        label_classes: classes in which a memory "per class" counts.
        drops_last: a last batch that is not full is left out.
        shuffles: every pass over an experience has a new order; otherwise all have that of ``Experience.examples``.
    """

    train: Images
    test: Images
    image: Numbers
    owner: Numbers
    experiences: Sequence[Experience]
    outputs: int
    scale: Callable[[Tensor], Tensor]
    pixel_maps: NDArray[np.int64] | None = None
    label_classes: int = 10
    drops_last: bool = False
    shuffles: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height and width of an image."""
        return tuple(self.train.pixels.shape[1:])

    @property
    def device(self) -> torch.device:
        return self.train.pixels.device

    def __len__(self) -> int:
        return len(self.image)

    def to(self, device: str) -> Stream:
        """The same on another device."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))

    @cached_property
    def _image(self) -> Tensor:
        return torch.from_numpy(self.image).to(self.device)

    @cached_property
    def owners(self) -> Tensor:
        """``owner`` on the device."""
        return torch.from_numpy(self.owner).to(self.device)

    @cached_property
    def labels(self) -> Tensor:
        """[N] int64: the logit of each example's class."""
        offsets = torch.tensor([e.label_offset for e in self.experiences], device=self.device)
        return self.train.labels[self._image] + offsets[self.owners]

    @cached_property
    def _maps(self) -> Tensor:
        """The pixel maps on the device. A black pixel is appended to an image, and stands where a map has -1."""
        assert self.pixel_maps is not None
        maps = torch.from_numpy(self.pixel_maps)
        return torch.where(maps < 0, maps.shape[1], maps).to(self.device)

    def on_device(self, numbers: Numbers) -> Tensor:
        return torch.from_numpy(numbers).to(self.device)

    def pixels(self, numbers: Numbers) -> Tensor:
        """Training examples as their experiences show them, [n, C, H, W] in bytes."""
        index = self.on_device(numbers)
        images = self.train.pixels[self._image[index]]
        return images if self.pixel_maps is None else _rearranged(images, self._maps[self.owners[index]])

    def examples(self, numbers: Numbers) -> tuple[Tensor, Tensor]:
        """A network's inputs [n, C, H, W] float32 and the logits of the true classes [n] int64."""
        return self.scale(self.pixels(numbers)), self.labels[self.on_device(numbers)]

    def tests(self, experience: int, begin: int = 0, end: int | None = None) -> tuple[Tensor, Tensor]:
        """The same for an experience's test images from ``begin`` to ``end``."""
        own = self.experiences[experience]
        index = self.on_device(own.tests[begin:end])
        images = self.test.pixels[index]
        if self.pixel_maps is not None:
            images = _rearranged(images, self._maps[experience].expand(len(images), -1))
        return self.scale(images), self.test.labels[index] + own.label_offset

    def reordered(self, order: Sequence[int]) -> Stream:
        """The same experiences in another order of learning. Every example keeps its number."""
        place = np.empty(len(order), np.int64)
        place[list(order)] = np.arange(len(order))
        return replace(
            self,
            owner=place[self.owner],
            experiences=[self.experiences[e] for e in order],
            pixel_maps=None if self.pixel_maps is None else self.pixel_maps[list(order)],
        )

    def with_held_out(self, rng: np.random.RandomState) -> Stream:
        """A tenth of each experience's training examples takes the place of its test images; the rest trains.

        Args:
            rng: draws which ones.

        Raises:
            DataError: an experience has fewer than ten training examples.
        """
        changed = []
        for own in self.experiences:
            count = len(own.examples)
            order, share = rng.permutation(count), count // 10
            if not share:
                raise DataError(f"validation holds out a tenth of a task's images, and a task has only {count} here")
            kept, held = own.examples[order[share:]], own.examples[order[:share]]
            changed.append(replace(own, examples=kept, tests=self.image[held]))
        return replace(self, test=self.train, experiences=changed)


def _rearranged(images: Tensor, maps: Tensor) -> Tensor:
    """Images with their pixels rearranged, each by its row of ``maps``, where the number of pixels stands for black."""
    flat = torch.nn.functional.pad(images.flatten(1), (0, 1))
    return flat.gather(1, maps).view(images.shape)


class Batch:
    """Examples that arrive together.

    Attributes:
        numbers: [n] their numbers.
        experience: the one they belong to; None where the benchmark hides that from the method.
        x: a network's inputs [n, C, H, W] float32, gathered when they are first asked for.
        y: the logits of their true classes, [n] int64.
    """

    __slots__ = ("_gathered", "_stream", "experience", "numbers")

    def __init__(self, stream: Stream, numbers: Numbers, experience: int | None) -> None:
        self._stream, self.numbers, self.experience = stream, numbers, experience
        self._gathered: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def _gather(self) -> tuple[Tensor, Tensor]:
        if self._gathered is None:
            self._gathered = self._stream.examples(self.numbers)
        return self._gathered

    @property
    def x(self) -> Tensor:
        return self._gather()[0]

    @property
    def y(self) -> Tensor:
        return self._gather()[1]


# ----------------------------------------------------------------------------------------------------------------------
# What benchmarks build streams from


def images(pixels: Any, labels: Any, shape: Sequence[int]) -> Images:
    """Arrays of a data set as ``Images``, not copied.

    Args:
        pixels: [M, ...] uint8.
        labels: [M] int64.
        shape: channels, height and width.
    """
    with warnings.catch_warnings():
        # torch warns of an array that cannot be written to, such as a memory map. Nobody writes to it here.
        warnings.simplefilter("ignore", UserWarning)
        return Images(torch.from_numpy(pixels).view(-1, *shape), torch.from_numpy(labels))


def from_members(
    train: Images,
    test: Images,
    members: Sequence[NDArray[np.int64]],
    tests: Sequence[NDArray[np.int64]],
    heads: Sequence[tuple[int, int]],
    offsets: Sequence[int],
    **settings: Any,
) -> Stream:
    """A stream whose experiences have these images.

    Args:
        members: by experience, which training images it has.
        tests: by experience, which test images it has.
        heads: by experience, its first logit and the one after its last.
        offsets: by experience, what is added to a label.
        settings: the other attributes of ``Stream``.
    """
    sizes = [len(m) for m in members]
    numbers = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    parts = zip(numbers, tests, heads, offsets, strict=True)
    return Stream(
        train=train,
        test=test,
        image=np.concatenate(members),
        owner=np.repeat(np.arange(len(sizes)), sizes),
        experiences=[Experience(*part) for part in parts],
        **settings,
    )


def evenly(indices: NDArray[np.int64], count: int | None, what: str) -> NDArray[np.int64]:
    """``count`` of ``indices`` at equal distances. The first ones would be of one class where images lie by class.

    Args:
        count: None for all.
        what: what ``count`` is called, for the error.

    Raises:
        DataError: there are fewer.
    """
    if count is None:
        return np.ascontiguousarray(indices)
    if count > len(indices):
        raise DataError(f"{what} is {count}, but a task has only {len(indices)} images here")
    return indices[np.arange(count) * len(indices) // count]


def unit(pixels: Tensor) -> Tensor:
    """[0, 1], as torchvision's ToTensor makes it."""
    return pixels.to(torch.float32).div_(255)


def centred(pixels: Tensor) -> Tensor:
    """[-1, 1], as TAG's code has it for mini-ImageNet."""
    return pixels.to(torch.float32).div_(255).sub_(0.5).mul_(2)
