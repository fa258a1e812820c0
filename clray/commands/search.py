"""``clray search``: choose a point of each variant's axes by runs of its own, then run those with the sweep's seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clray.commands.options import (
    Address,
    Cpus,
    DryRun,
    Format,
    Gpu,
    Gpus,
    Local,
    MaxHours,
    Only,
    Quick,
    RequireGpu,
    RerunStale,
    Results,
    Seeds,
    Set,
    Wandb,
    Yes,
)
from clray.commands.plan import show_plan
from clray.commands.run import confirm, options_of, refuse_stale, run_stage
from clray.commands.tables import print_table, write_report_of
from clray.commands.target import Target, print_json, selected, store_at, target_of, terminal
from clray.errors import ClrayError, DeclarationError

if TYPE_CHECKING:
    from clray.store import Store
    from clray.sweep import Sweep

Points = dict[str, dict[str, Any]]
"""The settings of points by their names, ``variant@axis=value``."""


def search_command(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A sweep, or a sweep file, with a key search.")],
    quick: Quick = False, only: Only = None, seeds: Seeds = None, set_: Set = None,
    results: Results = "results", address: Address = None, gpu: Gpu = None, wandb: Wandb = None,
    local: Local = False, dry_run: DryRun = False, rerun_stale: RerunStale = False,
    cpus: Cpus = None, gpus: Gpus = None, require_gpu: RequireGpu = False, max_hours: MaxHours = None, yes: Yes = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:  # fmt: skip
    """Choose a setting for each variant by runs of its own, such as on validation images, then run the chosen ones
    with the sweep's seeds, and print their table. The same command again continues."""

    options = options_of(address, gpu, rerun_stale, local, cpus, gpus, require_gpu, max_hours)
    target, console, store = target_of(name, selected(quick, only, seeds, set_), results), terminal(), store_at(results)
    sweep = searched(target, name)
    choosing = sweep.choosing_phase()
    if not as_json:
        console.print(_what_chooses(sweep, choosing), soft_wrap=True)

    def take(what: str, of: Sweep) -> None:
        stage = replace(target, name=f"{target.name}, {what}", sweeps={target.name: of})
        planned = stage.plan(store, download=not dry_run)
        if not as_json:
            show_plan(stage, planned, console, rerun_stale)
        if not dry_run:
            refuse_stale(planned.in_state("stale"), rerun_stale)
        if not dry_run:
            confirm(planned.core_hours(rerun_stale), yes or as_json, console)
            run_stage(stage, planned, store, console, options, local, as_json, wandb, "search")

    found: Chosen | None = None
    for round_ in rounds(choosing, store):
        take(round_.what, choosing.with_variants(round_.points))
        if dry_run:
            return
        found = round_.judged()
    assert found is not None
    evaluation = sweep.with_variants({choice.point: choice.settings for choice in found.choices})
    take("the chosen settings", evaluation)
    stage = replace(target, sweeps={target.name: evaluation})
    comparison = replace(stage.compare(store), searched=True)
    if as_json:
        import json

        from clray import analysis

        print_json(found.as_data() | {"table": json.loads(analysis.to_json(comparison))}, console)
        return
    for line in found.lines():
        console.print(line, soft_wrap=True, markup=False)
    print_table(comparison, Format.text, console)
    console.print(f"Report: {write_report_of(comparison, stage, store, None)}", soft_wrap=True)


def searched(target: Target, name: str) -> Sweep:
    """The sweep of a target, after a check that it declares a search.

    Raises:
        DeclarationError: it declares none, or one without seeds, or the runs that choose are runs of the result.
    """
    if target.reproduction:
        raise DeclarationError(f"{name}: a reproduction; only a sweep can have a key search")
    sweep = next(iter(target.sweeps.values()))
    if sweep.search is None:
        raise DeclarationError(
            f"{sweep.place() or sweep.name}: this sweep declares no search (a key 'search'; docs/search.md shows how)"
        )
    if not sweep.search.seeds:
        raise DeclarationError(
            f"{sweep.place('search')}: it names no seeds for the runs that choose; allowed: such as seeds: [100, 101]"
        )
    changed = sweep.search.benchmark != {} and any(
        sweep.benchmark.get(key) != value for key, value in sweep.search.benchmark.items()
    )
    if not changed and (both := sorted(set(sweep.seeds) & set(sweep.search.seeds))):
        raise DeclarationError(
            f"{sweep.place('search', 'seeds')}: {both[0]} is also a seed of the result, on the same benchmark: the run "
            "that chooses would be the run that is reported; allowed: other seeds, or search.benchmark: "
            "{validation: true}"
        )
    if sweep.search.algorithm == "optuna":
        from clray.suggestions import require_optuna

        require_optuna()
    return sweep


def _what_chooses(sweep: Sweep, choosing: Sweep) -> str:
    """The line that says on which images settings are chosen."""
    assert sweep.search is not None
    by = f"Settings are chosen by {sweep.search.metric} with seeds {', '.join(map(str, choosing.seeds))}"
    if choosing.benchmark == sweep.benchmark:
        return f"{by}, on the test images of the result itself; docs/search.md has better ways."
    changes = ", ".join(f"{key}: {value}" for key, value in sweep.search.benchmark.items())
    return f"{by}, on a benchmark with {changes}."


# ----------------------------------------------------------------------------------------------------------------------
# Rounds of points


@dataclass(frozen=True)
class Choice:
    """The chosen point of a variant.

    Attributes:
        point: its name; ``settings`` are all settings of it, ``setting`` those of its axes.
        mean: of the metric over the runs that chose, in per cent.
        tried: the number of points that have a result, and ``points`` of those that were run.
    """

    variant: str
    point: str
    settings: dict[str, Any]
    setting: dict[str, Any]
    mean: float
    runs: int
    tried: int
    points: int


@dataclass(frozen=True)
class Chosen:
    """The choices of a search, one for each variant."""

    metric: str
    choices: list[Choice]

    def lines(self) -> Iterator[str]:
        """A line for each variant."""
        from clray.grid import setting_text

        for choice in self.choices:
            setting = setting_text(choice.setting) if choice.setting else "its only setting"
            without = choice.points - choice.tried
            left = f", {without} of them without a result" if without else ""
            yield (
                f"{choice.variant}: {setting}, of {choice.points} settings{left} "
                f"({self.metric} {choice.mean:.2f} over {choice.runs} runs)"
            )

    def as_data(self) -> dict[str, Any]:
        """For ``--json``; ``mean`` is in per cent."""
        kept = ("variant", "point", "setting", "mean", "runs", "tried", "points")
        return {"metric": self.metric, "chosen": [{key: getattr(c, key) for key in kept} for c in self.choices]}


class Round:
    """Points that are run at the same time, after those of the rounds before.

    Attributes:
        what: for the head of a plan.
        points: those of this round, by name.
    """

    def __init__(self, what: str, points: Points, every: Points, choosing: Sweep, store: Store) -> None:
        self.what, self.points = what, points
        self._every, self._choosing, self._store = every, choosing, store

    def values(self) -> dict[str, list[float]]:
        """The metric over the runs of every point so far, in per cent; none where a run lacks it."""
        from clray.analysis.gather import gather, read
        from clray.analysis.protocols import results

        assert self._choosing.search is not None
        gathered = gather(self._choosing.with_variants(self._every), list(self._every), read(self._store))
        return results(gathered, self._choosing.search.metric)

    def judged(self) -> Chosen:
        """The best point of each variant so far.

        Raises:
            ClrayError: no point of a variant has a result.
        """
        from clray.analysis.protocols import choose
        from clray.analysis.verdict import sample
        from clray.grid import point_of

        assert self._choosing.search is not None
        metric, values = self._choosing.search.metric, self.values()
        by_variant: dict[str, list[str]] = {}
        for name in self._every:
            by_variant.setdefault(name.split("@")[0], []).append(name)
        found = []
        for variant, point in choose(by_variant, values, metric).items():
            if point is None:
                raise ClrayError(
                    f"{variant}: no setting has a result in {metric} from all its runs, so that none can be chosen "
                    "(runs diverged, or this metric is not measured)"
                )
            names, settings = by_variant[variant], self._every[point]
            tried = sum(bool(values[name]) for name in names)
            mean, runs = sample(values[point]).mean, len(values[point])
            setting = point_of(point, settings)
            found.append(Choice(variant, point, settings, setting, mean, runs, tried, len(names)))
        return Chosen(metric, found)


def rounds(choosing: Sweep, store: Store) -> Iterator[Round]:
    """The rounds of a search: one, or with Optuna as many as give ``samples`` points of each variant.

    A round's points must have been run before the next round is asked for.
    """
    assert choosing.search is not None
    search = choosing.search
    every: Points = dict(choosing.variant_settings())
    current = Round("the runs that choose", every, every, choosing, store)
    yield current
    while search.algorithm == "optuna":
        points = _suggested(choosing, every, current.values())
        if not points:
            return
        every = {**every, **points}
        current = Round(f"{len(points)} points that Optuna suggests", points, every, choosing, store)
        yield current


def _suggested(choosing: Sweep, every: Points, values: Mapping[str, Sequence[float]]) -> Points:
    """The next points of each variant; none once each has all its samples."""
    from clray.analysis.verdict import sample
    from clray.grid import at_point, named, point_of
    from clray.metrics import METRICS
    from clray.suggestions import suggest

    search = choosing.search
    assert search is not None
    found: Points = {}
    for variant, settings in choosing.variants.items():
        axes = choosing.distributions(variant)
        names = [name for name in every if name.split("@")[0] == variant]
        count = min(search.batch, search.samples - len(names))
        if not axes or count <= 0:
            continue
        seen = [(point_of(name, every[name]), sample(values[name]).mean if values[name] else None) for name in names]
        lower = METRICS[search.metric].lower_is_better
        plain = {key: value for key, value in settings.items() if key != "grid"}
        for point in suggest(axes, seen, lower, search.seed, variant, count):
            found[named(variant, point)] = at_point(plain, point)
    return found
