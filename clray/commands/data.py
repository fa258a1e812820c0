"""``clray data``: the data sets of all tracks: those on this machine, and the sources of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from clray.errors import DataError
from clray.output import complain, say, shown
from clray.tracks import TRACKS, find, owners, track

if TYPE_CHECKING:
    from clray.track_interface import DatasetRegistry

Name = Annotated[str, typer.Argument(metavar="NAME", help="As `clray data list` calls it.")]


def _every() -> dict[str, DatasetRegistry]:
    """The data sets of each track."""
    return {name: track(name).sources for name in TRACKS}


def _named(name: str) -> tuple[DatasetRegistry, str]:
    """A data set's track, and its name there."""
    every = _every()
    of, name = find(name, {track: sources.DATASETS for track, sources in every.items()}, "data set")
    return every[of], name


def list_command() -> None:
    """List the data sets: the folders of those that are here, and the sources of those that are missing."""
    every = _every()
    offered = {name: sources.DATASETS for name, sources in every.items()}
    for of, sources in every.items():
        say(f"Track {of}:")
        for name in sources.DATASETS:
            typed = name if len(owners(name, offered)) == 1 else f"{of}/{name}"
            say("\n  ".join(_lines(sources, name, typed)))


def _lines(sources: DatasetRegistry, name: str, typed: str) -> list[str]:
    """The lines about a data set.

    Args:
        typed: its name on the command line.
    """
    published = sources.DATASETS[name]
    try:
        found = sources.find(name)
    except DataError as error:
        return [f"{typed}: {error}"]
    if found and found.source == "grammar":
        return [f"{typed}: needs no file: its grammar makes it"]
    fetched = f"clray data fetch {typed}"
    beside = [said] if not found and (said := sources.beside_it(name)) else []
    advice = [published.advice] * bool(published.advice)
    if found and found.form:
        lines = [f"{typed}: {found.source}: {found.folder}", ", ".join(found.form.files)]
        if not found.form.partial:
            return lines
        part = f"only {found.form.partial}, never judged"
        return [*lines, f"{part}; the whole: {fetched}"] if published.download else [*lines, part, *advice]
    if published.download:
        return [
            f"{typed}: not here: {fetched}",
            *beside,
            f"{', '.join(published.download.files)} from {published.origin}",
            *advice,
        ]
    return [f"{typed}: not here", *beside, *advice]


def fetch_command(name: Name) -> None:
    """Download a data set into the cache, each file checked against its published checksum."""
    sources, name = _named(name)
    say(str(sources.fetch(name)))


def verify_command(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="All that are here, if none is named.")] = None,
) -> None:
    """Read and check the files that a trial would read: their published checksums, or the content they hold."""
    if name is not None:
        sources, own = _named(name)
        say(_verified(sources, own))
        return
    failed = False
    for sources in _every().values():
        for each in sources.DATASETS:
            try:
                found = sources.find(each)
                if found and found.source != "grammar":
                    say(_verified(sources, each))
            except DataError as error:
                complain(shown(str(error)))
                failed = True
    if failed:
        raise typer.Exit(1)


def _verified(sources: DatasetRegistry, name: str) -> str:
    """Check a data set. Returns a line about the result."""
    found = sources.verify(name)
    if found["source"] == "grammar":
        return f"{name}: made by its grammar, fingerprint {found['fingerprint']}"
    state = found.get("unverified") or "every file is as published"
    only = f", only {found['partial']}" if "partial" in found else ""
    return f"{name}: from {found['source']}{only}: {state}, fingerprint {found['fingerprint']}"
