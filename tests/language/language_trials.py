"""Trials that take a second: tiny models on tasks that need no file."""

from __future__ import annotations

from typing import Any

from clray.language.training import data, resolve, train
from clray.trial import Trial

TASKS = ["scan.first", "scan.count", "scan.actions"]


def make_trial(
    method: str = "finetune",
    *,
    tasks: list[str] = TASKS[:2],
    order: list[int] | None = None,
    seed: int = 0,
    engine: str = "auto",
    precision: str = "float32",
    model: dict[str, Any] | None = None,
    benchmark: dict[str, Any] | None = None,
    **hyperparameters: Any,
) -> Trial:
    """Two tasks of twelve examples each for one epoch, unless other settings say otherwise."""
    small = {"layers": 1, "width": 16, "heads": 2, "positions": 96, "vocabulary_size": 300}
    limits = {"train_per_task": 12, "test_per_task": 6}
    declared = {
        "benchmark": {"name": "text-stream", "tasks": tasks, **limits, **(benchmark or {})},
        "model": {"name": "scratch", **small, **(model or {})},
        "method": method,
        "hyperparameters": {"epochs": 1, "lr": 0.003, **hyperparameters},
    }
    fixed = {"randomness": "clray", "version": 1, "track": "language", "evaluate": "after_task"}
    return Trial(**fixed, seed=seed, engine=engine, precision=precision, task_order=order, **resolve(declared))


def begin(trial: Trial) -> Any:
    return train(trial, data(trial, fetch=False), "cpu")
