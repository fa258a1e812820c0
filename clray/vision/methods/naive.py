"""Naive training: a network and an optimizer, nothing against forgetting.

With ``optimizer: sgd`` the "Naive SGD" of TAG's tables (no momentum), with ``tag-rmsprop``, ``tag-adagrad`` or
``tag-adam`` TAG itself (Malviya 2022): there the optimizer is the method. See ``clray.vision.tag``.
"""

from __future__ import annotations

from clray.vision.methods import base
from clray.vision.optimizers import OptimizerSettings


class Naive(base.ModuleMethod):
    """One step a minibatch on its mean loss."""

    class Settings(OptimizerSettings):
        pass
