"""Class-incremental streams: classes of one image set arrive task by task, and one head must tell all of them apart.

Protocols: docs/papers/online.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from clray.vision.benchmarks.base import Benchmark
from clray.vision.benchmarks.dividing import refuse_rest
from clray.vision.datasets.published import ImageSet
from clray.vision.ranges import Count, Passes, Tasks

if TYPE_CHECKING:
    from clray.vision.draws import Draws
    from clray.vision.stream import Stream

CLASSES = {"mnist": 10, "fashion-mnist": 10, "cifar10": 10, "cifar100": 100}
"""The image sets that these streams are made of, with their numbers of classes."""
IMAGES = {"mnist": 60_000, "fashion-mnist": 60_000, "cifar10": 50_000, "cifar100": 50_000}
"""Training images of each, for plans."""
CHANNELS: dict[str, dict[str, tuple[tuple[float, ...], tuple[float, ...]]]] = {
    # the official codes' means and deviations of the channels, in [0, 1]
    "mammoth": {
        "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2615)),
        "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    },
    "onpro": dict.fromkeys(
        ("cifar10", "cifar100"),
        ((125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255)),
    ),
    # from -1 to 1, as the codes of MIR's and ER-ACE's authors have images in colour
    "centred": {
        **dict.fromkeys(("mnist", "fashion-mnist"), ((0.5,), (0.5,))),
        **dict.fromkeys(("cifar10", "cifar100"), ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))),
    },
}


class OfClasses(Benchmark):
    """The settings of all streams made from the classes of one image set."""

    dataset: Literal["mnist", "fashion-mnist", "cifar10", "cifar100"]
    classes: Annotated[list[Annotated[int, Field(ge=0, lt=100)]], Field(min_length=2)] | None = None
    """Only these classes, by their labels in the data set; None for all."""
    class_order: Literal["labels", "trial"] | Annotated[int, Field(ge=0, lt=2**63)] | list[int] = "labels"
    """The order in which classes arrive: that of their labels, drawn with each trial's seed, drawn with a seed of its
    own (a number), or this list of labels. The classes get their logits in this order."""
    train_per_class: Count | None = None
    """Only so many training images of each class, evenly spread over their published order; None for all."""
    test_per_class: Count | None = None
    """The same of its test images."""
    validation: bool = False
    """Hold out a tenth of each class's training images, and evaluate on those. No test image is looked at then."""
    boundaries: Literal["given", "hidden"] = "given"
    """``given``: the method is told which task a batch belongs to, and when one begins and ends."""
    normalise: Literal["none", "mammoth", "onpro", "centred"] = "none"
    """Subtract the means of the channels and divide by their deviations, with the numbers of that code; ``centred``
    brings every channel from [0, 1] to [-1, 1]."""

    learner = "incremental"
    measures_seen = True

    @property
    def datasets(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.dataset,)

    @property
    def label_classes(self) -> int:  # type: ignore[override]
        return len(self.classes) if self.classes is not None else CLASSES[self.dataset]

    @property
    def hides_boundaries(self) -> bool:  # type: ignore[override]
        return self.boundaries == "hidden"

    @property
    def normalisation(self) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
        """The mean and the deviation of each channel; None where images are not normalised."""
        return (None, None) if self.normalise == "none" else CHANNELS[self.normalise][self.dataset]

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """The ranges of logits among which an answer is looked for, where labels have several levels; else empty."""
        return ()

    @property
    def examples_of_task(self) -> float:
        each = IMAGES[self.dataset] / CLASSES[self.dataset]
        return self.label_classes * min(self.train_per_class or each, each) / self.tasks

    @property
    def tests_of_task(self) -> float:
        return self.label_classes * min(self.test_per_class or 1000, 10_000 / CLASSES[self.dataset]) / self.tasks

    @field_validator("class_order", mode="before")
    @classmethod
    def _is_an_order(cls, value: Any) -> Any:
        is_seed = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
        if value in ("labels", "trial") or is_seed or isinstance(value, list):
            return value
        raise ValueError(f"{value!r:.50}; allowed: labels, trial, a seed from 0, or a list of labels")

    @model_validator(mode="after")
    def _classes_exist(self) -> OfClasses:
        known = CLASSES[self.dataset]
        labels = list(range(known)) if self.classes is None else self.classes
        for wrong in [label for i, label in enumerate(labels) if label >= known or label in labels[:i]]:
            problem = "stands twice" if wrong < known else f"is not a label of {self.dataset}"
            raise ValueError(f"classes: {wrong} {problem}; allowed: labels from 0 to {known - 1}, each once")
        if isinstance(self.class_order, list) and sorted(self.class_order) != sorted(labels):
            shown = ", ".join(map(str, sorted(labels)[:20])) + (" …" if len(labels) > 20 else "")
            raise ValueError(f"class_order: a list must hold each of the stream's classes once: {shown}")
        return self._known_channels()

    def _known_channels(self) -> OfClasses:
        if self.normalise != "none" and self.dataset not in CHANNELS[self.normalise]:
            raise ValueError(f"normalise: {self.normalise} has no numbers for {self.dataset}; allowed here: none")
        return self

    def arriving(self, draws: Draws) -> list[int]:
        """The labels of the classes in the order in which they arrive."""
        labels = sorted(self.classes) if self.classes is not None else list(range(CLASSES[self.dataset]))
        return self.ordered(labels, draws)

    def ordered(self, labels: list[int], draws: Draws) -> list[int]:
        """Put labels into the order that ``class_order`` says."""
        from clray.training import generator

        if self.class_order == "labels":
            return labels
        if isinstance(self.class_order, list):
            return self.class_order
        rng = draws.keyed("class order") if self.class_order == "trial" else generator(self.class_order, "class order")
        return [labels[i] for i in rng.permutation(len(labels))]

    def by_class(self, images: dict[str, ImageSet], draws: Draws) -> ByClass:
        """The images of each class in the order of arrival, with the labels renamed to their logits."""
        return ByClass.of(images[self.dataset], self.arriving(draws), self, draws)


class ByClass:
    """The images of a stream's classes: ``train[c]`` and ``test[c]`` are the indices of those with the logit c.

    Attributes:
        images: of both parts; with ``validation`` the test part is the training part.
    """

    def __init__(self, images: Any, train: list[NDArray[np.int64]], test: list[NDArray[np.int64]]) -> None:
        self.images, self.train, self.test = images, train, test

    @classmethod
    def of(cls, content: ImageSet, labels: Sequence[int], settings: OfClasses, draws: Draws) -> ByClass:
        from clray.errors import DataError
        from clray.vision.stream import evenly, images

        name = {label: logit for logit, label in enumerate(labels)}
        known = max(max(labels), int(content.train_labels.max()), int(content.test_labels.max())) + 1
        logits = np.array([name.get(label, -1) for label in range(known)])
        parts = []
        for part in ("train", "test"):
            pixels, own = getattr(content, f"{part}_images"), logits[getattr(content, f"{part}_labels")]
            count = getattr(settings, f"{part}_per_class")
            what = f"{settings.name}: {part}_per_class"
            members = [np.flatnonzero(own == c) for c in range(len(labels))]
            if part == "train" or not settings.validation:
                fewest = min(map(len, members))
                if count is not None and count > fewest:
                    raise DataError(f"{what} is {count}, but a class has only {fewest} images here")
                members = [evenly(member, count, what) for member in members]
            parts.append((images(pixels, own, content.image_shape), members))
        (train, learned), (test, tested) = parts
        if settings.validation:
            test, tested = train, []
            for c, member in enumerate(learned):
                order, share = draws.benchmark.permutation(len(member)), len(member) // 10
                if not share:
                    raise DataError(f"validation holds out a tenth of a class's images, and one has {len(member)} here")
                tested.append(member[order[:share]])
                learned[c] = np.sort(member[order[share:]])
        return cls((train, test), learned, tested)


class ClassIncremental(OfClasses):
    """Each task has the next few classes, and no class comes back."""

    name: Literal["class-incremental"]
    tasks: Tasks = 5
    epochs: Passes = 1
    """Passes over a task's training images: 1 is online."""
    drop_last: bool = False
    """Leave out the last batch of a task where it is not full."""

    @model_validator(mode="after")
    def _classes_divide(self) -> ClassIncremental:
        refuse_rest(self.label_classes, self.tasks)
        return self

    @property
    def passes(self) -> int:
        return self.epochs

    def stream(self, images: dict[str, ImageSet], draws: Draws, order: Sequence[int] | None) -> Stream:
        from clray.vision.stream import from_members, unit

        content, each = self.by_class(images, draws), self.label_classes // self.tasks
        spans = [(t * each, (t + 1) * each) for t in range(self.tasks)]

        def joined(parts: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
            return [np.sort(np.concatenate(parts[begin:end])) for begin, end in spans]

        train, test = content.images
        stream = from_members(
            train, test, joined(content.train), joined(content.test), spans, [0] * self.tasks,
            outputs=self.label_classes, scale=unit, label_classes=self.label_classes, drops_last=self.drop_last,
        )  # fmt: skip
        return stream if order is None else stream.reordered(order)
