"""Reads the artifacts that trials keep beside their records. A broken artifact is reported and stops nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from clray.analysis.runs import Run
from clray.store import Problem, Store

T = TypeVar("T")

MAX_RUNS_PROBED = 3
"""Look for an artifact in at most this many runs of a variant: each look is a request to the store."""


def first_artifact(
    store: Store, runs: Sequence[Run], name: str, schema: TypeAdapter[T], problems: list[Problem]
) -> tuple[Run, T] | None:
    """The first run that has an artifact of this name, and the artifact's content.

    Args:
        name: the artifact's name, such as ``samples.json``.
        schema: the type that the content must have.
        problems: files that are broken or of another type are added to it.

    Returns:
        None where no run has a usable artifact.
    """
    for run in runs[:MAX_RUNS_PROBED]:
        content = store.read_artifact(run.id, name)
        if content is None:
            continue
        try:
            return run, schema.validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            reason = ": ".join(filter(None, [place, first["msg"].removeprefix("Value error, ")]))
            problems.append(Problem(store.path("artifacts", f"{run.id}.{name}"), f"not readable: {reason}"))
    return None
