"""What trials leave in the store beside their records, read for a page: checked, and never a reason to fail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from clray.analysis.aggregate import Run
from clray.store import Problem, Store

T = TypeVar("T")

_LOOKED_INTO = 3
"""Of a variant's runs: what none of the first few has kept, its track does not keep, and each look costs a request."""


def first_kept(
    store: Store, runs: Sequence[Run], name: str, form: TypeAdapter[T], problems: list[Problem]
) -> tuple[Run, T] | None:
    """The first run that has kept an artifact of this name, with its content.

    Args:
        name: such as ``looks.json``.
        form: what the content must be.
        problems: takes what is torn, or of another form.

    Returns:
        None where no run has a usable one.
    """
    for run in runs[:_LOOKED_INTO]:
        content = store.read_artifact(run.id, name)
        if content is None:
            continue
        try:
            return run, form.validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            reason = ": ".join(filter(None, [place, first["msg"].removeprefix("Value error, ")]))
            problems.append(Problem(store.path("artifacts", f"{run.id}.{name}"), f"not readable: {reason}"))
    return None
