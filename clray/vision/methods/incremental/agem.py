"""A-GEM (Chaudhry 2019, arXiv 1812.00420) on class-incremental streams, in the forms of Mai et al. (2022) and Mammoth.

Where the gradient g of the stream's batch points against the gradient r of a batch of memories, the step is taken along
g - (g.r / r.r) r. Both losses are cross-entropies over all classes. ``memory`` says what is kept:

- ``reservoir``: in the survey's code. The memory takes every batch, the current task's as well, and the first task has
  no reference gradient. Where boundaries are hidden there is one from the second batch on; that is ours.
- ``task_end``: Mammoth's. At the end of a task a single batch of it, in a new random order, is offered to the memory:
  so that most of the memory stays empty for long, whatever its size. It needs the boundaries.

The survey's code draws the memories from all slots, so that a reference may hold images of the current batch's task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from clray.vision.methods.incremental.base import ReplayMethod, ReplaySettings
from clray.vision.methods.incremental.tasks import task_of

if TYPE_CHECKING:
    from torch import Tensor

    from clray.vision.stream import Batch


class AGem(ReplayMethod):
    """One step on each batch that does not raise, to first order, the mean loss of a batch of memories."""

    class Settings(ReplaySettings):
        memory: Literal["reservoir", "task_end"] = "reservoir"

        @property
        def needs_boundaries(self) -> bool:
            return self.memory == "task_end"

    passes = 2.0

    def step(self, batch: Batch) -> None:
        from torch.nn.functional import cross_entropy

        learner, at_end = self.learner, self.settings.memory == "task_end"
        task = task_of("ocl_agem", batch) if at_end else batch.experience
        learner.zero_grad()
        cross_entropy(learner.logits(self.augmented(batch.x, "stream")), batch.y).backward()
        if len(self.memory) and (at_end or task != 0):
            gradient = learner.gradient()
            x, y = self.examples(self.replayed())
            learner.zero_grad()
            cross_entropy(learner.logits(self.augmented(x, "memory")), y).backward()
            learner.set_gradient(projected(gradient, learner.gradient()))
        learner.step()

    def remember(self, batch: Batch) -> None:
        if self.settings.memory == "reservoir":
            super().remember(batch)

    def end(self, experience: int) -> None:
        if self.settings.memory == "task_end":
            numbers = self.stream.experiences[experience].examples
            order = self.draws.order(f"end of experience {experience}", len(numbers), self.stream.shuffles)
            self.memory.add_batch(numbers[order[: self.settings.batch]])


def projected(gradient: Tensor, reference: Tensor) -> Tensor:
    """The gradient [P] without its part against the reference [P], if there is one."""
    import torch

    product = torch.dot(gradient, reference)
    share = torch.where(product < 0, product / torch.dot(reference, reference), 0.0)
    return gradient - share * reference
