"""``clray doctor``: checks of this machine."""

from __future__ import annotations

import typer

from clray.commands.options import Results
from clray.commands.target import require_named
from clray.errors import DataError
from clray.output import say
from clray.tracks import TRACKS, track


def doctor_command(results: Results = "results") -> None:
    """Check this machine: a line for each check of what trials need, and of what would keep them from running.

    Exit code 1 where no trial can run until something is mended.
    """
    from clray.commands.checks import checks
    from clray.provenance import provenance

    require_named(results)
    facts = provenance("")
    say(f"clray {facts['clray']}, Python {facts['python']}, {facts['machine']['processor']}")
    say("  " + ", ".join(f"{name} {version}" for name, version in facts["packages"].items()))
    found = []
    for finding in checks(results):
        found.append(finding)
        say(str(finding))
    for name in TRACKS:
        say(f"data, {name}: {_data_here(name)}")
    if any(finding.fatal for finding in found):
        raise typer.Exit(1)


def _data_here(name: str) -> str:
    """The data sets of a track that are here, and those that are missing."""
    sources = track(name).sources
    here, missing = [], []
    for each in sources.DATASETS:
        try:
            found = sources.find(each)
        except DataError as error:
            missing.append(f"{each} ({error})")
            continue
        if found and found.source != "grammar":
            partly = ", a part of it" if found.form and found.form.partial else ""
            here.append(f"{each} ({found.source}{partly})")
        elif found is None:
            missing.append(each)
    told = ", ".join(here) or "no files"
    return told + (f"; not here: {', '.join(missing)}; see clray data list" if missing else "")
