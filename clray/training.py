"""The one protocol that every track implements, and the seeds of a trial.

Nothing here or in a track imports ray or wandb: a trial runs in a plain process and gives the same numbers there.
"""

from __future__ import annotations

import zlib
from typing import Any, Protocol

import numpy as np

from clray.metrics import Measurement


class Training(Protocol):
    """One trial in progress."""

    @property
    def progress(self) -> float:
        """How much of the trial is done, 0 to 1."""
        ...

    def advance(self) -> list[Measurement]:
        """Train to the next natural stop (at most some tens of seconds) and return what was measured on the way.

        Where the stops fall never changes a number. At the end of the trial ``progress`` is 1.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that a continuation needs, all random generators included."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``: the trial then ends with the same bits as one that was never interrupted."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """What the record should say beside the numbers: the engine and device in use, for example."""
        ...


def generator(seed: int, purpose: str) -> np.random.Generator:
    """The trial's generator for one purpose (``weights``, ``data order``, ``buffer`` …), independent of all others.

    One seed gives independent streams through ``numpy.random.SeedSequence``; adding a purpose changes no other.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(zlib.crc32(purpose.encode()),)))


def run(training: Training) -> list[Measurement]:
    """Train to the end in this process: the plain loop that every executor must agree with."""
    measurements: list[Measurement] = []
    while training.progress < 1:
        measurements += training.advance()
    return measurements
