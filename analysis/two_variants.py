"""The statistics of two variants: is one better than the other, how surely, and how many further seeds would decide?

Pure functions on the values of runs. A variant's values are a mapping from the place of a run, its seed and its task
order, to a number in the metric's own unit. Where two variants have runs at the same places, the runs are paired: the
test is Student's on their differences. Otherwise it is Welch's, on two samples.

Runs that share a seed or a task order are not independent. Where both vary and repeat, as in a sweep of several seeds
over several orders, the variance of a mean is the sum of the variance of the seeds' means and that of the orders'
means, each over its number of levels: the test is min F' (Clark 1973), which holds for other seeds and other orders,
and is a little too careful where one of them makes no difference, and much too careful where neither does.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clray.analysis.runs import Order
from clray.analysis.verdict import ALPHA, MOST_RUNS, POWER, Difference, Variance, combined, p_difference

Place = tuple[int, Order]
Values = Mapping[Place, float]
"""The values of a variant's runs, by seed and task order."""

RESAMPLES = 2000
"""The bootstrap samples of ``improvement_interval``."""
_QUANTILES = 256
_NO_SPREAD = 1e-9
"""A standard error below this share of the values' size is an error of rounding."""


# --------------------------------------------------------------------------------------------------------------
# The variance of a mean


def variance_of_mean(values: Values) -> list[Variance]:
    """The parts of the variance of the mean of runs, each with its degrees of freedom; none for fewer than two runs.

    Independent runs have one part, s^2 / n. A factor (seeds, task orders) of which a level has several runs has a part
    of its own, computed from the sums of the residuals by level (Cameron, Gelbach & Miller 2011); with as many runs at
    each level that is the variance of the levels' means over the number of levels.
    """
    if len(values) < 2:
        return []
    residuals = _residuals(values)
    n = len(values)
    parts = [_clustered(residuals, factor) for factor in _repeated(values)]
    return parts or [Variance(sum(e**2 for e in residuals.values()) / (n - 1) / n, n - 1)]


def _residuals(values: Values) -> dict[Place, float]:
    mean = math.fsum(values.values()) / len(values)
    return {place: value - mean for place, value in values.items()}


def _repeated(values: Values) -> list[int]:
    """The factors (0: the seed, 1: the task order) that have several levels, and several runs at one of them."""
    counts = {factor: Counter(place[factor] for place in values) for factor in (0, 1)}
    return [factor for factor, of in counts.items() if len(of) > 1 and max(of.values()) > 1]


def _clustered(residuals: Values, factor: int) -> Variance:
    sums: dict[Hashable, float] = defaultdict(float)
    for place, residual in residuals.items():
        sums[place[factor]] += residual
    levels, n = len(sums), len(residuals)
    return Variance(levels / (levels - 1) * sum(s**2 for s in sums.values()) / n**2, levels - 1)


def with_further_seeds(values: Values, seeds: int) -> list[Variance]:
    """``variance_of_mean`` as it is to be expected with so many further seeds, each run with all task orders.

    The variance between orders stays, whatever the number of seeds. Where there is one seed and several orders, it is
    so many further orders.
    """
    parts, repeated, n = variance_of_mean(values), _repeated(values), len(values)
    if not parts or not repeated:
        return [Variance(part.value * n / (n + seeds), part.df + seeds) for part in parts]
    there_are = len({seed for seed, _ in values})
    growth = (there_are + seeds) / there_are
    noise = _noise(values, repeated) / n
    found = []
    for factor, part in zip(repeated, parts, strict=True):
        if factor == 0:
            found.append(Variance(part.value / growth, part.df + seeds))
        else:
            found.append(Variance(max(part.value - noise, 0.0) + min(noise, part.value) / growth, part.df))
    return found


def _noise(values: Values, factors: Sequence[int]) -> float:
    """The variance of single runs around the effects of these factors."""
    left, df = _residuals(values), len(values) - 1
    for factor in factors:
        of_level: dict[Hashable, list[float]] = defaultdict(list)
        for place, residual in left.items():
            of_level[place[factor]].append(residual)
        df -= len(of_level) - 1
        left = {place: e - float(np.mean(of_level[place[factor]])) for place, e in left.items()}
    return sum(e**2 for e in left.values()) / df if df > 0 else 0.0


def unit(values: Values) -> str:
    """Name the further runs: ``task orders`` where all runs have one seed and several orders, else ``seeds``."""
    seeds, orders = ({place[factor] for place in values} for factor in (0, 1))
    return "task orders" if len(seeds) == 1 and len(orders) > 1 else "seeds"


# --------------------------------------------------------------------------------------------------------------
# The difference of two variants


@dataclass(frozen=True)
class Gap:
    """The difference of two variants' means, with its test.

    Attributes:
        difference: the first variant's mean minus the second's, over the pairs where they are paired.
        p: two-sided, of 'the means are equal', not corrected.
        test: ``paired`` (Student's test on differences) or ``unpaired`` (Welch's test).
        pairs: the number of pairs; 0 where the runs are not paired.
        left_out: the number of runs of either variant that have no partner; 0 where the runs are not paired.
        certain: False where no spread could be seen, so that there is no interval.
    """

    difference: Difference
    p: float
    test: Literal["paired", "unpaired"]
    pairs: int
    left_out: int = 0
    certain: bool = True

    def interval(self, confidence: float = 1 - ALPHA) -> tuple[float, float] | None:
        """The interval of the difference, not corrected for other comparisons; None without any spread."""
        return self.difference.interval(confidence) if self.certain else None


def differences(a: Values, b: Values) -> dict[Place, float] | None:
    """The differences of the runs at the same places; None where the runs are not to be paired.

    They are paired where there are two pairs or more, and where half of the runs of each variant or more are in a pair.
    The rule does not look at the values.
    """
    common = [place for place in a if place in b]
    if len(common) < 2 or 2 * len(common) < max(len(a), len(b)):
        return None
    return {place: a[place] - b[place] for place in common}


def gap(a: Values, b: Values) -> Gap | None:
    """The difference of two variants' means, and its test; None where one of them has too few runs for a spread."""
    paired = differences(a, b)
    if paired is not None:
        parts = variance_of_mean(paired)
        value = math.fsum(paired.values()) / len(paired)
        found, p, certain = t_test(value, [parts], scale_of(a, b))
        return Gap(found, p, "paired", len(paired), len(a) + len(b) - 2 * len(paired), certain)
    sides = [variance_of_mean(a), variance_of_mean(b)]
    if not all(sides):
        return None
    value = math.fsum(a.values()) / len(a) - math.fsum(b.values()) / len(b)
    found, p, certain = t_test(value, sides, scale_of(a, b))
    return Gap(found, p, "unpaired", 0, 0, certain)


def scale_of(*values: Values) -> float:
    """The size of the largest value, by which an error of rounding is known."""
    return max(abs(value) for of in values for value in of.values())


def t_test(value: float, sides: Sequence[Sequence[Variance]], scale: float) -> tuple[Difference, float, bool]:
    """A difference with its standard error, its p, and False where no spread can be seen.

    Without any spread the t test would be certain after two runs. Then p is the smallest one of the exact test: 2 to
    the power of 1 - n where the signs of n differences are drawn, 2 over the number of ways to divide the runs of two
    samples.

    Args:
        sides: the parts of the variance of the differences' mean, or those of each sample.
        scale: the size of the values.
    """
    total = combined([part for parts in sides for part in parts])
    found = Difference(value, math.sqrt(total.value), total.df)
    if found.error > _NO_SPREAD * max(scale, 1e-300):
        return found, p_difference(found), True
    if abs(value) <= _NO_SPREAD * scale:
        return Difference(0.0, 0.0, math.inf), 1.0, False
    units = [int(min(part.df for part in parts)) + 1 for parts in sides]
    ways = 2 ** units[0] if len(units) == 1 else math.comb(sum(units), units[0])
    return Difference(value, 0.0, math.inf), min(1.0, 2 / ways), False


# --------------------------------------------------------------------------------------------------------------
# The number of further seeds


def power_of_test(value: float, variance: Variance, alpha: float = ALPHA) -> float:
    """The chance that a two-sided t test at level ``alpha`` finds a true difference of ``value``.

    The spread that the runs will show is averaged over its chi-square distribution, at equally likely quantiles.

    Args:
        variance: that of the estimated difference, with the degrees of freedom of its estimate.
    """
    from scipy import special

    if variance.value == 0:
        return float(value != 0)
    df = min(variance.df, 1e6)
    quantiles = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    reach = special.stdtrit(df, 1 - alpha / 2) * np.sqrt(2 * special.gammaincinv(df / 2, quantiles) / df)
    away = abs(value) / math.sqrt(variance.value)
    return float((special.ndtr(away - reach) + special.ndtr(-away - reach)).mean())


def further_seeds(a: Values, b: Values, alpha: float = ALPHA, most: int = MOST_RUNS) -> int | None:
    """The fewest further seeds of both variants with which the test decides with a chance of ``POWER``.

    The difference and the spreads that the runs show are taken to be the true ones.

    Returns:
        The number, at least 1; None where up to ``most`` seeds would not do, or where no spread can be seen.
    """
    found = gap(a, b)
    if found is None or not found.certain or found.difference.value == 0:
        return None
    paired = differences(a, b)
    samples = [a, b] if paired is None else [paired]

    def enough(seeds: int) -> bool:
        parts = [part for sample in samples for part in with_further_seeds(sample, seeds)]
        return power_of_test(found.difference.value, combined(parts), alpha) >= POWER

    high = 1
    while not enough(high):
        if high >= most:
            return None
        high = min(2 * high, most)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


# --------------------------------------------------------------------------------------------------------------
# The probability of improvement

Strata = Sequence[NDArray[np.float64]]
"""The values of a variant's runs, an array for each task order."""


def strata(a: Values, b: Values) -> tuple[Strata, Strata]:
    """The values of both variants by task order, of the orders that both have; all in one where they share none."""
    orders = [order for order in dict.fromkeys(place[1] for place in a) if any(place[1] == order for place in b)]

    def of(values: Values) -> Strata:
        if not orders:
            return [np.array(list(values.values()))]
        by_order: dict[Hashable, list[float]] = defaultdict(list)
        for (_, order), value in values.items():
            by_order[order].append(value)
        return [np.array(by_order[order]) for order in orders]

    return of(a), of(b)


def probability_of_improvement(x: Iterable[ArrayLike], y: Iterable[ArrayLike]) -> float:
    """P(X > Y) of Agarwal et al. (2021, section 4.3): the chance that a run of one variant is above one of the other.

    Over all pairs of their runs on a task, ties counting half (the U statistic of Mann and Whitney over the number of
    pairs), and the mean over tasks. A task is here a task order.

    Args:
        x, y: the values of the runs, an array [runs] for each task.
    """
    return float(np.mean([_wins(a, b).mean() for a, b in zip(x, y, strict=True)]))


def _wins(x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """[runs of x, runs of y]: 1 where x is above y, one half where they are equal."""
    return (np.sign(np.subtract.outer(np.asarray(x, float), np.asarray(y, float))) + 1) / 2


def improvement_interval(
    x: Sequence[ArrayLike],
    y: Sequence[ArrayLike],
    confidence: float = 1 - ALPHA,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile interval of P(X > Y) by the stratified bootstrap of Agarwal et al. (2021, section 4.1).

    The runs of each variant on each task are drawn anew with replacement. With few runs it is too narrow; where all
    runs of one are above those of the other it has no width at all.

    Args:
        seed: of the draws, so that the same runs give the same interval.
    """
    rng = np.random.default_rng(seed)
    total = np.zeros(resamples)
    for a, b in zip(x, y, strict=True):
        wins = _wins(a, b)
        n, k = wins.shape
        drawn_a = rng.multinomial(n, np.full(n, 1 / n), resamples) / n
        drawn_b = rng.multinomial(k, np.full(k, 1 / k), resamples) / k
        total += np.einsum("rn,nk,rk->r", drawn_a, wins, drawn_b)
    tail = (1 - confidence) / 2
    low, high = np.quantile(total / len(x), [tail, 1 - tail])
    return float(low), float(high)
