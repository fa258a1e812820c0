"""A track whose tasks have names. It can be declared but not run: the analysis needs no more."""

from __future__ import annotations

from typing import Any

PRECISIONS = ("float32", "bfloat16")


def resolve(declared: dict[str, Any]) -> dict[str, Any]:
    return {key: declared[key] for key in ("benchmark", "model", "method", "hyperparameters")}
