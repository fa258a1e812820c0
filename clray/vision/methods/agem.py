"""A-GEM (Chaudhry 2019, arXiv 1812.00420), as TAG's repository runs it (``existing_methods/agem.py``).

A ring for every class keeps the last ``memories_per_class`` images. Where the gradient g points against the mean
gradient r of a batch of past tasks' memories, it becomes g - (g.r / r.r) r; the optimizer then steps on that. The
official code passes every batch through the network once more than needed, and memories in training mode: batch
normalisation's running means move two or three times a step, so that A-GEM differs from the other methods on the
first task already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from clray.vision.memory import Ring
from clray.vision.methods import base
from clray.vision.optimizers import OptimizerSettings
from clray.vision.ranges import PerClass

if TYPE_CHECKING:
    from torch import Tensor

    from clray.vision.learners.module import ModuleLearner
    from clray.vision.stream import Batch


class AGem(base.ModuleMethod):
    """One step on each batch that does not increase, to first order, the mean loss of a batch of memories."""

    class Settings(OptimizerSettings):
        memories_per_class: PerClass
        """Images of each class of each task."""
        needs_boundaries: ClassVar[bool] = True

    passes = 2.4

    def __init__(self, settings: Any, learner: ModuleLearner) -> None:
        super().__init__(settings, learner)
        experiences = self.stream.experiences
        self._classes = max(e.logits[1] - e.logits[0] for e in experiences)
        self.memory = Ring(len(experiences) * self._classes, settings.memories_per_class)
        """A ring for every class of every experience."""
        self.experiences: list[int] = []
        """Those seen, in order; the last one is being learned."""

    def observe(self, batch: Batch) -> None:
        import torch

        learner = self.learner
        learner.logits(batch.x)
        assert batch.experience is not None
        if batch.experience not in self.experiences:
            self.experiences.append(batch.experience)
        first = batch.experience * self._classes - self.stream.experiences[batch.experience].logits[0]
        for label, number in zip(batch.y.tolist(), batch.numbers.tolist(), strict=True):
            self.memory.add(first + label, number)
        reference = self._reference()
        learner.zero_grad()
        learner.own_loss(learner.logits(batch.x), batch).backward()
        if reference is not None:
            gradient = learner.gradient()
            product = torch.dot(gradient, reference)
            if product < 0:
                learner.set_gradient(gradient - product / torch.dot(reference, reference) * reference)
        learner.step()

    def _reference(self) -> Tensor | None:
        """The mean gradient [P] of a batch of past experiences' memories."""
        if len(self.experiences) < 2:
            return None
        rings = [e * self._classes + c for e in self.experiences[:-1] for c in range(self._classes)]
        numbers = self.memory.of(rings)
        if len(numbers) >= self.settings.batch:
            numbers = numbers[self.draws.without_replacement(len(numbers), self.settings.batch)]
        self.learner.zero_grad()
        self.learner.loss_of(numbers).backward()
        return self.learner.gradient()

    def state_dict(self) -> dict[str, Any]:
        return {"experiences": self.experiences, "memory": self.memory.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.experiences = list(state["experiences"])
        self.memory.load_state_dict(state["memory"])
