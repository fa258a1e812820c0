"""Points of a search that Optuna suggests from the results of the points before them.

A suggestion depends on the axes, the seed and those results alone, not on the time at which a trial ended or on the
number of cores. So a relaunch that finds the finished trials in the store gets the same points again and continues.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from clray.axes import Distribution
from clray.errors import DeclarationError
from clray.training import generator

_ATTEMPTS = 100
"""The most suggestions that are looked at for one that is new."""

Point = dict[str, Any]


def require_optuna() -> Any:
    """The package optuna.

    Raises:
        DeclarationError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise DeclarationError(
            "search.algorithm: optuna is not installed here: pip install 'clray[search]'; allowed without it: random"
        ) from None
    return optuna


def suggest(
    axes: Mapping[str, Distribution],
    seen: Sequence[tuple[Point, float | None]],
    lower_is_better: bool,
    seed: int,
    variant: str,
    count: int,
) -> list[Point]:
    """Suggest the next points of a variant: fewer than ``count`` where there are no other ones.

    Args:
        seen: the points before, in their order, with their results; None where a point has none, because a run of it
            diverged. Such a point counts as worse than all others.
        seed: of the search.
    """
    optuna = require_optuna()
    optuna.logging.set_verbosity(logging.WARNING)
    known = [value for _, value in seen if value is not None]
    worst = max(known, default=0.0) + 1 if lower_is_better else min(known, default=0.0) - 1
    own = int(generator(seed, f"optuna {variant} {len(seen)}").integers(2**32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of optuna: constant_liar is marked as experimental
        sampler = optuna.samplers.TPESampler(seed=own, n_startup_trials=0, constant_liar=True)
        study = optuna.create_study(direction="minimize" if lower_is_better else "maximize", sampler=sampler)
        spaces = {axis: _space(optuna, distribution) for axis, distribution in axes.items()}
        for point, value in seen:
            params = {axis: _encoded(axes[axis], point[axis]) for axis in axes}
            told = worst if value is None else value
            study.add_trial(optuna.trial.create_trial(params=params, distributions=spaces, value=told))
        found: list[Point] = []
        taken = [point for point, _ in seen]
        for _ in range(_ATTEMPTS * count):
            params = study.ask(spaces).params
            point = {axis: _decoded(axes[axis], params[axis]) for axis in axes}
            if point not in taken:
                taken.append(point)
                found.append(point)
            if len(found) == count:
                break
    return found


def _space(optuna: Any, axis: Distribution) -> Any:
    if axis.uniform is not None:
        return optuna.distributions.FloatDistribution(*axis.uniform)
    if axis.log_uniform is not None:
        return optuna.distributions.FloatDistribution(*axis.log_uniform, log=True)
    if axis.integers is not None:
        return optuna.distributions.IntDistribution(*axis.integers)
    assert axis.choice is not None
    return optuna.distributions.CategoricalDistribution(range(len(axis.choice)))


def _encoded(axis: Distribution, value: Any) -> Any:
    """A value as optuna knows it: of a choice its place, because the values may be lists."""
    return value if axis.choice is None else axis.choice.index(value)


def _decoded(axis: Distribution, value: Any) -> Any:
    return axis.rounded(value) if axis.choice is None else axis.choice[value]
