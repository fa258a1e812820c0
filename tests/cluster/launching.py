"""What the tests of the cluster share: a small sweep on the embedded digits, and how two stores are compared."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from clray.planning import Plan, plan
from clray.results import Store
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
