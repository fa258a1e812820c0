"""Meta-Experience Replay (Riemer et al., ICLR 2019): Algorithms 1, 6 and 7.

Every algorithm takes one SGD step per example of a batch, in order, and then moves back towards the weights from
before the batch (Reptile). Where the paper and the official code (@4b7b9c9) differ, this is the code:

- the arriving example is first in a batch of Algorithm 1, last in one of Algorithm 6, and anywhere in Algorithm 7's;
- replays are drawn with replacement, and never include the arriving example;
- Algorithm 6 is one batch an example (the paper's text makes it as long as Algorithm 1's batches together), and
  throws one draw of replays away: that moves the random numbers on and changes nothing else;
- Algorithm 7 does not learn from the very first example of the stream, it only remembers it;
- the reservoir's draw is off by one (``buffers.Reservoir``).
"""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from pydantic import model_validator

from clray.vision import methods
from clray.vision.buffers import Reservoir
from clray.vision.engines import Workshop
from clray.vision.models import Mlp, Weights
from clray.vision.randomness import Randomness
from clray.vision.ranges import Count, Passes, Rate


class Mer:
    """Sequential steps over batches of replays and the arriving example, and Reptile steps around them."""

    class Settings(methods.Settings):
        algorithm: Literal[1, 6, 7] = 1
        """1: Reptile within and across batches. 6: one big batch. 7: current example learning rate."""
        lr: Rate
        """α: learning rate of the steps within a batch, constant."""
        memories: Count
        """Examples in memory, in total."""
        replay_batch: Count
        """k - 1: replays a batch."""
        beta: Rate = 1.0
        """β: the within-batch meta-learning rate of Algorithm 1."""
        gamma: Rate = 1.0
        """γ: the across-batch rate of Algorithm 1 (1 does nothing), the only meta-learning rate of 6 and 7."""
        batches_per_example: Passes = 1
        """s in the paper's Algorithm 1: batches for each arriving example."""
        s: Rate = 1.0
        """s in Algorithm 7: what the arriving example's loss is multiplied by."""

        @model_validator(mode="after")
        def _no_idle_settings(self) -> Self:
            used = {1: {"beta", "batches_per_example"}, 6: {"batches_per_example"}, 7: {"s"}}[self.algorithm]
            for name in ({"beta", "batches_per_example", "s"} - used) & self.model_fields_set:
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"algorithm {self.algorithm} does not use {name}")
            return self

    def __init__(self, settings: Settings, model: Mlp, workshop: Workshop, randomness: Randomness) -> None:
        self.settings, self.randomness = settings, randomness
        stream = workshop.stream
        self.net = workshop.net(model.initial(model.sizes(stream.inputs, stream.classes), randomness), settings.lr)
        self.memory = Reservoir(settings.memories, randomness)
        self._learn = {1: self._algorithm_1, 6: self._algorithm_6, 7: self._algorithm_7}[settings.algorithm]

    def observe(self, position: int) -> None:
        self._learn(position)
        self.memory.add(position)

    def _algorithm_1(self, position: int) -> None:
        draws = [self.memory.draw(self.settings.replay_batch) for _ in range(self.settings.batches_per_example)]
        before = self.net.snapshot()
        self.net.reptile(np.insert(np.stack(draws), 0, position, axis=1), self.settings.beta)
        self.net.interpolate(before, self.settings.gamma)

    def _algorithm_6(self, position: int) -> None:
        self.memory.draw(self.settings.replay_batch)  # thrown away, as in the official code
        draws = [self.memory.draw(self.settings.replay_batch) for _ in range(self.settings.batches_per_example)]
        self.net.reptile(np.insert(np.stack(draws), len(draws[0]), position, axis=1), self.settings.gamma)

    def _algorithm_7(self, position: int) -> None:
        if not len(self.memory):
            return
        batch = np.insert(self.memory.draw(self.settings.replay_batch), 0, position)
        order = self.randomness.shuffled(range(len(batch)))
        scale = np.where(order == 0, self.settings.s, 1.0)  # the arriving example was put in front
        self.net.reptile(batch[order][None], self.settings.gamma, scale[None])

    def weights(self, task: int) -> Weights:
        return self.net.weights()

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.net.weights(), "memory": self.memory.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load(state["weights"])
        self.memory.load_state_dict(state["memory"])
