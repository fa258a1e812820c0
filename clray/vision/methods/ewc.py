"""Elastic weight consolidation (Kirkpatrick 2017), as GEM's ``ewc.py`` codes it and MER's tables use it.

The Fisher information of a finished task is the square of the mean gradient over the first ``memories_per_task``
examples of that task (not the mean of squared gradients, and not over the task), taken when the next task's first
example arrives. The loss adds ``strength * Σ_tasks Σ_i F_i (θ_i - θ*_i)²``, without a factor ½, one term a past task;
the last task's Fisher information is never computed.

Engines: the eager form keeps one term for each task, as the official code does, so that a step costs more with every
task. The fused form keeps only Σ F and Σ F θ*, which give the gradient of the sum of all terms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clray.vision.methods import base
from clray.vision.ranges import Count, Rate, Weight

if TYPE_CHECKING:
    from clray.vision.draws import Weights
    from clray.vision.learners.perceptron import EagerPerceptron, PerceptronLearner
    from clray.vision.learners.perceptron_fused import FusedPerceptron
    from clray.vision.stream import Numbers


class SeparatePenalties:
    """One quadratic term for each past task, differentiated by autograd."""

    def __init__(self, net: EagerPerceptron, strength: float) -> None:
        self.net, self.strength = net, strength
        self.terms: list[tuple[Weights, Weights]] = []
        """The Fisher information and the parameters of each past task."""
        self._tensors: list[list[tuple[Any, Any]]] | None = None
        """The same as tensors on the network's device, made when they are first needed."""

    def consolidate(self, examples: list[int]) -> None:
        """Add the term of a task, given some of its examples."""
        gradients = self.net.gradients(self.net.losses(examples).mean())
        self.terms.append(([g.square().cpu().numpy() for g in gradients], self.net.weights()))
        self._tensors = None

    def steps(self, numbers: Numbers) -> None:
        """One SGD step on the loss of each example and all terms."""
        import torch

        if self._tensors is None:
            device = self.net.parameters[0].device
            self._tensors = [
                [(torch.from_numpy(f).to(device), torch.from_numpy(p).to(device)) for f, p in zip(*term, strict=True)]
                for term in self.terms
            ]
        for number in numbers.tolist():
            loss = self.net.losses([number]).mean()
            for term in self._tensors:
                for parameter, (fisher, optimum) in zip(self.net.parameters, term, strict=True):
                    loss = loss + (self.strength * fisher * (parameter - optimum).square()).sum()
            self.net.descend(loss)

    def state_dict(self) -> dict[str, Any]:
        return {"terms": [list(term) for term in self.terms]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.terms = [
            ([np.asarray(f) for f in fisher], [np.asarray(p) for p in optimum]) for fisher, optimum in state["terms"]
        ]
        self._tensors = None


class CollapsedPenalty:
    """All terms as one quadratic term, with the gradient 2 λ (Σ F θ - Σ F θ*)."""

    def __init__(self, net: FusedPerceptron, strength: float) -> None:
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

    def steps(self, numbers: Numbers) -> None:
        """One SGD step on the loss of each example and all terms."""
        self.net.pulled_step_each(numbers, self.stiffness, self.anchor)

    def state_dict(self) -> dict[str, Any]:
        return {"fisher_sum": self.fisher_sum, "fisher_optimum_sum": self.fisher_optimum_sum}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.fisher_sum = np.asarray(state["fisher_sum"]).copy()
        self.fisher_optimum_sum = np.asarray(state["fisher_optimum_sum"]).copy()
        self._refresh()


class Ewc(base.PerceptronMethod):
    """One SGD step on each example: on its loss plus a penalty on the distance from the past tasks' parameters."""

    class Settings(base.Settings):
        lr: Rate
        """Learning rate, constant."""
        memories_per_task: Count = 10
        """Examples from a task's beginning that its Fisher information is estimated from."""
        strength: Weight
        """λ, the weight of the penalty."""

    def __init__(self, settings: Any, learner: PerceptronLearner) -> None:
        super().__init__(settings, learner)
        self.net = net = learner.net(settings.lr)
        kind = CollapsedPenalty if learner.fused else SeparatePenalties
        self.penalty: CollapsedPenalty | SeparatePenalties = kind(net, settings.strength)  # type: ignore[arg-type]
        self.task = 0
        self.examples: list[int] = []
        """Numbers of the current task's first examples."""

    @classmethod
    def further_seconds(cls, settings: Any, examples: float, tasks: int) -> float:
        return examples * 60e-6

    def learn(self, numbers: Numbers) -> None:
        for task, own in self.by_experience(numbers):
            if task != self.task:
                self.penalty.consolidate(self.examples)
                self.task, self.examples = task, []
            self.examples += own[: self.settings.memories_per_task - len(self.examples)].tolist()
            self.penalty.steps(own)

    def state_dict(self) -> dict[str, Any]:
        penalty = self.penalty.state_dict()
        return super().state_dict() | {"task": self.task, "examples": self.examples, "penalty": penalty}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.task, self.examples = state["task"], state["examples"]
        self.penalty.load_state_dict(state["penalty"])
