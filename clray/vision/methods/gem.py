"""Gradient episodic memory (Lopez-Paz & Ranzato 2017), as MER's repository runs it.

Each task keeps its last ``memories_per_task`` examples. Before a step the gradient on every past task's memory is
taken; where the current gradient g points against any of them, it is replaced by g + Gᵀ v, with v from GEM's
quadratic program (``clray.optim.gem_multipliers``). Where none is violated the step is plain SGD: ``margin`` has no
say then. Batch size is 1 here, while GEM's own paper used 10.

Engines: the eager form takes each task's gradient in turn. The fused one takes all memories through one pass, finds
the products of gradients without forming the gradients, and forms them only where a constraint is violated.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clray.errors import DeclarationError
from clray.optim import gem_multipliers
from clray.trial import later
from clray.vision import methods
from clray.vision.engines import EagerNet, FusedNet, Groups, Workshop
from clray.vision.models import Mlp, Weights
from clray.vision.randomness import Randomness
from clray.vision.ranges import Count, Rate, Weight


class RingMemories:
    """Each task's last examples. As coded, one ring pointer serves all tasks and is not reset between them."""

    def __init__(self, tasks: int, capacity: int) -> None:
        self.capacity = capacity
        self.positions = np.full((tasks, capacity), -1, np.int64)
        """[tasks, capacity] stream positions; a task has filled its row when the next one begins."""
        self.pointer = 0

    def add(self, task: int, position: int) -> None:
        self.positions[task, self.pointer] = position
        self.pointer = (self.pointer + 1) % self.capacity

    def state_dict(self) -> dict[str, Any]:
        return {"positions": self.positions, "pointer": self.pointer}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.positions, self.pointer = state["positions"], state["pointer"]


class Gem:
    """One SGD step an example, along the nearest direction that no past task's memory objects to."""

    class Settings(methods.Settings):
        lr: Rate
        """Learning rate, constant."""
        memories_per_task: Count
        """Examples kept of each task."""
        margin: Weight
        """``memory_strength`` in the code: the lower bound on the multipliers v."""
        ridge: Weight = later(0.0)
        """Added to the diagonal of the quadratic program's matrix: GEM's authors take 1e-3, MER's copy has none."""

    def __init__(self, settings: Settings, model: Mlp, workshop: Workshop, randomness: Randomness) -> None:
        self.stream = workshop.stream
        weights = model.initial(model.sizes(self.stream.inputs, self.stream.classes), randomness)
        self.net = workshop.net(weights, settings.lr)
        self.memories = RingMemories(self.stream.task_count, settings.memories_per_task)
        self.settings = settings
        self._past: Groups | None = None
        """The past tasks' memories: they change with the task only."""

    def observe(self, position: int) -> None:
        task = int(self.stream.tasks[position])
        self.memories.add(task, position)
        memories = self.memories.positions[:task]
        if task == 0:
            self.net.step([position])
        elif isinstance(self.net, FusedNet):
            self._fused_step(self.net, position, memories)
        elif isinstance(self.net, EagerNet):
            self._eager_step(self.net, position, memories)

    def _eager_step(self, net: EagerNet, position: int, memories: NDArray[np.int64]) -> None:
        import torch

        def gradient(positions: Any) -> Any:
            return torch.cat([g.reshape(-1) for g in net.gradients(net.losses(positions).mean())])

        past = torch.stack([gradient(memory) for memory in memories])
        own = gradient([position])
        if bool((past @ own < 0).any()):
            gram, products = (past.double() @ other.double() for other in (past.T, own))
            v = self._multipliers(gram.cpu().numpy(), products.cpu().numpy(), position)
            own = own + past.T @ torch.from_numpy(v).to(past)
        sizes = [p.numel() for p in net.parameters]
        net.update([g.view_as(p) for g, p in zip(own.split(sizes), net.parameters, strict=True)])

    def _fused_step(self, net: FusedNet, position: int, memories: NDArray[np.int64]) -> None:
        if self._past is None or len(self._past) != len(memories):
            self._past = net.groups(memories)
        self._past.update()
        products = self._past.products(position)
        if (products >= 0).all():
            net.step([position])
            return
        gradients, own = self._past.gradients(), net.gradient([position])
        gram = (gradients @ gradients.T).astype(np.float64)
        v = self._multipliers(gram, products, position)
        net.theta -= np.float32(net.lr) * (own + v.astype(np.float32) @ gradients)

    def _multipliers(
        self, gram: NDArray[np.float64], products: NDArray[np.float64], position: int
    ) -> NDArray[np.float64]:
        """The multipliers v, one a past task, for the step on the example at ``position``."""
        try:
            return gem_multipliers(gram, products, self.settings.margin, self.settings.ridge)
        except ValueError as error:
            task = int(self.stream.tasks[position])
            raise DeclarationError(f"gem: at example {position + 1}, in task {task + 1}: {error}") from None

    def weights(self, task: int) -> Weights:
        return self.net.weights()

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.net.weights(), "memories": self.memories.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load(state["weights"])
        self.memories.load_state_dict(state["memories"])
        self._past = None
