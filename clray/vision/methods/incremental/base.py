"""The base of the methods for class-incremental streams: settings, memory, steps and answers.

A method says in ``observe`` what it learns from a batch. Where the stream hides its boundaries, ``batch.experience`` is
None and neither ``begin`` nor ``end`` is called; only a method whose file says so needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from clray.trial import later
from clray.vision.memory import Reservoir
from clray.vision.methods import base
from clray.vision.methods.incremental.tasks import task_of
from clray.vision.ranges import Count, Passes, Rate, Weight

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from clray.vision.learners.incremental import IncrementalLearner
    from clray.vision.stream import Batch, Numbers

AugmentationName = Literal["none", "flip", "crop-flip", "simclr", "onpro", "resized-crop"]
"""The keys of ``clray.vision.augmentations.AUGMENTATIONS``, which needs torch."""


ReservoirLaw = Literal["batch", "batch_before", "exact"]


class IncrementalSettings(base.Settings):
    """The settings that all these methods have."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: Rate
    """Learning rate, constant."""
    weight_decay: Weight = 0.0
    batch: Count = 10
    """Images of the stream in a batch."""
    iterations: Passes = 1
    """Steps on each batch, one after the other, each with a new draw from the memory and new augmentations."""
    augmentation: AugmentationName = "none"
    """How images of the stream and of the memory are changed at random before they are learned."""

    @property
    def needs_boundaries(self) -> bool:
        """True where the method must know which task a batch belongs to, or when one ends."""
        return False

    def make(self, parameters: list[Any]) -> torch.optim.Optimizer:
        """Make the optimizer. OnPro's and OCM's Adam has betas of 0.9 and 0.99, as Adam has here."""
        import torch

        if self.optimizer == "adam":
            return torch.optim.Adam(parameters, self.lr, betas=(0.9, 0.99), weight_decay=self.weight_decay)
        return torch.optim.SGD(parameters, self.lr, weight_decay=self.weight_decay)


class ReplaySettings(IncrementalSettings):
    """The settings of methods with a memory."""

    memories: Count
    """Places in memory."""
    replay_batch: Count = 10
    """Memories that a step learns from."""
    reservoir: ReservoirLaw = "batch"
    """How the memory is filled: ``clray.vision.memory.Reservoir``."""


class DrawnSettings(ReplaySettings):
    """The settings of methods whose memories may be drawn from a part of the memory."""

    replay_from: Literal["memory", "earlier_tasks"] = later("memory")
    """``earlier_tasks``: the memories of the batch's own task are left out, so that nothing is replayed in the first
    task; as in the official code of MIR, which runs ER so, too. Needs boundaries."""

    @property
    def needs_boundaries(self) -> bool:
        return self.replay_from == "earlier_tasks"


class IncrementalMethod(base.ModuleMethod):
    """A method on a torch module with one head for all classes.

    ``observe`` takes the steps on a batch. A subclass has ``loss``, or another ``step`` or ``observe``.
    """

    learner_kind = "incremental"
    learner: IncrementalLearner

    def __init__(self, settings: Any, learner: IncrementalLearner) -> None:
        base.Method.__init__(self, settings, learner)
        self.steps = 0
        """Steps taken so far; they name the draws of the augmentations."""
        self.build()
        learner.optimizer = settings.make(learner.parameters)

    def build(self) -> None:
        """Change the network, before the optimizer is made."""

    def begin(self, experience: int) -> None:
        pass

    def end(self, experience: int) -> None:
        pass

    def observe(self, batch: Batch) -> None:
        for _ in range(self.settings.iterations):
            self.step(batch)
            self.steps += 1

    def step(self, batch: Batch) -> None:
        """Take one step of the optimizer; a method that does more than descend along ``loss`` overrides it."""
        self.learner.descend(self.loss(batch))

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a step on this batch."""
        raise NotImplementedError

    def augmented(self, x: Tensor, view: str) -> Tensor:
        """Images changed as ``augmentation`` says. ``view`` tells the draws of one step apart."""
        return self.learner.augmented(x, self.settings.augmentation, f"{self.steps} {view}")

    # ------------------------------------------------------------------------------------------------------------------
    # Answers

    def scores(self, x: Tensor) -> Tensor:
        """How well each class fits [n, outputs], for images [n, C, H, W]; the largest is the answer."""
        return self.learner.scores(x)

    def counts(self, group: int) -> dict[str, int]:
        """Count the right answers among all classes (``accuracy``) and among the task's own (``task_accuracy``).

        Where labels have levels, the first is among the classes of the level. The second is left out where experiences
        share classes.
        """
        import torch

        right = own_right = 0
        begin, end = self.learner.stream.groups[group].logits
        first, past = self.learner.rivals(group)
        with torch.no_grad():
            for x, y in self.learner.tests(group):
                scores = self.scores(x)
                right += int((scores[:, first:past].argmax(1) + first == y).sum())
                own_right += int((scores[:, begin:end].argmax(1) + begin == y).sum())
        own = {} if self.stream.tested is not None else {"task_accuracy": own_right}
        return {"accuracy": right, **own}

    def correct(self, experience: int) -> int:
        return self.counts(experience)["accuracy"]

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


class ReplayMethod(IncrementalMethod):
    """A method that keeps examples of the stream in a reservoir. A batch is offered to it after the steps on it."""

    def __init__(self, settings: Any, learner: IncrementalLearner) -> None:
        super().__init__(settings, learner)
        self.memory = Reservoir(
            settings.memories, self.draws, settings.reservoir, self.kept_fields(), self.stream.device
        )

    def kept_fields(self) -> dict[str, tuple[int, ...]]:
        """The shape of each value that is kept beside an example, by its name."""
        return {}

    def observe(self, batch: Batch) -> None:
        super().observe(batch)
        self.remember(batch)

    def remember(self, batch: Batch) -> None:
        self.memory.add_batch(batch.numbers)

    def replayed(self) -> Numbers:
        """Draw the slots of the memories that a step learns from; empty while the memory is."""
        return self.memory.slots(self.settings.replay_batch)

    def replayed_beside(self, batch: Batch, count: int) -> Numbers:
        """Draw the slots of up to ``count`` memories, from those that ``replay_from`` allows beside this batch."""
        if self.settings.replay_from == "memory":
            return self.memory.slots(count)
        own = task_of(type(self).__name__, batch)
        return self.memory.slots(count, among=np.flatnonzero(self.stream.owner[self.memory.numbers] != own))

    def examples(self, slots: Numbers) -> tuple[Tensor, Tensor]:
        """The images [n, C, H, W] of these slots, not augmented, and the numbers of their classes' logits [n]."""
        return self.stream.examples(self.memory.numbers[slots])

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"memory": self.memory.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.memory.load_state_dict(state["memory"])
