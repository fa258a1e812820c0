"""The tables of a target: beside published numbers, variants against each other, and leaderboards."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

from clray.api.arguments import Names, Place, Seeds, Settings, metrics_of, opened
from clray.api.arguments import names as several
from clray.api.arguments import target as target_at
from clray.api.shown import Comparisons, Leaderboard, Table
from clray.documents import one_of, shorter
from clray.errors import DeclarationError
from clray.metrics import METRICS

if TYPE_CHECKING:
    from clray.analysis.comparison import ComparedTable
    from clray.commands.target import Target

Records = Literal["own", "reference", "both"]


def table(
    name: Place,
    *,
    records: Records | None = None,
    variant: Names | None = None,
    seed: Seeds | None = None,
    quick: bool = False,
    set: Settings | None = None,  # noqa: A002
    results: Place = "results",
) -> Table:
    """Our numbers beside the published ones; what ``clray table`` prints. Nothing is trained.

    Args:
        name: a reproduction, a sweep, or a sweep file.
        records: the runs to show: the store's ``own``, the ``reference`` runs that ship, or ``both`` beside each other.
            By default the store's, and where it has none of these trials the reference runs.
        variant: only these variants.
        seed: these seeds in place of the declared ones.
        quick: the declared quick form.
        set: changes to the sweep file, such as ``{"benchmark.tasks": 5}``.
        results: the results store.

    Raises:
        DeclarationError: there is no such name, variant or key, or no reference runs where they are asked for.
        StoreError: the store cannot be read.
    """
    found = target_at(name, results, quick, variant, seed, set)
    return Table(found.compare(opened(results), _records(records) if records is not None else None))


def compare(
    name: Place,
    *variants: str,
    metric: Names | None = None,
    against: str | None = None,
    all_pairs: bool = False,
    records: Records = "both",
    seed: Seeds | None = None,
    quick: bool = False,
    set: Settings | None = None,  # noqa: A002
    results: Place = "results",
) -> Comparisons:
    """Which variants of a sweep are better or worse than a baseline; what ``clray compare`` prints.

    Args:
        name: a reproduction, a sweep, or a sweep file.
        variants: the variants to compare, by name or label; all of them where none is named.
        metric: the metrics; by default the first declared one.
        against: the baseline; by default the first variant.
        all_pairs: compare each variant with each other one.
        records: the runs to compare: the store's ``own``, the ``reference`` runs that ship, or ``both``: the store's,
            and the reference run of each trial that the store has not finished.
        seed, quick, set, results: as for ``table``.

    Raises:
        DeclarationError: there is no such name, variant, metric or key.
        StoreError: the store cannot be read.
    """
    found = target_at(name, results, quick, None, seed, set)
    chosen = metrics_of(several(metric, "metric"), "metric=")
    return comparisons_of(found, several(variants, "variants"), chosen, against, all_pairs, _records(records))


def leaderboard(
    *names: Place,
    metric: str | None = None,
    records: Records = "both",
    variant: Names | None = None,
    seed: Seeds | None = None,
    quick: bool = False,
    set: Settings | None = None,  # noqa: A002
    results: Place = "results",
) -> Leaderboard:
    """Methods ranked by a metric, with published numbers; what ``clray leaderboard`` prints.

    Args:
        names: reproductions, sweeps, or sweep files; one or more.
        metric: the metric that ranks; by default the first one that the first of them declares.
        records: as for ``compare``.
        variant, seed, quick, set, results: as for ``table``.

    Raises:
        DeclarationError: nothing is named, or there is no such name, variant, metric or key.
        StoreError: the store cannot be read.
    """
    if not names:
        raise DeclarationError("leaderboard(): name a reproduction, a sweep, or a sweep file")
    targets = [target_at(name, results, quick, variant, seed, set) for name in dict.fromkeys(names)]
    chosen = metrics_of(several(metric, "metric"), "metric=", most=1)
    return leaderboard_of(targets, chosen, _records(records))


def _records(asked: Records) -> Records:
    if asked not in get_args(Records):
        raise DeclarationError(f"records={shorter(repr(asked))}: {one_of(str(asked), get_args(Records))}")
    return asked


# --------------------------------------------------------------------------------------------------------------
# Of targets: the commands use these, too


def comparisons_of(
    target: Target, variants: Sequence[str], metrics: Sequence[str], against: str | None, all_pairs: bool,
    records: Records,
) -> Comparisons:  # fmt: skip
    """The comparisons of a target's variants.

    Variants of a sweep with a tuning phase or a search are compared at the points that it chose, once it has chosen
    any; points of their grids are compared where they are named.

    Raises:
        DeclarationError: a name is of no variant, or there are no two variants to compare.
    """
    if not any("@" in name for name in (*variants, against or "")):
        target = _at_searched(target)
        if (tuned := _with_tuning_phase(target)) is not target:
            with contextlib.suppress(_NothingChosen):
                return comparisons_of(tuned, variants, metrics, against, all_pairs, records)
    from clray.analysis.against import choose, compare_all, other_benchmarks, with_runs
    from clray.analysis.comparison import sweep_table
    from clray.analysis.gather import not_comparable_because
    from clray.analysis.labels import at_their_choices, first_metric, labels_of
    from clray.analysis.own_first import Sources
    from clray.provenance import is_fresh
    from clray.reproduction import tuning_phases

    labels = labels_of(target.sweeps, target.reproduction)
    chosen = choose(target.name, labels, variants, against, all_pairs)
    phases = {name: tuning_phases(target.sweeps, name) for name in chosen}
    asked = [sweep for name in chosen for sweep in (target.sweeps[name], *phases[name])]
    sources = Sources(asked, opened(target.results), records, is_fresh)
    tables = []
    for name, choice in chosen.items():
        sweep = target.sweeps[name]
        results, notes = sources.of(sweep, *phases[name])
        shown = metrics or [first_metric(name, sweep, target.reproduction)]
        sweep, without = at_their_choices(sweep, {v: labels[name][v] for v in choice.variants}, results)
        present = {variant: labels[name][variant] for variant in choice.variants if variant not in without}
        if len(present) < 2 or choice.baseline in without:
            raise _NothingChosen(_nothing_chosen(target, [labels[name][variant] for variant in without]))
        notes += [("left out", _nothing_chosen(target, [labels[name][v] for v in without]))] if without else []
        made = sweep_table(sweep, results, present, shown)
        _require_measured(name, metrics, made)
        reasons = not_comparable_because(sweep, made.gathered) if target.reproduction else []
        notes = [*notes, *other_benchmarks(sweep, made)]
        notes += [] if made.gathered.runs else [("to run", f"`{target.run}` runs these trials")]
        baseline = choice.baseline
        if baseline is not None and against is None and not variants:
            made, baseline, more = with_runs(made, baseline)
            notes += more
        tables.append((replace(made, not_comparable_because=reasons), baseline, notes))
    return Comparisons(target.name, compare_all(tables), sources.problems)


class _NothingChosen(DeclarationError):
    """A tuning phase has not chosen a setting yet."""


def _with_tuning_phase(target: Target) -> Target:
    """A sweep with its tuning phase beside it, as a reproduction has it; any other target as it is."""
    from clray.phases import NAME_ENDS, tuning_phase

    if target.reproduction or len(target.sweeps) > 1:
        return target
    ((name, sweep),) = target.sweeps.items()
    points = {variant: settings for variant, settings in sweep.variant_settings() if "@" in variant}
    if sweep.tuning is None or not points:
        return target
    return replace(target, sweeps={name + NAME_ENDS: tuning_phase(sweep.with_variants(points)), name: sweep})


def _at_searched(target: Target) -> Target:
    """A sweep with a search: each variant at the point that the search chose in the store. Any other target as it is,
    as are sweeps that Optuna searches, whose points are not known before, and those without a run that chooses."""
    from clray.analysis.gather import gather, read
    from clray.analysis.protocols import choose, points_by_method

    sweep = next(iter(target.sweeps.values()))
    if target.reproduction or sweep.search is None or not sweep.search.seeds or sweep.search.algorithm == "optuna":
        return target
    choosing = sweep.choosing_phase()
    points = points_by_method(choosing)
    runs = gather(
        choosing, [point for some in points.values() for point in some], read(opened(target.results))
    ).variants
    metric = sweep.search.metric
    chosen = choose(points, {point: runs[point].all_values(metric) for point in runs}, metric)
    every = dict(sweep.variant_settings())
    at = {variant: every[chosen[variant] or variant] for variant in points if chosen[variant] or variant in every}
    return replace(target, sweeps={sweep.name: sweep.with_named_variants(at)}) if any(chosen.values()) else target


def _require_measured(name: str, metrics: Sequence[str], table: ComparedTable) -> None:
    """Check that runs of a sweep have the metrics that were asked for, where it has runs.

    Raises:
        DeclarationError: none of them has one.
    """
    runs = table.gathered.runs
    measured = [metric for metric in METRICS if any(metric in run.metrics for run in runs)]
    for metric in metrics:
        if runs and metric not in measured:
            raise DeclarationError(f"{metric}: no run of {name} has this metric; {one_of(metric, measured)}")


def _nothing_chosen(target: Target, labels: Sequence[str]) -> str:
    run = target.run if target.reproduction else f"clray tune {target.arguments}{target.in_store}"
    return f"{', '.join(labels)}: the tuning phase has not chosen a setting yet; `{run}` runs what is missing"


def leaderboard_of(targets: Sequence[Target], metrics: Sequence[str], records: Records) -> Leaderboard:
    """The leaderboards of the sweeps of some targets; those with a tuning phase or a search as for ``comparisons_of``.

    Args:
        metrics: the metric that ranks, or nothing for the first declared one.
    """
    targets = [_at_searched(target) for target in targets]
    tuned = [_with_tuning_phase(target) for target in targets]
    if any(one is not other for one, other in zip(tuned, targets, strict=True)):
        with contextlib.suppress(_NothingChosen):
            return leaderboard_of(tuned, metrics, records)
    from clray.analysis.comparison import sweep_table
    from clray.analysis.labels import at_their_choices, first_metric, labels_of
    from clray.analysis.leaderboard import Source, boards
    from clray.analysis.own_first import Sources
    from clray.provenance import is_fresh
    from clray.reproduction import evaluations, tuning_phases

    sweeps = [(target, name, sweep) for target in targets for name, sweep in evaluations(target.sweeps).items()]
    (by,) = metrics or [first_metric(sweeps[0][1], sweeps[0][2], sweeps[0][0].reproduction)]
    read = Sources(
        [sweep for target in targets for sweep in target.sweeps.values()], opened(targets[0].results), records, is_fresh
    )
    sources = []
    for target, name, sweep in sweeps:
        found, notes = read.of(sweep, *tuning_phases(target.sweeps, name))
        labels = labels_of(target.sweeps, target.reproduction)[name]
        sweep, without = at_their_choices(sweep, labels, found)
        if len(without) == len(labels):
            raise _NothingChosen(_nothing_chosen(target, list(labels.values())))
        notes += [("left out", _nothing_chosen(target, [labels[v] for v in without]))] if without else []
        labels = {variant: label for variant, label in labels.items() if variant not in without}
        paper = target.reproduction.cited if target.reproduction else None
        made = sweep_table(sweep, found, labels, [by])
        sources.append(Source(target.name, sweep, made, target.reproduction, paper, notes))
    return Leaderboard(by, boards(sources, by), read.problems)
