"""Detects numbers that become infinite or NaN in training with torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class NotFinite(ArithmeticError):
    """A network's output is not finite, so that the network gives no answer."""


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """True if every number of every tensor is finite. All must be on one device, from which one value is read."""
    import torch

    flags = [torch.isfinite(tensor.detach()).all() for tensor in tensors]
    return not flags or bool(torch.stack(flags).all())
