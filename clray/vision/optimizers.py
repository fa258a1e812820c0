"""The optimizers for methods on task-incremental benchmarks, with the settings of TAG's code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from clray.vision.methods.base import Settings
from clray.vision.ranges import Count, Rate, Weight

if TYPE_CHECKING:
    import torch

Name = Literal["sgd", "rmsprop", "adagrad", "adam", "tag-rmsprop", "tag-adagrad", "tag-adam"]


class OptimizerSettings(Settings):
    """The choice of an optimizer, and its settings. Each trial makes it once and keeps its state between tasks."""

    optimizer: Name = "sgd"
    lr: Rate
    """Learning rate, constant."""
    b: Weight | None = None
    """TAG's b: the larger, the more a task counts whose gradients point another way (the paper takes 5 and 7)."""
    batch: Count = 10
    """Images in a minibatch."""

    @model_validator(mode="after")
    def _b_belongs_to_tag(self) -> OptimizerSettings:
        if self.optimizer.startswith("tag-") and self.b is None:
            raise ValueError(f"b: {self.optimizer} needs it")
        if not self.optimizer.startswith("tag-") and self.b is not None:
            raise ValueError(f"b: belongs to the TAG optimizers, not to {self.optimizer}")
        return self

    @property
    def seconds_per_step(self) -> float:
        """The seconds that the optimizer adds to a step, roughly; for plans."""
        return 0.003 if self.optimizer.startswith("tag-") else 0.0

    def make(self, parameters: Iterable[Any], plain: bool = False) -> torch.optim.Optimizer:
        """Make the optimizer. ``plain`` selects the slow reference form of TAG."""
        import torch

        from clray.vision.tag import PlainTag, Tag

        kind, _, base = self.optimizer.rpartition("-")
        if kind:
            assert self.b is not None
            return (PlainTag if plain else Tag)(parameters, self.lr, self.b, base)  # type: ignore[arg-type]
        classes = {
            "sgd": torch.optim.SGD,
            "rmsprop": torch.optim.RMSprop,  # smoothing 0.99, eps 1e-8 added to the root, no momentum
            "adagrad": torch.optim.Adagrad,
            "adam": torch.optim.Adam,
        }
        return classes[base](parameters, lr=self.lr)
