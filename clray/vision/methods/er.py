"""Experience replay with a reservoir (Riemer 2019, Algorithms 4 and 5): the ablations of MER without meta-learning.

Algorithm 4 takes one step on the mean loss of k examples: k - 1 replays and the arriving one. Algorithm 5 knows the
tasks: it adds up the mean losses of the tasks present in the batch, so that its effective rate grows with their
number. As coded, replays are drawn with replacement, and never include the arriving example.

Table 6 of the paper also has Algorithm 5 with Adam, with RMSProp, and with GEM's memory. The repository has no code of
these; ``optimizer`` and ``memory`` are how we read their names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from clray.trial import later
from clray.vision.memory import Reservoir, Ring
from clray.vision.methods import base
from clray.vision.ranges import Count, Rate

if TYPE_CHECKING:
    from clray.vision.learners.adaptive import Adaptive
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
        optimizer: Literal["sgd", "adam", "rmsprop"] = later("sgd")
        """Adam and RMSProp have the default settings of ``torch.optim`` but for the learning rate."""
        memory: Literal["reservoir", "ring"] = later("reservoir")
        """``ring``: each task keeps its last examples, as in GEM; the tasks have equal parts of ``memories``."""

    def __init__(self, settings: Any, learner: PerceptronLearner) -> None:
        super().__init__(settings, learner)
        self.net = learner.net(settings.lr)
        self._optimizer: Adaptive | None = None
        """None for SGD, which the network does by itself."""
        if settings.optimizer != "sgd":
            from clray.vision.learners.adaptive import adaptive

            self._optimizer = adaptive(self.net, settings.optimizer)
        self.memory: Reservoir | Ring
        if settings.memory == "reservoir":
            self.memory = Reservoir(settings.memories, learner.draws, law="mer")
        else:
            tasks = len(self.stream.experiences)
            self.memory = Ring(tasks, settings.memories // tasks, shared_pointer=True)

    @classmethod
    def gradients(cls, settings: Any) -> float:
        return settings.replay_batch + 1

    @classmethod
    def further_seconds(cls, settings: Any, examples: float, tasks: int) -> float:
        return 0.0 if settings.optimizer == "sgd" else examples * 0.1e-3

    def learn(self, numbers: Numbers) -> None:
        batches = []
        for number in numbers.tolist():
            batches.append(np.append(self._replays(), number))
            if isinstance(self.memory, Ring):
                self.memory.add(int(self.stream.owner[number]), number)
            else:
                self.memory.add(number)
        steps = self._optimizer or self.net
        if self.settings.algorithm == 4:
            steps.step_each(batches)
        else:
            owners = [self.stream.owner[batch] for batch in batches]
            steps.step_each(batches, [(1.0 / np.bincount(of)[of]).tolist() for of in owners])

    def _replays(self) -> Numbers:
        count = self.settings.replay_batch
        if isinstance(self.memory, Reservoir):
            return self.memory.draw_with_replacement(count)
        stored = self.memory.of(list(range(len(self.stream.experiences))))
        return stored[self.draws.with_replacement(len(stored), count)]

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict() | {"memory": self.memory.state_dict()}
        return state if self._optimizer is None else state | {"optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.memory.load_state_dict(state["memory"])
        if self._optimizer is not None:
            self._optimizer.load_state_dict(state["optimizer"])
