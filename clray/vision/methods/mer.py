"""Meta-Experience Replay (Riemer et al., ICLR 2019): Algorithms 1, 6 and 7.

Every algorithm takes one SGD step per example of a batch, in order, and then moves back towards the weights from
before the batch (Reptile). Where the paper and the official code (@4b7b9c9) differ, clray follows the code:

- the arriving example is first in a batch of Algorithm 1, last in one of Algorithm 6, and anywhere in Algorithm 7's;
- replays are drawn with replacement, and never include the arriving example;
- Algorithm 6 has one batch for each example (in the paper's text it is as long as Algorithm 1's batches together), and
  discards one draw of replays: that advances the random numbers and changes nothing else;
- Algorithm 7 does not learn from the very first example of the stream, but stores it in memory;
- the reservoir's draw is off by one (``memory.Reservoir``, law ``mer``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import model_validator

from clray.vision.memory import Reservoir
from clray.vision.methods import base
from clray.vision.ranges import Count, Passes, Rate

if TYPE_CHECKING:
    from clray.vision.learners.perceptron import PerceptronLearner
    from clray.vision.stream import Numbers


class Mer(base.PerceptronMethod):
    """Sequential steps over batches of replays and the arriving example, and Reptile steps around them."""

    class Settings(base.Settings):
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

    def __init__(self, settings: Any, learner: PerceptronLearner) -> None:
        super().__init__(settings, learner)
        self.net = learner.net(settings.lr)
        self.memory = Reservoir(settings.memories, learner.draws, law="mer")

    @classmethod
    def gradients(cls, settings: Any) -> float:
        return (settings.replay_batch + 1) * settings.batches_per_example

    def learn(self, numbers: Numbers) -> None:
        if self.settings.algorithm == 7:
            for number in numbers.tolist():
                self._algorithm_7(number)
                self.memory.add(number)
            return
        examples = []
        for number in numbers.tolist():
            examples.append(self._batches(number))
            self.memory.add(number)
        if self.settings.algorithm == 1:
            self.net.reptile_each(examples, self.settings.beta, across=self.settings.gamma)
        else:
            self.net.reptile_each(examples, self.settings.gamma, across=None)

    def _batches(self, number: int) -> Numbers:
        """The batches [S, B] of an arriving example, for Algorithm 1 or 6."""
        draw, size = self.memory.draw_with_replacement, self.settings.replay_batch
        if self.settings.algorithm == 6:
            draw(size)  # discarded, as in the official code
        replays = np.stack([draw(size) for _ in range(self.settings.batches_per_example)])
        return np.insert(replays, 0 if self.settings.algorithm == 1 else replays.shape[1], number, axis=1)

    def _algorithm_7(self, number: int) -> None:
        if not len(self.memory):
            return
        batch = np.insert(self.memory.draw_with_replacement(self.settings.replay_batch), 0, number)
        order = self.draws.permutation(len(batch))
        scale = np.where(order == 0, self.settings.s, 1.0)  # the arriving example is at position 0 of ``batch``
        self.net.reptile(batch[order][None], self.settings.gamma, scale[None])

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"memory": self.memory.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.memory.load_state_dict(state["memory"])
