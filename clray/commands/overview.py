"""The commands ``clray list``, which shows all that can be run, and ``clray status``, which shows a results store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from clray.commands.options import Results
from clray.commands.target import store_at, terminal

if TYPE_CHECKING:
    from clray.record import Record
    from clray.store import Problem, Store
    from clray.sweep import Sweep


def list_command(results: Results = "results") -> None:
    """List the reproductions and sweeps, with their finished trials, and the methods and benchmarks."""
    import functools

    from rich.table import Table

    from clray import reference_runs
    from clray.loading import load_sweep, papers, read_sweep, reproduction_names, sweep_names
    from clray.reproduction import load_reproduction
    from clray.selection import Selection
    from clray.tracks import TRACKS, track

    console = terminal()
    records, _ = store_at(results).records(measurements=False)
    finished = {record.trial.declaration for record in records}

    def show(title: str, rows: list[tuple[str, str, dict[str, Sweep], int | None]]) -> None:
        """Print a table; the last item of a row is the number of its reference runs, or None for sweeps."""
        table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for heading in ("name", "title", "finished"):
            table.add_column(heading, justify="right" if heading == "finished" else "left")
        if any(reference is not None for *_, reference in rows):
            table.add_column("reference", justify="right")
        for name, what, sweeps, reference in rows:
            trials = {cell.trial.declaration for sweep in sweeps.values() for cell in sweep.cells}
            last = [str(reference or "·")] if reference is not None else []
            table.add_row(name, what, f"{len(trials & finished)}/{len(trials)}", *last)
        console.print(table, "")

    read = functools.cache(read_sweep)  # most sweeps are part of one or more reproductions
    reproductions = [load_reproduction(name) for name in reproduction_names()]
    known = papers()
    show(
        "Reproductions: python -m clray.reproduce NAME",
        [
            (r.name, f"{r.title} ({known[r.paper].venue})", r.sweeps(Selection(), read), reference_runs.count(r.name))
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


def _lease_lines(store: Store, saved: dict[str, Record], problems: list[Problem]) -> Iterator[str]:
    """Make one line for each trial that has a lease: which process runs it, or died while it ran it.

    Trials that have a lease are removed from ``saved``. A file that is not a lease is added to ``problems``.
    """
    from clray.gpu import words
    from clray.leases import Lease, LeaseMonitor
    from clray.store import Problem

    monitor, leased = LeaseMonitor(store), sorted(store.leased())
    now = store.clock() if leased else 0.0
    for trial_id in leased:
        found = store.read_lease(trial_id)
        if found is None:
            continue  # its holder has just released it
        lease, record = Lease.from_bytes(trial_id, found.content), saved.get(trial_id)
        if lease.foreign:
            problems.append(Problem(store.path("claims", f"{trial_id}.json"), f"not a lease: {lease.foreign}"))
            continue
        saved.pop(trial_id, None)
        notes = lease.notes
        share = 100 * notes.get("progress", 0)
        line = f"{trial_id} {notes.get('variant', '?')} seed {notes.get('seed', '?')}: {share:.0f}%"
        if monitor.is_dead(lease, found, now):
            line += f", left by {lease.owner}, which is gone: the same command continues the trial"
        else:
            line += f" on {lease.owner}" + (f", seen {now - found.mtime:.0f} s ago" if found.mtime else "")
        memory = notes.get("gpu_memory") or (record.provenance.get("gpu_memory") if record else None)
        yield line + (f", {words(memory)}" if memory else "")


def _begun_line(record: Record) -> str:
    """The line for a trial that was begun and that no process runs now."""
    host = record.provenance.get("machine", {}).get("host", "?")
    share = 100 * record.provenance.get("progress", 0)
    return f"{record.id} {record.variant} seed {record.trial.seed}: {share:.0f}%, stopped on {host}"


def status_command(results: Results = "results") -> None:
    """Show what the store holds: finished, running and failed trials, and files that do not belong there."""
    import time

    store, console = store_at(results), terminal()
    records, problems = store.records(measurements=False)
    running, more = store.records("running", measurements=False)
    problems += more
    known = {record.id: record.provenance for record in records}
    # Where the same code has finished a trial since, the record of its progress is a leftover and is not shown.
    saved = {
        r.id: r
        for r in running
        if r.id not in known or known[r.id].get("code") != r.provenance.get("code") or r.provenance.get("again")
    }
    lines = [*_lease_lines(store, saved, problems), *(_begun_line(record) for record in running if record.id in saved)]
    diverged = sum(record.status == "diverged" for record in records)
    counted = f"{len(records)} finished trials" + (f" ({diverged} of them diverged)" if diverged else "")
    console.print(f"{store.uri}: {counted}, {len(lines)} begun", soft_wrap=True)
    for line in lines:
        console.print(f"  {line}", soft_wrap=True)
    for trial_id in sorted(store.failed()):
        failure = store.failure(trial_id) or {}
        if trial_id in known and failure.get("time", 0) <= known[trial_id].get("saved", 0):
            continue  # the trial was finished after this failure
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(failure.get("time", 0)))
        reason = " ".join(str(failure.get("error")).split())
        console.print(f"  {trial_id} failed on {failure.get('host', '?')} at {when}: {reason}", soft_wrap=True)
        for line in str(failure.get("traceback", "")).rstrip().splitlines()[-3:]:
            console.print(f"    {line}", soft_wrap=True)
    for problem in problems:
        console.print(str(problem), style="red", soft_wrap=True)
