"""The points of a variant's grid: their names, their settings, and the limits of both."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clray.documents import shown

MOST_TRIALS = 100_000
"""The most trials of a sweep: variants, points of their grids, task orders and seeds multiplied."""
MOST_POINT_NAME = 1000
"""The most characters of a variant's name with the axes of its grids."""


def wrong_point_name(name: str) -> str | None:
    """The mistake in the name of a grid's point; None without one."""
    if len(name) > MOST_POINT_NAME:
        return f"more than {MOST_POINT_NAME:,} characters"
    odd = next((character for character in name if not character.isprintable()), None)
    return None if odd is None else f"the character {shown(odd)} is not allowed"


def repeated(values: Sequence[Any]) -> list[Any]:
    """The values that occur more than once."""
    seen: set[Any] = set()
    return [value for value in values if value in seen or seen.add(value)]  # type: ignore[func-returns-value]


def alike(value: Any) -> str:
    """The same text for values that are equal: 1 and 1.0 are, 1 and true are not."""

    def plain(part: Any) -> Any:
        if isinstance(part, float) and part.is_integer():
            return int(part)
        if isinstance(part, Mapping):
            return {key: plain(inner) for key, inner in part.items()}
        return [plain(inner) for inner in part] if isinstance(part, list) else part

    return json.dumps(plain(value), sort_keys=True, default=str, ensure_ascii=False)


def named(variant: str, point: Mapping[str, Any]) -> str:
    """The name of a point of a variant's grid, ``variant@axis=value``."""
    return variant + "".join(f"@{axis}={value}" for axis, value in point.items())


def at_point(settings: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """A variant's settings, changed by a point of a grid: ``{"model.dropout": 0.1}`` goes into ``model``."""
    result = dict(settings)
    for axis, value in point.items():
        change: Any = value
        for key in reversed(axis.split(".")):
            change = {key: change}
        result = merged(result, change)
    return result


def point_of(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The axes and values that ``variant@axis=value`` stands for, the values as they are declared in ``settings``."""
    point = {}
    for part in name.split("@")[1:]:
        axis = part.partition("=")[0]
        value: Any = settings
        for key in axis.split("."):
            value = value[key]
        point[axis] = value
    return point


def setting_text(point: Mapping[str, Any]) -> str:
    """A point of a grid as ``b 5, lr 0.0005``: the last part of an axis's name is enough to know the axis."""
    return ", ".join(f"{axis.rpartition('.')[2]} {_value_text(value)}" for axis, value in point.items())


def _value_text(value: Any) -> str:
    return np.format_float_positional(value, trim="0") if isinstance(value, float) else str(value)


def merged(base: Mapping[str, Any], over: Any) -> dict[str, Any]:
    """``base`` with the values of ``over`` in place of its own, mappings key by key."""
    result = copy.deepcopy(dict(base))
    for key, value in dict(over).items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result
