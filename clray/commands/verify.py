"""``clray verify``: runs some of the reference runs again on this machine, and compares every measurement."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Annotated

import typer

from clray.commands.options import Only
from clray.commands.target import selected, target_of, terminal
from clray.errors import DeclarationError
from clray.output import shown

if TYPE_CHECKING:
    from clray.record import Record

STYLES = {"same bits": "green", "within tolerance": "cyan", "different": "bold red"}


def verify_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A reproduction with reference runs.")],
    trials: Annotated[int, typer.Option("--trials", min=1, metavar="N", help="The number of trials to draw.")] = 3,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="The seed of the draw. Default: a new one.")] = None,
    only: Only = None,
) -> None:
    """Run randomly drawn reference runs again here, and compare every measurement. Exit code 1 if one is different."""
    from rich.text import Text

    from clray import reference_runs
    from clray.provenance import is_fresh
    from clray.reproduction import load_reproduction
    from clray.verification import draw, verify

    tolerance = load_reproduction(name).tolerance
    target, console = target_of(name, selected(False, only, None, None)), terminal()
    declared = {cell.trial.declaration for sweep in target.sweeps.values() for cell in sweep.cells}
    records = [record for record in reference_runs.read(name) if record.trial.declaration in declared]
    if not records:
        with_some = ", ".join(reference_runs.names()) or "none"
        raise DeclarationError(f"{name}: no reference runs of this ship with clray; allowed: {with_some}")
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    drawn = draw(records, trials, seed)
    if stale := sum(not is_fresh(record) for record in drawn):
        console.print(f"{stale} of the {len(drawn)} drawn runs were made by other code than this", style="yellow")
    repeat = f"clray verify {target.arguments} --trials {len(drawn)} --seed {seed}"
    console.print(f"{len(drawn)} of {len(records)} reference runs, drawn by: {repeat}", soft_wrap=True)

    def note(record: Record, progress: float) -> None:
        if console.is_terminal:
            console.print(f"  {shown(record.variant)} seed {record.trial.seed}: {100 * progress:3.0f}%", end="\r")

    different = 0
    for verified in verify(drawn, tolerance, note):  # printed one by one: a later trial may end in an error
        record, size = verified.reference, verified.difference.size
        different += verified.agreement == "different"
        there = record.provenance.get("seconds")
        took = f"{verified.seconds:.0f} s here" + (f", {there:.0f} s then" if isinstance(there, int | float) else "")
        where = (
            f", largest difference {size:.4g} points: {verified.difference.where}" if verified.difference.where else ""
        )
        line = Text(f"  {shown(record.variant)} seed {record.trial.seed}: ")
        console.print(line.append(verified.agreement, style=STYLES[verified.agreement]).append(f"{where} ({took})"))
    if tolerance:
        others = f", {tolerance.percent:g}% of other values" if tolerance.percent is not None else ""
        console.print(f"tolerance: {tolerance.points:g} points for each measurement{others}: {tolerance.reason}")
    if different:
        console.print(f"{different} of {len(drawn)} are different", style="bold red")
        raise typer.Exit(1)
