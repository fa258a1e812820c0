"""The statistics of a verdict: do our runs agree with a published number, do they differ, how many runs would decide?

Pure functions. Means, spreads and margins are in the metric's own unit, which is per cent for the tables. Each cell
gets two tests, both with Welch's unequal variances (Welch 1947): a test against no difference, and an equivalence test
against a difference as large as the margin (two one-sided tests, Schuirmann 1987). Each family of tests is corrected by
Holm's step-down method (Holm 1979).

The variance of the difference has up to four parts: the variance of our mean, that of the published mean, the rounding
of the printed number, and, where the stream of tasks is itself drawn at random, twice the variance between draws. Their
degrees of freedom are combined by the formula of Satterthwaite (1946).
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clray.reproduction import Claim

ALPHA = 0.05
"""Level of each family of tests, after correction."""
POWER = 0.80
"""The chance of a decision that ``runs_to_decide`` requires."""
MOST_RUNS = 1000
"""The largest number of runs that ``runs_to_decide`` tries."""
PREDICTION = 0.95
"""The chance that a mean of runs like the published ones lies in their prediction interval."""

Outcome = Literal["reproduced", "consistent", "differs", "inconclusive", "not judged"]
OUTCOMES: tuple[Outcome, ...] = ("reproduced", "consistent", "differs", "inconclusive", "not judged")
Aim = Literal["equivalence", "difference"]


@dataclass(frozen=True)
class Sample:
    """A set of runs: its mean, its standard deviation (n - 1), and its size."""

    mean: float
    sd: float
    n: int

    @property
    def variance_of_mean(self) -> float:
        return self.sd**2 / self.n


@dataclass(frozen=True)
class Variance:
    """One part of the variance of a difference, with the degrees of freedom of its estimate (infinite where known)."""

    value: float
    df: float


def sample(values: ArrayLike) -> Sample:
    """The sample of ``values`` [n]; the standard deviation of a single value is NaN."""
    values = np.asarray(values, dtype=float)
    sd = float(values.std(ddof=1)) if values.size > 1 else math.nan
    return Sample(float(values.mean()) if values.size else math.nan, sd, values.size)


# scipy.stats has these, too, but its import takes as long as all else that a table needs. The functions of
# scipy.special take no infinite degrees of freedom, with which Student's distribution is the normal one.


def _t_quantile(df: float, probability: float) -> float:
    """The quantile of Student's t distribution."""
    from scipy import special

    return float(special.ndtri(probability) if math.isinf(df) else special.stdtrit(df, probability))


def _t_below(df: float, value: float) -> float:
    """The probability that Student's t is below a value."""
    from scipy import special

    return float(special.ndtr(value) if math.isinf(df) else special.stdtr(df, value))


def interval(ours: Sample, confidence: float = 1 - ALPHA) -> tuple[float, float] | None:
    """The t interval of the mean; None for fewer than two runs."""
    if ours.n < 2:
        return None
    half = _t_quantile(ours.n - 1, (1 + confidence) / 2) * math.sqrt(ours.variance_of_mean)
    return ours.mean - half, ours.mean + half


def published(claim: Claim) -> Sample | None:
    """The claim as a sample: its ± turned into a standard deviation (n - 1).

    With n runs, a population standard deviation (numpy's default) is multiplied by sqrt(n / (n - 1)), a standard error
    by sqrt(n), a population standard error (numpy's default over sqrt(n)) by both. A 95% interval is divided by the
    quantile of t with n - 1 degrees of freedom, one of 1.96 standard errors by 1.96, one of two by 2. A ± of unknown
    kind is read as a population standard error, which gives the widest standard deviation among the kinds: enough to
    say that two numbers differ, never that they agree (``supports_equivalence``).

    Returns:
        None where no spread was published, or it stands for a single run.
    """
    if claim.spread is None or claim.runs is None or claim.runs < 2:
        return None
    n, sd = claim.runs, claim.spread
    if claim.kind in ("population sd", "population sem", "2 population sem", "unknown", None):
        sd *= math.sqrt(n / (n - 1))
    if claim.kind not in ("sd", "population sd"):
        sd *= math.sqrt(n)
    if claim.kind == "95% interval":
        sd /= _t_quantile(n - 1, 0.975)
    if claim.kind == "1.96 sem":
        sd /= 1.96
    if claim.kind == "2 population sem":
        sd /= 2
    return Sample(claim.mean, sd, n)


def rounding(claim: Claim) -> Variance:
    """The variance of the rounding error of a printed mean: u^2 / 12 for a last digit of u."""
    unit = 0.0 if claim.decimals is None else 10.0**-claim.decimals
    return Variance(unit**2 / 12, math.inf)


def supports_equivalence(claim: Claim) -> bool:
    """True where the kind of the published ± is known: without it, agreement cannot be claimed."""
    return claim.kind not in (None, "unknown")


# --------------------------------------------------------------------------------------------------------------
# Two samples


@dataclass(frozen=True)
class Difference:
    """Our mean minus theirs, with the standard error and the degrees of freedom of Welch and Satterthwaite."""

    value: float
    error: float
    df: float

    def interval(self, confidence: float = 1 - ALPHA) -> tuple[float, float]:
        if self.error == 0:
            return self.value, self.value
        half = _t_quantile(self.df, (1 + confidence) / 2) * self.error
        return self.value - half, self.value + half


def combined(parts: Sequence[Variance]) -> Variance:
    """The sum of independent variances, with the degrees of freedom of Welch and Satterthwaite (1946)."""
    total = sum(part.value for part in parts)
    known = sum(part.value**2 / part.df for part in parts)
    return Variance(total, total**2 / known if known else math.inf)


def welch(ours: Sample, theirs: Sample, others: Sequence[Variance] = ()) -> Difference:
    """The difference of two means with unequal variances. Where every variance is zero its error is zero.

    Args:
        others: further parts of the variance: the rounding of the printed number, the draw of the stream.
    """
    parts = [
        Variance(ours.variance_of_mean, ours.n - 1),
        Variance(theirs.variance_of_mean, theirs.n - 1),
        *others,
    ]
    total = combined(parts)
    return Difference(ours.mean - theirs.mean, math.sqrt(total.value), total.df)


def p_difference(d: Difference) -> float:
    """Two-sided p of 'the means are equal'."""
    if d.error == 0:
        return 1.0 if d.value == 0 else 0.0
    return 2 * _t_below(d.df, -abs(d.value) / d.error)


def p_equivalence(d: Difference, margin: float) -> float:
    """p of 'the means are at least ``margin`` apart': the larger of the two one-sided tests."""
    if d.error == 0:
        return 0.0 if abs(d.value) < margin else 1.0
    return _t_below(d.df, (abs(d.value) - margin) / d.error)


def holm(p_values: Sequence[float], family: int | None = None) -> list[float]:
    """Holm's adjusted p values, in the order given.

    Args:
        p_values: the tests that were made.
        family: the number of tests in the family, with those not made yet; these count as undecided.
    """
    family = max(family or 0, len(p_values))
    adjusted, highest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (family - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


# --------------------------------------------------------------------------------------------------------------
# How many runs would decide


def power(
    ours: Sample,
    theirs: Sample,
    n: int,
    aim: Aim,
    margin: float = math.nan,
    alpha: float = ALPHA,
    others: Sequence[Variance] = (),
) -> float:
    """The chance that ``n`` runs of ours decide against the published number as it stands.

    The published mean and spread are given and will not be drawn again; our new runs are taken to have the mean and the
    standard deviation of ``ours``, on the stream that we have. The sample spread they will show is averaged over its
    chi-square distribution.

    Args:
        aim: ``equivalence`` to lie within the margin, ``difference`` to differ from zero.
        alpha: level of the one test, correction included.
        others: as for ``welch``.
    """
    return float(_powers(ours, theirs, np.array([n]), aim, margin, alpha, others)[0])


def _powers(
    ours: Sample,
    theirs: Sample,
    n: NDArray[np.int64],
    aim: Aim,
    margin: float,
    alpha: float,
    others: Sequence[Variance],
) -> NDArray[np.float64]:
    """``power`` for many numbers of runs at once, [n]."""
    from scipy import special

    fixed = [Variance(theirs.variance_of_mean, theirs.n - 1), *others]
    rest, known = sum(part.value for part in fixed), sum(part.value**2 / part.df for part in fixed)
    a = (
        ours.sd**2 * _spreads(tuple(n.tolist())) / n[:, None]
    )  # [n, quantiles]: the variance of our mean, as it may show
    delta = ours.mean - theirs.mean
    if ours.sd == 0 and rest == 0:
        decided = abs(delta) < margin if aim == "equivalence" else abs(delta) > 0
        return np.full(len(n), float(decided))
    below = a**2 / (n[:, None] - 1) + known
    # stdtrit takes no infinite degrees of freedom; with so many it is the normal distribution to all digits.
    df = np.minimum((a + rest) ** 2 / np.maximum(below, 1e-300), 1e9)
    error = np.sqrt(a + rest)
    noise = np.maximum(ours.sd / np.sqrt(n), 1e-300)[:, None]
    if aim == "difference":
        reach = special.stdtrit(df, 1 - alpha / 2) * error
        chance = special.ndtr((delta - reach) / noise) + special.ndtr((-reach - delta) / noise)
    else:
        room = margin - special.stdtrit(df, 1 - alpha) * error
        chance = special.ndtr((room - delta) / noise) - special.ndtr((-room - delta) / noise)
    return np.clip(chance, 0, 1).mean(axis=1)


@functools.lru_cache(maxsize=64)
def _spreads(n: tuple[int, ...]) -> NDArray[np.float64]:
    """64 equally likely ratios of a sample's variance to the true one, for each number of runs: [n, 64]."""
    from scipy import special

    quantiles = (np.arange(64) + 0.5) / 64
    df = np.array(n)[:, None] - 1
    return 2 * special.gammaincinv(df / 2, quantiles) / df


def runs_to_decide(
    ours: Sample,
    theirs: Sample,
    aim: Aim,
    margin: float = math.nan,
    alpha: float = ALPHA,
    others: Sequence[Variance] = (),
    more_than: int = 1,
) -> int | None:
    """The fewest runs of ours that reach ``POWER``; None where no number up to ``MOST_RUNS`` does.

    Every number is tried: under Welch's test the power need not grow with the number of runs, because with more runs
    of ours the degrees of freedom fall to those of the published sample.

    Args:
        more_than: only numbers above this one are tried.
    """
    return _runs_to_decide(ours, theirs, aim, margin, alpha, tuple(others), more_than)


@functools.lru_cache(maxsize=4096)  # a page and its table ask the same, and it takes most of their time
def _runs_to_decide(
    ours: Sample, theirs: Sample, aim: Aim, margin: float, alpha: float, others: tuple[Variance, ...], more_than: int
) -> int | None:
    counts = np.arange(max(more_than, 1) + 1, MOST_RUNS + 1)
    for chunk in (counts[counts <= 40], counts[(counts > 40) & (counts <= 200)], counts[counts > 200]):
        if not len(chunk):
            continue
        enough = _powers(ours, theirs, chunk, aim, margin, alpha, others) >= POWER
        if enough.any():
            return int(chunk[np.argmax(enough)])
    return None


def prediction_half_width(theirs: Sample, n: int, others: Sequence[Variance] = (), chance: float = PREDICTION) -> float:
    """Half the width of the interval around the published mean for a mean of ``n`` runs like the published ones.

    With the published standard deviation s over n' runs it is t sqrt(s^2 / n' + s^2 / n + others), where t is the
    quantile of Student's distribution with the degrees of freedom of the published sample, combined with those of
    ``others`` as Satterthwaite does (Hahn & Meeker 1991, section 4.8). Our own spread has no part in it.
    """
    parts = [Variance(theirs.sd**2 * (1 / theirs.n + 1 / n), theirs.n - 1), *others]
    total = combined(parts)
    return _t_quantile(total.df, (1 + chance) / 2) * math.sqrt(total.value)


# --------------------------------------------------------------------------------------------------------------
# A table's cells


@dataclass(frozen=True)
class CellInput:
    """The numbers of one cell that its verdict is computed from.

    Attributes:
        ours: the sample of our runs; None without any run.
        claim: the published number, with its defaults filled in; None where nothing was published.
        margin: the equivalence margin; None where none was declared.
        blocked_reason: the reason why the cell must not be judged, whatever its numbers; empty where it may be.
        stream: the part of the difference's variance that comes from the draw of the stream; None where not measured.
        family: the name of the family of tests that are corrected together.
    """

    ours: Sample | None
    claim: Claim | None
    margin: float | None = None
    blocked_reason: str = ""
    stream: Variance | None = None
    family: str = ""

    @property
    def others(self) -> list[Variance]:
        """The parts of the difference's variance other than those of the two means."""
        assert self.claim is not None
        return [rounding(self.claim), *([self.stream] if self.stream else [])]


@dataclass(frozen=True)
class Judgement:
    """The verdict on a cell.

    Attributes:
        outcome: ``reproduced``: equivalent within the margin, even if a tiny difference is significant. ``differs``:
            different, and not equivalent. ``consistent``: inside the prediction interval of the published runs, and
            not even ``MOST_RUNS`` runs of ours would decide. ``inconclusive``: neither shown, and more runs of ours
            would decide, or we lie outside that interval. ``not judged``.
        reason: the reason as text, for the reader of a table.
        dagger: True where the published number was not read in the paper: the outcome judges the number as we have it.
        difference: our mean minus theirs; None without two numbers to compare.
        interval: its 95% interval, not corrected.
        p_difference, p_equivalence: corrected for the family; None where the test was not made.
        aim: the finding that more runs of ours could show in an inconclusive cell.
        runs: the total number of our runs that shows it with a chance of ``POWER``; None where not even
            ``MOST_RUNS`` do.
        prediction: half the width of the published runs' prediction interval; None where more runs could decide.
    """

    outcome: Outcome
    reason: str = ""
    dagger: bool = False
    difference: float | None = None
    interval: tuple[float, float] | None = None
    p_difference: float | None = None
    p_equivalence: float | None = None
    aim: Aim | None = None
    runs: int | None = None
    prediction: float | None = None


def judge(cells: Sequence[CellInput], alpha: float = ALPHA) -> list[Judgement]:
    """Judge the cells of one table together.

    A family's size is the number of its claims that can be tested at all, whether or not we have run them, so that a
    cell is judged no more mildly because the others are missing.
    """
    families: dict[str, list[int]] = defaultdict(list)
    for i, cell in enumerate(cells):
        families[cell.family].append(i)
    judged: dict[int, Judgement] = {}
    for members in families.values():
        found = _judge_family([cells[i] for i in members], alpha)
        judged |= dict(zip(members, found, strict=True))
    return [judged[i] for i in range(len(cells))]


def _judge_family(cells: Sequence[CellInput], alpha: float) -> list[Judgement]:
    pairs = [_pair(cell) for cell in cells]
    gaps = {i: welch(*pair, cells[i].others) for i, pair in enumerate(pairs) if pair is not None}
    margins = {i: margin for i in gaps if (margin := _margin(cells[i])) is not None}
    testable = [cell for cell in cells if cell.claim is not None and published(cell.claim) is not None]
    differing = Family({i: p_difference(gap) for i, gap in gaps.items()}, len(testable), alpha)
    equal = Family(
        {i: p_equivalence(gaps[i], margin) for i, margin in margins.items()},
        sum(_margin(cell) is not None for cell in testable),
        alpha,
    )
    return [
        _decide(cell, pair, gaps[i], _Tests.of(i, differing, equal), alpha) if pair is not None else _unjudged(cell)
        for i, (cell, pair) in enumerate(zip(cells, pairs, strict=True))
    ]


class Family:
    """Tests that are corrected together, and the level at which Holm's method would test the next undecided one."""

    def __init__(self, p_values: dict[int, float], size: int, alpha: float) -> None:
        self.p = dict(zip(p_values, holm(list(p_values.values()), size), strict=True))
        decided = sum(p < alpha for p in self.p.values())
        self.next_level = alpha / max(1, size - decided)


@dataclass(frozen=True)
class _Tests:
    """The corrected p values of one cell, and the levels at which further runs would be tested."""

    p_difference: float
    p_equivalence: float | None
    level_difference: float
    level_equivalence: float

    @classmethod
    def of(cls, cell: int, differing: Family, equal: Family) -> _Tests:
        return cls(differing.p[cell], equal.p.get(cell), differing.next_level, equal.next_level)


def _margin(cell: CellInput) -> float | None:
    return cell.margin if cell.claim is not None and supports_equivalence(cell.claim) else None


def _pair(cell: CellInput) -> tuple[Sample, Sample] | None:
    """Our sample and the published one; None where the cell cannot be tested."""
    if cell.blocked_reason or cell.ours is None or cell.ours.n < 2 or cell.claim is None:
        return None
    theirs = published(cell.claim)
    return None if theirs is None else (cell.ours, theirs)


def _dagger(cell: CellInput) -> bool:
    return cell.claim is not None and cell.claim.known != "paper"


def _unjudged(cell: CellInput) -> Judgement:
    if cell.claim is None:
        return Judgement("not judged", "no published number")
    if cell.ours is None or cell.ours.n == 0:
        return Judgement("not judged", "no run of ours", _dagger(cell))
    if cell.blocked_reason:
        return Judgement("not judged", cell.blocked_reason, _dagger(cell))
    difference = cell.ours.mean - cell.claim.mean
    if cell.ours.n < 2:
        return Judgement("not judged", "one run of ours has no spread", _dagger(cell), difference)
    if cell.claim.spread is not None:
        return Judgement("not judged", "the published ± stands for one run", _dagger(cell), difference)
    return Judgement("not judged", "no published spread", _dagger(cell), difference)


def _decide(cell: CellInput, pair: tuple[Sample, Sample], gap: Difference, tests: _Tests, alpha: float) -> Judgement:
    margin, p_equal = _margin(cell), tests.p_equivalence
    judged = Judgement("inconclusive", "", _dagger(cell), gap.value, gap.interval(), tests.p_difference, p_equal)
    if margin is not None and p_equal is not None and p_equal < alpha:
        return replace(judged, outcome="reproduced", reason=f"within ±{margin:g}, {_p(p_equal)}")
    if tests.p_difference < alpha:
        return replace(judged, outcome="differs", reason=_p(tests.p_difference))
    ours, theirs = pair
    levels: dict[Aim, float] = {"difference": tests.level_difference}
    if margin is not None and abs(gap.value) < margin:
        levels = {"equivalence": tests.level_equivalence, **levels}
    known_margin = math.nan if margin is None else margin
    for aim, level in levels.items():
        runs = runs_to_decide(ours, theirs, aim, known_margin, level, cell.others, more_than=ours.n)
        if runs is not None:
            what = f"about {runs} runs in total ({runs - ours.n} more) give {POWER:.0%} power to show "
            reason = _no_equivalence(cell) + what + ("equivalence" if aim == "equivalence" else "a difference")
            return replace(judged, reason=reason, aim=aim, runs=runs)
    half = prediction_half_width(theirs, ours.n, cell.others)
    judged = replace(judged, prediction=half)
    inside = abs(gap.value) <= half
    if inside and cell.claim is not None and supports_equivalence(cell.claim):
        return replace(judged, outcome="consistent", reason=f"{INSIDE} (±{half:.2f}); {NO_NUMBER}")
    where = f"inside the widest reading of their ± (±{half:.2f})" if inside else f"{OUTSIDE} (±{half:.2f})"
    return replace(judged, reason=f"{_no_equivalence(cell)}{where}; {NO_NUMBER}")


INSIDE = "inside the 95% prediction interval of their runs"
OUTSIDE = "outside the 95% prediction interval of their runs"
NO_NUMBER = f"not even {MOST_RUNS:,} runs of ours would decide"


def _no_equivalence(cell: CellInput) -> str:
    if cell.margin is None:
        return "no margin is declared, so none can agree; "
    return "" if _margin(cell) is not None else "a ± of unknown kind cannot show agreement; "


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
