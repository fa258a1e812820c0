"""The commands ``clray list``, which shows all that can be run, and ``clray status``, which shows a results store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clray.commands.options import AsJson, Results
from clray.commands.target import say_json, store_at, terminal
from clray.output import counted, redacted

if TYPE_CHECKING:
    from clray.store_state import Begun, StoreState
    from clray.sweep import Sweep


def list_command(results: Results = "results") -> None:
    """List the reproductions and sweeps, with their finished trials, and the methods and benchmarks."""
    import functools

    from rich.table import Table

    from clray import reference_runs
    from clray.loading import load_sweep, read_sweep, reproduction_names, sweep_names
    from clray.reproduction import load_reproduction
    from clray.selection import Selection
    from clray.tracks import TRACKS, track

    console = terminal()
    records, _ = store_at(results, reading=True).records(measurements=False)
    finished = {record.trial.declaration for record in records}

    def show(title: str, rows: list[tuple[str, str, dict[str, Sweep], int | None]]) -> None:
        """Print a table; the last item of a row is the number of its reference runs, or None for sweeps."""
        table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
        longest = max((len(name) for name, *_ in rows), default=0)
        table.add_column("name", min_width=longest, no_wrap=True)  # whole, since one types it
        table.add_column("title")
        table.add_column("finished", justify="right")
        if any(reference is not None for *_, reference in rows):
            table.add_column("reference", justify="right")
        for name, what, sweeps, reference in rows:
            trials = {cell.trial.declaration for sweep in sweeps.values() for cell in sweep.cells}
            last = [str(reference or "·")] if reference is not None else []
            table.add_row(name, what, f"{len(trials & finished)}/{len(trials)}", *last)
        console.print(table, "")

    read = functools.cache(read_sweep)  # most sweeps are part of one or more reproductions
    reproductions = [load_reproduction(name) for name in reproduction_names()]
    show(
        "Reproductions: python -m clray.reproduce NAME",
        [
            (r.name, f"{r.title} ({r.cited.venue})", r.sweeps(Selection(), read), reference_runs.count(r.name))
            for r in reproductions
        ],
    )
    console.print("reference: runs that ship with clray; `clray table NAME` shows them", "")
    sweeps = [load_sweep(name, read=read) for name in sweep_names()]
    show("Sweeps: clray sweep NAME", [(s.name, s.title, {s.name: s}, None) for s in sweeps])
    for name in TRACKS:
        for kind in track(name).kinds():
            heading = ", ".join(filter(None, (name, kind.what)))
            lists = f"benchmarks {', '.join(kind.benchmarks)}; methods {', '.join(kind.methods)}"
            console.print(f"Track {heading}: {lists}", soft_wrap=True)


def status_command(results: Results = "results", as_json: AsJson = False) -> None:
    """Show what the store holds: finished, running and failed trials, and files that do not belong there."""
    from clray.store_state import state_of

    state = state_of(store_at(results, reading=True))
    if as_json:
        say_json(_state_data(state))
    else:
        _show_state(state)


def _show_state(state: StoreState) -> None:
    import time

    console = terminal()
    diverged = f" ({state.diverged} of them diverged)" if state.diverged else ""
    shown = counted(state.finished, "finished trial") + diverged
    console.print(f"{state.uri}: {shown}, {len(state.begun)} begun", soft_wrap=True)
    for begun in state.begun:
        console.print(f"  {_begun_line(begun)}", soft_wrap=True)
    for failed in state.failed:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(failed.time))
        console.print(f"  {failed.id} failed on {failed.host} at {when}: {failed.error}", soft_wrap=True)
        for line in failed.traceback.rstrip().splitlines()[-3:]:
            console.print(f"    {line}", soft_wrap=True)
    for problem in state.problems:
        console.print(str(problem), style="red", soft_wrap=True)


def _begun_line(begun: Begun) -> str:
    from clray.gpu import words

    line = f"{begun.id} {begun.variant} seed {'?' if begun.seed is None else begun.seed}: {100 * begun.progress:.0f}%"
    if begun.state == "stopped":
        return f"{line}, stopped on {begun.by}"
    if begun.state == "left":
        line += f", left by {begun.by}, which is gone: the same command goes on from its checkpoint, if it has one"
    else:
        line += f" on {begun.by}" + (f", seen {begun.seen:.0f} s ago" if begun.seen is not None else "")
    return line + (f", {words(begun.gpu_memory)}" if begun.gpu_memory else "")


def _state_data(state: StoreState) -> dict[str, Any]:
    """A store's state as plain data; docs/python.md names the keys."""
    from dataclasses import asdict

    return {
        "results": redacted(state.uri),
        "finished": state.finished,
        "diverged": state.diverged,
        "begun": [asdict(begun) | {"gpu_memory": begun.gpu_memory or None} for begun in state.begun],
        "failed": [asdict(failed) | {"time": failed.time or None} for failed in state.failed],
        "problems": [{"path": redacted(problem.path), "reason": problem.reason} for problem in state.problems],
    }
