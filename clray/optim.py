"""Mathematics that more than one track needs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def gem_multipliers(gram: NDArray[np.float64], products: NDArray[np.float64], margin: float) -> NDArray[np.float64]:
    """The multipliers v of GEM's dual quadratic program (Lopez-Paz 2017, eq. 11).

    Minimises ½ vᵀ (G Gᵀ) v + (G g)ᵀ v subject to v ≥ margin, in float64. The projected gradient is Gᵀ v + g.

    Args:
        gram: G Gᵀ, [t, t], of the gradients on the memories of t tasks.
        products: G g, [t], with the current gradient.
        margin: the bound on v. As coded, it is a bound on the dual variables, not on the angle between gradients.

    Raises:
        ValueError: G Gᵀ is singular, as quadprog says; MER's copy of the code adds no ridge that would prevent it.
    """
    import quadprog

    size = len(products)
    symmetric = 0.5 * (gram + gram.T)
    return quadprog.solve_qp(symmetric, -products, np.eye(size), np.full(size, float(margin)))[0]
