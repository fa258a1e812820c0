"""Shared parts of the cluster tests: a small sweep on the embedded digits, and the comparison of two stores."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import waiting
from held import Meeting
from rich.console import Console

from clray.loading import load_sweep
from clray.planning import Plan, plan
from clray.store import Store

ROOT = Path(__file__).resolve().parents[2]

HERE = Path(__file__).parent
GUARD = 600.0
"""Seconds, against hanging: many times what a launch takes, and below the time that a slow test has (limits.py)."""

# Some ten stops a trial: what is to be hit in the middle is held there (held.py).
SHORT = """
version: 1
paper: mer
track: vision
benchmark: {name: mnist-rotations, tasks: 3, train_per_task: 60, seed: 0, source: embedded}
evaluate: 20
seeds: [0, 1]
variants:
  mer: {method: mer, lr: 0.03, memories: 100, replay_batch: 20, beta: 0.1, batches_per_example: 5}
"""

# The same for training task by task, with what must survive a stop: moments by task, memories, dropout's draws.
TASKS = """
version: 1
paper: tag
track: vision
benchmark: {name: rotated-mnist, tasks: 5, heads: multi, train_per_task: 100, test_per_task: 50, source: embedded}
model: {name: mlp, hidden: [50], dropout: 0.2}
seeds: [0]
variants:
  tag-er: {method: er_reservoir, optimizer: tag-rmsprop, lr: 0.001, b: 5, memories_per_class: 2}
  stable: {method: stable_sgd, lr: 0.1, gamma: 0.9}
"""

EPISODES = """
version: 1
paper: metaseq2seq
track: episodes
benchmark: {name: scan_around_right, validation: 2}
model: {embedding: 20}
evaluate: 10
seeds: [0]
variants:
  meta-seq2seq: {method: meta_seq2seq, episodes: 40}
"""

# Language tasks: a stop after each training and each test.
LANGUAGE = """
version: 1
paper: lamol
track: language
benchmark: {name: text-stream, tasks: [scan.actions, scan.first, scan.count], train_per_task: 60, test_per_task: 10}
model: {name: scratch, layers: 2, width: 64, heads: 2, positions: 96, vocabulary_size: 300}
seeds: [0]
task_orders: [[scan.first, scan.actions, scan.count]]
variants:
  lamol: {method: lamol, gamma: 0.2, epochs: 2, lr: 0.003}
  mas: {method: mas, epochs: 2, lr: 0.003}
"""


def planned(file: Path, store: Store) -> Plan:
    """The trials of a sweep file, or of all sweep files in a folder."""
    sweeps = [load_sweep(path) for path in sorted(file.glob("*.yaml"))] if file.is_dir() else [load_sweep(file)]
    return plan({sweep.name: sweep for sweep in sweeps}, store)


def quiet() -> Console:
    """A console that is no terminal, and prints into memory."""
    return Console(file=io.StringIO(), width=200)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def numbers(store: Store) -> dict[str, Any]:
    """All that a record holds but where, when and by which code it was made."""
    records, problems = store.records()
    assert not problems
    return {r.id: (r.trial, r.data, r.measurements, r.metrics, r.variant, r.sweep, r.status) for r in records}


def environment(ray_tmpdir: Path, **changes: str) -> dict[str, str]:
    """For a process of its own with a Ray of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TUNE_", "WANDB_"))}
    ours = {
        "RAY_TMPDIR": str(ray_tmpdir),
        "RAY_worker_niceness": "0",  # as in conftest.py
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, HERE, HERE.parent))),
        "WANDB_MODE": "disabled",
    }
    return {**kept, **ours, **changes}


def wait_for(what: Callable[[], Any]) -> Any:
    """The first true value of ``what()``."""
    return waiting.wait_for(what, GUARD)


def launch(
    sweep: Path, results: Path, ray_tmpdir: Path, *address: str, meet: Meeting | None = None, **variables: str
) -> subprocess.Popen[str]:
    """A driver with a Ray of its own, or of a cluster; its checkpoints are as often as can be.

    Args:
        meet: where its trials wait in the middle; they do not by default.
        variables: more of its environment.
    """
    command = [sys.executable, str(HERE / "driver.py"), str(sweep), str(results), *address]
    pipe, env = subprocess.PIPE, environment(ray_tmpdir, **(meet.environment if meet else {}), **variables)
    return subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True)


def communicate(process: subprocess.Popen[str]) -> tuple[str, str]:
    """All that it writes, to its end."""
    try:
        return process.communicate(timeout=GUARD)
    finally:
        process.kill()


def completed(process: subprocess.Popen[str]) -> list[str]:
    """The lines of a driver that comes to a good end."""
    out, err = communicate(process)
    assert process.returncode == 0, err
    assert err == "", "the driver leaves stderr to errors"
    assert json.loads(out.splitlines()[-1])["failed"] == {}
    return out.splitlines()


def until_held(meet: Meeting, trials: int, *drivers: subprocess.Popen[str]) -> None:
    """Wait until so many trials wait in their middle; fails where a driver is over before."""

    def held() -> bool:
        for driver in drivers:
            assert driver.poll() is None, driver.communicate()
        return len(meet.waiting()) >= trials

    wait_for(held)


def survive_killed_workers(sweep: Path, store: Store, meet: Meeting, ray_tmpdir: Path) -> None:
    """Run all trials of a sweep to their end, their workers killed in the middle; there is room for all at once."""
    driver = launch(sweep, Path(store.path()), ray_tmpdir, meet=meet)
    until_held(meet, len(planned(sweep, store).trials), driver)
    workers = processes(ray_tmpdir, "ray::PackTrainable")
    assert len(workers) >= len(meet.waiting())
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    meet.go()
    lines = completed(driver)
    assert any("% on:" in line for line in lines), "it went on from a checkpoint"


def processes(ray_tmpdir: Path, title: str = "") -> list[int]:
    """The processes of a Ray session, told by its folder in their environment, whose command line begins so."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            ours = str(ray_tmpdir).encode() in (folder / "environ").read_bytes()
            if ours and (folder / "cmdline").read_bytes().startswith(title.encode()):
                found.append(int(folder.name))
        except (OSError, ValueError):
            continue
    return found
