"""``clray compare``: is one variant of a sweep better than another?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from clray.commands.options import Metrics, Name, Quick, Records, Results, RunsFrom, Seeds, Set
from clray.commands.target import require_there, selected, target_of, terminal
from clray.output import say


def compare_command(
    name: Name,
    variants: Annotated[
        list[str] | None,
        typer.Argument(metavar="VARIANT", help="The variants to compare: names, labels or patterns. Default: all."),
    ] = None,
    metric: Metrics = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against", metavar="VARIANT", help="The baseline. Default: the first one named, else the sweep's first."
        ),
    ] = None,
    all_pairs: Annotated[bool, typer.Option("--all-pairs", help="Each variant against each other one.")] = False,
    quick: Quick = False, seeds: Seeds = None, set_: Set = None, results: Results = "results",
    records: RunsFrom = Records.both,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:  # fmt: skip
    """Say which variants are better or worse than a baseline, how surely, and how many further seeds would decide."""
    from clray.api.arguments import metrics_of
    from clray.api.tables import comparisons_of

    require_there(results)
    target = target_of(name, selected(quick, None, seeds, set_), results)
    metrics = metrics_of(split_names(metric), "--metric ")
    found = comparisons_of(target, variants or [], metrics, against, all_pairs, records.value)
    if as_json:
        say(found.to_json())
    else:
        terminal().print(found.to_terminal())


def split_names(typed: Sequence[str] | None) -> list[str]:
    """The names of a flag that takes several, with commas taken apart."""
    return [name.strip() for item in typed or () for name in item.split(",")]
