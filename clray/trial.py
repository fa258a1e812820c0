"""A trial: the declaration that determines its numbers, its hash, and the settings that a track puts into it.

A trial's id is a hash of what determines its numbers, so that a trial is the same trial whichever sweep, machine or
launch it comes from.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clray.documents import expected, keys_of, misread, one_of, shown

Precision = Literal["float32", "bfloat16"]
"""The type of activations and products; weights and their updates are always float32. A track says which it has."""


class Trial(BaseModel):
    """One variant × seed × task order: everything that determines its numbers but the data itself, all of it resolved.

    ``benchmark``, ``model`` and ``hyperparameters`` hold every setting, defaults included, but those that were added
    ``later`` and have their default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    track: str
    benchmark: dict[str, Any]
    model: dict[str, Any]
    method: str
    hyperparameters: dict[str, Any]
    evaluate: Literal["after_task"] | int
    randomness: Literal["clray", "official"]
    engine: Literal["auto", "eager", "fused"]
    precision: Precision
    seed: int
    task_order: list[int] | None
    """None where the tasks come in the benchmark's own order."""

    @cached_property
    def declaration(self) -> str:
        """A hash of this declaration: the trial's name before it is known which data it will read."""
        plain = self.model_dump(mode="json")  # its mappings are plain data, and hold what a track declared
        for name in _unchanged(self):
            del plain[name]
        return short_hash(plain)

    def id(self, fingerprint: str) -> str:
        """The trial's id: a hash of its declaration and of the data it reads.

        Args:
            fingerprint: identifies the data set's content, as the track's ``data()`` tells it.
        """
        return short_hash([self.declaration, fingerprint])


def short_hash(value: Any) -> str:
    """A hash of plain data, in 16 of the letters 0-9 and a-f."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class SettingError(Exception):
    """A setting that a track does not take: raised by its ``resolve``, given its place by the sweep.

    Attributes:
        section: ``benchmark``, ``model`` or ``hyperparameters``, or another key of the sweep, such as ``evaluate``.
        keys: the path of keys below it.
    """

    def __init__(self, section: str, keys: Sequence[Any], message: str) -> None:
        super().__init__(message)
        self.section, self.keys = section, tuple(keys)


def check_settings(section: str, schema: type[BaseModel], values: Mapping[str, Any]) -> BaseModel:
    """``values`` as ``schema``, for a track's ``resolve``.

    Raises:
        SettingError: naming the first wrong key, and what would be right.
    """
    known = list(schema.model_fields)
    for key in values:
        if key not in known:
            of = "this method" if section == "hyperparameters" else f"this {section}"
            raise SettingError(section, [key], f"not a setting of {of}; {one_of(str(key), known)}")
    try:
        checked = schema(**values)
    except ValidationError as error:
        item = error.errors(include_url=False)[0]
        message = expected(item)
        keys = keys_of(item, values)
        if item["type"] == "missing":
            message = "this setting is missing"
        elif item["type"] != "value_error":
            message += f" (it is {shown(item['input'])})"
        elif not keys and message.partition(": ")[0] in known:  # of a rule for several settings, which names one
            name, _, message = message.partition(": ")
            keys = [name]
        raise SettingError(section, keys, message) from None
    for place, problem in misread(values, checked.model_dump()):
        raise SettingError(section, place, problem)
    return checked


def later(default: Any) -> Any:
    """The default of a field that was added when trials without it had already been run.

    While the field has this default it is left out of a trial's declaration, so that adding it changes no trial's id.
    So the default must do exactly what was done before there was the field.

    It serves for settings of methods, benchmarks and networks. A field of a whole sweep is added to ``Sweep`` and under
    the same name to ``Trial``, to both with ``later``.
    """
    return Field(default, json_schema_extra={"later": True})


def declared_settings(settings: BaseModel) -> dict[str, Any]:
    """Settings as plain data for a trial's declaration: all of them, of ``later`` ones those that were changed."""
    plain, left_out = settings.model_dump(mode="json"), _unchanged(settings)
    return {name: _declared(getattr(settings, name), plain[name]) for name in plain if name not in left_out}


def _unchanged(settings: BaseModel) -> list[str]:
    """The names of the ``later`` fields that have their default."""
    return [name for name, default in _later_fields(type(settings)) if getattr(settings, name) == default]


@functools.cache
def _later_fields(schema: type[BaseModel]) -> list[tuple[str, Any]]:
    extras = {name: field.json_schema_extra for name, field in schema.model_fields.items()}
    later_ones = (name for name, extra in extras.items() if isinstance(extra, dict) and extra.get("later"))
    return [(name, schema.model_fields[name].default) for name in later_ones]


def _declared(value: Any, plain: Any) -> Any:
    """Plain data without the ``later`` fields, at their defaults, of the settings within.

    Args:
        value: the settings that the plain data was made of.
    """
    if isinstance(value, BaseModel):
        return declared_settings(value)
    if isinstance(value, list | tuple):
        return [_declared(*pair) for pair in zip(value, plain, strict=True)]
    if isinstance(value, Mapping):
        return {key: _declared(*pair) for key, *pair in zip(plain, value.values(), plain.values(), strict=True)}
    return plain
