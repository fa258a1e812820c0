"""GEM's projection of a gradient, as LAMOL's official code has it (``gem.py`` of Sun, Ho and Lee 2020).

Lopez-Paz and Ranzato (2017): where the gradient points against the gradient on a task's memory, it is replaced by the
nearest one that points against none. The official code adds 1e-3 to the diagonal of the quadratic program's matrix.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from clray.divergence import NotFinite
from clray.optim import gem_multipliers

RIDGE = 1e-3
_AT_ONCE = 1 << 20
"""Parameters that are held in float64 at a time."""


@torch.no_grad()
def project(gradient: Tensor, memories: Tensor, margin: float = 0.5) -> Tensor:
    """Where any memory's gradient is at odds with the gradient, g + Mᵀv with v of the quadratic program (eq. 11).

    Args:
        gradient: g [P]; changed in place.
        memories: M [T, P], the gradient on each task's memory.
        margin: the least v may be. As coded it bounds the dual variables, not the angle between gradients.

    Returns:
        ``gradient``.

    Raises:
        NotFinite: a product of gradients is not finite.
        ValueError: the quadratic program has no solution that can be computed.
    """
    products = memories @ gradient
    at_odds, unknown = torch.stack([(products < 0).any(), products.isnan().any()]).tolist()
    if unknown:
        raise NotFinite
    if not at_odds:
        return gradient
    count = len(memories)
    both = torch.zeros(count, count + 1, dtype=torch.float64, device=gradient.device)
    for begin in range(0, len(gradient), _AT_ONCE):
        part = memories[:, begin : begin + _AT_ONCE].double()
        both[:, :count].addmm_(part, part.t())
        both[:, count].addmv_(part, gradient[begin : begin + _AT_ONCE].double())
    found = both.cpu().numpy()
    if not np.isfinite(found).all():
        raise NotFinite
    multipliers = gem_multipliers(found[:, :count] + RIDGE * np.eye(count), found[:, count], margin)
    return gradient.addmv_(memories.t(), torch.from_numpy(multipliers).to(gradient))
