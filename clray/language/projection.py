"""GEM's projection of a gradient, as in LAMOL's official code (``gem.py`` of Sun, Ho and Lee 2020).

Lopez-Paz and Ranzato (2017): a gradient that has a negative product with the gradient on a task's memory is replaced by
the nearest one that has a negative product with none. The official code adds 1e-3 to the diagonal of the quadratic
program's matrix.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from clray.divergence import NotFinite
from clray.optim import gem_multipliers

RIDGE = 1e-3
_AT_ONCE = 1 << 20
"""The number of parameters that are in float64 at the same time."""


@torch.no_grad()
def project(gradient: Tensor, memories: Tensor, margin: float = 0.5) -> Tensor:
    """Project a gradient to g + Mᵀv, with v of the quadratic program (eq. 11), where a memory's gradient opposes it.

    Args:
        gradient: g [P]; changed in place.
        memories: M [T, P], the gradient on each task's memory.
        margin: the lower bound of v. As in the code it bounds the dual variables, not the angle between gradients.

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
