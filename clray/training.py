"""The one protocol that every track implements, the registry of tracks, and the seeds of a trial.

Nothing here or in a track imports ray or wandb: a trial runs in a plain process and gives the same numbers there.
"""

from __future__ import annotations

import importlib
import zlib
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from clray.errors import DeclarationError
from clray.metrics import Measurement

if TYPE_CHECKING:
    from clray.spec import Trial


class Training(Protocol):
    """One trial in progress."""

    progress: float
    """How much of the trial is done, 0 to 1."""

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


class Track(Protocol):
    """What a track's package offers to the rest of clray: the module named in ``TRACKS``."""

    def resolve(self, declared: dict[str, Any]) -> dict[str, Any]:
        """Check a variant's benchmark, model and method settings, and fill in the defaults."""
        ...

    def data(self, trial: Trial, fetch: bool) -> dict[str, Any]:
        """The data set a trial would use here: its name, source and fingerprint."""
        ...

    def train(self, trial: Trial, data: dict[str, Any], device: str) -> Training:
        """The trial, ready to begin.

        Raises:
            DataError: this machine cannot provide that data.
        """
        ...

    def module_of(self, method: str) -> str:
        """The name of a method's file below ``methods/``, without its ending."""
        ...

    def estimate(self, trial: Trial) -> float:
        """Seconds that the trial takes on one core or GPU, roughly, for a plan made before anything has run."""
        ...


TRACKS = {"vision": "clray.vision.training"}
"""Each track's module; it is imported when a trial of that track is planned or run."""


def track(name: str) -> Track:
    """The module of a track.

    Raises:
        DeclarationError: there is no such track.
    """
    if name not in TRACKS:
        raise DeclarationError(f"track: {name!r} is not a track; allowed: {', '.join(TRACKS)}")
    return importlib.import_module(TRACKS[name])  # type: ignore[return-value]


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
