"""Data sets and measurements that a test chooses, shared by the tests of the analysis."""

from __future__ import annotations

import numpy as np

from clray.metrics import Measurement
from clray.sweep import Cell, Sweep

REAL = {"name": "mnist", "source": "cache", "fingerprint": "0123456789abcdef"}
EMBEDDED = {"name": "mnist", "source": "embedded", "fingerprint": "embedded-fedcba9876543210"}


def measured(tasks: int, la: float, ra: float) -> list[Measurement]:
    """Measurements with this LA and RA (per cent), 10% before training: every diagonal is la, every last row is ra."""
    # The last diagonal element is in the last row: both means come out right if the others make up for it.
    diagonal = np.full(tasks, la / 100)
    last = np.full(tasks, ra / 100 - (la - ra) / 100 / (tasks - 1))
    last[-1] = la / 100
    found = [Measurement(0, 0, j, "accuracy", 0.1) for j in range(tasks)]
    for i in range(tasks):
        for j in range(tasks):
            value = last[j] if i == tasks - 1 else diagonal[j] if i == j else 0.5 * la / 100
            found.append(Measurement(1000 * (i + 1), i + 1, j, "accuracy", float(value)))
    return found


def of(sweep: Sweep, variant: str) -> list[Cell]:
    """The cells of one variant, by seed."""
    return [cell for cell in sweep.cells if cell.variant == variant]


def shaped(
    measurements: list[Measurement], eigenvalues: list[list[float]], displacements: list[float] | None
) -> list[Measurement]:
    """The measurements and, for each task right after it was learned, its eigenvalues and how far the weights moved.

    The relative displacements are tenths of the displacements.
    """
    found = list(measurements)
    for task, values in enumerate(eigenvalues):
        at = (1000 * (task + 1), task + 1, task)
        found += [Measurement(*at, f"eigenvalue_{i + 1}", value) for i, value in enumerate(values)]
        if displacements is not None:
            found.append(Measurement(*at, "displacement", float(displacements[task])))
            found.append(Measurement(*at, "relative_displacement", displacements[task] / 10))
    return found
