"""Runs a small sweep repeatedly while processes are killed and files damaged at random, then compares every bit.

    python bench/soak.py --minutes 5
    python bench/soak.py --minutes 60 --seed 7 --folder /somewhere/with/room

Each round launches the sweep on a Ray of its own in an empty store, and does one of these things every few seconds:

- a worker is killed (SIGKILL); Tune has to start it again
- a driver is killed, its Ray with it; the same command is given again at once
- the newest checkpoint of a running trial is cut short, and the driver killed, so that the next one has to read it
- a finished record is cut short
- a second driver is launched beside the first

A round is over when its drivers have ended and every record can be read; the last damage takes one more launch. The
records are then compared with those of an undisturbed run. Needs Linux: Ray's processes are found in /proc.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from clray.cluster.tune import run_on_ray  # noqa: E402
from clray.launch import Options, run_here  # noqa: E402
from clray.loading import load_sweep  # noqa: E402
from clray.planning import Plan, plan  # noqa: E402
from clray.record import Record  # noqa: E402
from clray.store import Store  # noqa: E402

SWEEP = """
version: 1
paper: mer
track: vision
benchmark: {name: mnist-rotations, tasks: 3, train_per_task: 150, seed: 0, source: embedded}
evaluate: 25
seeds: [0, 1, 2]
variants:
  mer: {method: mer, lr: 0.03, memories: 100, replay_batch: 50, beta: 0.1, batches_per_example: 60}
  er: {method: er, lr: 0.1, memories: 100, replay_batch: 100}
"""
HARMS = ("worker killed", "driver killed", "checkpoint torn", "record torn", "second driver")
ROUND_SECONDS = 600
"""A round that takes longer counts as hanging, and ends the soak."""


def planned(file: Path, store: Store) -> Plan:
    sweep = load_sweep(file)
    return plan({sweep.name: sweep}, store)


def numbers(store: Store) -> dict[str, Any]:
    """The part of a record that no accident may change: all but where, when and how often it was run."""
    return {r.id: (r.trial, r.data, r.measurements, r.metrics, r.status) for r in store.records()[0]}


def differing(store: Store, reference: dict[str, Any]) -> list[str]:
    """The trials whose record is missing, or differs from the reference's in any bit."""
    found = numbers(store)
    return [trial for trial, expected in reference.items() if found.get(trial) != expected]


def drive(sweep: Path, results: str) -> None:
    """The process of a driver."""
    from rich.console import Console

    store = Store(results)
    outcome = run_on_ray(planned(sweep, store), store, Console(), Options(cpus=2, checkpoint_seconds=0.3))
    print(
        json.dumps({"failed": outcome.failed, "finished": len(outcome.finished), "elsewhere": len(outcome.elsewhere)})
    )


@dataclass
class Tally:
    """Counts of the disturbances and of their results."""

    harms: collections.Counter[str] = field(default_factory=collections.Counter)
    rounds: int = 0
    launches: int = 0
    trials: int = 0
    executions: int = 0
    differing: list[str] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)

    def summary(self, seconds: float) -> str:
        harms = ", ".join(f"{self.harms[harm]} x {harm}" for harm in HARMS)
        return "\n".join(
            [
                f"{self.rounds} rounds in {seconds / 60:.1f} minutes, {self.launches} launches: {harms}",
                f"trials: {self.trials}, executions of them that left a trace: {self.executions} "
                f"({self.executions - self.trials} of them again)",
                f"left behind (leases, temporary files): {len(self.left_behind)} {' '.join(self.left_behind)}".strip(),
                f"differing: {len(self.differing)} {' '.join(self.differing)}".strip(),
            ]
        )


class Round:
    """One round: a store, its drivers, and the disturbances."""

    def __init__(self, folder: Path, sweep: Path, dice: random.Random, tally: Tally) -> None:
        self.folder, self.sweep, self.dice, self.tally = folder, sweep, dice, tally
        folder.mkdir()
        self.store = Store(folder / "results")
        # A short path: the names of Ray's sockets below it may have 107 characters in all.
        self.ray = Path(tempfile.mkdtemp(prefix="s", dir="/tmp"))
        self.drivers: list[subprocess.Popen[bytes]] = []

    def launch(self) -> None:
        log = open(self.folder / f"driver-{self.tally.launches}.log", "wb")  # noqa: SIM115
        ours = "RAY_worker_niceness"  # the tests set it, so that they end sooner
        kept = {k: v for k, v in os.environ.items() if k == ours or not k.startswith(("RAY_", "TUNE_"))}
        self.drivers.append(
            subprocess.Popen(
                [sys.executable, __file__, "--driver", str(self.sweep), self.store.uri],
                env={**kept, "RAY_TMPDIR": str(self.ray), "PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
            )
        )
        self.tally.launches += 1

    def run(self, harms: int) -> None:
        """Launch, disturb the launch so many times, and launch again until all records are there."""
        begun = time.monotonic()
        self.launch()
        while True:
            if time.monotonic() - begun > ROUND_SECONDS:
                raise SystemExit(f"hangs: see {self.folder}")
            running = [d for d in self.drivers if d.poll() is None]
            if running and harms and self.workers():
                time.sleep(self.dice.uniform(0.2, 4.0))
                harms -= self.harm(running)
            elif running:
                time.sleep(0.2)
            elif self.missing():
                self.launch()
            else:
                return

    def missing(self) -> bool:
        """True if a trial has no record that can be read."""
        ids = {trial.id for trial in planned(self.sweep, self.store).trials}
        return any(not isinstance(self.store.read(trial), Record) for trial in ids)

    def harm(self, running: list[subprocess.Popen[bytes]]) -> bool:
        """Do the disturbance that was done least so far. Where it is not possible yet, mostly wait until it is."""
        kinds = sorted(HARMS, key=lambda kind: (self.tally.harms[kind], self.dice.random()))
        for kind in kinds:
            if self.do(kind, self.dice.choice(running), len(running)):
                self.tally.harms[kind] += 1
                return True
            if self.dice.random() < 0.8:
                return False
        return False

    def do(self, kind: str, driver: subprocess.Popen[bytes], running: int) -> bool:
        """Do a disturbance, if it is possible now."""
        if kind == "worker killed":
            return self.kill_worker()
        if kind == "driver killed":
            return self.kill(driver)
        if kind == "checkpoint torn":
            return self.tear("checkpoints", "*.ckpt") and self.kill(driver)
        if kind == "record torn":
            return self.tear("records", "*.parquet")
        if running < 2:
            self.launch()
            return True
        return False

    def kill(self, driver: subprocess.Popen[bytes]) -> bool:
        if driver.poll() is not None:
            return False
        driver.kill()
        driver.wait()
        self.launch()
        return True

    def workers(self) -> list[int]:
        """The processes that run trials in this round."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                ours = str(self.ray).encode() in (process / "environ").read_bytes()
                if ours and (process / "cmdline").read_bytes().startswith(b"ray::PackTrainable"):
                    found.append(int(process.name))
            except OSError:
                continue
        return sorted(found)

    def kill_worker(self) -> bool:
        try:
            os.kill(self.dice.choice(self.workers()), signal.SIGKILL)
        except (IndexError, ProcessLookupError):
            return False
        return True

    def tear(self, folder: str, pattern: str) -> bool:
        """Cut a file short at a random place. It is written as a new file, as a crash of a machine would leave it."""
        files = sorted(Path(self.store.path(folder)).glob(pattern))
        if not files:
            return False
        file = self.dice.choice(files)
        try:
            content = file.read_bytes()
            torn = file.with_name(f"{file.name}.torn")
            torn.write_bytes(content[: self.dice.randrange(len(content))])
            if not file.exists():
                torn.unlink()
                return False
            torn.replace(file)
        except FileNotFoundError:
            return False
        return True

    def account(self, reference: dict[str, Any]) -> None:
        """Compare the records with the reference, and count."""
        self.tally.rounds += 1
        self.tally.trials += len(reference)
        for record in self.store.records()[0]:
            self.tally.executions += len(record.provenance["executions"])
        wrong = differing(self.store, reference)
        self.tally.differing += [f"{self.folder.name}/{trial}" for trial in wrong]
        extra = [p for p in Path(self.store.path()).rglob("*") if p.is_file() and p.parent.name != "records"]
        self.tally.left_behind += [f"{self.folder.name}/{p.relative_to(self.store.path())}" for p in extra]

    def close(self) -> None:
        for driver in self.drivers:
            driver.kill()
            driver.wait()
        shutil.rmtree(self.ray, ignore_errors=True)


def soak(minutes: float, seed: int, folder: Path) -> Tally:
    """Run rounds until the time is over, at least one."""
    from io import StringIO

    from rich.console import Console

    sweep, dice, tally = folder / "soak.yaml", random.Random(seed), Tally()
    sweep.write_text(SWEEP)
    undisturbed = Store(folder / "undisturbed")
    run_here(planned(sweep, undisturbed), undisturbed, Console(file=StringIO()))
    reference = numbers(undisturbed)
    begun = time.monotonic()
    while tally.rounds == 0 or time.monotonic() - begun < 60 * minutes:
        this = Round(folder / f"round-{tally.rounds}", sweep, dice, tally)
        before = tally.harms.copy()
        try:
            this.run(harms=dice.randint(2, 5))
            this.account(reference)
        finally:
            this.close()
        harms = ", ".join(f"{n} x {harm}" for harm, n in (tally.harms - before).items()) or "no harm done"
        print(f"round {tally.rounds}: {harms}; differing so far: {len(tally.differing)}", flush=True)
    print(tally.summary(time.monotonic() - begun))
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0, help="of what is done when; how far trials are by then is not")
    parser.add_argument("--folder", type=Path, help="where to leave everything; by default removed when all is well")
    parser.add_argument("--driver", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.driver:
        drive(Path(asked.driver[0]), asked.driver[1])
        return
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="clray-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    tally = soak(asked.minutes, asked.seed, folder)
    if tally.differing or tally.left_behind:
        sys.exit(f"see {folder}")
    if not asked.folder:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
