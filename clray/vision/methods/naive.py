"""Naive training: a network and an optimizer, without a measure against forgetting.

``optimizer: sgd`` gives the "Naive SGD" of TAG's tables (no momentum). ``tag-rmsprop``, ``tag-adagrad`` and
``tag-adam`` give TAG itself (Malviya 2022), which is an optimizer: ``clray.vision.tag``.
"""

from __future__ import annotations

from clray.vision.methods import base
from clray.vision.optimizers import OptimizerSettings


class Naive(base.ModuleMethod):
    """One step on the mean loss of each minibatch."""

    class Settings(OptimizerSettings):
        pass
