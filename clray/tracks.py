"""The registry of the tracks: where each one is, and which of them has a name."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from clray.errors import DeclarationError

if TYPE_CHECKING:
    from clray.track_interface import Track

TRACKS = {
    "vision": "clray.vision.training",
    "episodes": "clray.episodes.training",
    "language": "clray.language.training",
}
"""Each track's module; it is imported when a trial of that track is planned or run."""
EXTRAS = {"language": "language"}
"""The extra (``clray.extras``) that a track's trials need, where they need one. Plans, tables and reports need none."""


def track(name: str) -> Track:
    """The module of a track.

    Raises:
        DeclarationError: there is no such track.
    """
    if name not in TRACKS:
        raise DeclarationError(f"track: {name!r} is not a track; allowed: {', '.join(TRACKS)}")
    return importlib.import_module(TRACKS[name])


def find(wanted: str, offered: Mapping[str, Iterable[str]], what: str) -> tuple[str, str]:
    """The track and the name that ``NAME`` or ``TRACK/NAME`` stands for.

    Args:
        wanted: as it was typed.
        offered: by track, the names that it has.
        what: the kind of thing that they name, for the error.

    Raises:
        DeclarationError: there is no such name, or several tracks have it.
    """
    from clray.documents import one_of, shorter  # loads pydantic, which `clray --help` does without

    named, slash, name = wanted.rpartition("/")
    having = [track for track in owners(name, offered) if not slash or track == named]
    if len(having) == 1:
        return having[0], name
    if having:
        choices = " or ".join(f"{track}/{name}" for track in having)
        raise DeclarationError(f"{wanted}: a {what} of several tracks: write {choices}")
    every = {each: owners(each, offered) for names in offered.values() for each in names}
    spelt = [n for each, of in every.items() for n in ([each] if len(of) == 1 else [f"{track}/{each}" for track in of])]
    raise DeclarationError(f"{shorter(wanted) or repr(wanted)}: no such {what}; {one_of(wanted, spelt)}")


def owners(name: str, offered: Mapping[str, Iterable[str]]) -> list[str]:
    """The tracks that have a name."""
    return [track for track, names in offered.items() if name in names]
