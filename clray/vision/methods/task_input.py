"""Task input: an input layer of its own for each task, all other layers shared (GEM's ``multimodal``).

Weights start as PyTorch's ``nn.Linear`` leaves them, with zero biases, as in the official code: the other methods
start from Xavier's. A task that has not been learned is answered through its untrained input layer.
"""

from __future__ import annotations

from typing import Any

from clray.vision import methods
from clray.vision.engines import Workshop
from clray.vision.models import Mlp, Weights
from clray.vision.randomness import Randomness
from clray.vision.ranges import Rate


class TaskInput:
    """One SGD step on each arriving example, by its task's input layer and the shared layers."""

    class Settings(methods.Settings):
        lr: Rate
        """Learning rate, constant."""

    def __init__(self, settings: Settings, model: Mlp, workshop: Workshop, randomness: Randomness) -> None:
        self.stream = workshop.stream
        sizes = model.sizes(self.stream.inputs, self.stream.classes)
        inputs = [model.initial(sizes[:2], randomness, "linear") for _ in range(self.stream.task_count)]
        shared = model.initial(sizes[1:], randomness, "linear")
        self.inputs = inputs
        """[tasks] of (weights, biases); the current task's is in the net while it is being learned."""
        self.task = 0
        self.net = workshop.net(inputs[0] + shared, settings.lr)

    def observe(self, position: int) -> None:
        task = int(self.stream.tasks[position])
        if task != self.task:
            weights = self.net.weights()
            self.inputs[self.task] = weights[:2]
            self.net.load(self.inputs[task] + weights[2:])
            self.task = task
        self.net.step([position])

    def weights(self, task: int) -> Weights:
        weights = self.net.weights()
        return weights if task == self.task else self.inputs[task] + weights[2:]

    def state_dict(self) -> dict[str, Any]:
        return {"task": self.task, "inputs": self.inputs, "weights": self.net.weights()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.task, self.inputs = state["task"], state["inputs"]
        self.net.load(state["weights"])
