"""``clray compare``: is one variant of a sweep better than another?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from clray.commands.options import Metrics, Name, Quick, Records, Results, RunsFrom, Seeds, Set
from clray.commands.target import Target, selected, store_at, target_of, terminal
from clray.output import json_text, say

if TYPE_CHECKING:
    from clray.analysis.against import Compared
    from clray.store import Problem


def compare_command(
    name: Name,
    variants: Annotated[
        list[str] | None,
        typer.Argument(metavar="VARIANT", help="The variants to compare, by name or label. Default: all of them."),
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
    target = target_of(name, selected(quick, None, seeds, set_), results)
    found, problems = compared(target, variants or [], metrics_of(metric), against, all_pairs, records)
    if as_json:
        from clray.analysis.against_forms import to_data

        say(json_text(json.dumps(to_data(target.name, found, problems), indent=2, ensure_ascii=False)))
    else:
        from clray.analysis.against_forms import to_terminal

        terminal().print(to_terminal(found, problems))


def compared(
    target: Target, variants: Sequence[str], metrics: Sequence[str], against: str | None, all_pairs: bool,
    records: Records,
) -> tuple[list[Compared], Sequence[Problem]]:  # fmt: skip
    """The comparisons of a target's variants, and the files of the store that cannot be used.

    Raises:
        DeclarationError: a name is of no variant, or there are no two variants to compare.
    """
    from clray.analysis.against import choose, compare_all, other_benchmarks, with_runs
    from clray.analysis.comparison import sweep_table
    from clray.analysis.gather import not_comparable_because
    from clray.analysis.labels import first_metric, labels_of
    from clray.analysis.own_first import Sources
    from clray.provenance import is_fresh

    labels = labels_of(target.sweeps, target.reproduction)
    chosen = choose(target.name, labels, variants, against, all_pairs)
    sources = Sources([target.sweeps[name] for name in chosen], store_at(target.results), records.value, is_fresh)
    tables = []
    for name, choice in chosen.items():
        sweep = target.sweeps[name]
        results, notes = sources.of(sweep)
        shown = metrics or [first_metric(name, sweep, target.reproduction)]
        table = sweep_table(sweep, results, {variant: labels[name][variant] for variant in choice.variants}, shown)
        reasons = not_comparable_because(sweep, table.gathered) if target.reproduction else []
        notes = [*notes, *other_benchmarks(sweep, table)]
        notes += [] if table.gathered.runs else [("to run", f"`{target.run}` runs these trials")]
        baseline = choice.baseline
        if baseline is not None and against is None and not variants:
            table, baseline, more = with_runs(table, baseline)
            notes += more
        tables.append((replace(table, not_comparable_because=reasons), baseline, notes))
    return compare_all(tables), sources.problems


def metrics_of(typed: Sequence[str] | None, one: bool = False) -> list[str]:
    """The metrics of ``--metric``, with commas taken apart, each once.

    Args:
        one: no more than one may be given.

    Raises:
        DeclarationError: one of them does not exist, or there are too many.
    """
    from clray.documents import one_of, shorter
    from clray.errors import DeclarationError
    from clray.metrics import METRICS

    names = [name.strip() for item in typed or () for name in item.split(",")]
    for name in names:
        if name not in METRICS:
            raise DeclarationError(f"--metric {shorter(name) or repr(name)}: no such metric; {one_of(name, METRICS)}")
    if one and len(set(names)) > 1:
        raise DeclarationError(f"--metric {','.join(names)}: a leaderboard is ranked by one metric; name one of them")
    return list(dict.fromkeys(names))
