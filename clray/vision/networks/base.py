"""The base class of the vision track's networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import Tensor

Dropout = Annotated[float, Field(ge=0, lt=1)]


class FeatureModule(Protocol):
    """The type that ``Network.build`` returns: a torch module (``torch.nn.Module``) that has features and a head."""

    def features(self, x: Tensor) -> Tensor:
        """The input [n, width] of the last layer, for inputs [n, C, H, W]."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """The logits [n, outputs]."""
        ...


class Network(BaseModel):
    """The base class of every network's settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: ClassVar[tuple[float, float]] = (0.02, 0.002)
    """Seconds of a step on one core, roughly: for itself, and for each 32-pixel image in the batch. For plans."""

    def build(self, shape: Sequence[int], outputs: int) -> FeatureModule:
        """Make a new module. Its weights are drawn from torch's global generator.

        Layers are made in the order in which the official codes make them, so that a seed gives the same weights.

        Args:
            shape: channels, height and width of an image.
            outputs: number of logits of all experiences together.
        """
        raise NotImplementedError
