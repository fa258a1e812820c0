"""Experience replay with a reservoir (Riemer 2019, Algorithms 4 and 5): the ablations of MER without meta-learning.

Algorithm 4 takes one step on the mean loss of k examples: k - 1 replays and the arriving one. Algorithm 5 knows the
tasks: it adds up the mean losses of the tasks present in the batch, so that its effective rate grows with their
number. As coded, replays are drawn with replacement, and never include the arriving example.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from clray.vision import methods
from clray.vision.buffers import Reservoir
from clray.vision.engines import Workshop
from clray.vision.models import Mlp, Weights
from clray.vision.randomness import Randomness
from clray.vision.ranges import Count, Rate


class Er:
    """One step a batch of replays and the arriving example."""

    class Settings(methods.Settings):
        algorithm: Literal[4, 5] = 4
        """4: one mean over the batch. 5: the sum over tasks of the task's mean."""
        lr: Rate
        """Learning rate, constant."""
        memories: Count
        """Examples in memory, in total."""
        replay_batch: Count
        """k - 1: replays a step."""

    def __init__(self, settings: Settings, model: Mlp, workshop: Workshop, randomness: Randomness) -> None:
        self.settings, self.stream = settings, workshop.stream
        weights = model.initial(model.sizes(self.stream.inputs, self.stream.classes), randomness)
        self.net = workshop.net(weights, settings.lr)
        self.memory = Reservoir(settings.memories, randomness)

    def observe(self, position: int) -> None:
        batch = np.append(self.memory.draw(self.settings.replay_batch), position)
        if self.settings.algorithm == 4:
            self.net.step(batch)
        else:
            tasks = self.stream.tasks[batch]
            self.net.step(batch, (1.0 / np.bincount(tasks)[tasks]).tolist())
        self.memory.add(position)

    def weights(self, task: int) -> Weights:
        return self.net.weights()

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.net.weights(), "memory": self.memory.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load(state["weights"])
        self.memory.load_state_dict(state["memory"])
