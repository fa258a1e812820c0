"""``clray sweep``, ``clray reproduce`` and ``clray run``: run trials, and show their results."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clray.commands.answers import require_writable
from clray.commands.options import (
    Address,
    Cpus,
    DryRun,
    Format,
    Gpu,
    Gpus,
    Local,
    MaxHours,
    Name,
    NoWait,
    Only,
    Quick,
    RequireGpu,
    RerunLacking,
    RerunStale,
    Results,
    Seeds,
    Set,
    Tracking,
    Wandb,
    Yes,
)
from clray.commands.plan import show_plan
from clray.commands.publish import publishing, start_publisher, stop_publisher
from clray.commands.tables import print_table, write_report_of
from clray.commands.target import Target, selected, store_at, target_of, terminal
from clray.errors import ClrayError, DeclarationError, StoreError
from clray.output import counted, say

if TYPE_CHECKING:
    from rich.console import Console

    from clray.analysis import Comparison
    from clray.console import PlainConsole
    from clray.launch import Options, Outcome
    from clray.planning import Plan, Planned
    from clray.store import Store

ASKED_HOURS = 24.0
"""A launch of more core hours is asked about: more than a day on one core."""


def sweep_command(
    name: Name, quick: Quick = False, only: Only = None, seeds: Seeds = None, set_: Set = None,
    results: Results = "results", address: Address = None, gpu: Gpu = None, wandb: Wandb = None,
    local: Local = False, dry_run: DryRun = False, rerun_stale: RerunStale = False,
    rerun_lacking: RerunLacking = False, cpus: Cpus = None, gpus: Gpus = None, require_gpu: RequireGpu = False,
    max_hours: MaxHours = None, no_wait: NoWait = False, yes: Yes = False,
) -> None:  # fmt: skip
    """Run every trial of a sweep that is not finished yet, then print the table. The same command again continues."""
    from clray.tuning import refuse_images_of_both_phases

    options = options_of(
        address, gpu, rerun_stale, local, cpus, gpus, require_gpu, max_hours, not no_wait, rerun_lacking
    )
    target, console, store = target_of(name, selected(quick, only, seeds, set_), results), terminal(), store_at(results)
    planned = target.plan(store, download=not dry_run)
    show_plan(target, planned, console, rerun_stale, rerun_lacking)
    refuse_images_of_both_phases(target.sweeps, planned)
    if dry_run:
        return
    if options.left(planned):
        require_extras(options.left(planned), local, options.address)
        require_writable(store)
        confirm(planned.core_hours(rerun_stale, rerun_lacking), yes, console)
    if not target.comparable:
        changes = ", ".join(target.selection.changes)
        of_paper = any(sweep.paper for sweep in target.sweeps.values())
        what = "Not comparable with the paper" if of_paper else "Another experiment than the declared one"
        console.print(f"{what}: {changes}", style="yellow", soft_wrap=True)
    publisher = start_publisher(target, store, wandb, console)
    try:
        outcome = runner(local)(planned, store, console, options)
    finally:
        comparison = target.compare(store)
        stop_publisher(publisher, target, comparison, store, console)
    _show_outcome(outcome, options.left(planned), target, comparison, store, console)


@functools.wraps(sweep_command)
def reproduce_command(**flags: Any) -> None:
    sweep_command(**flags)


reproduce_command.__doc__ = """Run the trials for a published table, and compare: a verdict for every cell."""


def runner(local: bool) -> Callable[[Plan, Store, Console, Options], Outcome]:
    """The function that runs what a plan has left to do: in this process, or on Ray."""
    if local:
        from clray.launch import run_here

        return run_here
    from clray.cluster.tune import run_on_ray

    return run_on_ray


def require_extras(trials: Sequence[Planned], local: bool, address: str | None) -> None:
    """Check, before anything is written, that what these trials need is installed here.

    Raises:
        ExtraMissing: it is not.
    """
    from clray.extras import require, require_ray
    from clray.tracks import EXTRAS

    if not local:
        require_ray()
    if address in (None, "local"):  # a cluster's workers have packages of their own
        for track in dict.fromkeys(planned.trial.track for planned in trials):
            if extra := EXTRAS.get(track):
                require(extra, f"the track {track}")


def options_of(
    address: str | None, gpu: float | None, rerun_stale: bool, local: bool, cpus: int | None, gpus: int | None,
    require_gpu: bool, max_hours: float | None = None, wait: bool = True, rerun_lacking: bool = False,
) -> Options:  # fmt: skip
    """The options of a launch.

    Raises:
        DeclarationError: ``--cpus`` or ``--gpus`` where no Ray is embedded.
    """
    from clray.launch import Deadline, Options

    deadline = None if max_hours is None else Deadline(max_hours)
    for flag, given in (("--cpus", cpus), ("--gpus", gpus)):
        if given is not None and local:
            raise DeclarationError(f"{flag} {given}: sets the size of the embedded Ray, and --local uses no Ray")
        if given is not None and address not in (None, "local"):
            raise DeclarationError(
                f"{flag} {given}: sets the size of an embedded Ray; the cluster at {address} (--address or "
                f"RAY_ADDRESS) offers what its machines were started with: leave {flag} out"
            )
    return Options(
        address,
        gpu,
        rerun_stale,
        cpus=cpus,
        gpus=gpus,
        require_gpu=require_gpu,
        deadline=deadline,
        wait=wait,
        rerun_lacking=rerun_lacking,
    )


def confirm(core_hours: float, yes: bool, console: Console) -> None:
    """Ask before a launch of more than a day on one core. Only somebody at a terminal is asked.

    Raises:
        typer.Exit: the answer is no.
    """
    if core_hours <= ASKED_HOURS or yes or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return
    console.print(f"This will take about {core_hours:,.0f} core hours. Launch it? [y/N] ", end="")
    try:
        answer = input()
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        console.print("Nothing was launched. --yes launches without this question.")
        raise typer.Exit(130)


def _show_outcome(
    outcome: Outcome,
    launched: Sequence[Planned],
    target: Target,
    comparison: Comparison,
    store: Store,
    console: PlainConsole,
) -> None:
    """Print the table after a launch, the place of its report, and the failures.

    Args:
        launched: the trials that were to run.

    Raises:
        typer.Exit: the launch was interrupted, or a trial failed.
    """
    from clray import reference_runs
    from clray.selection import Selection

    print_table(comparison, Format.text, console)
    if target.selection.suffix == "-quick" and target.reproduction:
        console.print(f"The whole table: {replace(target, selection=Selection()).run}", style="bold")
        if target.file == target.name and reference_runs.count(target.name):
            console.print(f"Our own runs of it ship with clray: clray table {target.name} --records reference")
    console.print(f"Report: {_report(comparison, target, store)}", soft_wrap=True)
    show_failures(outcome, launched, target, store, console)


def refuse_stale(stale: list[Planned], rerun_stale: bool) -> None:
    """Refuse records that other code made, where settings are chosen by them.

    Raises:
        ClrayError: there are some, and they are not to be run again.
    """
    if stale and not rerun_stale:
        raise ClrayError(
            f"made by other code: {counted(len(stale), 'record')} of these trials, such as {stale[0].id} "
            f"({stale[0].name}); "
            "allowed: --rerun-stale, which runs them again, or another store (--results)"
        )


def run_stage(
    target: Target, planned: Plan, store: Store, console: PlainConsole, options: Options, local: bool, quiet: bool,
    wandb: Tracking | None, command: str,
) -> None:  # fmt: skip
    """Run what is left of a phase of a command that has several, and publish it.

    Args:
        quiet: the progress goes to stderr.
        wandb: where it is published; None for the default.
        command: the name of the command.

    Raises:
        typer.Exit: it was interrupted, or a trial failed.
    """
    from clray.console import PlainConsole

    if options.left(planned):
        require_extras(options.left(planned), local, options.address)
        require_writable(store)
    elif wandb is None:
        return
    shown = PlainConsole(sys.stderr) if quiet else console
    with publishing(target, store, wandb, shown, command):
        outcome = runner(local)(planned, store, shown, options)
    show_failures(outcome, options.left(planned), target, store, console)


def show_failures(
    outcome: Outcome, launched: Sequence[Planned], target: Target, store: Store, console: PlainConsole
) -> None:
    """Print which trials failed, and why, and what an interrupted launch left; nothing where all of them finished.

    Args:
        launched: the trials that were to run.

    Raises:
        typer.Exit: the launch was interrupted, or a trial failed.
    """
    if outcome.failed:
        console.print(f"{counted(len(outcome.failed), 'trial')} failed:", style="red")
        by_reason: dict[str, list[str]] = {}
        for trial, reason in outcome.failed.items():
            by_reason.setdefault(reason, []).append(trial)
        for reason, trials in by_reason.items():
            more = f" and {len(trials) - 1} more" if len(trials) > 1 else ""
            console.print(f"  {trials[0]}{more}: {reason}   (clray show {trials[0]}{target.in_store})", soft_wrap=True)
    if outcome.interrupted:
        why = "Stopped by --max-hours" if outcome.out_of_time else "Interrupted"
        console.print(f"{why}: {_left(outcome, launched, store)}. The same command continues from here.")
        raise typer.Exit(130)
    if outcome.failed:
        raise typer.Exit(1)


def _left(outcome: Outcome, launched: Sequence[Planned], store: Store) -> str:
    """Say what an interrupted launch left to do."""
    from clray.planning import core_hours

    over = {*outcome.finished, *outcome.elsewhere, *outcome.failed}
    left = [trial for trial in launched if trial.id not in over]
    try:
        begun = store.checkpointed()
    except StoreError:
        begun = set()
    half_done = sum(trial.id in begun for trial in left)
    some = f", {half_done} of them half-done" if half_done else ""
    are = "is" if len(left) == 1 else "are"
    return f"{counted(len(left), 'trial')} {are} left{some}, about {core_hours(left):.2f} core hours at most"


def _report(comparison: Comparison, target: Target, store: Store) -> str:
    """Write the page after a launch. Returns its place, or why there is none: the trials are safe without it."""
    try:
        return write_report_of(comparison, target, store, None)
    except Exception as error:
        # Whatever the error (a full disk, a user's matplotlib), the launch still gives its table and exit code.
        reason = str(error) if isinstance(error, ClrayError) else f"{type(error).__name__}: {error}"
        return f"not written: {' '.join(reason.split())}; later: clray report {target.arguments}{target.in_store}"


def check_device(device: str) -> None:
    """Check that ``--device`` names a device of this machine.

    Raises:
        DeclarationError: it does not.
    """
    if device == "cpu":
        return
    import torch

    allowed = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if len(allowed) > 1:
        allowed.insert(1, "cuda")
    if device not in allowed:
        raise DeclarationError(f"--device {device}: not a device of this machine; allowed: {', '.join(allowed)}")


def run_command(
    name: Annotated[str, typer.Argument(metavar="FILE", help="A sweep, or a sweep file.")],
    variant: Annotated[str, typer.Option("--variant", metavar="V", help="The variant to run.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="Its seed.")] = 0,
    quick: Quick = False, set_: Set = None, results: Results = "results",
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    rerun_lacking: RerunLacking = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:  # fmt: skip
    """Run one trial in this process, without Ray. A finished one is not run again, a half-done one is continued."""
    from clray.execution import Execution
    from clray.interrupt import Interrupt
    from clray.progress import divergence

    check_device(device)
    selection = replace(selected(quick, None, str(seed), set_), only=(variant,), only_flag="--variant")
    target = target_of(name, selection, results, whole=True)
    store = store_at(results)
    trials = target.plan(store, download=True).trials
    if len(trials) > 1:
        several = list(dict.fromkeys(planned.variant for planned in trials))
        named = f"it names {len(several)} variants: {', '.join(several[:20])}"
        why = named if several[1:] else "it has several task orders"
        raise DeclarationError(f"--variant {variant}: {len(trials)} trials, since {why}; allowed: one trial")
    planned, console = trials[0], terminal()
    again = rerun_lacking and bool(planned.lacking)
    execution = Execution(planned.task(device=device, rerun_lacking=again), store)
    if not as_json:
        state = "finished before" if execution.done else f"from {100 * execution.resumed:.0f}%"
        console.print(f"{variant} seed {seed}, trial {planned.id}, {planned.data['source']} data: {state}")
        for line in execution.passed_over:
            console.print(f"  {line}", markup=False, soft_wrap=True)
        if execution.done and planned.lacking:
            console.print(f"  finished without {' and '.join(planned.lacking)}: --rerun-lacking runs it again for that")
    with Interrupt() as interrupt:
        while not execution.done and not interrupt.requested:
            execution.step()
            if not as_json and console.is_terminal:
                console.print(f"  {100 * execution.progress:3.0f}%", end="\r")
    if not execution.done:
        execution.stop()
        raise KeyboardInterrupt
    record = store.path("records", f"{planned.id}.parquet")
    if as_json:
        facts = {"trial": planned.id, "metrics": execution.metrics, "seconds": execution.seconds, "record": record}
        say(json.dumps(facts | ({"diverged": execution.diverged} if execution.diverged else {})))
        return
    if execution.diverged:
        console.print(f"  {divergence(execution.diverged)}", markup=False)
    for metric, value in execution.metrics.items():
        console.print(f"  {metric:12}{100 * value:8.2f} %")
    console.print(f"  {execution.seconds:.1f} s, record {record}", soft_wrap=True)
