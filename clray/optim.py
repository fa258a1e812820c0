"""Mathematics that more than one track needs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def gem_multipliers(
    gram: NDArray[np.float64], products: NDArray[np.float64], margin: float, ridge: float = 0.0
) -> NDArray[np.float64]:
    """The multipliers v of GEM's dual quadratic program (Lopez-Paz 2017, eq. 11).

    Minimises ½ vᵀ (G Gᵀ) v + (G g)ᵀ v subject to v ≥ margin, in float64. The projected gradient is Gᵀ v + g.

    Args:
        gram: G Gᵀ, [t, t], of the gradients on the memories of t tasks.
        products: G g, [t], with the current gradient.
        margin: the bound on v. As coded, it is a bound on the dual variables, not on the angle between gradients.
        ridge: is added to the diagonal of G Gᵀ. GEM's authors add 1e-3; MER's copy of their code adds nothing.

    Raises:
        FloatingPointError: a gradient is not finite.
        ValueError: the program has no solution that can be computed. The text says why, and what helps.
    """
    import quadprog

    size = len(products)
    symmetric = 0.5 * (gram + gram.T)
    if not (np.isfinite(symmetric).all() and np.isfinite(products).all()):
        raise FloatingPointError("gradients on the memories")
    if ridge:
        symmetric = symmetric + ridge * np.eye(size)
    try:
        return quadprog.solve_qp(symmetric, -products, np.eye(size), np.full(size, float(margin)))[0]
    except ValueError as error:
        raise ValueError(f"GEM's quadratic program cannot be solved ({error}): {_advice(str(error), margin)}") from None


def _advice(error: str, margin: float) -> str:
    """The reason and the remedy for an error of quadprog's."""
    if "positive definite" in error:
        return (
            "the gradient on a task's memory is zero, or a combination of the other tasks', as happens where few "
            "memories are fitted perfectly. Keep more memories of each task, or set a ridge, such as 0.001"
        )
    return f"beside these gradients the margin {margin:g} is too large for float64. Set a smaller margin, or a ridge"
