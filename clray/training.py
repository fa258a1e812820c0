"""The protocol that every track implements, and what the loops of the tracks share.

Nothing here or in a track imports ray or wandb: a trial also runs in a plain process and gives the same numbers there.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from clray.errors import CheckpointError
from clray.gpu import is_out_of_memory
from clray.metrics import Measurement

NO_OFFICIAL_DRAWS = "official: the official code draws without seeds; allowed: clray"
"""The reason against ``randomness: official`` on tracks whose official code sets no seeds."""


class Training(Protocol):
    """One trial in progress."""

    @property
    def progress(self) -> float:
        """The share of the trial that is done, 0 to 1."""
        ...

    def advance(self) -> list[Measurement]:
        """Train to the next stop (at most some tens of seconds later) and return the measurements made on the way.

        The places of the stops never change a number. At the end of the trial ``progress`` is 1.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """The state that a continuation needs, all random generators included."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``: the trial then ends with the same bits as one that was never interrupted."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """Further facts for the record, such as the engine and the device in use."""
        ...


def generator(seed: int, purpose: str) -> np.random.Generator:
    """The trial's generator for one purpose (``weights``, ``data order``, ``buffer`` …), independent of all others.

    One seed gives independent streams through ``numpy.random.SeedSequence``; adding a purpose changes no other.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(zlib.crc32(purpose.encode()),)))


def run(training: Training) -> list[Measurement]:
    """Train to the end in this process. Every other executor must give the same measurements as this plain loop."""
    measurements: list[Measurement] = []
    while training.progress < 1:
        measurements += training.advance()
    return measurements


@contextlib.contextmanager
def restoring(method: str) -> Iterator[None]:
    """A context for reading a trial's state, in which a state of another kind becomes a ``CheckpointError``.

    Raises:
        CheckpointError: the state is not one of a trial with this method. A GPU without enough memory is no such error.
    """
    try:
        yield
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, AssertionError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise  # the checkpoint is fine: a larger share of the GPU may be enough
        raise CheckpointError(f"this is no checkpoint of a {method} trial: {error!r}") from None
