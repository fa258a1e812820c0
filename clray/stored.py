"""The schemas of the files in a results store. Other programs may write there, so each file is checked when it is read.

A schema describes the values that clray itself writes. ``problem`` compares a value with a schema and says where they
differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from clray.arrow import as_numpy, as_texts
from clray.metrics import FINAL, METRICS

if TYPE_CHECKING:
    import pyarrow as pa

_LONGEST_REASON = 200
_MOST_TASKS = 10_000
"""The most tasks of a trial: a matrix of accuracies has the square of that many entries."""

_Count = Annotated[int, Field(ge=0, le=2**62)]
_Seconds = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
_Moment = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]
"""Seconds since 1970."""
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


def _whole(memory: dict[str, int]) -> dict[str, int]:
    if memory and not (memory.keys() >= {"reserved", "allocated", "total"} and memory["total"] > 0):
        raise ValueError("expected 'reserved', 'allocated' and 'total', in bytes")
    return memory


_GpuMemory = Annotated[dict[str, _Count], AfterValidator(_whole)]
_Execution = TypedDict(
    "_Execution", {"launch": str, "host": str, "pid": _Count, "began": _Moment, "from": _Share}, total=False
)


class _Data(TypedDict, total=False):
    name: str
    source: str
    fingerprint: Annotated[str, Field(min_length=1)]


class _Git(TypedDict, total=False):
    commit: str
    uncommitted_changes: bool


class _Machine(TypedDict, total=False):
    host: str


class _Diverged(TypedDict):
    step: _Count
    task: _Count
    what: str


class _Provenance(TypedDict, total=False):
    code: str
    git: _Git
    machine: _Machine
    seconds: _Seconds
    cpu_seconds: _Seconds
    progress: _Share
    saved: _Moment
    executions: list[_Execution]
    gpu_memory: _GpuMemory
    diverged: _Diverged


class _Metadata(TypedDict):
    status: Literal["finished", "diverged", "running"]
    sweep: str
    variant: str
    trial: dict[str, Any]
    data: _Data
    provenance: _Provenance


class _Failure(TypedDict, total=False):
    error: str
    kind: str
    traceback: str
    host: str
    time: _Moment


class _Lease(TypedDict, total=False):
    trial: str
    launch: str
    host: str
    pid: Annotated[int, Field(ge=0, lt=2**31)]
    processes: str
    born: int | None
    taken: _Moment
    token: str
    renewals: _Count


class _Notes(TypedDict, total=False):
    variant: str
    sweep: str
    seed: _Count
    device: str
    progress: _Share
    executions: list[_Execution]
    gpu_memory: _GpuMemory


_Measured = Annotated[
    tuple[_Count, _Count, _Count, str, float],  # step, trained_tasks, eval_task, metric, value
    BeforeValidator(lambda row: tuple(row) if isinstance(row, list) else row),
]


class _Checkpoint(TypedDict):
    training: dict[str, Any]
    measurements: list[_Measured]
    seconds: _Seconds
    code: str


class _CheckpointLater(_Checkpoint, total=False):
    cpu_seconds: _Seconds
    gpu_memory: _GpuMemory
    executions: list[_Execution]


METADATA: TypeAdapter[Any] = TypeAdapter(_Metadata)
FAILURE: TypeAdapter[Any] = TypeAdapter(_Failure)
LEASE: TypeAdapter[Any] = TypeAdapter(_Lease)
NOTES: TypeAdapter[Any] = TypeAdapter(_Notes)
CHECKPOINT: TypeAdapter[Any] = TypeAdapter(_CheckpointLater)


def problem(form: TypeAdapter[Any], value: Any) -> str:
    """Say where a value first differs from a schema, as ``seconds: Input should be a valid number``; empty: nowhere."""
    places = problems(form, value)
    return next(iter(places.values()), "")


def problems(form: TypeAdapter[Any], value: Any) -> dict[str, str]:
    """Say where a value differs from a schema: the problem by the outermost key."""
    try:
        form.validate_python(value, strict=True)
    except ValidationError as error:
        found: dict[str, str] = {}
        for one in error.errors(include_input=False, include_url=False):
            place = ".".join(str(part)[:50] for part in one["loc"])
            reason = ": ".join(filter(None, [place, one["msg"].removeprefix("Value error, ")]))
            found.setdefault(str(one["loc"][0]) if one["loc"] else "", reason[:_LONGEST_REASON])
        return found
    return {}


_FRACTIONS = {metric.measured for metric in METRICS.values()}
"""Measurements that are fractions of right answers."""
_ROUNDING = 1e-6


def measurement_problem(table: pa.Table, declared: int | None, finished: bool, of_classes: bool = False) -> str:
    """Say which measurements no trial of clray can have made; empty where nothing is wrong.

    Args:
        table: the columns ``step``, ``trained_tasks``, ``eval_task``, ``metric`` and ``value``.
        declared: the number of the trial's tasks; None where its declaration does not say.
        finished: the trial is recorded as measured on all of its tasks after the last.
        of_classes: its tasks share classes, and the classes are measured in place of the tasks (``of_classes`` below).
    """
    import pyarrow as pa

    kinds = {"step": pa.types.is_integer, "trained_tasks": pa.types.is_integer, "eval_task": pa.types.is_integer}
    for name, fits in {**kinds, "value": pa.types.is_floating}.items():
        if not fits(table[name].type):
            return f"its column {name} is of type {table[name].type}"
        if table[name].null_count:
            return f"its column {name} has gaps"
    step, trained, task, value = (as_numpy(table[name]) for name in ("step", "trained_tasks", "eval_task", "value"))
    metric = table["metric"]
    if not pa.types.is_string(getattr(metric.type, "value_type", metric.type)) or metric.null_count:
        return "its column metric has gaps, or is no text"
    numbers, names = as_texts(metric)
    if len(step) and min(step.min(), trained.min(), task.min()) < 0:
        return "it counts below zero"
    tasks = _MOST_TASKS if declared is None else declared
    groups = _MOST_TASKS if of_classes else tasks
    if tasks > _MOST_TASKS or (len(step) and (trained.max() > tasks or task.max() >= groups)):
        return f"it names tasks beyond its {tasks}"
    rates = value[np.isin(numbers, [i for i, name in enumerate(names) if name in _FRACTIONS])]
    if not np.all((rates >= -_ROUNDING) & (rates <= 1 + _ROUNDING)):
        return "an accuracy of it is no number from 0 to 1"
    if not finished:
        return ""
    final = next((name for name in FINAL if name in names), None)
    last = numbers == (-1 if final is None else names.index(final))
    if declared is None:
        declared = int(max(trained[last].max(), task[last].max() + 1)) if last.any() else 1
    measured = np.unique(task[last & (trained == declared)])
    if of_classes:  # how many there are depends on the data set
        return "" if len(measured) else "finished, but not measured after the last task"
    if len(measured) < declared:
        return f"finished, but not measured on all {declared} tasks after the last"
    return ""


def of_classes(benchmark: dict[str, Any]) -> bool:
    """True for a declared benchmark whose classes are measured in place of its tasks."""
    return benchmark.get("measured") == "classes"


def sharing_tasks(benchmark: dict[str, Any]) -> int | None:
    """The number of tasks where they share classes, as metrics want to know it (``clray.metrics.accuracy_matrix``)."""
    return task_count(benchmark) if of_classes(benchmark) else None


def task_count(benchmark: dict[str, Any]) -> int | None:
    """The number of tasks of a declared benchmark; None where it does not say."""
    match benchmark.get("tasks"):
        case bool():
            return None
        case int() as count:
            return count
        case list() as names:
            return len(names)
    return None
