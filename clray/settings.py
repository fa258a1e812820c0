"""The common rules for the tracks' settings: numbers are numbers, finite, and of a size that a machine can hold."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

LARGEST_SEED = 2**63 - 1
"""Seeds are kept as signed 64-bit integers."""

BenchmarkSeed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
"""The seed that a benchmark draws its own data with; the trial's seed is another."""


class TrialSettings(BaseModel):
    """Settings of a benchmark, a model or a method.

    Unknown keys are refused; so are NaN and infinity, and ``true`` or ``false`` where a number belongs, which pydantic
    would take for 1 and 0.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_is_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        if _holds_boolean(value) and _takes_numbers_alone(cls.model_fields[info.field_name].annotation):
            raise ValueError(f"expected a number, neither true nor false (it is {value!r})")
        return value


def _holds_boolean(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, list | tuple) and any(map(_holds_boolean, value)))


def _takes_numbers_alone(annotation: Any) -> bool:
    """True for a type that holds numbers, and no booleans beside them."""
    return _names(annotation, int, float) and not _names(annotation, bool)


def _names(annotation: Any, *kinds: type) -> bool:
    """True for a type that is one of these, or has one of them as a part."""
    return annotation in kinds or any(_names(part, *kinds) for part in get_args(annotation))
