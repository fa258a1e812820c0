"""Online: plain SGD on the stream, without a measure against forgetting. GEM's ``single``; "Online" in MER's tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clray.vision.methods import base
from clray.vision.ranges import Rate

if TYPE_CHECKING:
    from clray.vision.learners.perceptron import PerceptronLearner
    from clray.vision.stream import Numbers


class Online(base.PerceptronMethod):
    """One SGD step on each arriving example."""

    class Settings(base.Settings):
        lr: Rate
        """Learning rate, constant."""

    def __init__(self, settings: Any, learner: PerceptronLearner) -> None:
        super().__init__(settings, learner)
        self.net = learner.net(settings.lr)

    def learn(self, numbers: Numbers) -> None:
        self.net.step_each(numbers[:, None])
