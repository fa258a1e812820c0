"""``clray doctor`` and ``clray init``: checks of this machine, and the files for a method of one's own."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clray.commands.options import Results
from clray.errors import DataError, DeclarationError
from clray.output import say
from clray.tracks import TRACKS, find, track

if TYPE_CHECKING:
    from clray.track_interface import BenchmarkFamily


def doctor_command(results: Results = "results") -> None:
    """Check this machine: a line for each check of what trials need, and of what would keep them from running.

    Exit code 1 where no trial can run until something is mended.
    """
    from clray.commands.checks import checks
    from clray.provenance import provenance

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


def init_command(
    folder: Annotated[Path, typer.Argument(help="A new folder.")] = Path("my-method"),
    like: Annotated[
        str,
        typer.Option(metavar="METHOD", help="The method to start from; TRACK/METHOD where several tracks have it."),
    ] = "er",
) -> None:
    """Copy a sweep file and a method to start your own from."""
    from clray.loading import find_sweep

    kinds = {name: track(name).kinds() for name in TRACKS}
    offered = {name: [method for kind in of for method in kind.methods] for name, of in kinds.items()}
    of, method = find(like, offered, "method")
    if os.path.lexists(folder):
        raise DeclarationError(f"{folder}: it exists already; name a new folder")
    kind = next(kind for kind in kinds[of] if method in kind.methods)
    sweep, variant = _start(kind, method)
    module, _, name = kind.methods[method].partition(":")
    package, _, file = module.rpartition(".")  # the methods of a family may have a folder of their own
    registry = Path(__file__).parents[1] / of / "methods"
    methods = registry / package.replace(".", "/")
    mine = _module_name(folder.name, offered[of])
    target = f"{package}.{mine}" if package else mine
    command = f"clray sweep {shlex.quote(f'{folder}/sweep.yaml')}"
    text = find_sweep(sweep).read_text(encoding="utf-8").replace(f"# clray sweep {sweep}\n", f"# {command}\n", 1)
    _write_new(folder, {"sweep.yaml": text, "method.py": (methods / f"{file}.py").read_text(encoding="utf-8")})
    say(f"{folder}/sweep.yaml: a sweep to change; try: {command} --quick --only {variant}")
    say(f"{folder}/method.py: a method to change; to declare variants of it, copy it to {methods / mine}.py,")
    place = f"{registry / '__init__.py'}" if package else "__init__.py there"
    say(f'  and put a line into {kind.registry} in {place}: "{mine}": "{target}:{name}",')


def _write_new(folder: Path, files: Mapping[str, str]) -> None:
    """Make a folder and files in it. If that fails, nothing is left behind.

    Raises:
        DeclarationError: it cannot be made there.
    """
    highest = next((path for path in reversed((folder, *folder.parents)) if not os.path.lexists(path)), folder)
    try:
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        if not isinstance(error, FileExistsError):
            shutil.rmtree(highest, ignore_errors=True)
        from clray.documents import shorter

        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise DeclarationError(
            f"{shorter(folder)}: cannot be made: {reason}; name a folder that you may write"
        ) from None


def _module_name(folder: str, taken: Iterable[str]) -> str:
    """The name of a method whose files were made in such a folder."""
    name = "".join(letter if letter.isalnum() else "_" for letter in folder)
    return name if name.isidentifier() and name not in taken else f"my_{name}"


def _start(kind: BenchmarkFamily, method: str) -> tuple[str, str]:
    """A sweep, and the name of a variant in it that has the method."""
    from clray.documents import Document
    from clray.loading import find_sweep

    for sweep in kind.sweeps:
        for variant, settings in Document(find_sweep(sweep)).data["variants"].items():
            if settings.get("method") == method:
                return sweep, variant
    raise DeclarationError(f"--like {method}: none of {', '.join(kind.sweeps)} has a variant of it to start from")
