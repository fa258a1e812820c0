"""The settings that make the numbers of two variants comparable: the track, the benchmark and the task orders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from clray.sweep import Sweep

Settings = Mapping[str, Any]


def benchmark_of(sweep: Sweep, variant: str) -> dict[str, Any]:
    """A variant's track, benchmark and task orders, by dotted key.

    The place that the data are read from is left out: what they are is told by the data's fingerprint.
    """
    trials = [cell.trial for cell in sweep.cells if cell.variant == variant]
    orders = list(dict.fromkeys("own" if t.task_order is None else str(t.task_order) for t in trials))
    return {
        "track": trials[0].track,
        **{f"benchmark.{key}": value for key, value in _flat(trials[0].benchmark) if key != "source"},
        "task orders": orders[0] if len(orders) == 1 else f"{len(orders)} orders: {', '.join(sorted(orders))}",
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differing(one: Settings, other: Settings, name: str) -> list[str]:
    """The settings that differ, each as ``benchmark.tasks 20 (NAME: 5)``, where NAME is that of ``other``."""
    keys = dict.fromkeys([*other, *one])
    return [
        f"{key} {_plain(one.get(key))} ({name}: {_plain(other.get(key))})"
        for key in keys
        if one.get(key) != other.get(key)
    ]


def _plain(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
