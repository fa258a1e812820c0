"""Experience replay from a reservoir (Chaudhry 2019, "ER-Reservoir"), as TAG's repository runs it.

The memory has ``memories_per_class`` slots for every class of the data set. Reservoir sampling fills it from the
stream, the current task included. From the second task on, each step adds the mean loss of as many memories as a full
batch has images. They are drawn without replacement before the batch is offered to the memory, and have a forward pass
of their own.

In TAG's code all slots of a batch are drawn at once from [0, n), where n counts the images before the batch. In the
textbook algorithm n grows with every image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from clray.vision.memory import Reservoir
from clray.vision.methods import base
from clray.vision.optimizers import OptimizerSettings
from clray.vision.ranges import PerClass

if TYPE_CHECKING:
    from clray.vision.learners.module import ModuleLearner
    from clray.vision.stream import Batch


class ErReservoir(base.ModuleMethod):
    """Each step also learns from a batch of memories, with the same weight."""

    class Settings(OptimizerSettings):
        memories_per_class: PerClass
        """Places in memory for each class of the data set: 1 makes 100 for CIFAR-100."""
        needs_boundaries: ClassVar[bool] = True
        """It replays from the second task on, each memory among the classes of its own task."""

    passes = 2.0

    def __init__(self, settings: Any, learner: ModuleLearner) -> None:
        super().__init__(settings, learner)
        self.memory = Reservoir(settings.memories_per_class * self.stream.label_classes, self.draws, law="batch")
        self.experiences: list[int | None] = []
        """Those seen so far."""

    def add_gradients(self, batch: Batch) -> None:
        if batch.experience not in self.experiences:
            self.experiences.append(batch.experience)
        if len(self.experiences) > 1:
            self.learner.loss_of(self.memory.draw(self.settings.batch)).backward()
        self.memory.add_batch(batch.numbers)

    def state_dict(self) -> dict[str, Any]:
        return {"experiences": self.experiences, "memory": self.memory.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.experiences = list(state["experiences"])
        self.memory.load_state_dict(state["memory"])
