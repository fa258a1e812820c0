"""Placement of trials: which machine has room, how many trials run at once, and which trials one worker runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clray.planning import Planned
from clray.work import Task


def room_missing(resources: dict[str, float], offers: Sequence[dict[str, float]]) -> str:
    """The reason why a trial cannot be placed, as text; empty where a machine has room for it.

    Args:
        resources: the ``CPU`` and ``GPU`` that it asks for.
        offers: the ``CPU`` and ``GPU`` of each machine.
    """
    if any(all(offer.get(name, 0) >= amount for name, amount in resources.items()) for offer in offers):
        return ""

    def words(offer: dict[str, float]) -> str:
        return " and ".join(f"{offer.get(name, 0):g} {name}s" for name in ("CPU", "GPU"))

    largest = max(offers, key=lambda offer: (offer.get("GPU", 0), offer.get("CPU", 0)), default={})
    return f"no machine has room for a trial that asks for {words(resources)}: the largest has {words(largest)}"


def trials_at_once(tasks: Sequence[Task], trials: Mapping[str, Planned], offers: Sequence[dict[str, float]]) -> float:
    """An estimate of the number of trials that run at the same time.

    Args:
        trials: the trials of the tasks, by their ids.
    """
    total = sum(trials[task.id].seconds for task in tasks)
    shares = []
    for name in ("CPU", "GPU"):
        asked = sum(trials[task.id].seconds * task.resources.get(name, 0) for task in tasks) / total
        if asked:
            shares.append(sum(offer.get(name, 0) for offer in offers) / asked)
    return min(shares)


def packs(tasks: Sequence[Task], trials: Mapping[str, Planned]) -> list[list[Task]]:
    """The packs of tasks: each of one variant and the declared size; the longest first, so that no long one is last."""
    kinds: dict[Any, list[Task]] = {}
    for task in tasks:
        kinds.setdefault((task.sweep, task.variant, trials[task.id].resources.pack), []).append(task)
    made = [group[i : i + pack] for (_, _, pack), group in kinds.items() for i in range(0, len(group), pack)]
    return sorted(made, key=lambda group: -sum(trials[task.id].seconds for task in group))
