"""The base class of benchmarks whose tasks are learned in epochs and batches, as in the codes of TAG and Stable SGD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from clray.vision.benchmarks.base import Benchmark
from clray.vision.datasets.published import ImageSet
from clray.vision.hessian import Curvature
from clray.vision.ranges import Count, Passes

if TYPE_CHECKING:
    from clray.vision.draws import Draws
    from clray.vision.landscape import Landscape
    from clray.vision.stream import Stream


class InEpochs(Benchmark):
    """The settings that these benchmarks share. A subclass adds ``build``."""

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
    curvature: Curvature | None = None
    """Measure the Hessian's largest eigenvalues and the displacement of the parameters after every task."""

    drops_last: ClassVar[bool] = False
    """A last batch that is not full is left out."""
    shuffles_while_validating: ClassVar[bool] = True
    """Training images are shuffled anew each epoch when a part is held out for validation."""
    image_count: ClassVar[int] = 60_000
    """Training images of all tasks together in the whole data set, roughly, for plans."""

    @property
    def passes(self) -> int:
        return self.epochs

    def landscape(self, seed: int) -> Landscape | None:
        from clray.vision.landscape import Landscape

        return None if self.curvature is None else Landscape(self.curvature, seed)

    @property
    def examples_of_task(self) -> float:
        return self.train_per_task or self.image_count / self.tasks

    @property
    def tests_of_task(self) -> float:
        return self.test_per_task or min(self.examples_of_task / 5, 10_000)

    def stream(self, images: dict[str, ImageSet], draws: Draws, order: Sequence[int] | None) -> Stream:
        stream = self.build(images, draws)
        if self.validation:
            stream = stream.with_held_out(draws.benchmark)
        return stream if order is None else stream.reordered(order)

    def build(self, images: dict[str, ImageSet], draws: Draws) -> Stream:
        """Build the stream in the benchmark's own order of tasks, with no training images held out; see ``stream``."""
        raise NotImplementedError
