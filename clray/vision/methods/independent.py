"""Independent: one small network a task (GEM's ``independent``).

Widths are the declared ones divided by the number of tasks, rounded down: 5 hidden units for 20 tasks, 1 for 100.
As the official code has it by default, a task's network starts from the previous task's ("finetune"), so that the
networks are less independent than their name; ``finetune: false`` starts each from its own fresh weights.
"""

from __future__ import annotations

from typing import Any

from clray.vision import methods
from clray.vision.engines import Workshop
from clray.vision.models import Mlp, Weights
from clray.vision.randomness import Randomness
from clray.vision.ranges import Rate


class Independent:
    """One SGD step on each arriving example, by the network of its task alone."""

    class Settings(methods.Settings):
        lr: Rate
        """Learning rate, constant."""
        finetune: bool = True
        """Start a task's network from the weights of the previous task's."""

    def __init__(self, settings: Settings, model: Mlp, workshop: Workshop, randomness: Randomness) -> None:
        self.stream, self.finetune = workshop.stream, settings.finetune
        tasks = self.stream.task_count
        narrow = [max(1, width // tasks) for width in model.hidden]
        sizes = model.sizes(self.stream.inputs, self.stream.classes, narrow)
        self.nets = [workshop.net(model.initial(sizes, randomness), settings.lr) for _ in range(tasks)]
        self.task = 0

    def observe(self, position: int) -> None:
        task = int(self.stream.tasks[position])
        if task != self.task and self.finetune:
            self.nets[task].load(self.nets[self.task].weights())
        self.task = task
        self.nets[task].step([position])

    def weights(self, task: int) -> Weights:
        return self.nets[task].weights()

    def state_dict(self) -> dict[str, Any]:
        return {"task": self.task, "weights": [net.weights() for net in self.nets]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.task = state["task"]
        for net, weights in zip(self.nets, state["weights"], strict=True):
            net.load(weights)
