"""Coarse to fine: images come with the names of their superclasses first, then with those of their classes.

The stream of hierarchical label expansion (Lee et al. 2023, HLE; single depth) on CIFAR-100: in task 0 every image is
labelled with one of 20 superclasses; each later task labels the images of some more superclasses with their classes. An
example has a label of one level. The network has one head with the logits of both levels, superclasses first, and an
answer is right if it is the best one of its level. The learner subtracts from the logits of each level the logarithm
of their summed exponentials, so that a method's cross-entropy over all logits is that over the own level, but for the
constant log 2 (``IncrementalLearner``). Methods with another softmax leave the other level out of it
(``within_level``).

What differs from the official code: the order of the superclasses is drawn from a declared seed (``class_order``), as
the files with the official divisions were not at hand; there is one head with two ranges of logits in place of two
heads, which is the same linear map; of its two scenarios ``again`` chooses. Its method PL-FMS is not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from clray.vision.benchmarks.class_incremental import CLASSES, IMAGES, OfClasses
from clray.vision.benchmarks.dividing import refuse_rest
from clray.vision.datasets.published import ImageSet
from clray.vision.ranges import Tasks

if TYPE_CHECKING:
    from clray.vision.draws import Draws
    from clray.vision.stream import Stream

# fmt: off
COARSE: dict[str, tuple[int, ...]] = {
    # the published superclass of each class of CIFAR-100, both numbered by the alphabet
    "cifar100": (
        4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1,
        10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12,
        12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0,
        17, 8, 14, 13,
    ),
    "mnist": (0, 1, 0, 1, 0, 1, 0, 1, 0, 1),  # even and odd digits
}
"""The superclass of each class."""
# fmt: on


class CoarseToFine(OfClasses):
    """Superclasses in task 0, then the classes of equally many superclasses in each task."""

    name: Literal["coarse-to-fine"]
    dataset: Literal["mnist", "cifar100"]
    """``mnist`` has two superclasses, even and odd digits, so that a quick form runs anywhere."""
    tasks: Tasks = 6
    """Task 0 and those with classes, into which the superclasses must divide."""
    class_order: Literal["labels", "trial"] | Annotated[int, Field(ge=0, lt=2**63)] | list[int] = 0
    """The order of the superclasses; a list holds their numbers."""
    again: bool = False
    """True: an image of task 0 comes again with the name of its class. Otherwise one half of each class's images
    comes with the superclass, the other half with the class."""
    boundaries: Literal["given", "hidden"] = "hidden"

    @property
    def superclasses(self) -> int:
        return len(set(COARSE[self.dataset]))

    @property
    def label_classes(self) -> int:  # type: ignore[override]
        return self.superclasses + CLASSES[self.dataset]

    @property
    def examples_of_task(self) -> float:
        each = IMAGES[self.dataset] / CLASSES[self.dataset]
        return CLASSES[self.dataset] * min(self.train_per_class or each, each) * (1 + self.again) / self.tasks

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        return (0, self.superclasses), (self.superclasses, self.label_classes)

    @model_validator(mode="after")
    def _classes_exist(self) -> CoarseToFine:  # in place of that of OfClasses
        if self.classes is not None:
            raise ValueError("classes: the superclasses are those of all classes; allowed: leave it out")
        if isinstance(self.class_order, list) and sorted(self.class_order) != list(range(self.superclasses)):
            raise ValueError(f"class_order: a list must hold each superclass from 0 to {self.superclasses - 1} once")
        refuse_rest(self.superclasses, self.tasks, 1, "superclasses")
        return self._known_channels()  # type: ignore[return-value]

    def arriving(self, draws: Draws) -> list[int]:
        place = self.ordered(list(range(self.superclasses)), draws)
        return sorted(range(CLASSES[self.dataset]), key=lambda c: (place.index(COARSE[self.dataset][c]), c))

    def stream(self, images: dict[str, ImageSet], draws: Draws, order: Sequence[int] | None) -> Stream:
        from clray.errors import DataError
        from clray.vision.stream import from_members, unit

        labels, content = self.arriving(draws), self.by_class(images, draws)
        above = [COARSE[self.dataset][label] for label in labels]  # by class, numbered as they arrive
        coarse = {name: logit for logit, name in enumerate(dict.fromkeys(above))}
        coarse_of = np.array([coarse[name] for name in above])
        if not self.again and min(map(len, content.train)) < 2:
            raise DataError(f"{self.name}: half of a class's images comes in task 0, and one has fewer than two here")
        first, later = (
            (content.train, content.train)
            if self.again
            else ([m[::2] for m in content.train], [m[1::2] for m in content.train])
        )
        each = self.superclasses // (self.tasks - 1)
        spans = [(0, len(labels))]
        for t in range(self.tasks - 1):
            own = np.flatnonzero((coarse_of >= t * each) & (coarse_of < (t + 1) * each))
            spans.append((int(own[0]), int(own[-1]) + 1))

        def joined(parts: list[Any], begin: int, end: int) -> Any:
            return np.sort(np.concatenate(parts[begin:end]))

        members = [joined(later if t else first, *span) for t, span in enumerate(spans)]
        tests = [joined(content.test, *span) for span in spans]
        count = self.superclasses
        heads = [(0, count), *((count + begin, count + end) for begin, end in spans[1:])]
        train, test = content.images
        flat = from_members(
            train, test, members, tests, heads, [0] + [count] * (self.tasks - 1),
            outputs=self.label_classes, scale=unit, label_classes=self.label_classes,
        )  # fmt: skip
        stream = _two_levels()(**vars(flat), coarse_of=coarse_of)
        return stream if order is None else stream.reordered(order)


@cache
def _two_levels() -> Any:
    """The class of the streams; it is made here, as planning must not load torch."""
    import torch
    from torch import Tensor

    from clray.vision.stream import Stream

    @dataclass(frozen=True)
    class TwoLevels(Stream):
        """A stream whose first level of labels follows from the second: ``coarse_of`` [classes]."""

        coarse_of: Any = None

        @cached_property
        def _coarse(self) -> Tensor:
            return torch.from_numpy(self.coarse_of).to(self.device)

        @cached_property
        def labels(self) -> Tensor:
            fine = self.train.labels[self._image]
            offsets = torch.tensor([e.label_offset for e in self.experiences], device=self.device)[self.owners]
            return torch.where(offsets > 0, fine + offsets, self._coarse[fine])

        def tests(self, group: int, begin: int = 0, end: int | None = None) -> tuple[Tensor, Tensor]:
            x, y = super().tests(group, begin, end)
            return x, y if self.groups[group].label_offset else self._coarse[y]

    return TwoLevels
