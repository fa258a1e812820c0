"""The command line: ``clray …``. Each command reads its arguments, asks the rooms behind it, and prints.

Exit codes: 0 done, 1 some trials failed or something could not be read or reached, 2 wrong usage or declaration,
130 interrupted. Heavy packages are imported inside the commands that use them, so that every ``--help`` is quick.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clray import __version__
from clray.errors import ClrayError, DeclarationError, StoreError

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.tables import Comparison
    from clray.dashboards import Dashboard
    from clray.planning import Plan, Planned
    from clray.results import Record, Store
    from clray.spec import Reproduction, Selection, Sweep
    from clray.tracking import Follower

app = typer.Typer(
    name="clray",
    help="Reproduces the tables of continual-learning papers: declared sweeps, run by Ray, a verdict for every cell.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(no_args_is_help=True, help="The data sets: what is here, and where it comes from.")
app.add_typer(data_app, name="data")


class Format(StrEnum):
    text = "text"
    md = "md"
    latex = "latex"
    csv = "csv"
    json = "json"


class Tracking(StrEnum):
    online = "online"
    offline = "offline"
    off = "off"


Name = Annotated[str, typer.Argument(metavar="NAME|FILE", help="A reproduction, a sweep, or a sweep file.")]
Quick = Annotated[
    bool, typer.Option("--quick", help="The declared quick form: minutes, not comparable with the paper.")
]
Only = Annotated[list[str] | None, typer.Option("--only", metavar="VARIANT[,VARIANT…]", help="Only these variants.")]
Seeds = Annotated[
    str | None, typer.Option("--seeds", metavar="0,1,…", help="These seeds instead of the declared ones.")
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a key of the sweep file, dotted: benchmark.tasks=5. Repeatable."
    ),
]
Results = Annotated[str, typer.Option("--results", metavar="URI", help="The results store: a folder, s3://…, gs://…")]
Address = Annotated[
    str | None,
    typer.Option("--address", envvar="RAY_ADDRESS", help="A Ray cluster, or auto; by default an embedded Ray."),
]
Gpu = Annotated[float | None, typer.Option("--gpu", min=0, help="GPU share of a trial instead of the declared one.")]
Wandb = Annotated[
    Tracking | None, typer.Option("--wandb", help="Publish to W&B. Default: online when logged in, else off.")
]
Local = Annotated[bool, typer.Option("--local", help="One trial after the other in this process, without Ray.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")]
RerunStale = Annotated[
    bool, typer.Option("--rerun-stale", help="Also run trials whose records were made by other code.")
]


def main() -> None:
    """The ``clray`` command. Errors that are not clray's own fault end in one message, without a traceback."""
    run_app(app)


def run_app(application: Any) -> None:
    """Run a typer application, turning clray's errors into their message and exit code."""
    try:
        application()
    except ClrayError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


# --------------------------------------------------------------------------------------------------------------
# What was asked for


@dataclass(frozen=True)
class Target:
    """What a command is about: a reproduction with its sweeps, or one sweep."""

    name: str
    sweeps: dict[str, Sweep]
    reproduction: Reproduction | None
    selection: Selection
    file: str = ""
    """What was typed: the name, or a sweep file's path."""

    @property
    def comparable(self) -> bool:
        return all(sweep.comparable for sweep in self.sweeps.values())

    def compare(self, store: Store) -> Comparison:
        from analysis.tables import compare

        return compare(self.name, self.sweeps, store, self.reproduction)


def _selection(quick: bool, only: list[str] | None, seeds: str | None, set_: list[str] | None) -> Selection:
    from clray.spec import Selection

    variants = tuple(name for item in only or () for name in item.split(",") if name)
    try:
        numbers = tuple(int(seed) for seed in seeds.split(",")) if seeds else ()
    except ValueError:
        raise DeclarationError(f"--seeds {seeds}: expected whole numbers with commas between, such as 0,1,2") from None
    return Selection(quick, variants, numbers, tuple(set_ or ()))


def _target(name: str, selection: Selection) -> Target:
    from clray.documents import one_of
    from clray.spec import load_reproduction, load_sweep, reproduction_names, sweep_names

    if name in reproduction_names():
        reproduction = load_reproduction(name)
        return Target(name, reproduction.sweeps(selection), reproduction, selection, name)
    if not Path(name).is_file() and name.removeprefix("sweeps/").removesuffix(".yaml") not in sweep_names():
        raise DeclarationError(
            f"{name}: no such reproduction, sweep or file; {one_of(name, [*reproduction_names(), *sweep_names()])}"
        )
    sweep = load_sweep(name, selection)
    return Target(sweep.name, {sweep.name: sweep}, None, selection, name)


def _console() -> Console:
    from rich.console import Console

    # Bound to today's stdout: while Ray runs, what others print is sent elsewhere.
    return Console(file=sys.stdout, highlight=False)


def _store(uri: str) -> Store:
    from clray.results import Store

    return Store(uri)


# --------------------------------------------------------------------------------------------------------------
# Planning and running


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

    for sweep, variant in dict.fromkeys((t.sweep, t.cell.variant) for t in plan.trials):
        trials = [t for t in plan.trials if (t.sweep, t.cell.variant) == (sweep, variant) and t.memory]
        worst = max(trials, key=lambda t: needed(t.memory) - t.cell.resources.gpu, default=None)
        if worst and 0 < worst.cell.resources.gpu < needed(worst.memory):
            yield (
                f"{variant} asks for {worst.cell.resources.gpu:g} of a GPU, but needs {needed(worst.memory):.2g} of "
                "the one it was measured on: its trials may run out of memory beside others; see 'resources', or --gpu"
            )


def _show_plan(target: Target, plan: Plan, console: Console, rerun_stale: bool) -> None:
    from rich.table import Table

    from clray.gpu import HEADROOM

    table = Table(
        title=f"{target.name}: {len(plan.trials)} trials", title_justify="left", box=None, padding=(0, 2, 0, 0)
    )
    measured = any(t.memory for t in plan.trials)
    headings = ["variant", "finished", "half-done", "to do", "stale", "a trial"] + ["GPU memory", "fits"] * measured
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    for variant in dict.fromkeys((t.sweep, t.cell.variant) for t in plan.trials):
        trials = [t for t in plan.trials if (t.sweep, t.cell.variant) == variant]
        name = variant[1] if len(target.sweeps) == 1 else "/".join(variant)
        counts = [sum(t.state == s for t in trials) for s in ("finished", "half-done", "to do", "stale")]
        memory = _memory_columns(trials) if measured else ()
        table.add_row(name, *(str(c or "·") for c in counts), f"{max(t.seconds for t in trials):.0f} s", *memory)
    console.print(table)
    if measured:
        console.print(f"GPU memory: the peak measured; 'fits' leaves {HEADROOM:.0%} on top and 0.5 GiB for CUDA itself")
        for warning in _too_small_shares(plan):
            console.print(f"[yellow]{warning}[/yellow]", soft_wrap=True)
    left = plan.left(rerun_stale)
    resources = {(t.cell.resources.cpu, t.cell.resources.gpu) for t in left}
    hours = sum(t.seconds * t.cell.resources.cpu for t in left) / 3600
    for cpu, gpu in sorted(resources):
        console.print(f"a trial asks for {cpu:g} CPU" + (f" and {gpu:g} GPU where there is one" if gpu else ", no GPU"))
    console.print(f"left to run: {len(left)} trials, about {hours:.2f} core hours (from finished runs, else estimated)")
    for source in {t.data["source"]: t.data for t in plan.trials}.values():
        console.print(f"data: {source['name']} from {source['source']}, fingerprint {source['fingerprint']}")
        if source.get("reason"):
            why = source["reason"].splitlines()[0].rstrip(":")
            console.print(f"[yellow]embedded digits stand in: {why}; clray data fetch mnist[/yellow]", soft_wrap=True)
    stale = plan.in_state("stale")
    if stale and not rerun_stale:
        console.print(f"[yellow]{len(stale)} records were made by other code: --rerun-stale runs them again[/yellow]")
    for planned in plan.trials:
        if planned.failure:
            seed = planned.cell.trial.seed
            console.print(
                f"[red]failed last time: {planned.cell.variant} seed {seed}: {planned.failure['error']}[/red]"
            )
    for problem in plan.problems:
        console.print(f"[red]{problem}[/red]", soft_wrap=True)


@app.command("plan")
def plan_command(
    name: Name, quick: Quick = False, only: Only = None, seeds: Seeds = None, set_: Set = None,
    results: Results = "results", rerun_stale: RerunStale = False,
) -> None:  # fmt: skip
    """What would run: trials finished, half-done and to do, and what they will cost."""
    from clray.planning import plan

    target = _target(name, _selection(quick, only, seeds, set_))
    _show_plan(target, plan(target.sweeps, _store(results)), _console(), rerun_stale)


@app.command("costs")
def costs_command(results: Results = "results") -> None:
    """What each reproduction costs, in core and GPU hours: from the store's records, else computed. Markdown."""
    from clray.costs import cost, markdown
    from clray.spec import Selection, load_reproduction, reproduction_names

    records, _ = _store(results).records()
    finished = {record.trial.declaration: record for record in records}
    reproductions = [load_reproduction(name) for name in reproduction_names()]
    print(markdown([cost(r.name, r.title, r.sweeps(Selection()).values(), finished) for r in reproductions]), end="")


@app.command("sweep")
def sweep_command(
    name: Name, quick: Quick = False, only: Only = None, seeds: Seeds = None, set_: Set = None,
    results: Results = "results", address: Address = None, gpu: Gpu = None, wandb: Wandb = None,
    local: Local = False, dry_run: DryRun = False, rerun_stale: RerunStale = False,
) -> None:  # fmt: skip
    """Run every trial of a sweep that is not finished yet, then print the table. Launching again goes on."""
    _launch(name, _selection(quick, only, seeds, set_), results, address, gpu, wandb, local, dry_run, rerun_stale)


@app.command("reproduce")
def reproduce_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A reproduction; clray list shows them.")],
    quick: Quick = False, only: Only = None, seeds: Seeds = None, set_: Set = None,
    results: Results = "results", address: Address = None, gpu: Gpu = None, wandb: Wandb = None,
    local: Local = False, dry_run: DryRun = False, rerun_stale: RerunStale = False,
) -> None:  # fmt: skip
    """Run what a published table needs, and put ours beside it with a verdict for every cell."""
    _launch(name, _selection(quick, only, seeds, set_), results, address, gpu, wandb, local, dry_run, rerun_stale)


def _launch(
    name: str, selection: Selection, results: str, address: str | None, gpu: float | None, wandb: Tracking | None,
    local: bool, dry_run: bool, rerun_stale: bool,
) -> None:  # fmt: skip
    from clray.cluster.launch import Options, run_here, run_on_ray
    from clray.planning import plan

    target, console, store = _target(name, selection), _console(), _store(results)
    planned = plan(target.sweeps, store, download=not dry_run)
    _show_plan(target, planned, console, rerun_stale)
    if dry_run:
        return
    if not target.comparable:
        console.print("[bold yellow]Not comparable with the paper[/bold yellow]: " + ", ".join(selection.changes))
    publisher = _start_publisher(target, store, wandb, console)
    options = Options(address=address, gpu=gpu, rerun_stale=rerun_stale)
    try:
        outcome = (run_here if local else run_on_ray)(planned, store, console, options)
    finally:
        comparison = target.compare(store)
        _stop_publisher(publisher, target, comparison, store, console)
    _print_table(comparison, Format.text, console)
    if selection.suffix == "-quick" and target.reproduction:
        console.print(f"The whole table: python -m clray.reproduce {target.name}", style="bold")
    unwritten = None
    try:
        console.print(f"Report: {_write_report(comparison, target, store, None)}", soft_wrap=True)
    except StoreError as error:
        unwritten = error  # a full disk, say: what it did to the trials is told first
    if outcome.interrupted:
        console.print("Interrupted: the same command goes on from here.")
        raise typer.Exit(130)
    if outcome.failed:
        console.print(f"[red]{len(outcome.failed)} trials failed:[/red]")
        for id, reason in outcome.failed.items():
            console.print(f"  {id}: {reason}   (clray show {id} --results {results})", soft_wrap=True, markup=False)
        raise typer.Exit(1)
    if unwritten:
        raise unwritten


@app.command("run")
def run_command(
    name: Annotated[str, typer.Argument(metavar="FILE", help="A sweep, or a sweep file.")],
    variant: Annotated[str, typer.Option("--variant", metavar="V", help="The variant to run.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="Its seed.")] = 0,
    quick: Quick = False, set_: Set = None, results: Results = "results",
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:  # fmt: skip
    """Run one trial in this process, without Ray. A finished one is not run again, a half-done one goes on."""
    from clray.cluster.interrupt import Interrupt
    from clray.execution import Execution
    from clray.planning import plan

    target = _target(name, _selection(quick, [variant], str(seed), set_))
    store = _store(results)
    trials = plan(target.sweeps, store, download=True).trials
    if len(trials) > 1:
        raise DeclarationError(
            f"--variant {variant}: it stands for {len(trials)} trials here (grid or task orders): narrow it"
        )
    planned, console = trials[0], _console()
    execution = Execution(planned.task(device=device), store)
    if not as_json:
        state = "finished before" if execution.done else f"from {100 * execution.resumed:.0f}%"
        console.print(f"{variant} seed {seed}, trial {planned.id}, {planned.data['source']} data: {state}")
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
        print(json.dumps(facts))
        return
    for metric, value in execution.metrics.items():
        console.print(f"  {metric:12}{100 * value:8.2f} %")
    console.print(f"  {execution.seconds:.1f} s, record {record}", soft_wrap=True)


# --------------------------------------------------------------------------------------------------------------
# Looking at results


def _print_table(comparison: Comparison, form: Format, console: Console) -> None:
    from analysis import tables

    if form is Format.text:
        console.print(tables.text(comparison))
    else:
        forms = {
            Format.md: tables.markdown,
            Format.latex: tables.latex,
            Format.csv: tables.csv,
            Format.json: tables.json,
        }
        print(forms[form](comparison))


@app.command("table")
def table_command(
    name: Name,
    form: Annotated[Format, typer.Option("--format", help="How to print it.")] = Format.text,
    quick: Quick = False, only: Only = None, seeds: Seeds = None, set_: Set = None, results: Results = "results",
) -> None:  # fmt: skip
    """Ours beside the published numbers, from the store alone."""
    _print_table(_target(name, _selection(quick, only, seeds, set_)).compare(_store(results)), form, _console())


def _write_report(comparison: Comparison, target: Target, store: Store, path: str | None) -> str:
    """Write the page, into the store where no path is given. Returns where it is."""
    from analysis.report import write_into_store, write_report

    if path:
        return str(write_report(comparison, path))
    return write_into_store(comparison, store, target.name.replace("/", "-") + target.selection.suffix)


@app.command("report")
def report_command(
    name: Name,
    output: Annotated[str | None, typer.Option("--output", "-o", metavar="FILE", help="The page to write.")] = None,
    quick: Quick = False, only: Only = None, seeds: Seeds = None, set_: Set = None, results: Results = "results",
) -> None:  # fmt: skip
    """The HTML page: table, curves, matrices, and the trials behind each cell. From the store alone."""
    target, store = _target(name, _selection(quick, only, seeds, set_)), _store(results)
    print(_write_report(target.compare(store), target, store, output))


@app.command("list")
def list_command(results: Results = "results") -> None:
    """Reproductions, sweeps, methods and benchmarks, and how much of each is done."""
    from rich.table import Table

    from clray.spec import Selection, load_reproduction, load_sweep, papers, reproduction_names, sweep_names
    from clray.vision.benchmarks import BENCHMARKS
    from clray.vision.methods import STREAM_METHODS, TASK_METHODS
    from clray.vision.task_benchmarks import TASK_BENCHMARKS

    console = _console()
    records, _ = _store(results).records()
    finished = {record.trial.declaration for record in records}

    def show(title: str, rows: list[tuple[str, str, dict[str, Sweep]]]) -> None:
        table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for heading in ("name", "what", "finished"):
            table.add_column(heading, justify="right" if heading == "finished" else "left")
        for name, what, sweeps in rows:
            trials = {cell.trial.declaration for sweep in sweeps.values() for cell in sweep.cells}
            table.add_row(name, what, f"{len(trials & finished)}/{len(trials)}")
        console.print(table, "")

    reproductions = [load_reproduction(name) for name in reproduction_names()]
    known = papers()
    show(
        "Reproductions: python -m clray.reproduce NAME",
        [(r.name, f"{r.title} ({known[r.paper].venue})", r.sweeps(Selection())) for r in reproductions],
    )
    sweeps = [load_sweep(name) for name in sweep_names()]
    show("Sweeps: clray sweep NAME", [(s.name, s.title, {s.name: s}) for s in sweeps])
    for what, benchmarks, methods in (
        ("One example at a time", BENCHMARKS, STREAM_METHODS),
        ("Task by task", TASK_BENCHMARKS, TASK_METHODS),
    ):
        console.print(f"{what}: benchmarks {', '.join(benchmarks)}; methods {', '.join(methods)}")


@app.command("show")
def show_command(name: Annotated[str, typer.Argument(metavar="NAME|TRIAL")], results: Results = "results") -> None:
    """A reproduction, a sweep, or a trial by its id, provenance included."""
    from clray.gpu import sharers, words
    from clray.results import Problem, Record

    store, console = _store(results), _console()
    looks_like_id = len(name) == 16 and set(name) <= set("0123456789abcdef")
    if not looks_like_id:
        target = _target(name, _selection(False, None, None, None))
        console.print_json(json.dumps({key: sweep.model_dump(mode="json") for key, sweep in target.sweeps.items()}))
        return
    record = store.read(name) or store.read(name, "running")
    if isinstance(record, Problem):
        raise ClrayError(str(record))
    failure = store.failure(name)
    if record is None and failure is None:
        raise ClrayError(f"{name}: no record, checkpoint or failure of such a trial in {store.uri}")
    if isinstance(record, Record):
        facts = {
            "id": record.id, "status": record.status, "sweep": record.sweep, "variant": record.variant,
            "trial": record.trial.model_dump(mode="json"), "data": record.data, "provenance": record.provenance,
            "metrics": record.metrics, "measurements": len(record.measurements),
        }  # fmt: skip
        console.print_json(json.dumps(facts))
    memory = record.provenance.get("gpu_memory") if isinstance(record, Record) else None
    if memory:
        console.print(f"It took {words(memory)} at most: {sharers(memory)} of its kind fit on such a GPU.")
    if failure:
        console.print(
            f"its last attempt failed on {failure.get('host')}:", failure.get("traceback"), sep="\n", markup=False
        )


@app.command("export")
def export_command(
    trial: Annotated[str, typer.Argument(metavar="TRIAL", help="The id of a finished trial.")],
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Which file; without, they are listed.")] = None,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Where to; by default ./NAME.")] = None,
    results: Results = "results",
) -> None:  # fmt: skip
    """Write a file that a trial left beside its record, such as its network in the official code's layout."""
    from clray.documents import one_of

    store, console = _store(results), _console()
    kept = store.artifacts(trial)
    if not kept:
        raise ClrayError(f"{trial}: nothing is kept of such a trial beside its record in {store.uri}")
    if name is None:
        for one in kept:
            console.print(one)
        return
    content = store.read_artifact(trial, name) if name in kept else None
    if content is None:
        raise ClrayError(f"{trial}: {name!r} is not kept of it; {one_of(name, kept)}")
    path = file or Path(name)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise ClrayError(f"{path}: cannot be written: {error}") from None
    console.print(f"{path}", soft_wrap=True)


def _claim_lines(store: Store, saved: dict[str, Record]) -> Iterator[str]:
    """Who runs what, by the claims; trials that have one are taken out of ``saved``."""
    from clray.claims import Claim, Onlooker
    from clray.gpu import words

    onlooker, claimed = Onlooker(store), sorted(store.claimed())
    now = store.clock() if claimed else 0.0
    for id in claimed:
        found = store.read_claim(id)
        if found is None:
            continue  # let go just now
        claim, record = Claim.from_bytes(id, found.content), saved.pop(id, None)
        notes = claim.notes
        line = f"{id} {notes.get('variant', '?')} seed {notes.get('seed', '?')}: {100 * notes.get('progress', 0):.0f}%"
        if onlooker.dead(claim, found, now):
            line += f", left by {claim.owner}, which is gone: the same command goes on from here"
        else:
            line += f" on {claim.owner}" + (f", seen {now - found.renewed:.0f} s ago" if found.renewed else "")
        memory = notes.get("gpu_memory") or (record.provenance.get("gpu_memory") if record else None)
        yield line + (f", {words(memory)}" if memory else "")


def _begun_line(record: Record) -> str:
    """A trial that nobody runs at the moment."""
    host = record.provenance.get("machine", {}).get("host", "?")
    share = 100 * record.provenance.get("progress", 0)
    return f"{record.id} {record.variant} seed {record.trial.seed}: {share:.0f}%, stopped on {host}"


@app.command("status")
def status_command(results: Results = "results") -> None:
    """What the store holds: finished, running and failed trials, and files that do not belong there."""
    import time

    store, console = _store(results), _console()
    records, problems = store.records()
    running, more = store.records("running")
    saved = {record.id: record for record in running}
    lines = [*_claim_lines(store, saved), *(_begun_line(record) for record in running if record.id in saved)]
    console.print(f"{store.uri}: {len(records)} finished trials, {len(lines)} begun", soft_wrap=True)
    for line in lines:
        console.print(f"  {line}", soft_wrap=True, markup=False)
    for id in sorted(store.failed()):
        failure = store.failure(id) or {}
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(failure.get("time", 0)))
        console.print(f"  {id} failed on {failure.get('host', '?')} at {when}: {failure.get('error')}", markup=False)
        for line in str(failure.get("traceback", "")).rstrip().splitlines()[-3:]:
            console.print(f"    {line}", markup=False)
    for problem in problems + more:
        console.print(f"[red]{problem}[/red]", soft_wrap=True)


# --------------------------------------------------------------------------------------------------------------
# W&B


def _publications(
    target: Target, store: Store, mode: str, project: str | None = None, entity: str | None = None
) -> list[Any]:
    from analysis.tables import shell_flags
    from clray.tracking import Publication

    table = target.name if target.reproduction else ""
    flags = " ".join([*shell_flags(target.selection), "--results", shlex.quote(store.uri), "--wandb", mode])
    again = f"clray publish {target.name} {flags}"
    return [
        Publication.of(sweep, store, mode, project=project, entity=entity, table=table, again=again)  # type: ignore[arg-type]
        for sweep in target.sweeps.values()
    ]


def _ready_tables(comparison: Comparison) -> dict[str, str]:
    from analysis import tables

    return {
        "table.md": tables.markdown(comparison),
        "table.csv": tables.csv(comparison),
        "table.json": tables.json(comparison),
    }


def _start_publisher(target: Target, store: Store, wandb: Tracking | None, console: Console) -> Follower | None:
    from clray.tracking import default_mode, start

    mode = wandb.value if wandb else default_mode()
    if mode == "off":
        return None
    console.print(f"W&B: publishing {mode}")
    return start(_publications(target, store, mode), dashboard=_dashboard(target, store))


def _stop_publisher(
    publisher: Follower | None, target: Target, comparison: Comparison, store: Store, console: Console
) -> None:
    if publisher is None:
        return
    ready = _ready_tables(comparison)
    tables = {publication.sweep: ready for publication in publisher._publications}
    message = publisher.stop(tables, dashboard=_dashboard(target, store, comparison))
    console.print(message, soft_wrap=True, markup=False)


def _dashboard(target: Target, store: Store, comparison: Comparison | None = None) -> Dashboard:
    """The page of all that the target stands for: a launch of a part of it does not leave a page of that part alone.

    Args:
        comparison: the target's, where there is one already.
    """
    from analysis import tables
    from clray.dashboards import dashboard
    from clray.spec import Selection

    asked = target.selection
    if asked.only or asked.seeds:
        target = _target(target.file, Selection(quick=asked.quick, set=asked.set))
        comparison = None
    comparison = comparison or target.compare(store)
    data = {table.title: table.gathered.data.fingerprint for table in comparison.tables if table.gathered.data}
    return dashboard(target.name, target.sweeps, target.reproduction, tables.markdown(comparison), data)


@app.command("publish")
def publish_command(
    name: Name, quick: Quick = False, only: Only = None, seeds: Seeds = None, set_: Set = None,
    results: Results = "results",
    wandb: Annotated[Tracking, typer.Option("--wandb", help="Where to.")] = Tracking.online,
    project: Annotated[str | None, typer.Option("--project", help="Default: WANDB_PROJECT, else clray.")] = None,
    entity: Annotated[str | None, typer.Option("--entity", help="W&B user or team.")] = None,
    page: Annotated[
        bool | None,
        typer.Option("--dashboard/--no-dashboard", help="Make or renew its page at W&B. Default: where it can be."),
    ] = None,
) -> None:  # fmt: skip
    """Send finished trials to W&B, now or again: what was sent before is not sent twice."""
    from clray.tracking import publish

    target, store = _target(name, _selection(quick, only, seeds, set_)), _store(results)
    tables = _ready_tables(target.compare(store))
    publications = _publications(target, store, wandb.value, project, entity)
    failed = False
    for publication in publications:
        # The page shows the runs of all sweeps: it comes with the last.
        last = publication is publications[-1]
        outcome = publish(publication, tables, _dashboard(target, store) if last and page is not False else None)
        print(outcome.message(publication.again))
        failed |= bool(outcome.failures) or bool(page and outcome.no_page)
    if failed:
        raise typer.Exit(1)


# --------------------------------------------------------------------------------------------------------------
# Data and set-up


@data_app.command("list")
def data_list() -> None:
    """Which data sets are here, where they were found, what is missing and where it comes from."""
    from clray.errors import DataError
    from clray.vision import data

    for name, published in data.PUBLISHED.items():
        try:
            found = data.find(name)
        except DataError as error:
            print(f"{name}: {error}")
            continue
        if found:
            print(f"{name}: {found.source}: {found.folder}\n  {', '.join(found.form.files)}")
            if found.form.partial:
                print(f"  only {found.form.partial}, never judged; the whole: clray data fetch {name}")
        elif published.download:
            print(f"{name}: not here: clray data fetch {name}")
            print(f"  {', '.join(published.download.files)} from {published.origin}")
        else:
            print(f"{name}: not here\n  {published.advice}")
    print("mnist: 5,000 embedded digits stand in where the files are not here; they are never judged")


DataName = Annotated[str, typer.Argument(metavar="NAME")]


def _known_data(name: str) -> None:
    from clray.documents import one_of
    from clray.vision import data

    if name not in data.PUBLISHED:
        raise DeclarationError(f"{name}: no such data set; {one_of(name, data.PUBLISHED)}")


@data_app.command("fetch")
def data_fetch(name: DataName) -> None:
    """Download a data set into the cache, each file checked against its published md5."""
    from clray.vision import data

    _known_data(name)
    print(data.fetch(name))


@data_app.command("verify")
def data_verify(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="All that are here, if none is named.")] = None,
) -> None:
    """Read and check the files that a trial would read: their published md5, or the content they hold."""
    from clray.errors import DataError
    from clray.vision import data

    if name is not None:
        _known_data(name)
    failed = False
    for each in [name] if name else data.PUBLISHED:
        try:
            if name is None and data.find(each) is None:
                continue
            found = data.verify(each)
        except DataError as error:
            if name is not None:
                raise
            print(error, file=sys.stderr)
            failed = True
            continue
        state = found.get("unverified") or "every file is as published"
        only = f", only {found['partial']}" if "partial" in found else ""
        print(f"{each}: from {found['source']}{only}: {state}, fingerprint {found['fingerprint']}")
    if failed:
        raise typer.Exit(1)


@app.command("doctor")
def doctor_command(results: Results = "results") -> None:
    """What this machine offers: cores, GPUs, Ray, data, W&B, disk."""
    import os

    from clray.errors import DataError
    from clray.provenance import provenance
    from clray.tracking import default_mode
    from clray.vision import data

    facts = provenance("vision", "online")
    print(f"clray {facts['clray']}, Python {facts['python']}, {os.cpu_count()} cores: {facts['machine']['processor']}")
    print("  " + ", ".join(f"{name} {version}" for name, version in facts["packages"].items()))
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print("GPUs: " + (", ".join(gpus) or "none"))
    print("Ray: " + (f"RAY_ADDRESS={os.environ['RAY_ADDRESS']}" if "RAY_ADDRESS" in os.environ else "embedded"))
    try:
        found = data.locate("mnist")
        print(
            f"MNIST: {found['source']}" + (f" ({found['reason']}; clray data fetch mnist)" if "reason" in found else "")
        )
    except DataError as error:
        print(f"MNIST: {error}")
    print(f"W&B: {default_mode()}")
    store = _store(results)
    folder = Path(store.path()) if "://" not in store.uri else Path.cwd()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free, writable = shutil.disk_usage(there).free / 2**30, os.access(there, os.W_OK)
    print(f"results: {store.uri}, {free:.0f} GiB free, writable: {'yes' if writable else 'no'}")


@app.command("init")
def init_command(
    folder: Annotated[Path, typer.Argument(help="A new folder.")] = Path("my-method"),
    like: Annotated[str, typer.Option(metavar="METHOD", help="The method to start from.")] = "er",
) -> None:
    """Copy a sweep file and a method to start your own from."""
    from clray.documents import one_of
    from clray.spec import find_sweep
    from clray.vision.methods import METHODS, STREAM_METHODS

    if like not in METHODS:
        raise DeclarationError(f"--like {like}: not a method; {one_of(like, METHODS)}")
    if folder.exists():
        raise DeclarationError(f"{folder}: it exists already; name a new folder")
    streams = like in STREAM_METHODS
    sweep, variant = ("mer/rotations", "er-5120") if streams else ("tag/rotated_mnist", "naive-sgd")
    names = "STREAM_METHODS" if streams else "TASK_METHODS"
    methods = Path(__file__).parent / "vision" / "methods"
    folder.mkdir(parents=True)
    shutil.copy(find_sweep(sweep), folder / "sweep.yaml")
    shutil.copy(methods / f"{METHODS[like].partition(':')[0]}.py", folder / "method.py")
    print(f"{folder}/sweep.yaml: a sweep to change; try: clray sweep {folder}/sweep.yaml --quick --only {variant}")
    print(f"{folder}/method.py: a method to change; put it into {methods}, and a line into {names} in its __init__.py")


def _version(value: bool) -> None:
    if value:
        print(f"clray {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
