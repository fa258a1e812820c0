"""``clray plan`` and ``clray costs``: the trials that would run, and the cost of running them."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clray.commands.options import AsJson, Name, Only, Quick, RerunLacking, RerunStale, Results, Seeds, Set
from clray.commands.plan_data import costs_data, plan_data
from clray.commands.target import Target, say_json, selected, store_at, target_of, terminal
from clray.machine import cores_given
from clray.output import counted, say

if TYPE_CHECKING:
    from clray.console import PlainConsole
    from clray.planning import Plan, Planned


def _memory_columns(trials: list[Planned]) -> tuple[str, str]:
    """The largest peak of a variant's trials, and the smallest 1/k of that GPU which has room for it."""
    from clray.gpu import needed, sharers, words

    measured = [t.memory for t in trials if t.memory]
    if not measured:
        return "·", "·"
    largest = max(measured, key=needed)
    return words(largest), f"1/{sharers(largest)} ({1 / sharers(largest):.3g})"


def _too_small_shares(plan: Plan) -> Iterator[str]:
    """The variants that ask for less of a GPU than their trials were seen to need."""
    from clray.gpu import needed

    for sweep, variant in dict.fromkeys((t.sweep, t.variant) for t in plan.trials):
        trials = [t for t in plan.trials if (t.sweep, t.variant) == (sweep, variant) and t.memory]
        worst = max(trials, key=lambda t: needed(t.memory) - t.resources.gpu, default=None)
        if worst and 0 < worst.resources.gpu < needed(worst.memory):
            yield (
                f"{variant} asks for {worst.resources.gpu:g} of a GPU, but needs {needed(worst.memory):.2g} of "
                "the one it was measured on: its trials may run out of memory beside others; see 'resources', or --gpu"
            )


def _other_ids(plan: Plan) -> str:
    """The line about records that lie in the store under other ids than trials that are to do."""
    first = plan.other_ids[0]
    names = list(dict.fromkeys(name for other in plan.other_ids for name in other.differences))
    differences = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    more = f" and {len(plan.other_ids) - 1} more" if len(plan.other_ids) > 1 else ""
    return (
        f"to do, with a record under another id: {first.name} (record {first.record}){more}; what differs: "
        f"{differences}; see `clray show {first.record}`"
    )


def _limits(trial: Planned) -> str:
    """The line about the limits of a trial; empty where it has none."""
    from clray.limits import hours_words, size_words

    hours, memory = trial.limits.hours, trial.limits.memory
    words = [hours_words(hours)] if hours is not None else []
    words += [f"{size_words(memory)} of memory"] if memory is not None else []
    return f"a trial may take {' and '.join(words)}: more ends it, with its checkpoint kept" if words else ""


def _about(hours: float) -> str:
    """A time that is known only roughly, as text."""
    minutes = 60 * hours
    if minutes < 1:
        return "less than a minute"
    if minutes < 1.5:
        return "about a minute"
    return f"about {minutes:.0f} minutes" if minutes < 90 else f"about {hours:.1f} hours"


def _failure(failure: Mapping[str, Any]) -> str:
    """The reason of a trial's last failure in a line.

    Python's own errors are named by their class, as they say little without it: a KeyError's text is the key alone.
    """
    kind = str(failure.get("kind"))
    named = f"{kind}: " if isinstance(getattr(builtins, kind, None), type) else ""
    return " ".join(f"{named}{failure.get('error')}".split())


def _lacking(plan: Plan) -> Iterator[str]:
    """The lines about finished trials that lack what their sweep asks to keep."""
    for what in dict.fromkeys(what for t in plan.trials for what in t.lacking):
        count = sum(what in t.lacking for t in plan.trials)
        yield f"{counted(count, 'trial')} finished without {what}: --rerun-lacking runs them again, which makes them"


def show_plan(
    target: Target, plan: Plan, console: PlainConsole, rerun_stale: bool, rerun_lacking: bool = False
) -> None:
    from rich.table import Table

    from clray.gpu import HEADROOM

    table = Table(
        title=f"{target.name}: {counted(len(plan.trials), 'trial')}",
        title_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
    )
    measured = any(t.memory for t in plan.trials)
    headings = ["variant", "finished", "half-done", "to do", "stale", "a trial"] + ["GPU memory", "fits"] * measured
    for heading in headings:
        if heading == "variant":  # a long one is folded: its end may be all that tells it from the next one
            table.add_column(heading, overflow="fold")
        else:
            table.add_column(heading, justify="right")
    last, several = "", len(target.sweeps) > 1
    for variant in dict.fromkeys((t.sweep, t.variant) for t in plan.trials):
        trials = [t for t in plan.trials if (t.sweep, t.variant) == variant]
        if several and variant[0] != last:  # a line of its own: beside it a variant's name would not fit in 80 columns
            last = variant[0]
            table.add_row(last)
        name = "  " * several + variant[1]
        counts = [sum(t.state == s for t in trials) for s in ("finished", "half-done", "to do", "stale")]
        memory = _memory_columns(trials) if measured else ()
        table.add_row(name, *(str(c or "·") for c in counts), f"{max(t.seconds for t in trials):.0f} s", *memory)
    console.print(table)
    if measured:
        console.print(f"GPU memory: the peak measured; 'fits' leaves {HEADROOM:.0%} on top and 0.5 GiB for CUDA itself")
        for warning in _too_small_shares(plan):
            console.print(warning, style="yellow", soft_wrap=True)
    left = plan.left(rerun_stale, rerun_lacking)
    resources = {(t.resources.cpu, t.resources.gpu) for t in left}
    hours = plan.core_hours(rerun_stale, rerun_lacking)
    for cpu, gpu in sorted(resources):
        console.print(f"a trial asks for {cpu:g} CPU" + (f" and {gpu:g} GPU where there is one" if gpu else ", no GPU"))
    for line in dict.fromkeys(filter(None, (_limits(t) for t in left))):
        console.print(line)
    console.print(
        f"left to run: {counted(len(left), 'trial')}, about {hours:.2f} core hours (from finished runs, else computed)"
    )
    if left and not any(gpu for _, gpu in resources):
        cores = cores_given()
        console.print(f"on the {cores} cores that are given here: {_about(hours / cores)}")
    for source in {t.data["source"]: t.data for t in plan.trials}.values():
        console.print(f"data: {source['name']} from {source['source']}, fingerprint {source['fingerprint']}")
        if source.get("reason"):
            why = source["reason"].splitlines()[0].rstrip(":")
            console.print(
                f"the embedded digits replace MNIST: {why}; clray data fetch mnist", style="yellow", soft_wrap=True
            )
    if half_done := plan.in_state("half-done"):
        console.print(
            f"half-done: {counted(len(half_done), 'trial')} with a checkpoint, which is checked when the trial goes on"
        )
    if diverged := sum(t.diverged for t in plan.in_state("finished")):
        console.print(f"{diverged} of the finished trials diverged: their loss or weights were not finite any more")
    stale = plan.in_state("stale")
    if stale and not rerun_stale:
        console.print(f"{len(stale)} records were made by other code: --rerun-stale runs them again", style="yellow")
    if not rerun_lacking:
        for line in _lacking(plan):
            console.print(line, style="yellow", soft_wrap=True)
    if plan.other_ids:
        console.print(_other_ids(plan), style="yellow", soft_wrap=True)
    for planned in plan.trials:
        if planned.failure:
            console.print(f"failed last time: {planned.name}: {_failure(planned.failure)}", style="red", soft_wrap=True)
    for problem in plan.problems:
        console.print(str(problem), style="red", soft_wrap=True)


def plan_command(
    name: Name, quick: Quick = False, only: Only = None, seeds: Seeds = None, set_: Set = None,
    results: Results = "results", rerun_stale: RerunStale = False, rerun_lacking: RerunLacking = False,
    trials: Annotated[bool, typer.Option("--trials", help="Also print each trial's id, name and state.")] = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Show which trials are finished, half-done and to do, and what they will cost."""
    target, console = target_of(name, selected(quick, only, seeds, set_), results), terminal()
    planned = target.plan(store_at(results))
    if as_json:
        say_json(plan_data(target, planned, rerun_stale, rerun_lacking))
        return
    show_plan(target, planned, console, rerun_stale, rerun_lacking)
    if trials:
        for trial in planned.trials:
            console.print(f"{trial.id}  {trial.name}: {trial.state}", markup=False, soft_wrap=True)
    if count := target.reference_count:
        console.print(
            f"reference runs ship with clray for {count} of these trials: clray table {target.arguments} "
            "--records reference",
            soft_wrap=True,
        )
    if target.choosing:
        first = f"clray {target.choosing} {target.arguments}{target.in_store}"
        console.print(
            f"not in this plan: the runs that choose settings; `{first} --dry-run` plans them, `{first}` runs them",
            soft_wrap=True,
        )
    if planned.left(rerun_stale, rerun_lacking):
        flags = " --rerun-stale" * rerun_stale + " --rerun-lacking" * rerun_lacking
        console.print(f"run it: {target.run}{flags}", soft_wrap=True)


def costs_command(results: Results = "results", as_json: AsJson = False) -> None:
    """Show the cost of each reproduction in core and GPU hours: from records of the store and reference runs, else
    computed. Markdown."""
    import functools

    from clray import reference_runs
    from clray.costs import cost, markdown
    from clray.durations import Durations
    from clray.loading import read_sweep, reproduction_names
    from clray.reproduction import load_reproduction
    from clray.selection import Selection

    records, _ = store_at(results, reading=True).records(measurements=False)
    shipped = [record for name in reference_runs.names() for record in reference_runs.read(name, measurements=False)]
    durations = Durations([*shipped, *records])
    read = functools.cache(read_sweep)  # several reproductions use the same sweep
    reproductions = [load_reproduction(name) for name in reproduction_names()]
    costs = [cost(r.name, r.title, r.sweeps(Selection(), read).values(), durations) for r in reproductions]
    if as_json:
        say_json(costs_data(costs))
    else:
        say(markdown(costs), end="")
