"""``clray leaderboard``: the methods of sweeps and the published numbers, ranked on each benchmark."""

from __future__ import annotations

from typing import Annotated

import typer

from clray.commands.compare import split_names
from clray.commands.options import Only, Quick, Records, Results, RunsFrom, Seeds, Set
from clray.commands.target import require_there, selected, target_of, terminal
from clray.output import say


def leaderboard_command(
    names: Annotated[list[str], typer.Argument(metavar="NAME|FILE", help="Reproductions, sweeps, or sweep files.")],
    metric: Annotated[
        str | None,
        typer.Option("--metric", metavar="METRIC", help="The metric that ranks. Default: the first declared one."),
    ] = None,
    quick: Quick = False, only: Only = None, seeds: Seeds = None, set_: Set = None, results: Results = "results",
    records: RunsFrom = Records.both,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:  # fmt: skip
    """Rank methods by a metric: your runs, the reference runs, and published numbers; one leaderboard per
    benchmark."""
    from clray.api.arguments import metrics_of
    from clray.api.tables import leaderboard_of

    require_there(results)
    targets = [target_of(name, selected(quick, only, seeds, set_), results) for name in dict.fromkeys(names)]
    by = metrics_of(split_names([metric] if metric is not None else None), "--metric ", most=1)
    made = leaderboard_of(targets, by, records.value)
    if as_json:
        say(made.to_json())
    else:
        terminal().print(made.to_terminal())
