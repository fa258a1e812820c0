"""Axes of a search whose values are drawn from a distribution, and how many points a search has."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Discriminator, Field, Tag, model_validator

from clray.documents import Declared

_DIGITS = 4
"""Drawn numbers are rounded to so many significant digits, so that a point's name is short and says all of it."""

Bounds = Annotated[list[float], Field(min_length=2, max_length=2)]


class Distribution(Declared):
    """An axis whose values are drawn: one of these keys, such as ``{log_uniform: [0.0001, 1]}``."""

    uniform: Bounds | None = None
    """Between two numbers."""
    log_uniform: Bounds | None = None
    """Between two positive numbers, its logarithm uniform."""
    integers: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None
    """A whole number, from the first to the second, both included."""
    choice: Annotated[list[Any], Field(min_length=1)] | None = None
    """One of these values."""

    @model_validator(mode="after")
    def _is_one(self) -> Distribution:
        names = list(type(self).model_fields)
        if len(self.model_fields_set & set(names)) != 1:
            raise ValueError(f"expected one distribution; allowed: {', '.join(names)}")
        for name in ("uniform", "log_uniform", "integers"):
            bounds = getattr(self, name)
            if bounds is not None and not bounds[0] < bounds[1]:
                raise ValueError(f"{name}: the first number must be the smaller one (it is {bounds})")
        if self.log_uniform is not None and self.log_uniform[0] <= 0:
            raise ValueError(f"log_uniform: numbers must be above 0 (it is {self.log_uniform})")
        return self

    @property
    def kind(self) -> str:
        """The key that is given."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    def draw(self, rng: np.random.Generator) -> Any:
        """Draw a value."""
        if self.uniform is not None:
            return self.rounded(float(rng.uniform(self.uniform[0], self.uniform[1])))
        if self.log_uniform is not None:
            low, high = (math.log(bound) for bound in self.log_uniform)
            return self.rounded(math.exp(float(rng.uniform(low, high))))
        if self.integers is not None:
            return int(rng.integers(self.integers[0], self.integers[1] + 1))
        assert self.choice is not None
        return self.choice[int(rng.integers(len(self.choice)))]

    def rounded(self, value: Any) -> Any:
        """A number as it is declared: with four significant digits, and not outside the bounds."""
        bounds = self.uniform or self.log_uniform
        if bounds is None:
            return value
        return min(max(float(f"{value:.{_DIGITS}g}"), float(bounds[0])), float(bounds[1]))


def _kind(declared: Any) -> str:
    return "distribution" if isinstance(declared, dict | Distribution) else "list"


Axis = Annotated[
    Annotated[list[Any], Field(min_length=1), Tag("list")] | Annotated[Distribution, Tag("distribution")],
    Discriminator(_kind),
]
"""The values of an axis, or their distribution."""


class Search(Declared):
    """How the points of axes with distributions are found, and how ``clray search`` chooses one of them."""

    samples: Annotated[int, Field(ge=1, le=10_000)]
    """The number of points of each variant."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """The seed of the draws. More samples with the same seed keep the points that fewer have."""
    algorithm: Literal["random", "optuna"] = "random"
    """``optuna`` suggests the next points from the results of the former ones, by its tree-structured Parzen
    estimator (Bergstra et al. 2011); the first ``startup`` points are drawn as for ``random``."""
    startup: Annotated[int, Field(ge=1, le=10_000)] = 10
    batch: Annotated[int, Field(ge=1, le=1_000)] = 4
    """The points that Optuna suggests at once. They run at the same time: with more of them the search is faster, and
    each knows less. They do not depend on the machine's cores."""
    metric: str = "ACC"
    """The metric that chooses."""
    benchmark: dict[str, Any] = {}
    """The changes to ``benchmark`` for the runs that choose, such as ``{validation: true}``."""
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = []
    """The seeds of the runs that choose."""


def drawn_points(axes: dict[str, Distribution], search: Search, variant: str, samples: int) -> list[dict[str, Any]]:
    """Draw different points of a variant.

    Each axis of each variant has draws of its own, so that another axis, another variant or more samples change none.

    Args:
        axes: by name; without any there is one point.
        samples: how many points.

    Raises:
        ValueError: the axes have fewer different points.
    """
    if not axes:
        return [{}]
    from clray.training import generator

    rngs = {axis: generator(search.seed, f"search {variant} {axis}") for axis in axes}
    points: dict[str, dict[str, Any]] = {}
    for _ in range(100 * samples):
        point = {axis: distribution.draw(rngs[axis]) for axis, distribution in axes.items()}
        points.setdefault(str(list(point.values())), point)
        if len(points) == samples:
            return list(points.values())
    raise ValueError(f"{samples} different points are asked for, and these axes gave {len(points)}")
