"""The tracks: what each offers to the rest of clray, and where it is."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Protocol

from clray.errors import DeclarationError

if TYPE_CHECKING:
    from clray.spec import Trial
    from clray.training import Training


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

    def loop_of(self, method: str) -> str:
        """The name of the file, in the track's folder and without its ending, that trains what ``module_of`` names."""
        ...

    def estimate(self, trial: Trial) -> float:
        """Seconds that the trial takes on one core or GPU, roughly, for a plan made before anything has run."""
        ...


TRACKS = {"vision": "clray.vision.training", "episodes": "clray.episodes.training"}
"""Each track's module; it is imported when a trial of that track is planned or run."""


def track(name: str) -> Track:
    """The module of a track.

    Raises:
        DeclarationError: there is no such track.
    """
    if name not in TRACKS:
        raise DeclarationError(f"track: {name!r} is not a track; allowed: {', '.join(TRACKS)}")
    return importlib.import_module(TRACKS[name])
