"""``clray table`` and ``clray report``: runs beside the published numbers, from the store or the reference runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from clray.commands.options import Format, Name, Only, Quick, Results, Seeds, Set, ShownRecords
from clray.commands.target import Target, selected, store_at, target_of, terminal
from clray.output import say

if TYPE_CHECKING:
    from clray.analysis import Comparison
    from clray.console import PlainConsole
    from clray.store import Store


def print_table(comparison: Comparison, form: Format, console: PlainConsole) -> None:
    from clray.api.shown import Table

    table = Table(comparison)
    if form is Format.text:
        console.print(table.to_terminal())
        return
    forms = {Format.md: table.to_markdown, Format.latex: table.to_latex, Format.csv: table.to_csv}
    say(forms.get(form, table.to_json)())


def table_command(
    name: Name,
    form: Annotated[Format, typer.Option("--format", help="How to print it.")] = Format.text,
    quick: Quick = False, only: Only = None, seeds: Seeds = None, set_: Set = None, results: Results = "results",
    records: ShownRecords = None,
) -> None:  # fmt: skip
    """Print our numbers beside the published ones: from the store, or from the reference runs that ship with clray."""
    target = target_of(name, selected(quick, only, seeds, set_), results)
    comparison = target.compare(store_at(results, reading=True), records.value if records else None)
    print_table(comparison, form, terminal())


def write_report_of(comparison: Comparison, target: Target, store: Store, path: str | None) -> str:
    """Write the page, into the store where no path is given. Returns the place of the page."""
    from clray.analysis.report import write_into_store, write_report

    if path is not None:
        return str(write_report(comparison, path))
    return write_into_store(comparison, store, target.name.replace("/", "-") + target.selection.suffix)


def _baseline(comparison: Comparison, typed: str) -> str:
    """The variant that ``--against`` names.

    Raises:
        DeclarationError: no table has it.
    """
    from clray.analysis.against import variant_of
    from clray.documents import one_of, shorter
    from clray.errors import DeclarationError

    labels = {row.variant: row.label for table in reversed(comparison.tables) for row in reversed(table.rows)}
    found = variant_of(typed, labels)
    if found is None:
        known = one_of(typed, reversed(labels))
        raise DeclarationError(f"--against {shorter(typed) or repr(typed)}: no variant of {comparison.name}; {known}")
    return found


def report_command(
    name: Name,
    output: Annotated[str | None, typer.Option("--output", "-o", metavar="FILE", help="The page to write.")] = None,
    quick: Quick = False, only: Only = None, seeds: Seeds = None, set_: Set = None, results: Results = "results",
    records: ShownRecords = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against", metavar="VARIANT", help="The variant to compare the others with. Default: the first one."
        ),
    ] = None,
) -> None:  # fmt: skip
    """Write the HTML page: table, curves, matrices, and the trials behind each cell. Nothing is trained."""
    target, store = target_of(name, selected(quick, only, seeds, set_), results), store_at(results, reading=True)
    comparison = target.compare(store, records.value if records else None)
    if against is not None:
        comparison = replace(comparison, against=_baseline(comparison, against))
    say(write_report_of(comparison, target, store, output))
