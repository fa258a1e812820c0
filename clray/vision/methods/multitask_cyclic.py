"""Multi-task as in TAG's repository: not joint training, but all tasks visited in turn, six times.

Otherwise it is plain training. The average accuracy is measured after the last visit; there is no forgetting and no
learning accuracy.
"""

from __future__ import annotations

from clray.vision.methods import base
from clray.vision.optimizers import OptimizerSettings
from clray.vision.ranges import Passes


class MultitaskCyclic(base.ModuleMethod):
    """Plain training on all tasks in turn, in several cycles."""

    class Settings(OptimizerSettings):
        cycles: Passes = 6
        """Times that every task is visited."""

    def visits(self) -> list[int]:
        return super().visits() * self.settings.cycles
