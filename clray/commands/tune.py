"""``clray tune``: choose hyper-parameters on one part of the classes, freeze them, and evaluate them on another."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from clray.commands.options import (
    Address,
    Cpus,
    DryRun,
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
from clray.commands.target import Target, print_json, selected, store_at, target_of, terminal
from clray.errors import ClrayError, DeclarationError
from clray.output import redacted

if TYPE_CHECKING:
    from clray.analysis.protocols import PhaseResults, Protocols
    from clray.console import PlainConsole
    from clray.planning import Plan
    from clray.store import Store
    from clray.tuning import Frozen, Phases


def tune_command(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A sweep, or a sweep file, with a tuning phase.")],
    quick: Quick = False, only: Only = None, seeds: Seeds = None, set_: Set = None,
    results: Results = "results", address: Address = None, gpu: Gpu = None, wandb: Wandb = None,
    local: Local = False, dry_run: DryRun = False, rerun_stale: RerunStale = False,
    cpus: Cpus = None, gpus: Gpus = None, require_gpu: RequireGpu = False, max_hours: MaxHours = None, yes: Yes = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:  # fmt: skip
    """Choose settings on some classes, freeze them, evaluate them on others, and compare the ways of choosing. The
    same command again continues."""
    from clray import tuning
    from clray.analysis.protocols import compare_protocols
    from clray.analysis.protocols_text import as_data

    options = options_of(address, gpu, rerun_stale, local, cpus, gpus, require_gpu, max_hours)
    target, console, store = target_of(name, selected(quick, only, seeds, set_), results), terminal(), store_at(results)
    if target.reproduction:
        raise DeclarationError(f"{name}: a reproduction; only a sweep can have a tuning phase")
    found = tuning.phases(next(iter(target.sweeps.values())))
    stages = {
        "tuning": replace(target, name=f"{target.name}, tuning phase", sweeps={target.name: found.tuning}),
        "evaluation": replace(target, name=f"{target.name}, evaluation", sweeps={target.name: found.evaluation}),
    }
    before, after = (stage.plan(store, download=not dry_run) for stage in stages.values())
    tuning.refuse_shared_images(found, (before, after))
    file = tuning.frozen_file(target.name, target.selection.suffix)
    place = redacted(store.path(file))
    frozen = tuning.read_frozen(store, file)
    if frozen:
        frozen.require(found, (before, after), place)
    if not dry_run:
        refuse_stale([*before.in_state("stale"), *after.in_state("stale")], rerun_stale)

    def take(stage: Target, planned: Plan) -> None:
        if not as_json:
            show_plan(stage, planned, console, rerun_stale)
        if not dry_run and not as_json and planned is before:
            confirm(before.core_hours(rerun_stale) + after.core_hours(rerun_stale), yes, console)
        if not dry_run:
            run_stage(stage, planned, store, console, options, local, as_json, wandb, "tune")

    take(stages["tuning"], before)
    if not dry_run:
        frozen = tuning.read_frozen(store, file)  # again: another launch may have chosen while this one was tuning
        state = "were frozen before" if frozen else "are frozen"
        if frozen:
            frozen.require(found, (before, after), place)
        else:
            frozen = _freeze(found, (before, after), store, file)
        if not as_json:
            console.print(f"The settings {state}: {place}", soft_wrap=True)
    take(stages["evaluation"], after)
    if frozen is None or dry_run:
        return
    of_phases = _results(found, store)
    compared = compare_protocols(
        found.evaluation, frozen.chosen, of_phases.tuning, of_phases.evaluation, of_phases.first
    )
    if as_json:
        print_json(as_data(compared) | {"frozen": place}, console)
    else:
        _show(compared, found.evaluation.title or target.name, console)


def _results(found: Phases, store: Store) -> PhaseResults:
    from clray.analysis.gather import read
    from clray.analysis.protocols import results_of_phases, runs_of_phases

    return results_of_phases(found.evaluation, *runs_of_phases(found.tuning, found.evaluation, read(store)))


def _freeze(found: Phases, plans: tuple[Plan, Plan], store: Store, file: str) -> Frozen:
    """Choose a point for each method on the tuning data, and write the choice.

    Raises:
        ClrayError: no point of a method has a result.
    """
    from clray.analysis.protocols import choose, points_by_method
    from clray.analysis.verdict import sample
    from clray.tuning import Frozen, write_frozen

    rule = found.evaluation.tuning
    assert rule is not None
    tuned = _results(found, store).tuning
    chosen = choose(points_by_method(found.tuning), tuned, rule.metric)
    if without := [method for method, point in chosen.items() if point is None]:
        raise ClrayError(
            f"{', '.join(without)}: no setting has a result in {rule.metric} from all its tuning runs, so that none "
            "can be frozen (runs diverged, or this metric is not measured)"
        )
    means = {point: sample(values).mean for point, values in tuned.items() if values}
    frozen = Frozen.of(found, plans, {m: p for m, p in chosen.items() if p is not None}, means)
    write_frozen(store, file, frozen)
    return frozen


def _show(compared: Protocols, title: str, console: PlainConsole) -> None:
    from rich.table import Table
    from rich.text import Text

    from clray.analysis.protocols_text import lines, notes

    head, body = lines(compared)
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for i, heading in enumerate(head):
        table.add_column(heading, justify="left" if i < 3 else "right", no_wrap=i != 2)
    for line in body:
        table.add_row(*map(Text, line))
    console.print(table)
    for key, sentence in notes(compared):
        console.print(f"{key}: {sentence}" if key else sentence, soft_wrap=True, markup=False)
