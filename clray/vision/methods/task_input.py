"""Task input: a separate input layer for each task, all other layers shared (GEM's ``multimodal``).

Weights start with the values of PyTorch's ``nn.Linear`` and biases with zero, as in the official code; the other
methods start from Xavier's. A task that has not been learned yet is tested through its untrained input layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from clray.vision.methods import base
from clray.vision.ranges import Rate

if TYPE_CHECKING:
    from clray.vision.learners.perceptron import PerceptronLearner
    from clray.vision.stream import Numbers


class TaskInput(base.PerceptronMethod):
    """One SGD step on each arriving example, on its task's input layer and the shared layers."""

    class Settings(base.Settings):
        lr: Rate
        """Learning rate, constant."""

    def __init__(self, settings: Any, learner: PerceptronLearner) -> None:
        super().__init__(settings, learner)
        sizes = learner.sizes()
        inputs = [learner.initial(sizes[:2], "linear") for _ in self.stream.experiences]
        shared = learner.initial(sizes[1:], "linear")
        self.inputs: list[list[Any]] = inputs
        """By task, the weights and biases of its input layer. The net holds those of the task that is learned."""
        self.task = 0
        self.net = learner.net(settings.lr, inputs[0] + shared)

    def learn(self, numbers: Numbers) -> None:
        for task, own in self.by_experience(numbers):
            if task != self.task:
                weights = self.net.weights()
                self.inputs[self.task] = weights[:2]
                self.net.load(self.inputs[task] + weights[2:])
                self.task = task
            self.net.step_each(own[:, None])

    def weights(self, task: int) -> list[Any]:
        """The weights of all layers that a task uses."""
        weights = self.net.weights()
        return weights if task == self.task else self.inputs[task] + weights[2:]

    def correct(self, experience: int) -> int:
        if experience == self.task:
            return self.net.correct(experience)
        return self.learner.net(self.settings.lr, self.weights(experience)).correct(experience)

    def is_finite(self) -> bool:
        return self.net.is_finite() and all(np.isfinite(part).all() for layer in self.inputs for part in layer)

    def state_dict(self) -> dict[str, Any]:
        return {"task": self.task, "inputs": self.inputs, "weights": self.net.weights()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.task = state["task"]
        self.inputs = [[np.asarray(part) for part in layer] for layer in state["inputs"]]
        self.net.load(state["weights"])
