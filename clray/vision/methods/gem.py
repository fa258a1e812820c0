"""Gradient episodic memory (Lopez-Paz & Ranzato 2017), as MER's repository runs it.

Each task keeps its last ``memories_per_task`` examples. Before a step the gradient on every past task's memory is
taken; where the current gradient g points against any of them, it is replaced by g + Gᵀ v, with v from GEM's
quadratic program (``clray.optim.gem_multipliers``). Where none is violated the step is plain SGD, and ``margin``
has no effect. Batch size is 1 here, while GEM's own paper used 10.

Engines: the eager form computes each task's gradient in turn. The fused form takes all memories through one pass,
finds the products of gradients without forming the gradients, and forms them only where a constraint is violated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from clray.errors import DeclarationError
from clray.optim import gem_multipliers
from clray.trial import later
from clray.vision.memory import Ring
from clray.vision.methods import base
from clray.vision.ranges import Count, Rate, Weight

if TYPE_CHECKING:
    from clray.vision.learners.perceptron import EagerPerceptron, PerceptronLearner
    from clray.vision.learners.perceptron_fused import FusedPerceptron, Groups
    from clray.vision.stream import Batch


class Gem(base.PerceptronMethod):
    """One SGD step on each example, along the direction nearest to its gradient that violates no task's constraint."""

    class Settings(base.Settings):
        lr: Rate
        """Learning rate, constant."""
        memories_per_task: Count
        """Examples kept of each task."""
        margin: Weight
        """``memory_strength`` in the code: the lower bound on the multipliers v."""
        ridge: Weight = later(0.0)
        """Added to the diagonal of the quadratic program's matrix: GEM's authors take 1e-3, MER's copy has none."""

    in_bulk = False  # the weights decide if a step is projected

    def __init__(self, settings: Any, learner: PerceptronLearner) -> None:
        super().__init__(settings, learner)
        self.net = learner.net(settings.lr)
        self.memories = Ring(len(self.stream.experiences), settings.memories_per_task, shared_pointer=True)
        """Each task's last examples; a task has filled its row when the next one begins."""
        self._past: Groups | None = None
        """The past tasks' memories: they change with the task only."""

    @classmethod
    def further_seconds(cls, settings: Any, examples: float, tasks: int) -> float:
        return examples * (0.4e-3 + tasks / 2 * settings.memories_per_task * 7e-6)

    def observe(self, batch: Batch) -> None:
        for number in batch.numbers.tolist():
            task = int(self.stream.owner[number])
            self.memories.add(task, number)
            memories = self.memories.numbers[:task]
            if task == 0:
                self.net.step([number])
            elif self.learner.fused:
                self._fused_step(cast("FusedPerceptron", self.net), number, memories)
            else:
                self._eager_step(cast("EagerPerceptron", self.net), number, memories)

    def _eager_step(self, net: EagerPerceptron, number: int, memories: NDArray[np.int64]) -> None:
        import torch

        def gradient(numbers: Any) -> Any:
            return torch.cat([g.reshape(-1) for g in net.gradients(net.losses(numbers).mean())])

        past = torch.stack([gradient(memory) for memory in memories])
        own = gradient([number])
        if bool((past @ own < 0).any()):
            gram, products = (past.double() @ other.double() for other in (past.T, own))
            v = self._multipliers(gram.cpu().numpy(), products.cpu().numpy(), number)
            own = own + past.T @ torch.from_numpy(v).to(past)
        sizes = [p.numel() for p in net.parameters]
        net.update([g.view_as(p) for g, p in zip(own.split(sizes), net.parameters, strict=True)])

    def _fused_step(self, net: FusedPerceptron, number: int, memories: NDArray[np.int64]) -> None:
        if self._past is None or len(self._past) != len(memories):
            self._past = net.groups(memories)
        self._past.update()
        products = self._past.products(number)
        if (products >= 0).all():
            net.step([number])
            return
        gradients, own = self._past.gradients(), net.gradient([number])
        gram = (gradients @ gradients.T).astype(np.float64)
        v = self._multipliers(gram, products, number)
        net.theta -= np.float32(net.lr) * (own + v.astype(np.float32) @ gradients)

    def _multipliers(
        self, gram: NDArray[np.float64], products: NDArray[np.float64], number: int
    ) -> NDArray[np.float64]:
        """The multipliers v, one for each past task, for the step on the example with this number."""
        try:
            return gem_multipliers(gram, products, self.settings.margin, self.settings.ridge)
        except ValueError as error:
            task = int(self.stream.owner[number])
            raise DeclarationError(f"gem: at example {number + 1}, in task {task + 1}: {error}") from None

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"memories": self.memories.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.memories.load_state_dict(state["memories"])
        self._past = None
