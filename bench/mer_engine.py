"""Compares the eager and the fused engine on the same work in the same run: python bench/mer_engine.py

Settings are those of sweeps/mer/rotations.yaml in the middle of its stream: the memories are full, and ten tasks are
past. The two engines take turns, a slice each, so that other load on the machine slows both alike. Times are CPU
seconds of one thread; the wall-clock time is printed beside them. The digits are the embedded ones, so no data is
needed.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from clray.loading import load_sweep  # noqa: E402
from clray.machine import set_threads  # noqa: E402
from clray.selection import Selection  # noqa: E402
from clray.vision import data  # noqa: E402
from clray.vision.draws import Weights  # noqa: E402
from clray.vision.stream import Batch  # noqa: E402
from clray.vision.trial import VisionTraining  # noqa: E402

ENGINES = ("eager", "fused")
PAST = 10
"""Tasks that are past where the measurement begins."""
VARIANTS = {
    # variant of the sweep: (gradients that one example takes there, the kind of gradient)
    "online": (1, "steps of batch 1"),
    "er-5120": (26, "gradients in steps of batch 26"),
    "mer-5120": (1010, "steps of batch 1"),
    "ewc": (1, "steps of batch 1 with ten penalties"),
    "gem-5120": (1, "steps with ten memories of 256"),
    "gem-500": (1, "steps with ten memories of 25"),
    "gem-200": (1, "steps with ten memories of 10"),
}


@dataclass
class Clock:
    """The work of one engine: its calls, and the seconds they took."""

    calls: int = 0
    cpu: float = 0.0
    wall: float = 0.0

    def run(self, work: Callable[[], Any], seconds: float) -> None:
        """Call ``work`` again and again for about ``seconds`` of CPU time, and at least once."""
        wall, cpu = time.perf_counter(), time.process_time()
        end = cpu + seconds
        while True:
            work()
            self.calls += 1
            now = time.process_time()
            if now >= end:
                break
        self.cpu += now - cpu
        self.wall += time.perf_counter() - wall

    @property
    def each(self) -> float:
        """CPU seconds a call."""
        return self.cpu / self.calls


def side_by_side(work: dict[str, Callable[[], Any]], seconds: float, slices: int = 4) -> dict[str, Clock]:
    """Run both engines in turns. A first call of each is not counted, since it compiles."""
    clocks = {engine: Clock() for engine in work}
    for call in work.values():
        call()
    for _ in range(slices):
        for engine, call in work.items():
            clocks[engine].run(call, seconds / slices)
    return clocks


def start(variant: str, engine: str, digits: dict[str, Any]) -> VisionTraining:
    """A trial of the sweep on embedded digits."""
    changes = ("benchmark.source=embedded", "benchmark.train_per_task=520", f"engine={engine}")
    trial = load_sweep("mer/rotations", Selection(only=(variant,), seeds=(0,), set=changes)).cells[0].trial
    return VisionTraining(trial, digits)


@functools.cache
def learned() -> Weights:
    """The weights that replay gives after ten tasks: every measurement begins with them."""
    training = start("er-5120", "fused", data.locate("mnist", "embedded"))
    cast(Any, training.method).learn(np.arange(PAST * training.trial.benchmark["train_per_task"]))
    return cast(Any, training.method).net.weights()


def in_the_middle(variant: str, engine: str, digits: dict[str, Any]) -> VisionTraining:
    """A trial in its state after ten tasks."""
    training = start(variant, engine, digits)
    trial, method = training.trial, cast(Any, training.method)
    method.net.load(learned())
    per_task = trial.benchmark["train_per_task"]
    training.step = PAST * per_task
    if trial.method in ("er", "mer"):
        for number in range(training.step):
            method.memory.add(number)
    if trial.method == "gem":
        for task in range(PAST):
            last = (task + 1) * per_task
            method.memories.numbers[task] = np.arange(last - method.memories.capacity, last)
    if trial.method == "ewc":
        for task in range(PAST):
            method.penalty.consolidate(list(range(task * per_task, task * per_task + 10)))
        method.task = PAST
    return training


def learning(variant: str, digits: dict[str, Any]) -> dict[str, Callable[[], None]]:
    """For each engine, a function that learns from the next example."""

    def observer(training: VisionTraining) -> Callable[[], None]:
        first, length = training.step, training.trial.benchmark["train_per_task"]
        count = 0

        def observe() -> None:
            nonlocal count
            number = first + count % length
            training.method.observe(Batch(training.stream, np.array([number]), int(training.stream.owner[number])))
            count += 1

        return observe

    return {engine: observer(in_the_middle(variant, engine, digits)) for engine in ENGINES}


def evaluating(digits: dict[str, Any]) -> tuple[dict[str, Callable[[], Any]], int]:
    """For each engine, a function that scores a task's test set; and the number of its images."""
    trainings = {engine: in_the_middle("online", engine, digits) for engine in ENGINES}
    work = {e: (lambda training=t: training.method.correct(3)) for e, t in trainings.items()}
    return work, len(trainings["eager"].stream.test.labels)


def show(name: str, unit: str, each: int, clocks: dict[str, Clock]) -> None:
    rates = {engine: each / clock.each for engine, clock in clocks.items()}
    busy = ", ".join(f"{e} {c.cpu:.1f} CPU s in {c.wall:.1f} s" for e, c in clocks.items())
    ratio = rates["fused"] / rates["eager"]
    print(f"{name:11} {rates['eager']:12,.0f} {rates['fused']:12,.0f} {ratio:8.1f} x   {unit} ({busy})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="CPU seconds a setting and engine")
    parser.add_argument("--only", nargs="*", choices=[*VARIANTS, "evaluation"], help="only these")
    options = parser.parse_args()
    set_threads(1)
    digits = data.locate("mnist", "embedded")
    wanted = options.only or [*VARIANTS, "evaluation"]
    measured: dict[str, dict[str, Clock]] = {}
    print(f"{'a second':11} {'eager':>12} {'fused':>12} {'fused/eager':>10}   of what", flush=True)
    for variant, (gradients, unit) in VARIANTS.items():
        if variant in wanted:
            measured[variant] = side_by_side(learning(variant, digits), options.seconds)
            show(variant, unit, gradients, measured[variant])
    images = 0
    if "evaluation" in wanted:
        work, images = evaluating(digits)
        measured["evaluation"] = side_by_side(work, options.seconds)
        show("evaluation", "test images", images, measured["evaluation"])
    if {"mer-5120", "evaluation"} <= set(measured):
        print("\nA whole trial of mer-5120 on rotations (20,000 examples, 21 evaluations of 20 tasks), projected:")
        for engine in ENGINES:
            learn = 20_000 * measured["mer-5120"][engine].each
            score = 21 * 20 * 10_000 / images * measured["evaluation"][engine].each
            print(f"  {engine}: {(learn + score) / 60:.1f} CPU minutes, {score:.0f} s of them evaluation")


if __name__ == "__main__":
    main()
