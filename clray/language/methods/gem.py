"""GEM on a language model, as in LAMOL's official code (``gem.py``; Lopez-Paz and Ranzato 2017).

Every task but the last one leaves examples in a memory. Before each update the gradient on every memory is computed,
and the update's gradient is projected so that it opposes none of them. In the official code a memory is drawn with
replacement when the *next* task begins, and its size is a share of that next task's size. Gradients are clipped batch
by batch, a memory's gradient is the mean over its batches weighted by their examples, and only the QA loss is learned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from clray.divergence import NotFinite
from clray.errors import ClrayError
from clray.language.encoding import Encoded
from clray.language.methods.base import LanguageMethod
from clray.language.settings import TokenBudget, TrainingSettings
from clray.training import generator

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Gem(LanguageMethod):
    """GEM: it projects the gradients."""

    class Settings(TrainingSettings):
        token_budget: TokenBudget = 16240
        margin: Annotated[float, Field(ge=0, le=1e30)] = 0.5
        """The lower bound of the quadratic program's multipliers (official ``--qp_margin``)."""
        memory: Annotated[float, Field(gt=0, le=100)] = 0.05
        """The size of a task's memory, as a share of the size of the next task (``--gen_lm_sample_percentage``)."""

    def __init__(self, settings: Settings, learner: Any) -> None:
        super().__init__(settings, learner)
        self.memories: list[list[Encoded]] = []

    def begin(self, task: int) -> None:
        self.memories = [self._memory(earlier) for earlier in range(task)]

    def _memory(self, task: int) -> list[Encoded]:
        """The examples in a task's memory, drawn when the next task began."""
        learner = self.learner
        examples, following = learner.tasks[task].train, learner.tasks[task + 1].train
        count = int(len(following) * self.settings.memory)
        chosen = generator(learner.seed, f"memory of {task}").integers(len(examples), size=count)
        token = learner.generation_ids[self.generation_token(learner.tasks[task].name)]
        return learner.encoded([examples[i] for i in chosen], token)

    def project(self) -> None:
        import torch

        memories = [(number, memory) for number, memory in enumerate(self.memories) if memory]
        if not memories:
            return
        held = [parameter for parameter in self.learner.model.parameters() if parameter.grad is not None]
        current = _flat(held)
        found = torch.stack([self._gradient(number, memory, held) for number, memory in memories])
        _put(held, self._projected(current, found))

    def _projected(self, current: Tensor, memories: Tensor) -> Tensor:
        from clray.language.projection import project

        learner = self.learner
        try:
            return project(current, memories, self.settings.margin)
        except NotFinite:
            raise learner.diverged("gradients") from None
        except ValueError as error:
            singular = "positive definite" in str(error)
            reason = "its matrix is not positive definite" if singular else "its margin is too large for its gradients"
            raise ClrayError(
                f"gem: the quadratic program of task {learner.task + 1} ({learner.tasks[learner.task].name}) could not "
                f"be solved after {learner.examples} examples: {reason}. A lower lr, a smaller margin or a larger "
                "memory helps"
            ) from None

    def _gradient(self, number: int, memory: list[Encoded], held: list[torch.nn.Parameter]) -> Tensor:
        """[P] the gradient on a whole memory at the present weights."""
        from clray.language.learner import as_batch

        learner, total = self.learner, None
        at = f"memory {number}, update {learner.updates}"
        for i, batch in enumerate(learner.batches(memory, at)):
            learner.model.zero_grad(set_to_none=False)
            learner.backward(as_batch([memory[k] for k in batch]), None, f"dropout {at}, batch {i}")
            learner.clip()
            part = _flat(held).mul_(len(batch) / len(memory))
            total = part if total is None else total.add_(part)
        assert total is not None
        return total


def _flat(parameters: list[torch.nn.Parameter]) -> Tensor:
    """[P] a copy of all gradients."""
    import torch

    return torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])


def _put(parameters: list[torch.nn.Parameter], gradient: Tensor) -> None:
    parts = gradient.split([parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        assert parameter.grad is not None
        parameter.grad.copy_(part.view_as(parameter))
