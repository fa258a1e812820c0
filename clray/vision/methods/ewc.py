"""Elastic weight consolidation (Kirkpatrick 2017), as GEM's ``ewc.py`` codes it and MER's tables use it.

The Fisher information of a finished task is the square of the mean gradient over the first ``memories_per_task``
examples of that task (not the mean of squared gradients, and not over the task), taken when the next task's first
example arrives. The loss adds ``strength * Σ_tasks Σ_i F_i (θ_i - θ*_i)²``, without a factor ½, one term a past task;
the last task's Fisher information is never computed.

Engines: the eager form keeps the tasks' terms apart as the official code does, so that a step costs more with every
task. The fused one keeps Σ F and Σ F θ*, to which the gradient of all terms together collapses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clray.vision import methods
from clray.vision.engines import EagerNet, FusedNet, Workshop
from clray.vision.models import Mlp, Weights
from clray.vision.randomness import Randomness
from clray.vision.ranges import Count, Rate, Weight


class SeparatePenalties:
    """A quadratic term for each past task, differentiated by autograd."""

    def __init__(self, net: EagerNet, strength: float) -> None:
        self.net, self.strength = net, strength
        self.terms: list[tuple[Weights, Weights]] = []
        """Of each past task: Fisher information and parameters."""
        self._tensors: list[list[tuple[Any, Any]]] | None = None
        """The same as tensors on the network's device, made when they are first needed."""

    def consolidate(self, examples: list[int]) -> None:
        """Add the term of a task, given some of its examples."""
        gradients = self.net.gradients(self.net.losses(examples).mean())
        self.terms.append(([g.square().cpu().numpy() for g in gradients], self.net.weights()))
        self._tensors = None

    def step(self, position: int) -> None:
        """One SGD step on the example's loss and all terms."""
        import torch

        if self._tensors is None:
            device = self.net.parameters[0].device
            self._tensors = [
                [(torch.from_numpy(f).to(device), torch.from_numpy(p).to(device)) for f, p in zip(*term, strict=True)]
                for term in self.terms
            ]
        loss = self.net.losses([position]).mean()
        for term in self._tensors:
            for parameter, (fisher, optimum) in zip(self.net.parameters, term, strict=True):
                loss = loss + (self.strength * fisher * (parameter - optimum).square()).sum()
        self.net.descend(loss)

    def state_dict(self) -> dict[str, Any]:
        return {"terms": [list(term) for term in self.terms]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.terms = [(fisher, optimum) for fisher, optimum in state["terms"]]
        self._tensors = None


class CollapsedPenalty:
    """All terms as one: their gradient is 2 λ (Σ F θ - Σ F θ*)."""

    def __init__(self, net: FusedNet, strength: float) -> None:
        self.net = net
        self.factor = 2.0 * strength * net.lr
        self.fisher_sum = np.zeros(net.theta.size)
        self.fisher_optimum_sum = np.zeros(net.theta.size)
        self._refresh()

    def _refresh(self) -> None:
        self.stiffness: NDArray[np.float32] = (self.factor * self.fisher_sum).astype(np.float32)
        self.anchor: NDArray[np.float32] = (self.factor * self.fisher_optimum_sum).astype(np.float32)

    def consolidate(self, examples: list[int]) -> None:
        """Add the term of a task, given some of its examples."""
        fisher = np.square(self.net.gradient(examples))
        self.fisher_sum += fisher
        self.fisher_optimum_sum += fisher.astype(np.float64) * self.net.theta
        self._refresh()

    def step(self, position: int) -> None:
        """One SGD step on the example's loss and all terms."""
        self.net.pulled_step([position], self.stiffness, self.anchor)

    def state_dict(self) -> dict[str, Any]:
        return {"fisher_sum": self.fisher_sum, "fisher_optimum_sum": self.fisher_optimum_sum}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.fisher_sum, self.fisher_optimum_sum = state["fisher_sum"], state["fisher_optimum_sum"]
        self._refresh()


class Ewc:
    """One SGD step an example on its loss and the penalty for leaving the past tasks' parameters."""

    class Settings(methods.Settings):
        lr: Rate
        """Learning rate, constant."""
        memories_per_task: Count = 10
        """Examples from a task's beginning that its Fisher information is estimated from."""
        strength: Weight
        """λ, the weight of the penalty."""

    def __init__(self, settings: Settings, model: Mlp, workshop: Workshop, randomness: Randomness) -> None:
        self.settings, self.stream = settings, workshop.stream
        weights = model.initial(model.sizes(self.stream.inputs, self.stream.classes), randomness)
        self.net = net = workshop.net(weights, settings.lr)
        self.penalty: CollapsedPenalty | SeparatePenalties
        if isinstance(net, FusedNet):
            self.penalty = CollapsedPenalty(net, settings.strength)
        elif isinstance(net, EagerNet):
            self.penalty = SeparatePenalties(net, settings.strength)
        self.task = 0
        self.examples: list[int] = []
        """Stream positions of the current task's first examples."""

    def observe(self, position: int) -> None:
        task = int(self.stream.tasks[position])
        if task != self.task:
            self.penalty.consolidate(self.examples)
            self.task, self.examples = task, []
        if len(self.examples) < self.settings.memories_per_task:
            self.examples.append(position)
        self.penalty.step(position)

    def weights(self, task: int) -> Weights:
        return self.net.weights()

    def state_dict(self) -> dict[str, Any]:
        return {
            "weights": self.net.weights(),
            "task": self.task,
            "examples": self.examples,
            "penalty": self.penalty.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load(state["weights"])
        self.task, self.examples = state["task"], state["examples"]
        self.penalty.load_state_dict(state["penalty"])
