"""A trial's stream: images that are held once on its device, and the experiences in which the examples arrive.

Every training example has a number, 0 to N - 1. Memories, batches, plans and kernels hold these numbers. Arrays indexed
by the number give the example's image, label and experience. So one gather fetches a batch of examples from several
experiences.
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
    """A part of the stream within which the data does not change: a task, where the benchmark has tasks.

    Attributes:
        examples: numbers of its training examples, in the order in which the data set or the benchmark has them.
        tests: indices of its test images among the stream's test images.
        logits: the range of its logits: the first, and one past the last.
        label_offset: the number added to an image's label to get the index of its logit.
        test_count: the divisor of the number of right answers; None for the length of ``tests``.
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
        image: [N] the index of each example's training image.
        owner: [N] the experience of each example, as the stream numbers them (0 is learned first).
        experiences: in the order of learning.
        outputs: number of logits of all experiences together.
        scale: turns bytes into a network's input.
        pixel_maps: [experiences, pixels] int64: the index of the original pixel that each pixel shows in an experience,
            -1 for a black one; None where pixels are not rearranged.
        label_classes: number of classes that a memory "per class" distinguishes.
        drops_last: leave out a last batch that is not full.
        shuffles: every pass over an experience has a new order; otherwise all have that of ``Experience.examples``.
        tested: where experiences share classes, the test images of each class, by the index of its logit; else None,
            and the test images of each experience are measured.
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
    tested: Sequence[Experience] | None = None

    @property
    def groups(self) -> Sequence[Experience]:
        """The parts of the test set that are measured one by one: of each experience, or of each class (``tested``)."""
        return self.experiences if self.tested is None else self.tested

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
        """The same stream on another device."""
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
        """The index [N] int64 of the logit of each example's class."""
        offsets = torch.tensor([e.label_offset for e in self.experiences], device=self.device)
        return self.train.labels[self._image] + offsets[self.owners]

    @cached_property
    def _maps(self) -> Tensor:
        """The pixel maps on the device. A black pixel is appended to every image, and -1 in a map becomes its index."""
        assert self.pixel_maps is not None
        maps = torch.from_numpy(self.pixel_maps)
        return torch.where(maps < 0, maps.shape[1], maps).to(self.device)

    def on_device(self, numbers: Numbers) -> Tensor:
        return torch.from_numpy(numbers).to(self.device)

    def pixels(self, numbers: Numbers) -> Tensor:
        """Training examples with their pixels rearranged as their experiences require, [n, C, H, W] uint8."""
        index = self.on_device(numbers)
        images = self.train.pixels[self._image[index]]
        return images if self.pixel_maps is None else _rearranged(images, self._maps[self.owners[index]])

    def examples(self, numbers: Numbers) -> tuple[Tensor, Tensor]:
        """A network's inputs [n, C, H, W] float32, and which logit is that of the true class [n] int64."""
        return self.scale(self.pixels(numbers)), self.labels[self.on_device(numbers)]

    def tests(self, group: int, begin: int = 0, end: int | None = None) -> tuple[Tensor, Tensor]:
        """A group's test images from ``begin`` to ``end``, as ``examples`` gives training images."""
        own = self.groups[group]
        index = self.on_device(own.tests[begin:end])
        images = self.test.pixels[index]
        if self.pixel_maps is not None:
            images = _rearranged(images, self._maps[group].expand(len(images), -1))
        return self.scale(images), self.test.labels[index] + own.label_offset

    def reordered(self, order: Sequence[int]) -> Stream:
        """A stream of the same experiences in another order of learning. Every example keeps its number."""
        place = np.empty(len(order), np.int64)
        place[list(order)] = np.arange(len(order))
        return replace(
            self,
            owner=place[self.owner],
            experiences=[self.experiences[e] for e in order],
            pixel_maps=None if self.pixel_maps is None else self.pixel_maps[list(order)],
        )

    def with_held_out(self, rng: np.random.RandomState) -> Stream:
        """A stream that tests on a tenth of each experience's training examples and trains on the rest.

        Args:
            rng: draws the examples that are held out.

        Raises:
            DataError: an experience has fewer than ten training examples.
        """
        assert self.tested is None  # else their test images would still be those of the test set
        changed = []
        for own in self.experiences:
            count = len(own.examples)
            order, share = rng.permutation(count), count // 10
            if not share:
                raise DataError(f"validation holds out a tenth of a task's images, and a task has only {count} here")
            kept, held = own.examples[order[share:]], own.examples[order[:share]]
            changed.append(replace(own, examples=kept, tests=self.image[held], test_count=None))
        return replace(self, test=self.train, experiences=changed)


def _rearranged(images: Tensor, maps: Tensor) -> Tensor:
    """Rearrange each image's pixels by its row of ``maps``; an index equal to the number of pixels gives black."""
    flat = torch.nn.functional.pad(images.flatten(1), (0, 1))
    return flat.gather(1, maps).view(images.shape)


class Batch:
    """Examples that arrive together.

    Attributes:
        numbers: [n] their numbers.
        experience: the experience they belong to; None where the benchmark hides it from the method.
        x: a network's inputs [n, C, H, W] float32, gathered at their first use.
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
# Functions with which benchmarks build streams


def images(pixels: Any, labels: Any, shape: Sequence[int]) -> Images:
    """``Images`` that use the memory of a data set's arrays; nothing is copied.

    Args:
        pixels: [M, ...] uint8.
        labels: [M] int64.
        shape: channels, height and width.
    """
    with warnings.catch_warnings():
        # torch warns of a read-only array, such as a memory map. No code here writes to it.
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
    """Build a stream whose experiences have these images.

    Args:
        members: the indices of each experience's training images.
        tests: the indices of each experience's test images.
        heads: the range of each experience's logits: the first, and one past the last.
        offsets: the number added to the labels of each experience.
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
    """``count`` of ``indices`` at equal distances. The first ones would be of one class where images are sorted by
    class.

    Args:
        count: None for all.
        what: the name of ``count``, for the error.

    Raises:
        DataError: there are fewer indices than ``count``.
    """
    if count is None:
        return np.ascontiguousarray(indices)
    if count > len(indices):
        raise DataError(f"{what} is {count}, but a task has only {len(indices)} images here")
    return indices[np.arange(count) * len(indices) // count]


def unit(pixels: Tensor) -> Tensor:
    """Scale bytes to [0, 1], as torchvision's ToTensor does."""
    return pixels.to(torch.float32).div_(255)


def centred(pixels: Tensor) -> Tensor:
    """Scale bytes to [-1, 1], as TAG's code does for mini-ImageNet."""
    return pixels.to(torch.float32).div_(255).sub_(0.5).mul_(2)
