"""The optimizers that methods on task-incremental benchmarks may be run with, with the settings of TAG's code."""

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
    """Which optimizer, and its settings. It is made once a trial, and keeps its state from task to task."""

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
        """Seconds that a step takes beside the network's own, roughly. For plans."""
        return 0.003 if self.optimizer.startswith("tag-") else 0.0

    def make(self, parameters: Iterable[Any], plain: bool = False) -> torch.optim.Optimizer:
        """The optimizer; of TAG the ``plain`` form where that is asked for."""
        import torch

        from clray.vision.tag import PlainTag, Tag

        kind, _, base = self.optimizer.rpartition("-")
        if kind:
            assert self.b is not None
            return (PlainTag if plain else Tag)(parameters, self.lr, self.b, base)  # type: ignore[arg-type]
        classes = {
            "sgd": torch.optim.SGD,
            "rmsprop": torch.optim.RMSprop,  # smoothing 0.99, 1e-8 beside the root, no momentum
            "adagrad": torch.optim.Adagrad,
            "adam": torch.optim.Adam,
        }
        return classes[base](parameters, lr=self.lr)
