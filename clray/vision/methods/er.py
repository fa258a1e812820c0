"""Experience replay with a reservoir (Riemer 2019, Algorithms 4 and 5): the ablations of MER without meta-learning.

Algorithm 4 takes one step on the mean loss of k examples: k - 1 replays and the arriving one. Algorithm 5 knows the
tasks: it adds up the mean losses of the tasks present in the batch, so that its effective rate grows with their
number. As coded, replays are drawn with replacement, and never include the arriving example.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from clray.vision.memory import Reservoir
from clray.vision.methods import base
from clray.vision.ranges import Count, Rate

if TYPE_CHECKING:
    from clray.vision.learners.perceptron import PerceptronLearner
    from clray.vision.stream import Numbers


class Er(base.PerceptronMethod):
    """One step on each batch of replays and the arriving example."""

    class Settings(base.Settings):
        algorithm: Literal[4, 5] = 4
        """4: one mean over the batch. 5: the sum over tasks of the task's mean."""
        lr: Rate
        """Learning rate, constant."""
        memories: Count
        """Examples in memory, in total."""
        replay_batch: Count
        """k - 1: replays a step."""

    def __init__(self, settings: Any, learner: PerceptronLearner) -> None:
        super().__init__(settings, learner)
        self.net = learner.net(settings.lr)
        self.memory = Reservoir(settings.memories, learner.draws, law="mer")

    @classmethod
    def gradients(cls, settings: Any) -> float:
        return settings.replay_batch + 1

    def learn(self, numbers: Numbers) -> None:
        batches = []
        for number in numbers.tolist():
            batches.append(np.append(self.memory.draw_with_replacement(self.settings.replay_batch), number))
            self.memory.add(number)
        if self.settings.algorithm == 4:
            self.net.step_each(batches)
        else:
            owners = [self.stream.owner[batch] for batch in batches]
            self.net.step_each(batches, [(1.0 / np.bincount(of)[of]).tolist() for of in owners])

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"memory": self.memory.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.memory.load_state_dict(state["memory"])
