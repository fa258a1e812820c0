"""Multi-task, as TAG's repository has it: not joint training, but all tasks visited in turn, six times over.

Plain training otherwise. It has an average accuracy after the last visit, and no forgetting or learning accuracy.
"""

from __future__ import annotations

from clray.vision.learner import TaskMethod
from clray.vision.optimizers import OptimizerSettings
from clray.vision.ranges import Passes


class MultitaskCyclic(TaskMethod):
    """All tasks in turn, again and again."""

    class Settings(OptimizerSettings):
        cycles: Passes = 6
        """Times that every task is visited."""

    def schedule(self) -> list[int]:
        return super().schedule() * self.settings.cycles
