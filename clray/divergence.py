"""Numbers that are not finite any more, and how training with torch notices them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class NotFinite(ArithmeticError):
    """A network's output is not finite, so that no answer can be read from it."""


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every number of every tensor is finite; all tensors are on one device, which is asked once."""
    import torch

    flags = [torch.isfinite(tensor.detach()).all() for tensor in tensors]
    return not flags or bool(torch.stack(flags).all())
