"""Independent: one small network for each task (GEM's ``independent``).

Widths are the declared ones divided by the number of tasks, rounded down: 5 hidden units for 20 tasks, 1 for 100. In
the official code's default ("finetune") a task's network starts from the previous task's, so that the networks are not
fully independent. ``finetune: false`` starts each from its own fresh weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clray.vision.methods import base
from clray.vision.ranges import Rate

if TYPE_CHECKING:
    from clray.vision.learners.perceptron import PerceptronLearner
    from clray.vision.stream import Numbers


class Independent(base.PerceptronMethod):
    """One SGD step on each arriving example, on the network of its task only."""

    class Settings(base.Settings):
        lr: Rate
        """Learning rate, constant."""
        finetune: bool = True
        """Start a task's network from the weights of the previous task's."""

    def __init__(self, settings: Any, learner: PerceptronLearner) -> None:
        super().__init__(settings, learner)
        tasks = len(self.stream.experiences)
        sizes = learner.sizes([max(1, width // tasks) for width in learner.network.hidden])
        self.nets = [learner.net(settings.lr, learner.initial(sizes)) for _ in range(tasks)]
        self.task = 0

    def learn(self, numbers: Numbers) -> None:
        for task, own in self.by_experience(numbers):
            if task != self.task and self.settings.finetune:
                self.nets[task].load(self.nets[self.task].weights())
            self.task = task
            self.nets[task].step_each(own[:, None])

    def correct(self, experience: int) -> int:
        return self.nets[experience].correct(experience)

    def is_finite(self) -> bool:
        return all(net.is_finite() for net in self.nets)

    def state_dict(self) -> dict[str, Any]:
        return {"task": self.task, "weights": [net.weights() for net in self.nets]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.task = state["task"]
        for net, weights in zip(self.nets, state["weights"], strict=True):
            net.load(weights)
