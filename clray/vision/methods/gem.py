"""Gradient episodic memory (Lopez-Paz & Ranzato 2017), as MER's repository runs it.

Each task keeps its last ``memories_per_task`` examples. Before a step the gradient on every past task's memory is
taken; where the current gradient g points against any of them, it is replaced by g + Gᵀ v, with v from GEM's
quadratic program (``clray.optim.gem_multipliers``). Where none is violated the step is plain SGD: ``margin`` has no
say then. Batch size is 1 here, while GEM's own paper used 10.

Engines: the eager form takes each task's gradient in turn. The batched one takes all memories through one forward and
one backward pass, finds the products of gradients without forming the gradients (for a layer with inputs a and output
gradients d, the product of two examples' gradients is (d·d')(a·a' + 1)), and forms them, as one batched product, only
where a constraint is violated.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import Field

from clray.optim import gem_multipliers
from clray.vision import methods
from clray.vision.engines import EagerNet, Workshop
from clray.vision.models import Mlp, Weights
from clray.vision.randomness import Randomness


class Settings(methods.Settings):
    lr: Annotated[float, Field(gt=0)]
    """Learning rate, constant."""
    memories_per_task: Annotated[int, Field(ge=1)]
    """Examples kept of each task."""
    margin: Annotated[float, Field(ge=0)]
    """``memory_strength`` in the code: the lower bound on the multipliers v."""


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

    Settings = Settings

    def __init__(self, settings: Settings, model: Mlp, workshop: Workshop, randomness: Randomness) -> None:
        self.settings, self.stream = settings, workshop.stream
        weights = model.initial(model.sizes(self.stream.inputs, self.stream.classes), randomness)
        self.net = workshop.eager_net(weights, settings.lr)
        self.memories = RingMemories(self.stream.task_count, settings.memories_per_task)
        self._step = self._batched_step if workshop.batched else self._eager_step
        self._past: tuple[int, Any, Any] | None = None

    def observe(self, position: int) -> None:
        task = int(self.stream.tasks[position])
        self.memories.add(task, position)
        if task == 0:
            self.net.step([position])
        else:
            self._step(position, task)

    def _eager_step(self, position: int, task: int) -> None:
        import torch

        def flat(positions: Any) -> Any:
            return torch.cat([g.reshape(-1) for g in self.net.gradients(self.net.losses(positions).mean())])

        past = torch.stack([flat(self.memories.positions[t]) for t in range(task)])
        gradient = flat([position])
        products = past @ gradient
        if bool((products < 0).any()):
            multipliers = self._multipliers(past.double() @ past.double().T, past.double() @ gradient.double())
            gradient = gradient + past.T @ multipliers
        sizes = [p.numel() for p in self.net.parameters]
        self.net.update([g.view_as(p) for g, p in zip(gradient.split(sizes), self.net.parameters, strict=True)])

    def _multipliers(self, gram: Any, products: Any) -> Any:
        """GEM's multipliers as a float32 tensor, for float64 tensors ``gram`` [t, t] and ``products`` [t]."""
        import torch

        solution = gem_multipliers(gram.cpu().numpy(), products.cpu().numpy(), self.settings.margin)
        return torch.from_numpy(solution).to(gram.device, torch.float32)

    def _memory_batch(self, task: int) -> tuple[Any, Any]:
        """All past tasks' memories, [t * capacity, inputs] and their labels: they change with the task only."""
        if self._past is None or self._past[0] != task:
            self._past = (task, *self.net.batch(self.memories.positions[:task].reshape(-1)))
        return self._past[1], self._past[2]

    def _batched_step(self, position: int, task: int) -> None:
        import torch

        with torch.no_grad():
            x, y = self._memory_batch(task)
            inputs, deltas = backward(self.net.parameters, x, y, 1.0 / self.memories.capacity)
            own_inputs, own_deltas = backward(self.net.parameters, *self.net.batch([position]), 1.0)
            products = torch.zeros(task, device=x.device)
            for a, d, own_a, own_d in zip(inputs, deltas, own_inputs, own_deltas, strict=True):
                products += ((a @ own_a[0] + 1) * (d @ own_d[0])).view(task, -1).sum(1)
            gradients = [g for a, d in zip(own_inputs, own_deltas, strict=True) for g in (d.T @ a, d[0])]
            if bool((products < 0).any()):
                past = []
                for a, d in zip(inputs, deltas, strict=True):
                    a, d = a.view(task, -1, a.shape[1]), d.view(task, -1, d.shape[1])
                    past += [torch.bmm(d.transpose(1, 2), a), d.sum(1)]
                gram = sum((g.reshape(task, -1) @ g.reshape(task, -1).T).double() for g in past)
                multipliers = self._multipliers(gram, products.double())
                gradients = [
                    g + torch.tensordot(multipliers, p, 1) for g, p in zip(gradients, past, strict=True)
                ]
            self.net.update(gradients)

    def weights(self, task: int) -> Weights:
        return self.net.weights()

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.net.weights(), "memories": self.memories.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load(state["weights"])
        self.memories.load_state_dict(state["memories"])
        self._past = None


def backward(parameters: list[Any], x: Any, y: Any, weight: float) -> tuple[list[Any], list[Any]]:
    """The inputs a [n, in] and output gradients d [n, out] of every layer, for the loss ``weight * Σ cross-entropy``.

    A layer's weight gradient is Σ_n d aᵀ, its bias gradient Σ_n d.
    """
    import torch

    layers = list(zip(parameters[::2], parameters[1::2], strict=True))
    inputs = [x]
    for w, b in layers[:-1]:
        inputs.append(torch.relu(torch.addmm(b, inputs[-1], w.T)))
    w, b = layers[-1]
    d = torch.softmax(torch.addmm(b, inputs[-1], w.T), 1)
    d[torch.arange(len(y), device=y.device), y] -= 1
    deltas = [d * weight]
    for layer in range(len(layers) - 1, 0, -1):
        deltas.insert(0, (deltas[0] @ layers[layer][0]) * (inputs[layer] > 0))
    return inputs, deltas
