"""The arguments of the functions for Python, as the commands' own: a name with its selection, and a store."""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, SupportsIndex

from clray.documents import one_of, shorter
from clray.errors import DeclarationError
from clray.metrics import METRICS
from clray.selection import Selection

if TYPE_CHECKING:
    from clray.commands.target import Target
    from clray.store import Store

Place = str | os.PathLike[str]
"""A results store: a folder, or a URI such as ``s3://…``; or a sweep file."""
Names = str | Collection[str]
Seeds = int | Iterable[int]
Settings = Mapping[str, Any]
"""Changes to a sweep file by dotted key: ``{"benchmark.tasks": 5}``."""


def target(
    name: Place, results: Place, quick: bool, only: Names | None, seeds: Seeds | None, set_: Settings | None
) -> Target:
    """The reproduction, sweep or sweep file of this name, with a part of it selected.

    Raises:
        DeclarationError: there is none, or an argument is wrong.
    """
    from clray.commands.target import target_of

    selection = Selection(quick, names(only, "variant"), seeds_of(seeds), _changes(set_))
    return target_of(_text(name, "name"), selection, uri(results), whole=True)


def uri(results: Place) -> str:
    """The path or URI of a store as text.

    Raises:
        DeclarationError: it names none.
    """
    text = _text(results, "results")
    if not text.strip():
        raise DeclarationError(f"results={text!r}: names no store: a folder, s3://…, gs://…")
    return text


def opened(results: Place) -> Store:
    """The store at a path or URI; one at a URI has answered a first request.

    Raises:
        DeclarationError, StoreError: there is none.
    """
    from clray.commands.target import store_at

    return store_at(uri(results))


def names(asked: Names | None, argument: str) -> tuple[str, ...]:
    """One name or several as a tuple, each once; empty for None.

    Raises:
        DeclarationError: something else is among them.
    """
    found = () if asked is None else tuple(asked) if _is_several(asked) else (asked,)
    for name in found:
        if not isinstance(name, str) or not name.strip():
            raise DeclarationError(f"{argument}={shorter(repr(asked))}: expected a name, or a list of names")
    return tuple(dict.fromkeys(found))  # type: ignore[arg-type]


def seeds_of(asked: Seeds | None, argument: str = "seed") -> tuple[int, ...]:
    """One seed or several as a tuple, each once; empty for None.

    Raises:
        DeclarationError: something else is among them.
    """
    given: tuple[Any, ...] = () if asked is None else tuple(asked) if _is_several(asked) else (asked,)  # type: ignore[arg-type]
    if any(isinstance(seed, bool) or not isinstance(seed, SupportsIndex) for seed in given):
        wanted = "expected a whole number, or a list of whole numbers"
        raise DeclarationError(f"{argument}={shorter(repr(asked))}: {wanted}")
    return tuple(dict.fromkeys(operator.index(seed) for seed in given))


def metrics_of(asked: Names | None, argument: str, most: int | None = None) -> list[str]:
    """Metrics by name, each once.

    Args:
        argument: for messages: ``--metric `` on the command line, ``metric=`` in Python.
        most: how many there may be.

    Raises:
        DeclarationError: one of them does not exist, or there are too many.
    """
    found = (asked,) if isinstance(asked, str) else tuple(asked or ())
    for name in found:
        if name not in METRICS:
            raise DeclarationError(
                f"{argument}{shorter(name) or repr(name)}: no such metric; {one_of(str(name), METRICS)}"
            )
    if most is not None and len(set(found)) > most:
        raise DeclarationError(f"{argument}{','.join(found)}: a leaderboard is ranked by one metric; name one of them")
    return list(dict.fromkeys(found))


def _is_several(asked: Any) -> bool:
    return isinstance(asked, Iterable) and not isinstance(asked, str | bytes | Mapping)


def _text(value: Place, argument: str) -> str:
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str):
        raise DeclarationError(f"{argument}={shorter(repr(value))}: expected text or a path")
    return text


def _changes(set_: Settings | None) -> tuple[str, ...]:
    """The changes as the flag ``--set`` takes them.

    Raises:
        DeclarationError: a value is no plain data.
    """
    if set_ is not None and not isinstance(set_, Mapping):
        wanted = "expected a mapping of dotted keys to values, such as {'benchmark.tasks': 5}"
        raise DeclarationError(f"set={shorter(repr(set_))}: {wanted}")
    return tuple(f"{key}={_yaml(str(key), value)}" for key, value in (set_ or {}).items())


def _yaml(key: str, value: Any) -> str:
    if isinstance(value, str) and value.isidentifier() and value.lower() not in _WORDS:
        return value
    try:
        return json.dumps(value, default=_plain, allow_nan=False)
    except (TypeError, ValueError):
        wanted = "expected a number, text, true or false, None, or lists and mappings of these"
        raise DeclarationError(f"set={{{key!r}: {shorter(repr(value))}}}: {wanted}") from None


_WORDS = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null", "none", "nan", "inf"])
"""Words that YAML may read as something else than text."""


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays, and paths, as plain data."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(type(value).__name__)
