"""``clray show`` and ``clray export``: one trial, and its files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clray.commands.options import Results
from clray.commands.target import ID, print_json, selected, store_at, target_of, terminal, trial_id
from clray.errors import ClrayError
from clray.output import write_file


def show_command(name: Annotated[str, typer.Argument(metavar="NAME|TRIAL")], results: Results = "results") -> None:
    """Show a reproduction, a sweep, or a trial by its id, provenance included."""
    from clray.gpu import sharers, words
    from clray.record import Record
    from clray.store import Problem

    store, console = store_at(results), terminal()
    if not ID.fullmatch(name):
        target = target_of(name, selected(False, None, None, None))
        print_json({key: sweep.model_dump(mode="json") for key, sweep in target.sweeps.items()}, console)
        return
    record = store.read(name) or store.read(name, "running")
    if isinstance(record, Problem):
        raise ClrayError(str(record))
    failure = store.failure(name)
    if record is None and failure is None:
        raise ClrayError(f"{name}: no record, checkpoint or failure of such a trial in {store.uri}")
    if isinstance(record, Record):
        facts = {
            "id": record.id, "status": record.status, "sweep": record.sweep, "variant": record.variant,
            "trial": record.trial.model_dump(mode="json"), "data": record.data, "provenance": record.provenance,
            "metrics": record.metrics, "measurements": len(record.measurements),
        }  # fmt: skip
        print_json(facts, console)
    for earlier in store.superseded(name):
        console.print(f"its record of before it was run again: {earlier}", soft_wrap=True)
    memory = record.provenance.get("gpu_memory") if isinstance(record, Record) else None
    if memory:
        console.print(f"It took {words(memory)} at most: {sharers(memory)} of its kind fit on such a GPU.")
    if failure:
        told = failure.get("traceback") or failure.get("error")
        console.print(f"its last attempt failed on {failure.get('host')}:\n{told}", soft_wrap=True)


def export_command(
    trial: Annotated[str, typer.Argument(metavar="TRIAL", help="The id of a finished trial.")],
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The file; by default they are listed.")] = None,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Its path; by default ./NAME.")] = None,
    results: Results = "results",
) -> None:  # fmt: skip
    """Write a file that was stored beside a trial's record, such as its network in the official code's layout."""
    from clray.documents import one_of

    store, console = store_at(results), terminal()
    kept = store.artifacts(trial_id(trial))
    if not kept:
        raise ClrayError(f"{trial}: no file of such a trial is beside its record in {store.uri}")
    if name is None:
        for one in kept:
            console.print(one, soft_wrap=True)
        return
    content = store.read_artifact(trial, name) if name in kept else None
    if content is None:
        raise ClrayError(f"{trial}: it has no file {name!r}; {one_of(name, kept)}")
    console.print(str(write_file(file or Path(name), content)), soft_wrap=True)
