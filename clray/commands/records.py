"""``clray records``: the reference runs that ship with clray, and how finished trials become some."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clray.commands.options import Results
from clray.commands.target import store_at
from clray.errors import DeclarationError
from clray.output import complain, counted, say, shown

if TYPE_CHECKING:
    from clray.analysis.pages import Page
    from clray.record import Record

Name = Annotated[str, typer.Argument(metavar="NAME", help="A reproduction.")]


def list_command() -> None:
    """List the reproductions that have reference runs, with the number of their trials."""
    from clray import reference_runs
    from clray.provenance import is_fresh

    for name in reference_runs.names():
        records = reference_runs.read(name, measurements=False)
        stale = sum(not is_fresh(record) for record in records)
        size = reference_runs.path_of(name).stat().st_size / 1000
        say(f"{name}: {counted(len(records), 'trial')}, {size:.0f} kB" + (f", {stale} of them stale" if stale else ""))


def add_command(name: Name, results: Results = "results") -> None:
    """Pack the store's finished trials of a reproduction into its file of reference runs, in this checkout.

    Trials that the file has already are replaced. Refused are records that cannot be read, that other code made, or
    that were made on a part of the data, on embedded data or on a second data set; each is named with the reason, and
    the exit code is 1.
    """
    from clray import reference_runs
    from clray.documents import one_of, shorter
    from clray.loading import reproduction_names
    from clray.provenance import is_fresh
    from clray.reproduction import load_reproduction

    if name not in reproduction_names():  # a file's path would load, too, and its runs would be shown nowhere
        known = one_of(name, reproduction_names(), "clray list")
        raise DeclarationError(f"{shorter(name) or repr(name)}: no such reproduction; {known}")
    sweeps = load_reproduction(name).sweeps()
    declared = {cell.trial.declaration for sweep in sweeps.values() for cell in sweep.cells}
    kept = [record for record in reference_runs.read(name) if record.trial.declaration in declared]
    collected = reference_runs.collect(sweeps, store_at(results), is_fresh, kept)
    by_id = {record.id: record for record in kept} | {record.id: record for record in collected.records}
    for reason in collected.refused:
        complain(f"refused: {shown(reason)}")
    if collected.records:
        path = reference_runs.write(name, list(by_id.values()))
        added, replaced = _counts(collected.records, kept)
        size = path.stat().st_size / 1000
        say(
            f"{name}: {len(by_id)} of {len(declared)} trials in {path} ({size:.0f} kB): {added} added, "
            f"{replaced} replaced, {len(by_id) - len(collected.records)} kept"
        )
    elif not collected.refused:
        complain(f"{name}: the store holds no finished trial of it; run it: python -m clray.reproduce {name}")
    if collected.refused or not collected.records:
        raise typer.Exit(1)


def pages_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the pages are written.")],
) -> None:
    """Write the pages about the reference runs: an index, and a page for each reproduction that has some."""
    from clray.analysis import pages

    _require_possible(folder)  # before the work of minutes
    for path in pages.write(all_pages(), folder):
        say(str(path))


def _require_possible(folder: Path) -> None:
    """Check that a folder is there or can be made.

    Raises:
        DeclarationError: something else is in its place, or above it.
    """
    nearest = next((path for path in (folder, *folder.parents) if path.exists()), None)
    if nearest is not None and not nearest.is_dir():
        raise DeclarationError(f"{folder}: the pages cannot be written: {nearest} is no folder")


def all_pages() -> list[Page]:
    """The pages of all reproductions that have reference runs."""
    from clray import reference_runs
    from clray.analysis import pages
    from clray.reproduction import load_reproduction

    names = reference_runs.names()
    return pages.by_name({n: load_reproduction(n) for n in names}, {n: reference_runs.read(n) for n in names})


def _counts(found: list[Record], kept: list[Record]) -> tuple[int, int]:
    """The number of records that are new, and of those that replace one."""
    known = {record.id for record in kept}
    replaced = sum(record.id in known for record in found)
    return len(found) - replaced, replaced
