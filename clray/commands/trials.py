"""``clray show`` and ``clray export``: one trial, and its files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clray.commands.options import Results
from clray.commands.target import ID, print_json, selected, store_at, target_of, terminal, trial_id
from clray.errors import ClrayError, DeclarationError
from clray.output import shown, write_file

if TYPE_CHECKING:
    from clray.record import Record
    from clray.store import Problem, Store, Superseded


def show_command(
    name: Annotated[str, typer.Argument(metavar="NAME|TRIAL")],
    results: Results = "results",
    superseded: Annotated[
        bool,
        typer.Option(
            "--superseded",
            help="Show the records that the trial had before it was run again, each compared with the present one.",
        ),
    ] = False,
) -> None:
    """Show a reproduction, a sweep, or a trial by its id, provenance included."""
    from clray import reference_runs
    from clray.documents import is_there
    from clray.gpu import sharers, words
    from clray.record import Record
    from clray.store import Problem

    store, console = store_at(results, reading=True), terminal()
    if not ID.fullmatch(name):
        if superseded:
            raise DeclarationError(f"{name} --superseded: not the id of a trial; only trials have superseded records")
        if re.fullmatch("[0-9a-f]{4,}", name) and not is_there(Path(name)):
            trial_id(name)  # an error: somebody has typed a part of an id
        target = target_of(name, selected(False, None, None, None))
        sweeps = {key: sweep.model_dump(mode="json") for key, sweep in target.sweeps.items()}
        found = target.reproduction and {"reproduction": target.reproduction.model_dump(mode="json"), "sweeps": sweeps}
        print_json(found or sweeps, console)
        return
    record = of_store = store.read(name) or store.read(name, "running")
    if superseded:
        print_json(_superseded(store, name, record), console)
        return
    if isinstance(record, Problem):
        raise ClrayError(str(record))
    failure = store.failure(name)
    if record is None and failure is None:
        record = reference_runs.with_id(name)
        if record is None:
            where = f"in {store.uri}, nor among the reference runs"
            raise ClrayError(f"{name}: no record, checkpoint or failure of such a trial {where}")
    if isinstance(record, Record):
        shipped = {"source": "reference run, which ships with clray"} if of_store is None else {}
        print_json(_facts(record) | shipped, console)
    if earlier := store.superseded(name):
        for one in earlier:
            console.print(f"superseded record: {_line(one, record)}", soft_wrap=True)
        console.print(f"clray show {name} --superseded shows {'it' if len(earlier) == 1 else 'them'} in full")
    memory = record.provenance.get("gpu_memory") if isinstance(record, Record) else None
    if memory:
        console.print(f"It took {words(memory)} at most: {sharers(memory)} of its kind fit on such a GPU.")
    if failure:
        told = failure.get("traceback") or failure.get("error")
        console.print(f"its last attempt failed on {failure.get('host')}:\n{told}", soft_wrap=True)


def _facts(record: Record) -> dict[str, Any]:
    return {
        "id": record.id, "status": record.status, "sweep": record.sweep, "variant": record.variant,
        "trial": record.trial.model_dump(mode="json"), "data": record.data, "provenance": record.provenance,
        "metrics": record.metrics, "measurements": len(record.measurements),
    }  # fmt: skip


def _superseded(store: Store, trial: str, record: Record | Problem | None) -> list[dict[str, Any]]:
    """The facts of each superseded record, the earliest first, and how the present record differs from it.

    Raises:
        ClrayError: there is none.
    """
    from clray.record import Record
    from clray.store_comparison import compared

    earlier = store.superseded(trial)
    if not earlier:
        raise ClrayError(f"{trial}: it has no superseded record in {store.uri}")
    found: list[dict[str, Any]] = []
    for one in earlier:
        if not isinstance(one.record, Record):
            found.append({"path": shown(one.path), "problem": one.record.reason})
            continue
        facts = {"path": shown(one.path), "files": list(one.files), **_facts(one.record)}
        if isinstance(record, Record):
            changes = compared(one.record, record)
            facts["present"] = {
                "agreement": changes.agreement, "metrics": record.metrics, "made_by": changes.made_by,
                "changed": changes.changed, "largest": changes.largest and changes.largest.to_json(),
            }  # fmt: skip
        found.append(facts)
    return found


def _line(one: Superseded, record: Record | Problem | None) -> str:
    """A line about a superseded record: which code made it and where, and how the present record differs from it."""
    import time

    from clray.record import Record
    from clray.store_comparison import compared

    if not isinstance(one.record, Record):
        return str(one.record)
    facts = one.record.provenance
    when = time.strftime(" on %Y-%m-%d at %H:%M", time.localtime(one.saved)) if one.saved else ""
    host = facts.get("machine", {}).get("host")
    code = f"by the code {facts['code']}" if "code" in facts else "by code that it does not name"
    where = f" on {host}" if host else ""
    names = ("the earlier record", "the present one")
    end = f"; {compared(one.record, record).words(names)}" if isinstance(record, Record) else ""
    return f"{one.path}: made {code}{where}{when}{end}"


def export_command(
    trial: Annotated[str, typer.Argument(metavar="TRIAL", help="The id of a finished trial.")],
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The file; by default they are listed.")] = None,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Its path; by default ./NAME.")] = None,
    results: Results = "results",
) -> None:  # fmt: skip
    """Write a file that was stored beside a trial's record, such as ``weights.pt``: the weights of its network, where
    the sweep file says that weights are kept."""
    from clray.documents import one_of

    store, console = store_at(results, reading=True), terminal()
    kept = store.artifacts(trial_id(trial))
    if not kept:
        reason = _without(store, trial, name) or f"no file of such a trial is beside its record in {store.uri}"
        raise ClrayError(f"{trial}: {reason}")
    if name is None:
        for one in kept:
            console.print(one, soft_wrap=True)
        return
    content = store.read_artifact(trial, name) if name in kept else None
    if content is None:
        raise ClrayError(f"{trial}: {_without(store, trial, name) or f'it has no file {name!r}; {one_of(name, kept)}'}")
    console.print(str(write_file(file or Path(name), content)), soft_wrap=True)


def _without(store: Store, trial: str, name: str | None) -> str:
    """Say why a finished trial has no file of a name that its sweep may ask for; empty for any other name."""
    from clray.record import Record
    from clray.track_interface import KEPT_FILES

    what = next((what for what, files in KEPT_FILES.items() if name in files), "")
    record = store.read(trial, measurements=False)
    if not what or not isinstance(record, Record):
        return ""
    if record.status == "diverged":
        return f"it diverged, and keeps no {what}"
    if reason := record.provenance.get("missing_artifacts", {}).get(what):
        return f"its {what} could not be kept: {reason}"
    return f"finished without {what}; `keep: [{what}]` in the sweep file and --rerun-lacking make them"
