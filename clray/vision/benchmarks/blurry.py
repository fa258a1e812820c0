"""i-Blurry and Si-Blurry: streams in which some classes come in one task only and others come back in every task.

The classes are divided into disjoint ones, each of one task, and blurry ones. A blurry class has a task too, but a
share of the blurry images is taken out of the tasks, mixed, and given back to all of them. In i-Blurry (Bang et al.
2021) every task has equally many classes and gives equally many images. In Si-Blurry (Moon et al. 2023) both are drawn,
so that a task may have no class of its own, or no image at all.

Held to github.com/moonjunyyy/Si-Blurry at c4024ce. Three things to know when comparing with it:

- The paper calls the share of disjoint classes m and that of blurry images n; in its code and scripts it is the other
  way round. Here both have names.
- Its flag ``--rnd_NM`` does nothing: the argument reaches another parameter, and that parameter's value decides. What
  its scripts run is always the drawn form, ``si-blurry`` here; ``i-blurry`` is the form that its code cannot reach.
- Where the numbers of classes do not divide into the tasks, classes are left out of the stream, as in the code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from clray.vision.benchmarks.class_incremental import ByClass, OfClasses
from clray.vision.datasets.published import ImageSet
from clray.vision.ranges import Tasks

if TYPE_CHECKING:
    from clray.vision.draws import Draws
    from clray.vision.stream import Stream

Percent = Annotated[int, Field(ge=0, le=100)]
Indices = NDArray[np.int64]


class Drawing(Protocol):
    """The draws that ``deal`` makes, as ``numpy.random.Generator`` has them."""

    def permutation(self, x: int) -> Indices: ...
    def integers(self, low: int, *, size: int) -> Indices: ...


@dataclass(frozen=True)
class Dealt:
    """A blurry stream.

    Attributes:
        disjoint, blurry: the classes of each task.
        indices: the images of each task, in the order in which they arrive.
    """

    disjoint: list[list[int]]
    blurry: list[list[int]]
    indices: list[Indices]


def kept_classes(classes: int, tasks: int, disjoint_percent: int) -> tuple[int, int]:
    """How many disjoint and how many blurry classes a stream has; each number is a multiple of the tasks."""
    disjoint = classes * disjoint_percent // 100 // tasks * tasks
    return disjoint, (classes - disjoint) // tasks * tasks


def deal(
    labels: Indices,
    classes: Sequence[int],
    tasks: int,
    disjoint: int,
    blurry_percent: int,
    draw: Drawing | None,
    rng: Drawing,
) -> Dealt:
    """Divide images into tasks.

    Args:
        labels: the class of each image.
        classes: the stream's classes in the order of arrival, the disjoint ones before the blurry ones.
        disjoint: how many of them are disjoint.
        blurry_percent: how many of a hundred images of blurry classes are mixed.
        draw: draws where one task ends and the next begins (Si-Blurry); None for equal parts (i-Blurry).
        rng: draws the order of the mixed images, and the order in which each task's images arrive.
    """

    def sizes(count: int) -> Indices:
        """The sizes of the tasks' parts of ``count`` things, where all cut points are drawn at once."""
        if draw is None or not count:
            return np.full(tasks, count // tasks)
        cuts = np.sort(draw.integers(count, size=tasks - 1))
        return np.append(cuts, count) - np.append(0, cuts)

    def parts(of: Sequence[int]) -> tuple[list[list[int]], list[Indices]]:
        """The classes of each task, and their images in the order of the data set."""
        divided = [list(part) for part in np.split(np.asarray(of, np.int64), np.cumsum(sizes(len(of)))[:-1])]
        return [[int(c) for c in part] for part in divided], [np.flatnonzero(np.isin(labels, p)) for p in divided]

    disjoint_classes, own = parts(classes[:disjoint])
    blurry_classes, shared = parts(classes[disjoint:])
    mixed = sum(map(len, shared)) * blurry_percent // 100
    given = np.array([len(s) * blurry_percent // 100 for s in shared]) if draw is None else sizes(mixed)
    # A task gives its first images, and no more than it has. It gets as many back as were asked of it, while they last.
    pool = np.concatenate([s[:n] for s, n in zip(shared, given, strict=True)])
    if len(pool):
        pool = pool[rng.permutation(len(pool))]
    back = np.split(pool, np.cumsum(given)[:-1])
    indices = []
    for t in range(tasks):
        together = np.concatenate([own[t], shared[t][given[t] :], back[t]])
        indices.append(together[rng.permutation(len(together))])
    return Dealt(disjoint_classes, blurry_classes, indices)


class _Blurry(OfClasses):
    """The settings of both streams. Every image arrives once. Classes get their logits as they first arrive in the
    benchmark's own order of tasks, whatever the order of learning."""

    tasks: Tasks = 5
    disjoint_percent: Percent = 50
    """How many of a hundred classes come in one task only (m in the paper, n in its code)."""
    blurry_percent: Percent = 10
    """How many of a hundred images of the other classes are mixed over all tasks (n in the paper, m in its code)."""
    class_order: Literal["labels", "trial"] | Annotated[int, Field(ge=0, lt=2**63)] | list[int] = "trial"
    boundaries: Literal["given", "hidden"] = "hidden"
    measured: Literal["classes"] = "classes"
    """The classes that have arrived are measured one by one, since tasks share them."""

    @property
    def label_classes(self) -> int:  # type: ignore[override]
        return sum(kept_classes(super().label_classes, self.tasks, self.disjoint_percent))

    @model_validator(mode="after")
    def _has_classes(self) -> _Blurry:
        if self.label_classes < 2:
            raise ValueError(
                f"tasks: there are fewer than {self.tasks} disjoint and fewer than {self.tasks} other classes"
            )
        return self

    def stream(self, images: dict[str, ImageSet], draws: Draws, order: Sequence[int] | None) -> Stream:
        from clray.vision.stream import Experience, Images, from_members, unit

        classes = self.label_classes
        disjoint, _ = kept_classes(super().label_classes, self.tasks, self.disjoint_percent)
        content = ByClass.of(images[self.dataset], self.arriving(draws)[:classes], self, draws)
        train, test = content.images
        own = np.full(len(train.labels), -1, np.int64)
        for c, members in enumerate(content.train):
            own[members] = c
        rng = draws.keyed("blurry stream")
        drawn = rng if self.name == "si-blurry" else None
        dealt = deal(own, range(classes), self.tasks, disjoint, self.blurry_percent, drawn, rng)

        _, first = np.unique(own[np.concatenate(dealt.indices)], return_index=True)
        logit = np.append(np.argsort(np.argsort(first)), -1)  # of each class; -1 stays -1
        own_train, own_test = (
            Images(part.pixels, part.labels.new_tensor(logit)[part.labels]) for part in (train, test)
        )
        tests = [content.test[c] for c in np.argsort(first)]
        stream = from_members(
            own_train, own_test, dealt.indices, [np.concatenate(tests)] * self.tasks, [(0, classes)] * self.tasks,
            [0] * self.tasks, outputs=classes, scale=unit, label_classes=classes, shuffles=False,
            tested=[Experience(np.empty(0, np.int64), own_tests, (c, c + 1)) for c, own_tests in enumerate(tests)],
        )  # fmt: skip
        return stream if order is None else stream.reordered(order)


class IBlurry(_Blurry):
    """Every task has equally many classes, and gives the same share of its blurry images."""

    name: Literal["i-blurry"]


class SiBlurry(_Blurry):
    """How many classes a task has, and how many images it gives, is drawn with each trial's seed."""

    name: Literal["si-blurry"]
