"""Stable SGD (Mirzadeh 2020, arXiv 2006.06958): a learning rate that falls from task to task, dropout, small batches.

Task t (from 1) is trained at ``max(lr gamma^t, 5e-5)``: the first task already at ``lr gamma``. Dropout is a setting of
the network (``model: {dropout: …}``). The official code makes a new SGD optimizer with momentum 0.8 before every epoch,
also for the runs that the paper calls "plastic" (gamma 1, no dropout). TAG's repository runs "Stable SGD" without
momentum: ``momentum: 0``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from clray.vision.methods import base
from clray.vision.ranges import Count, Rate

if TYPE_CHECKING:
    import torch

_LOWEST_LR = 5e-5


class StableSgd(base.ModuleMethod):
    """SGD with a learning rate that falls from task to task; its momentum is reset before every epoch."""

    class Settings(base.Settings):
        lr: Rate
        """Learning rate before any decay."""
        gamma: Annotated[float, Field(gt=0, le=1)] = 1.0
        """The factor of the learning rate before each task, the first included."""
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.8
        batch: Count = 10
        """Images in a minibatch."""

    def make_optimizer(self, experience: int = 0) -> torch.optim.Optimizer:
        import torch

        settings = self.settings
        lr = max(settings.lr * settings.gamma ** (experience + 1), _LOWEST_LR)
        return torch.optim.SGD(self.learner.parameters, lr=lr, momentum=settings.momentum)

    def begin(self, experience: int) -> None:
        self.learner.optimizer = self.make_optimizer(experience)
