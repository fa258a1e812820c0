"""Measures the cost of Ray for short trials, beside plain processes and one process: python bench/ray_overhead.py

The same trials (online learning on two short tasks of embedded digits, a fraction of a second each) are run to the end,
each way into a store of its own, by a process of its own, one way after the other:

- ``in-process``: one trial after the other, as ``clray sweep --local`` does it;
- ``processes``: a pool of plain processes, each running ``clray.execution.Execution``, as Ray's workers do;
- ``ray``: ``run_on_ray``, with one trial a pack, and with packs.

Each way measures its own times: from its first import to the end, to its first record, and from the first record to the
last. The last one gives the time that one more trial keeps a worker; beside it stands the median of the times in the
trials' records. CPU seconds and memory of all processes of a way are read from /proc: the CPU seconds in all and of one
more trial (the last column is the ratio to those in-process), and the highest proportional set size (PSS) by the kind
of process. Compare figures of one run only, and on a busy machine only CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SWEEP = """\
version: 1
paper: mer
title: A thousand short trials
track: vision
benchmark: {{name: mnist-rotations, tasks: 2, train_per_task: 20, source: embedded}}
model: {{name: mlp, hidden: [20, 20]}}
seeds: {seeds}
resources: {{cpu: 1, pack: {pack}}}
variants:
  online: {{method: online, lr: 0.01}}
"""
WORKERS = 2
LOOK_SECONDS = 0.5
_TICKS = os.sysconf("SC_CLK_TCK")


# --------------------------------------------------------------------------------------------------------------
# The ways to run the trials: each in a process of its own


def planned(folder: Path, trials: int, pack: int) -> tuple[Any, Any]:
    """The plan and its store."""
    from clray.loading import load_sweep
    from clray.planning import plan
    from clray.store import Store

    file = folder / "short.yaml"
    file.write_text(SWEEP.format(seeds=list(range(trials)), pack=pack))
    sweep, store = load_sweep(file), Store(folder / "results")
    return plan({sweep.name: sweep}, store), store


def run_one(job: tuple[str, str]) -> None:
    """One trial in whatever process this is."""
    from clray.execution import Execution
    from clray.store import Store
    from clray.work import Task

    execution = Execution(Task.from_json(job[0]), Store(job[1]))
    while not execution.done:
        execution.step()


def run(way: str, folder: Path, trials: int, pack: int) -> None:
    """Run all trials in one way. Prints times and costs as JSON."""
    begun, clock = time.time(), time.perf_counter()
    plan, store = planned(folder, trials, pack)
    facts = {"planning": time.perf_counter() - clock}
    if way == "ray":
        from rich.console import Console

        from clray.cluster.tune import run_on_ray
        from clray.launch import Options

        with open(os.devnull, "w") as nowhere:
            outcome = run_on_ray(plan, store, Console(file=nowhere), Options(cpus=WORKERS, gpus=0))
        assert len(outcome.finished) == trials, outcome
    else:
        jobs = [(trial.task().to_json(), store.uri) for trial in plan.trials]
        if way == "processes":
            with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
                for _ in pool.imap_unordered(run_one, jobs):
                    pass
        else:
            for job in jobs:
                run_one(job)
    facts["whole"] = time.perf_counter() - clock
    written = sorted(path.stat().st_mtime for path in Path(store.path("records")).glob("*.parquet"))
    assert len(written) == trials
    own = [record.provenance["seconds"] for record in store.records()[0]]
    facts |= {
        "first": written[0] - begun,
        "rest": written[-1] - written[0],
        "own": statistics.median(own),
        "at": written[0],
    }
    print(json.dumps(facts))


# --------------------------------------------------------------------------------------------------------------
# What a way's processes use


@dataclass
class Used:
    """CPU seconds of a process tree, and its memory when that was highest.

    Attributes:
        cpu: by process.
        history: the time, and the CPU seconds of all processes until then.
        memory: MB of PSS by kind of process, at the moment the sum was highest.
        counts: processes of each kind at that moment.
        largest_worker: MB of PSS of the largest process that runs trials.
    """

    cpu: dict[int, float] = field(default_factory=dict)
    history: list[tuple[float, float]] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    largest_worker: float = 0.0


def tree(root: int) -> list[int]:
    """A process and all its descendants."""
    children = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                children[int(stat(int(entry.name))[1])].append(int(entry.name))
            except OSError:
                continue
    found = [root]
    for pid in found:
        found += children[pid]
    return found


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on: state, parent, … user and system ticks at 11 and 12."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


RAYS_OWN = {
    "gcs_server": "gcs",
    "raylet/raylet": "raylet",
    "dashboard.py": "dashboard",
    "DashboardAgent": "dashboard agent",
    "RuntimeEnvAgent": "environment agent",
    "log_monitor.py": "log monitor",
    "monitor.py": "autoscaler",
    "ray::IDLE": "idle worker",
}
"""Words in the command lines of Ray's own processes; the first one that occurs counts."""


def kind(pid: int, root: int) -> str:
    """The kind of a process: the driver, a worker that runs trials, or one of Ray's own."""
    command = Path(f"/proc/{pid}/cmdline").read_text()
    if pid == root:
        return "driver"
    if "PackTrainable" in command or "spawn_main" in command:
        return "worker"
    return next((name for mark, name in RAYS_OWN.items() if mark in command), "other")


def pss(pid: int) -> float:
    """The proportional set size in MB: each shared page is divided among the processes that share it."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1000
    return 0.0


def look(root: int, used: Used) -> None:
    """Add the tree's present use to ``used``."""
    memory: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for pid in tree(root):
        try:
            fields, what, size = stat(pid), kind(pid, root), pss(pid)
        except OSError:
            continue  # gone meanwhile
        used.cpu[pid] = (int(fields[11]) + int(fields[12])) / _TICKS
        memory[what] += size
        counts[what] += 1
        if what == "worker":
            used.largest_worker = max(used.largest_worker, size)
    used.history.append((time.time(), sum(used.cpu.values())))
    if sum(memory.values()) > sum(used.memory.values()):
        used.memory, used.counts = dict(memory), dict(counts)


def measured(way: str, trials: int, pack: int) -> tuple[dict[str, float], Used]:
    """Run one way in a process of its own, and measure that process."""
    with tempfile.TemporaryDirectory(prefix="clray-bench-") as folder:
        command = [sys.executable, __file__, "--way", way, "--folder", folder]
        command += ["--trials", str(trials), "--pack", str(pack)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        used, over = Used(), threading.Event()

        def watch() -> None:
            while not over.wait(LOOK_SECONDS):
                look(process.pid, used)

        watcher = threading.Thread(target=watch)
        watcher.start()
        answer, _ = process.communicate()
        over.set()
        watcher.join()
    if process.returncode:
        raise SystemExit(f"{way}: exit code {process.returncode}")
    return json.loads(answer.splitlines()[-1]), used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--packs", type=int, nargs="*", default=[1, 20], help="sizes of Ray's packs")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--pack", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        return run(options.way, options.folder, options.trials, options.pack)
    ways = [("in-process", "in-process", 1, 1), (f"processes, {WORKERS}", "processes", 1, WORKERS)]
    ways += [(f"ray, {WORKERS} workers, pack {pack}", "ray", pack, WORKERS) for pack in options.packs]
    print(f"{options.trials} trials; load {os.getloadavg()[0]:.1f} before", flush=True)
    headings = ("first record", "whole", "CPU", "PSS", "a further trial", "by its record", "CPU of it", "ratio")
    print(f"{'way':28}" + "".join(f"{heading:>16}" for heading in headings), flush=True)
    base = 0.0
    for name, way, pack, workers in ways:
        facts, used = measured(way, options.trials, pack)
        cpu = sum(used.cpu.values())
        before = max((spent for at, spent in used.history if at <= facts["at"]), default=0.0)
        # Both workers are busy from the first record to the last.
        each, cpu_each = (amount / (options.trials - 1) for amount in (facts["rest"] * workers, cpu - before))
        base = base or cpu_each
        shown = (
            *(f"{seconds:.1f} s" for seconds in (facts["first"], facts["whole"], cpu)),
            f"{sum(used.memory.values()):.0f} MB",
            *(f"{1000 * seconds:.1f} ms" for seconds in (each, facts["own"], cpu_each)),
            f"{cpu_each / base:.2f}",
        )
        print(f"{name:28}" + "".join(f"{figure:>16}" for figure in shown), flush=True)
        parts = (f"{used.counts[k]} {k} {v:.0f}" for k, v in sorted(used.memory.items(), key=lambda item: -item[1]))
        print(f"    MB: {', '.join(parts)}; largest worker {used.largest_worker:.0f}", flush=True)
    print(f"load {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()
