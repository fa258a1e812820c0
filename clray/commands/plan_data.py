"""``clray plan --json`` and ``clray costs --json``: plans and costs as plain data. docs/python.md names the keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from clray.output import redacted

if TYPE_CHECKING:
    from clray.commands.target import Target
    from clray.costs import Cost
    from clray.planning import Plan, Planned, State

STATES: tuple[State, ...] = ("finished", "stale", "half-done", "to do")


def plan_data(target: Target, plan: Plan, rerun_stale: bool, rerun_lacking: bool) -> dict[str, Any]:
    """A plan: what is left, and every trial. None stands for a missing value."""
    left = plan.left(rerun_stale, rerun_lacking)
    counts = Counter(trial.state for trial in plan.trials)
    command = target.run + " --rerun-stale" * rerun_stale + " --rerun-lacking" * rerun_lacking
    return {
        "name": target.name,
        "results": redacted(target.results),
        "comparable": target.comparable,
        "counts": {state: counts[state] for state in STATES},
        "left": {
            "trials": len(left),
            "core_hours": plan.core_hours(rerun_stale, rerun_lacking),
            "gpu_hours": sum(trial.seconds * trial.resources.gpu for trial in left) / 3600,
            "command": command if left else None,
        },
        "reference_runs": target.reference_count,
        "trials": [_trial_data(trial) for trial in plan.trials],
        "other_ids": [
            {"trial": other.name, "record": other.record, "differences": list(other.differences)}
            for other in plan.other_ids
        ],
        "problems": [{"path": redacted(problem.path), "reason": problem.reason} for problem in plan.problems],
    }


def _trial_data(planned: Planned) -> dict[str, Any]:
    trial, data = planned.trial, planned.data
    failure = None if planned.failure is None else str(planned.failure.get("error"))
    return {
        "id": planned.id,
        "track": trial.track,
        "sweep": planned.sweep,
        "variant": planned.variant,
        "method": trial.method,
        "benchmark": trial.benchmark.get("name"),
        "seed": trial.seed,
        "task_order": None if trial.task_order is None else list(trial.task_order),
        "state": planned.state,
        "diverged": planned.diverged,
        "lacking": list(planned.lacking),
        "seconds": planned.seconds,
        "cpu": planned.resources.cpu,
        "gpu": planned.resources.gpu,
        "gpu_memory": dict(planned.memory) or None,
        "max_hours": planned.limits.hours,
        "max_memory": planned.limits.memory,
        "data": {key: data.get(key) for key in ("name", "source", "fingerprint", "reason")},
        "code": planned.code,
        "failure": failure,
    }


def costs_data(costs: Sequence[Cost]) -> dict[str, Any]:
    """The costs of tables, in their order."""
    return {"costs": [asdict(cost) | {"processors": list(cost.processors)} for cost in costs]}
