"""The official MER code's reference runs (tests/fixtures/mer), and the trials of clray that repeat them.

The unmodified code at github.com/mattriemer/MER @4b7b9c9 gave the figures, on five rotations with 200 examples a task.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clray.metrics import Measurement, summarize
from clray.training import run
from clray.trial import Trial
from clray.vision.training import resolve
from clray.vision.trial import VisionTraining

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "mer"
ANGLES = [30.3992, 63.2864, 87.1406, 117.3210, 162.4059]
"""Degrees, to four decimals: what GEM's generator draws for five tasks once its random numbers are seeded with 0."""

METRICS = ("RA", "LA", "BTI")
_METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "online": ("online", {}),
    "independent": ("independent", {}),
    "taskinput": ("task_input", {}),
    "ewc": ("ewc", {}),
    "gem": ("gem", {}),
    "eralg4": ("er", {"algorithm": 4}),
    "eralg5": ("er", {"algorithm": 5}),
    "meralg1": ("mer", {"algorithm": 1}),
    "meralg6": ("mer", {"algorithm": 6}),
    "meralg7": ("mer", {"algorithm": 7}),
}
_NAMES = {
    "lr": "lr",
    "memories": "memories",
    "n_memories": "memories_per_task",
    "replay_batch_size": "replay_batch",
    "batches_per_example": "batches_per_example",
    "beta": "beta",
    "gamma": "gamma",
    "s": "s",
}
_WHOLE = ("memories", "memories_per_task", "replay_batch", "batches_per_example")


@dataclass(frozen=True)
class Case:
    """One setting of the reference runs.

    Attributes:
        name: as the fixture has it.
        flags: the official script's, by name.
        figures: by seed, the metrics that the official code measured.
    """

    name: str
    flags: dict[str, str]
    figures: dict[int, dict[str, float]]

    @property
    def method(self) -> str:
        return _METHODS[self.flags["model"]][0]

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The flags in clray's names."""
        method, settings = _METHODS[self.flags["model"]]
        names = _NAMES | {"memory_strength": "strength" if method == "ewc" else "margin"}
        found = {names[flag]: float(value) for flag, value in self.flags.items() if flag in names}
        return settings | {name: int(value) if name in _WHOLE else value for name, value in found.items()}

    def trial(self, seed: int, randomness: str = "official", engine: str = "fused") -> Trial:
        """The same run as a trial of clray."""
        return make_trial(
            self.method,
            self.hyperparameters,
            seed=seed,
            randomness=randomness,
            engine=engine,
            benchmark={"name": "mnist-rotations", "tasks": 5, "train_per_task": 200, "source": "files"},
        )


def cases() -> dict[str, Case]:
    """Every case of the fixture whose setting is not there twice."""
    raw = json.loads((FIXTURES / "summary.json").read_text())
    found = {}
    for name, runs in raw.items():
        if name.endswith("_log50"):  # another case evaluated twice as often, which changes nothing
            continue
        words = next(iter(runs.values()))["args"].split()
        flags = dict(zip((word.removeprefix("--") for word in words[::2]), words[1::2], strict=True))
        figures = {int(seed): {metric: figure[metric] for metric in METRICS} for seed, figure in runs.items()}
        found[name] = Case(name, flags, figures)
    return found


def streams() -> dict[tuple[int, int, int], dict[str, Any]]:
    """By (tasks, examples a task, seed): what the official code draws before and at the start of training."""
    raw = json.loads((FIXTURES / "oracle_stream.json").read_text())
    found = {}
    for name, drawn in raw.items():
        if name.startswith("T"):
            tasks, count, seed = name.split("_")
            found[int(tasks[1:]), int(count[1:]), int(seed[4:])] = drawn
    return found


def first_permutation() -> list[int]:
    """The head of the first pixel permutation that GEM's script draws with seed 0."""
    return json.loads((FIXTURES / "oracle_stream.json").read_text())["gem_perm_seed0_first_perm_head"]


def make_trial(
    method: str,
    hyperparameters: dict[str, Any],
    *,
    benchmark: dict[str, Any],
    seed: int = 0,
    randomness: str = "clray",
    engine: str = "auto",
    hidden: tuple[int, ...] = (100, 100),
    order: list[int] | None = None,
    evaluate: Any = "after_task",
) -> Trial:
    """A trial of the vision track with its defaults filled in, as a sweep would make it."""
    declared = {
        "benchmark": benchmark,
        "model": {"name": "mlp", "hidden": list(hidden)},
        "method": method,
        "hyperparameters": hyperparameters,
    }
    return Trial(
        version=1,
        track="vision",
        evaluate=evaluate,
        randomness=randomness,
        engine=engine,
        precision="float32",
        seed=seed,
        task_order=order,
        **resolve(declared),
    )


def figures(trial: Trial, data: dict[str, Any]) -> dict[str, float]:
    """The published metrics of a trial run to its end here."""
    measurements: list[Measurement] = run(VisionTraining(trial, data))
    return summarize(measurements)
