"""A launch in another place than this process: its command line, and the file that is written for that place."""

from __future__ import annotations

import math
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from clray.errors import DeclarationError
from clray.output import complain, redacted, say

if TYPE_CHECKING:
    from clray.commands.target import Target
    from clray.sweep import Cell


def cells(target: Target) -> list[Cell]:
    """All trials of a target, each once."""
    found = {cell.trial.declaration: cell for sweep in target.sweeps.values() for cell in sweep.cells}
    return list(found.values())


def most_cpus(target: Target) -> int:
    """The cores that its largest trial asks for."""
    return max(1, math.ceil(max((cell.resources.cpu for cell in cells(target)), default=1)))


def launch_arguments(target: Target, file: str) -> list[str]:
    """The arguments of clray that launch a target: its verb, its name and what was selected of it.

    Args:
        file: the sweep file, or the name of what ships with clray.
    """
    selection = target.selection
    arguments = ["reproduce" if target.reproduction else "sweep", file]
    arguments += ["--quick"] if selection.quick else []
    arguments += [part for name in selection.only for part in ("--only", name)]
    arguments += ["--seeds", ",".join(map(str, selection.seeds))] if selection.seeds else []
    arguments += [part for item in selection.set for part in ("--set", item)]
    return arguments


def store_uri(results: str) -> str:
    """A store as other machines find it: an absolute path, or a URI without keys.

    Raises:
        DeclarationError: the URI holds a key, which must not stand in a file.
    """
    if "://" not in results:
        return str(Path(results).absolute())
    if redacted(results) != results:
        raise DeclarationError(
            f"--results {redacted(results)}: the address holds a key, which would stand in the file; allowed: an "
            "address without one, and the key in the environment"
        )
    return results


def is_shipped(target: Target) -> bool:
    """True for a reproduction or a sweep that ships with clray, and so needs no file."""
    from clray.loading import reproduction_names, sweep_names

    if target.reproduction:
        return target.file in reproduction_names()
    return target.name in sweep_names()


def complain_of_phases(target: Target) -> None:
    """Say on stderr that a job runs no phase that chooses settings, where the sweep declares one."""
    if target.choosing:
        does = "the job runs every setting with the seeds of the result, as `clray sweep` does"
        complain(f"{does}, not `clray {target.choosing}`")


def job_name(target: Target) -> str:
    """A target's name as the name of a job: letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", target.name).strip("-.")[:50].strip("-.") or "sweep"


def typed() -> str:
    """The command that was typed, for a comment in the file that it writes."""
    from clray.output import shown

    return " ".join(shown(shlex.join(["clray", *sys.argv[1:]])).split())


def write_or_print(text: str, output: str | None, then: str) -> None:
    """Write a file and say how it is used, or print it where no file is named, or ``-``.

    Raises:
        DeclarationError: the file cannot be written.
    """
    from clray.atomic import write_atomically

    if output in (None, "-"):
        say(text, end="")
        return
    try:
        write_atomically(output, text.encode())
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise DeclarationError(f"--output {output}: cannot be written: {reason}") from None
    say(f"{output}: {then.replace('FILE', shlex.quote(output))}")
