"""What the tests of the cluster share: a small sweep on the embedded digits, and how two stores are compared."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from clray.planning import Plan, plan
from clray.results import Record, Store
from clray.spec import load_sweep

ROOT = Path(__file__).resolve().parents[2]

# Some seconds a trial, with a stop every few tenths of a second: long enough to be hit in the middle.
LONG = """
version: 1
paper: mer
track: vision
benchmark: {name: mnist-rotations, tasks: 3, train_per_task: 200, seed: 0, source: embedded}
evaluate: 20
seeds: [0, 1]
variants:
  mer: {method: mer, lr: 0.03, memories: 100, replay_batch: 50, beta: 0.1, batches_per_example: 30}
"""

# The same for training task by task, with what must survive a stop: moments by task, memories, dropout's draws.
TASKS = """
version: 1
paper: tag
track: vision
benchmark: {name: rotated-mnist, tasks: 16, heads: multi, train_per_task: 300, test_per_task: 50, source: embedded}
model: {name: mlp, hidden: [50], dropout: 0.2}
seeds: [0]
variants:
  tag-er: {method: er_reservoir, optimizer: tag-rmsprop, lr: 0.001, b: 5, memories_per_class: 2}
  stable: {method: stable_sgd, lr: 0.1, gamma: 0.9}
"""

# Episodes: a stop comes every ten seconds, so a trial takes some more.
EPISODES = """
version: 1
paper: metaseq2seq
track: episodes
benchmark: {name: scan_around_right, validation: 2}
model: {embedding: 100}
evaluate: 200
seeds: [0]
variants:
  meta-seq2seq: {method: meta_seq2seq, episodes: 400}
"""

# Language tasks: a stop after each training and each test.
LANGUAGE = """
version: 1
paper: lamol
track: language
benchmark: {name: text-stream, tasks: [scan.actions, scan.first, scan.count], train_per_task: 200, test_per_task: 40}
model: {name: scratch, layers: 2, width: 64, heads: 2, positions: 96, vocabulary_size: 300}
seeds: [0]
task_orders: [[scan.first, scan.actions, scan.count]]
variants:
  lamol: {method: lamol, gamma: 0.2, epochs: 3, lr: 0.003}
  mas: {method: mas, epochs: 3, lr: 0.003}
"""


def planned(file: Path, store: Store) -> Plan:
    sweep = load_sweep(file)
    return plan({sweep.name: sweep}, store)


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
    return {**kept, "RAY_TMPDIR": str(ray_tmpdir), "PYTHONPATH": str(ROOT), "WANDB_MODE": "disabled", **changes}


def wait_for(what: Callable[[], Any], seconds: float = 90.0) -> Any:
    """The first true value of ``what()``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := what():
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s in vain")


def launch(sweep: Path, results: Path, ray_tmpdir: Path, *address: str) -> subprocess.Popen[str]:
    """A driver with a Ray of its own, or of a cluster; its checkpoints are as often as can be."""
    command = [sys.executable, str(Path(__file__).with_name("driver.py")), str(sweep), str(results), *address]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment(ray_tmpdir), stdout=pipe, stderr=pipe, text=True)


def completed(process: subprocess.Popen[str]) -> list[str]:
    """The lines of a driver that comes to a good end."""
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert err == "", "the driver leaves stderr to errors"
    assert json.loads(out.splitlines()[-1])["failed"] == {}
    return out.splitlines()


def under_way(store: Store) -> str | None:
    """A trial that has left notes of its progress, and is neither at its beginning nor at its end."""
    for id in store.running():
        record = store.read(id, "running")
        if isinstance(record, Record) and 0.1 < record.provenance["progress"] < 0.8:
            return id
    return None


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
