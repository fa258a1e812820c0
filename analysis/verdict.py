"""Our runs against a published number: is the difference zero, is it negligible, and how many runs would tell?

Pure functions. Means, spreads and margins are in the metric's own unit, which is per cent for the tables. Two tests
are made of each cell, both with Welch's unequal variances (Welch 1947): of no difference, and of a difference as large
as the margin (two one-sided tests, Schuirmann 1987). Each family of tests is corrected for the claims of its table by
Holm's step-down method (Holm 1979).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from clray.spec import Claim

ALPHA = 0.05
"""Level of both families of tests, after correction."""
POWER = 0.80
"""Chance of a decision that ``runs_to_decide`` asks for."""
MOST_RUNS = 1000
"""Where ``runs_to_decide`` stops counting."""

Outcome = Literal["reproduced", "differs", "inconclusive", "not judged"]
OUTCOMES: tuple[Outcome, ...] = ("reproduced", "differs", "inconclusive", "not judged")
Aim = Literal["equivalence", "difference"]


@dataclass(frozen=True)
class Sample:
    """What a set of runs comes down to: its mean, its standard deviation (n - 1), and its size."""

    mean: float
    sd: float
    n: int

    @property
    def variance_of_mean(self) -> float:
        return self.sd**2 / self.n


def sample(values: ArrayLike) -> Sample:
    """The sample of ``values`` [n]; the standard deviation of a single value is NaN."""
    values = np.asarray(values, dtype=float)
    sd = float(values.std(ddof=1)) if values.size > 1 else math.nan
    return Sample(float(values.mean()) if values.size else math.nan, sd, values.size)


def interval(ours: Sample, confidence: float = 1 - ALPHA) -> tuple[float, float] | None:
    """The t interval of the mean; None for fewer than two runs."""
    if ours.n < 2:
        return None
    from scipy import stats

    half = stats.t.ppf((1 + confidence) / 2, ours.n - 1) * math.sqrt(ours.variance_of_mean)
    return ours.mean - half, ours.mean + half


def published(claim: Claim) -> Sample | None:
    """The claim as a sample: its ± turned into a standard deviation (n - 1).

    A population standard deviation divides by n, so it is multiplied by sqrt(n / (n - 1)). A ± of unknown kind is read
    as a standard error, which among the kinds gives the widest standard deviation: enough to say that two numbers
    differ, never that they agree (``supports_equivalence``).

    Returns:
        None where no spread was published, or it stands for a single run.
    """
    if claim.spread is None or claim.runs is None or claim.runs < 2:
        return None
    if claim.kind == "sd":
        return Sample(claim.mean, claim.spread, claim.runs)
    if claim.kind == "population sd":
        return Sample(claim.mean, claim.spread * math.sqrt(claim.runs / (claim.runs - 1)), claim.runs)
    sd = claim.spread * math.sqrt(claim.runs)
    if claim.kind == "95% interval":
        from scipy import stats

        sd /= float(stats.t.ppf(0.975, claim.runs - 1))
    return Sample(claim.mean, sd, claim.runs)


def supports_equivalence(claim: Claim) -> bool:
    """Whether the kind of the published ± is known: without it, equivalence cannot be claimed."""
    return claim.kind not in (None, "unknown")


# --------------------------------------------------------------------------------------------------------------
# Two samples


@dataclass(frozen=True)
class Difference:
    """Ours less theirs, with the standard error and the degrees of freedom of Welch and Satterthwaite."""

    value: float
    error: float
    df: float

    def interval(self, confidence: float = 1 - ALPHA) -> tuple[float, float]:
        if self.error == 0:
            return self.value, self.value
        from scipy import stats

        half = float(stats.t.ppf((1 + confidence) / 2, self.df)) * self.error
        return self.value - half, self.value + half


def welch(ours: Sample, theirs: Sample) -> Difference:
    """The difference of two means with unequal variances. Where both spreads are zero its error is zero."""
    a, b = ours.variance_of_mean, theirs.variance_of_mean
    df = (a + b) ** 2 / (a**2 / (ours.n - 1) + b**2 / (theirs.n - 1)) if a + b else math.inf
    return Difference(ours.mean - theirs.mean, math.sqrt(a + b), df)


def p_difference(d: Difference) -> float:
    """Two-sided p of 'the means are equal'."""
    if d.error == 0:
        return 1.0 if d.value == 0 else 0.0
    from scipy import stats

    return float(2 * stats.t.sf(abs(d.value) / d.error, d.df))


def p_equivalence(d: Difference, margin: float) -> float:
    """p of 'the means are at least ``margin`` apart': the larger of the two one-sided tests."""
    if d.error == 0:
        return 0.0 if abs(d.value) < margin else 1.0
    from scipy import stats

    return float(stats.t.sf((margin - abs(d.value)) / d.error, d.df))


def holm(p_values: Sequence[float], family: int | None = None) -> list[float]:
    """Holm's adjusted p values, in the order given.

    Args:
        p_values: the tests that were made.
        family: how many tests the family has, those not made yet included; they count as undecided.
    """
    family = max(family or 0, len(p_values))
    adjusted, highest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (family - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


# --------------------------------------------------------------------------------------------------------------
# How many runs would decide


def power(ours: Sample, theirs: Sample, n: int, aim: Aim, margin: float = math.nan, alpha: float = ALPHA) -> float:
    """The chance that ``n`` runs of ours decide against the published number as it stands.

    The published mean and spread are given and will not be drawn again; our new runs are taken to have the mean and the
    standard deviation of ``ours``. The sample spread they will show is averaged over its chi-square distribution.

    Args:
        aim: ``equivalence`` to lie within the margin, ``difference`` to differ from zero.
        alpha: level of the one test, correction included.
    """
    from scipy import stats

    quantiles = (np.arange(64) + 0.5) / 64
    a = ours.sd**2 * stats.chi2.ppf(quantiles, n - 1) / (n - 1) / n
    b = theirs.variance_of_mean
    if ours.sd == 0 and b == 0:
        delta = abs(ours.mean - theirs.mean)
        return float(delta < margin if aim == "equivalence" else delta > 0)
    df = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (theirs.n - 1))
    error, delta = np.sqrt(a + b), ours.mean - theirs.mean
    noise = max(ours.sd / math.sqrt(n), 1e-300)
    if aim == "difference":
        reach = stats.t.ppf(1 - alpha / 2, df) * error
        chance = stats.norm.sf((reach - delta) / noise) + stats.norm.cdf((-reach - delta) / noise)
    else:
        room = margin - stats.t.ppf(1 - alpha, df) * error
        chance = stats.norm.cdf((room - delta) / noise) - stats.norm.cdf((-room - delta) / noise)
    return float(np.mean(np.clip(chance, 0, 1)))


def runs_to_decide(
    ours: Sample, theirs: Sample, aim: Aim, margin: float = math.nan, alpha: float = ALPHA
) -> int | None:
    """The fewest runs of ours that reach ``POWER``; None where no number up to ``MOST_RUNS`` does."""
    if power(ours, theirs, MOST_RUNS, aim, margin, alpha) < POWER:
        return None
    low, high = 1, MOST_RUNS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(ours, theirs, middle, aim, margin, alpha) >= POWER else (middle, high)
    return high


def published_limit(theirs: Sample, aim: Aim, alpha: float = ALPHA) -> float:
    """What the published number alone leaves open, however many runs we add: t times its standard error."""
    from scipy import stats

    return float(stats.t.ppf(1 - (alpha / 2 if aim == "difference" else alpha), theirs.n - 1)) * math.sqrt(
        theirs.variance_of_mean
    )


# --------------------------------------------------------------------------------------------------------------
# A table's cells


@dataclass(frozen=True)
class Question:
    """One cell to judge.

    Attributes:
        ours: our runs; None without any.
        claim: what was published, with its defaults filled in.
        margin: the difference below which the two count as the same; None where none was declared.
        barred: why this cell cannot be judged whatever its numbers; empty where it can.
    """

    ours: Sample | None
    claim: Claim | None
    margin: float | None = None
    barred: str = ""


@dataclass(frozen=True)
class Judgement:
    """What a cell's numbers allow to say.

    Attributes:
        outcome: ``reproduced`` (equivalent within the margin, even if a tiny difference is significant), ``differs``,
            ``inconclusive`` or ``not judged``.
        reason: in words, for the reader of a table.
        dagger: the claim was not read in the paper: the outcome judges the number as we have it.
        difference: ours less theirs, None without two numbers to compare.
        interval: its 95% Welch interval, not corrected.
        p_difference, p_equivalence: corrected for the table; None where the test was not made.
        aim: what more runs of ours would have to show in an inconclusive cell.
        runs: how many runs of ours would, all told, with a chance of 80%; None where no number does.
        limit: what the published runs alone leave open, where that is why no number of ours decides.
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
    limit: float | None = None


def judge(questions: Sequence[Question], alpha: float = ALPHA) -> list[Judgement]:
    """Judge the cells of one table together.

    The families are all claims of the table that can be tested at all, whether or not we have run them, so that a cell
    is judged no more mildly because the others are missing.
    """
    pairs = [_pair(q) for q in questions]
    gaps = {i: welch(*pair) for i, pair in enumerate(pairs) if pair is not None}
    margins = {i: margin for i in gaps if (margin := _margin(questions[i])) is not None}
    testable = [q for q in questions if q.claim is not None and published(q.claim) is not None]
    differing = _Family({i: p_difference(gap) for i, gap in gaps.items()}, len(testable), alpha)
    equal = _Family(
        {i: p_equivalence(gaps[i], margin) for i, margin in margins.items()},
        sum(_margin(q) is not None for q in testable),
        alpha,
    )
    return [
        _decide(q, pair, gaps[i], _Tests.of(i, differing, equal), alpha) if pair is not None else _unjudged(q)
        for i, (q, pair) in enumerate(zip(questions, pairs, strict=True))
    ]


class _Family:
    """Tests corrected together, by cell, and the level at which Holm's method would test the next undecided one."""

    def __init__(self, p_values: dict[int, float], size: int, alpha: float) -> None:
        self.p = dict(zip(p_values, holm(list(p_values.values()), size), strict=True))
        decided = sum(p < alpha for p in self.p.values())
        self.next_level = alpha / max(1, size - decided)


@dataclass(frozen=True)
class _Tests:
    """One cell's corrected p values, and the levels at which it would have to be decided."""

    p_difference: float
    p_equivalence: float | None
    level_difference: float
    level_equivalence: float

    @classmethod
    def of(cls, cell: int, differing: _Family, equal: _Family) -> _Tests:
        return cls(differing.p[cell], equal.p.get(cell), differing.next_level, equal.next_level)


def _margin(q: Question) -> float | None:
    return q.margin if q.claim is not None and supports_equivalence(q.claim) else None


def _pair(q: Question) -> tuple[Sample, Sample] | None:
    """Both samples, where the cell can be tested."""
    if q.barred or q.ours is None or q.ours.n < 2 or q.claim is None:
        return None
    theirs = published(q.claim)
    return None if theirs is None else (q.ours, theirs)


def _dagger(q: Question) -> bool:
    return q.claim is not None and q.claim.known != "paper"


def _unjudged(q: Question) -> Judgement:
    if q.claim is None:
        return Judgement("not judged", "no published number")
    if q.ours is None or q.ours.n == 0:
        return Judgement("not judged", "no run of ours", _dagger(q))
    if q.barred:
        return Judgement("not judged", q.barred, _dagger(q))
    difference = q.ours.mean - q.claim.mean
    if q.ours.n < 2:
        return Judgement("not judged", "one run of ours has no spread", _dagger(q), difference)
    if q.claim.spread is not None:
        return Judgement("not judged", "the published ± stands for one run", _dagger(q), difference)
    return Judgement("not judged", "no published spread", _dagger(q), difference)


def _decide(q: Question, pair: tuple[Sample, Sample], gap: Difference, tests: _Tests, alpha: float) -> Judgement:
    margin, p_equal = _margin(q), tests.p_equivalence
    judged = Judgement("inconclusive", "", _dagger(q), gap.value, gap.interval(), tests.p_difference, p_equal)
    if margin is not None and p_equal is not None and p_equal < alpha:
        return replace(judged, outcome="reproduced", reason=f"within ±{margin:g}, {_p(p_equal)}")
    if tests.p_difference < alpha:
        return replace(judged, outcome="differs", reason=_p(tests.p_difference))
    levels: dict[Aim, float] = {"difference": tests.level_difference}
    if margin is not None and abs(gap.value) < margin:
        levels = {"equivalence": tests.level_equivalence, **levels}
    known_margin = math.nan if margin is None else margin
    for aim, level in levels.items():
        runs = runs_to_decide(*pair, aim, known_margin, level)
        if runs is not None:
            reason = f"{runs} runs of ours would show that they {'agree' if aim == 'equivalence' else 'differ'}"
            return replace(judged, reason=_no_equivalence(q) + reason, aim=aim, runs=runs)
    aim, level = next(iter(levels.items()))
    limit = published_limit(pair[1], aim, level)
    if limit < (abs(gap.value) if aim == "difference" else known_margin - abs(gap.value)):
        reason = f"more than {MOST_RUNS} runs of ours would be needed"
        return replace(judged, reason=_no_equivalence(q) + reason, aim=aim)
    reason = f"undecidable: their {pair[1].n} runs leave ±{limit:.2f} open"
    return replace(judged, reason=_no_equivalence(q) + reason, aim=aim, limit=limit)


def _no_equivalence(q: Question) -> str:
    if q.margin is None:
        return "no margin is declared, so none can agree; "
    return "" if _margin(q) is not None else "a ± of unknown kind cannot show agreement; "


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
