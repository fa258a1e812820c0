"""``clray leaderboard``: the methods of sweeps and the published numbers, ranked on each benchmark."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from clray.commands.compare import metrics_of
from clray.commands.options import Only, Quick, Records, Results, RunsFrom, Seeds, Set
from clray.commands.target import selected, store_at, target_of, terminal
from clray.output import json_text, say


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
    """Rank methods by a metric: your runs, the reference runs, and published numbers; a leaderboard a benchmark."""
    from clray.analysis import leaderboard_forms
    from clray.analysis.comparison import sweep_table
    from clray.analysis.labels import first_metric, labels_of
    from clray.analysis.leaderboard import Source, boards
    from clray.analysis.own_first import Sources
    from clray.loading import papers
    from clray.provenance import is_fresh

    targets = [target_of(name, selected(quick, only, seeds, set_), results) for name in dict.fromkeys(names)]
    sweeps = [(target, name, sweep) for target in targets for name, sweep in target.sweeps.items()]
    (by,) = metrics_of([metric] if metric is not None else None, one=True) or [
        first_metric(sweeps[0][1], sweeps[0][2], sweeps[0][0].reproduction)
    ]
    read = Sources([sweep for _, _, sweep in sweeps], store_at(results), records.value, is_fresh)
    sources = []
    for target, name, sweep in sweeps:
        found, notes = read.of(sweep)
        labels = labels_of({name: sweep}, target.reproduction)[name]
        paper = papers().get(target.reproduction.paper) if target.reproduction else None
        table = sweep_table(sweep, found, labels, [by])
        sources.append(Source(target.name, sweep, table, target.reproduction, paper, notes))
    made = boards(sources, by)
    if as_json:
        data = leaderboard_forms.to_data(made, by, [str(problem) for problem in read.problems])
        say(json_text(json.dumps(data, indent=2, ensure_ascii=False)))
        return
    terminal().print(leaderboard_forms.to_terminal(made, by, read.problems))
