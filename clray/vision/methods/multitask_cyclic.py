"""Multi-task, as TAG's repository has it: not joint training, but all tasks visited in turn, six times over.

Plain training otherwise. It has an average accuracy after the last visit, and no forgetting or learning accuracy.
"""

from __future__ import annotations

from clray.vision.methods import base
from clray.vision.optimizers import OptimizerSettings
from clray.vision.ranges import Passes


class MultitaskCyclic(base.ModuleMethod):
    """All tasks in turn, again and again."""

    class Settings(OptimizerSettings):
        cycles: Passes = 6
        """Times that every task is visited."""

    def visits(self) -> list[int]:
        return super().visits() * self.settings.cycles
