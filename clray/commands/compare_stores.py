"""``clray compare-stores``: compares the finished trials of two results stores, measurement by measurement."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clray.commands.options import Only, Quick
from clray.commands.target import selected, target_of, terminal
from clray.errors import DeclarationError, StoreError
from clray.output import counted, json_text, redacted, say

if TYPE_CHECKING:
    from clray.console import PlainConsole
    from clray.record import Record
    from clray.reproduction import Tolerance
    from clray.store import Store
    from clray.store_comparison import StoresCompared

STYLES = {"same bits": "green", "within tolerance": "cyan", "different": "bold red"}


def compare_stores_command(
    a: Annotated[str, typer.Argument(metavar="A", help="A results store: a folder, s3://…, gs://…")],
    b: Annotated[str, typer.Argument(metavar="B", help="The store that it is compared with.")],
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME|FILE]", help="Only the trials of this reproduction, sweep or sweep file."),
    ] = None,
    quick: Quick = False,
    only: Only = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="Exit code 1 also where only one of the stores has a trial.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Compare two results stores trial by trial: the trials that only one of them has, and the measurements that
    differ.

    A trial that both have finished has the same bits in both; or is within the tolerance that its reproduction
    declares; or is different. Then the largest difference and the earliest one are named. Where other code, other
    versions or another processor made the two records, this is said, too. Trials in progress are passed over. Exit code
    1 if a trial is different, or a record cannot be read.
    """
    from clray.store_comparison import compare_stores

    if name is None and (quick or only):
        raise DeclarationError(f"{'--quick' if quick else '--only'}: selects trials of a sweep: name it after A and B")
    wanted, tolerance_of = _selection(name, quick, only)
    stores = [_store(letter, uri) for letter, uri in (("A", a), ("B", b))]
    found = compare_stores(stores[0].records(), stores[1].records(), tolerance_of, wanted)
    if not (found.both or found.only_a or found.only_b or found.problems):
        which = f"finished trial of {name}" if name else "finished trial"
        raise StoreError(f"neither {redacted(stores[0].uri)} nor {redacted(stores[1].uri)} holds a {which}")
    if as_json:
        say(json_text(json.dumps(_data(found, stores, name), ensure_ascii=False, allow_nan=False)))
    else:
        _show(found, stores, terminal())
    if found.different or found.problems or (complete and (found.only_a or found.only_b)):
        raise typer.Exit(1)


def _store(letter: str, uri: str) -> Store:
    """A store that the user named.

    Raises:
        DeclarationError: it names none, or a folder that does not exist.
    """
    from clray.commands.answers import opened

    if not uri.strip():
        raise DeclarationError(f"{letter} {uri!r}: names no store: a folder, s3://…, gs://…")
    store = opened(uri)
    if "://" not in uri and not os.path.isdir(store.path()):
        raise DeclarationError(f"{letter} {uri}: no such folder")
    return store


def _selection(
    name: str | None, quick: bool, only: list[str] | None
) -> tuple[Callable[[Record], bool], Callable[[Record], Tolerance | None]]:
    """The trials that are compared, and the tolerance for each of them."""
    if name is None:
        declared_tolerances = _tolerances()
        return (lambda record: True), (lambda record: declared_tolerances.get(record.trial.declaration))
    target = target_of(name, selected(quick, only, None, None))
    declared = {cell.trial.declaration for sweep in target.sweeps.values() for cell in sweep.cells}
    if target.reproduction:
        of_all = target.reproduction.tolerance
        return (lambda record: record.trial.declaration in declared), (lambda record: of_all)
    tolerances = _tolerances()
    return (
        lambda record: record.trial.declaration in declared,
        lambda record: tolerances.get(record.trial.declaration),
    )


def _tolerances() -> dict[str, Tolerance]:
    """The tolerances of all reproductions that declare one, by trial; the smallest where several have the trial."""
    from clray.loading import reproduction_names
    from clray.reproduction import load_reproduction

    found: dict[str, Tolerance] = {}
    for reproduction in map(load_reproduction, reproduction_names()):
        if not reproduction.tolerance:
            continue
        for sweep in reproduction.sweeps().values():
            for cell in sweep.cells:
                known = found.setdefault(cell.trial.declaration, reproduction.tolerance)
                if reproduction.tolerance.points < known.points:
                    found[cell.trial.declaration] = reproduction.tolerance
    return found


def _show(found: StoresCompared, stores: list[Store], console: PlainConsole) -> None:
    for letter, store in zip("AB", stores, strict=True):
        console.print(f"{letter}: {store.uri}", soft_wrap=True)
    counts: Iterable[tuple[str, int, str]] = [
        ("only in A", len(found.only_a), ""),
        ("only in B", len(found.only_b), ""),
        *((kind, found.count(kind), STYLES[kind]) for kind in ("same bits", "within tolerance", "different")),
    ]
    for label, number, style in counts:
        console.print(f"  {label:17}{number:6}", style=style if number else "")
    for letter, records in (("A", found.only_a), ("B", found.only_b)):
        for sweep, variants in _by_sweep(records).items():
            console.print(f"only in {letter}: {sweep}: {variants}", soft_wrap=True)
    if made := Counter(what for one in found.both for what in one.made_by):
        numbers = ", ".join(f"{what} ({counted(number, 'trial')})" for what, number in made.most_common())
        console.print(f"made by another: {numbers}", soft_wrap=True)
    for one in found.both:
        if one.agreement != "same bits":
            style = STYLES[one.agreement]
            console.print(f"{one.id} {one.sweep} {one.name}: {one.words()}", style=style, soft_wrap=True)
    for problem in found.problems:
        console.print(str(problem), style="red", soft_wrap=True)


def _by_sweep(records: list[Record]) -> dict[str, str]:
    """The variants of some records with the number of their trials, by sweep."""
    counts: dict[str, Counter[str]] = {}
    for record in records:
        counts.setdefault(record.sweep, Counter())[record.variant] += 1
    return {sweep: ", ".join(f"{variant} ({n})" for variant, n in of.items()) for sweep, of in counts.items()}


def _data(found: StoresCompared, stores: list[Store], name: str | None) -> dict[str, Any]:
    def trial(record: Record) -> dict[str, Any]:
        return {
            "id": record.id, "sweep": record.sweep, "variant": record.variant, "seed": record.trial.seed,
            "task_order": record.trial.task_order,
        }  # fmt: skip

    return {
        "a": redacted(stores[0].uri),
        "b": redacted(stores[1].uri),
        "name": name,
        "counts": {
            "only_a": len(found.only_a),
            "only_b": len(found.only_b),
            "same_bits": found.count("same bits"),
            "within_tolerance": found.count("within tolerance"),
            "different": found.count("different"),
        },
        "only_a": [trial(record) for record in found.only_a],
        "only_b": [trial(record) for record in found.only_b],
        "both": [one.to_json() for one in found.both],
        "problems": [{"path": redacted(p.path), "reason": p.reason} for p in found.problems],
    }
