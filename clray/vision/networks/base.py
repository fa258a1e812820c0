"""What all networks of the vision track have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import Tensor

Dropout = Annotated[float, Field(ge=0, lt=1)]


class FeatureModule(Protocol):
    """What ``Network.build`` makes: a torch module (``torch.nn.Module``) that has features and a head."""

    def features(self, x: Tensor) -> Tensor:
        """What goes into the last layer: [n, width] for inputs [n, C, H, W]."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Logits [n, outputs]."""
        ...


class Network(BaseModel):
    """The base of every network's settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: ClassVar[tuple[float, float]] = (0.02, 0.002)
    """Seconds of a step on one core, roughly: for itself, and for each 32-pixel image in the batch. For plans."""

    def build(self, shape: Sequence[int], outputs: int) -> FeatureModule:
        """A fresh module, its weights drawn from torch's global generator.

        Layers are made in the order in which the official codes make them, so that a seed gives the same weights.

        Args:
            shape: channels, height and width of an image.
            outputs: logits, of all experiences together.
        """
        raise NotImplementedError
