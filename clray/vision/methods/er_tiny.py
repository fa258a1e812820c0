"""Experience replay with tiny memories (Chaudhry 2019, arXiv 1902.10486, Algorithm 1), on task-incremental streams.

A step takes the mean loss of a batch and of as many memories together, each image over the classes of its own task. The
batch is offered to the memory after the step. So the memory holds the current task's images as well, and the first task
is replayed, too. ``memory`` says what is kept: a ``ring`` of the last images of each class (Algorithm 3), or one
``reservoir`` for all (Algorithm 2), of the same size for all classes of the stream together.

Written after the paper as it is known from others; its TensorFlow code was not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from clray.vision.memory import Reservoir, Ring
from clray.vision.methods import base
from clray.vision.optimizers import OptimizerSettings
from clray.vision.ranges import PerClass

if TYPE_CHECKING:
    from clray.vision.learners.module import ModuleLearner
    from clray.vision.stream import Batch, Numbers


class ErTiny(base.ModuleMethod):
    """One step on a batch and a batch of memories together."""

    class Settings(OptimizerSettings):
        memories_per_class: PerClass
        """Images for each class of the stream."""
        memory: Literal["reservoir", "ring"] = "reservoir"
        needs_boundaries: ClassVar[bool] = True
        """Each memory is learned among the classes of its own task."""

    passes = 2.0

    def __init__(self, settings: Any, learner: ModuleLearner) -> None:
        super().__init__(settings, learner)
        experiences = self.stream.experiences
        self._widest = max(e.logits[1] - e.logits[0] for e in experiences)
        classes = sum(e.logits[1] - e.logits[0] for e in experiences)
        self.memory: Reservoir | Ring
        if settings.memory == "ring":
            self.memory = Ring(len(experiences) * self._widest, settings.memories_per_class)
        else:
            self.memory = Reservoir(settings.memories_per_class * classes, self.draws, law="exact")

    def observe(self, batch: Batch) -> None:
        import numpy as np

        numbers = np.concatenate([batch.numbers, self.replayed()])
        self.learner.zero_grad()
        self.learner.loss_of(numbers).backward()
        self.learner.step()
        self.remember(batch)

    def replayed(self) -> Numbers:
        """Draw the numbers of as many memories as a full batch has images; all where there are fewer."""
        if isinstance(self.memory, Reservoir):
            return self.memory.draw(self.settings.batch)
        kept = self.memory.of(list(range(len(self.memory.numbers))))
        if len(kept) <= self.settings.batch:
            return kept
        return kept[self.draws.without_replacement(len(kept), self.settings.batch)]

    def remember(self, batch: Batch) -> None:
        if isinstance(self.memory, Reservoir):
            self.memory.add_batch(batch.numbers)
            return
        assert batch.experience is not None
        first = batch.experience * self._widest - self.stream.experiences[batch.experience].logits[0]
        for label, number in zip(batch.y.tolist(), batch.numbers.tolist(), strict=True):
            self.memory.add(first + label, number)

    def state_dict(self) -> dict[str, Any]:
        return {"memory": self.memory.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.memory.load_state_dict(state["memory"])
