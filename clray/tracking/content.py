"""The content of a W&B run, made from a record by pure functions."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from clray.metrics import accuracy_matrix
from clray.output import visible
from clray.record import Record
from clray.tracking.publication import TAG, Publication, sweep_tag


def history(record: Record) -> list[dict[str, float]]:
    """The rows of a record's W&B history: one for each point at which tasks were evaluated, in order.

    A row holds ``examples`` (training examples seen), ``trained_tasks``, and for every metric ``METRIC/task_03``,
    ``METRIC/mean`` over all tasks that were evaluated and ``METRIC/mean_seen`` over those whose training has begun.
    """
    points: dict[tuple[int, int], dict[str, dict[int, float]]] = {}
    for m in record.measurements:
        points.setdefault((m.step, m.trained_tasks), {}).setdefault(m.metric, {})[m.eval_task] = m.value
    rows = []
    for (step, trained), metrics in points.items():
        row: dict[str, float] = {"examples": step, "trained_tasks": trained}
        for metric, values in metrics.items():
            row |= {f"{metric}/task_{task:02d}": value for task, value in sorted(values.items())}
            row[f"{metric}/mean"] = fmean(values.values())
            if seen := [value for task, value in values.items() if task < trained]:
                row[f"{metric}/mean_seen"] = fmean(seen)
        rows.append(row)
    return rows


def matrix_rows(record: Record) -> list[list[float]]:
    """The accuracy matrix as rows (trained_tasks, eval_task, accuracy); the baseline has 0 trained tasks.

    On streams whose tasks share classes, ``eval_task`` is a class.
    """
    R, b = accuracy_matrix(record.measurements, sharing=record.sharing)
    rows = [[0, task, float(value)] for task, value in enumerate(b)]
    rows += [[i + 1, j, float(R[i, j])] for i in range(len(R)) for j in range(len(b))]
    return [row for row in rows if math.isfinite(row[2])]


def config_of(record: Record, sweep: str, variant: str) -> dict[str, Any]:
    """The run's configuration: the trial's whole declaration, its data and its provenance."""
    labels = {"sweep": sweep, "variant": variant, "data": record.data, "provenance": _published(record.provenance)}
    return {**record.trial.model_dump(mode="json"), **labels}


def _published(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The provenance without names of machines and without processes: these are not published."""
    facts = {key: value for key, value in provenance.items() if key != "executions"}
    machine = facts.get("machine")
    if isinstance(machine, Mapping):
        facts["machine"] = {key: value for key, value in machine.items() if key != "host"}
    return facts


def summary_of(record: Record) -> dict[str, Any]:
    """The run's summary: the published metrics as fractions, the status, and the seconds that the trial took."""
    seconds = record.provenance.get("seconds")
    return {**record.metrics, "status": record.status, **({} if seconds is None else {"seconds": seconds})}


def name_of(record: Record, variant: str) -> str:
    """The run's name: ``VARIANT/SEED``, and the task order where the trial has one."""
    order = record.trial.task_order
    placed = "" if order is None else f"/order {'-'.join(map(str, order))}"
    return f"{visible(variant, keep='')}/{record.trial.seed}{placed[:80]}"


def tags_of(publication: Publication, record: Record) -> list[str]:
    """The run's tags: paper, table, seed, source of the data, and sweep."""
    source, seed = str(record.data.get("source") or ""), f"seed:{record.trial.seed}"
    tags = [publication.paper, publication.table, seed, source]
    return list(dict.fromkeys([*(visible(tag, keep="")[:TAG] for tag in tags if tag), sweep_tag(publication.sweep)]))


def digest(value: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a value's JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
