"""The share of a machine that a trial asks for, and its limits of time and memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator, model_validator

from clray.documents import Declared, expected, misread, shown
from clray.errors import DeclarationError
from clray.grid import MOST_TRIALS
from clray.limits import bytes_of
from clray.trial import SettingError


class Resources(Declared):
    """The share of a machine that one trial asks for, and the limits that end it. None of them changes a number."""

    cpu: Annotated[float, Field(gt=0, le=10_000)] = 1
    gpu: Annotated[float, Field(ge=0, le=1_000)] = 0
    """Share of one GPU (1/k packs k trials), or a whole number of them. Asked for only where there is a GPU."""
    pack: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = 1
    """Trials that one worker runs one after the other: more than 1 where a trial takes seconds."""
    hours: Annotated[float, Field(gt=0, le=100_000)] | None = None
    """A trial that takes longer, all of its executions together, fails with its checkpoint kept (``clray.limits``)."""
    memory: str | None = None
    """A trial fails, its checkpoint kept, whose process has more resident memory, as ``4GiB`` or ``500MB``."""

    @model_validator(mode="after")
    def _is_possible(self) -> Resources:
        for name, share in (("cpu", self.cpu), ("gpu", self.gpu)):
            if 0 < share < 0.0001:
                raise ValueError(f"{name}: {share} is too little; Ray counts in steps of 0.0001")
        if self.gpu > 1 and self.gpu != int(self.gpu):
            raise ValueError(f"gpu: above 1 it must be a whole number of GPUs (it is {self.gpu})")
        return self

    @field_validator("memory", mode="before")
    @classmethod
    def _is_a_size(cls, value: Any) -> Any:
        if value is not None and bytes_of(value if isinstance(value, str) else str(value)) < 2**20:
            raise ValueError(f"less than 1MiB, which no process fits into (it is {value!r})")
        return value


def resources_of(declared: Mapping[str, Any]) -> Resources:
    """A variant's share of a machine.

    Raises:
        SettingError: such a share is not possible.
    """
    try:
        share = Resources(**declared)
    except ValidationError as error:
        item = error.errors(include_url=False)[0]
        message = expected(item)
        if item["type"] != "value_error":
            message += f" (it is {shown(item['input'])})"
        raise SettingError("resources", item["loc"], message) from None
    for keys, problem in misread(declared, share.model_dump()):
        raise SettingError("resources", keys, problem)
    return share


def gpu_share(asked: float | None) -> float | None:
    """Check a share of a GPU given by ``--gpu``, under the rule for ``resources.gpu``.

    Raises:
        DeclarationError: such a share is not possible.
    """
    if asked is not None:
        try:
            resources_of({"gpu": asked})
        except SettingError as error:
            raise DeclarationError(f"--gpu {asked}: {error}") from None
    return asked
