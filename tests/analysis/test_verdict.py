"""The statistics against scipy, hand computation and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from clray.analysis.verdict import (
    ALPHA,
    MOST_RUNS,
    POWER,
    Question,
    Sample,
    holm,
    interval,
    judge,
    p_difference,
    p_equivalence,
    power,
    published,
    published_limit,
    runs_to_decide,
    sample,
    welch,
)
from clray.spec import Claim


def claim(mean=80.0, spread=0.5, kind="sd", runs=5, known="paper", **more) -> Claim:
    return Claim(mean=mean, spread=spread, kind=kind, runs=runs, known=known, **more)


def verdict(ours: Sample | None, claimed: Claim | None, margin: float | None = 1.0, barred: str = ""):
    return judge([Question(ours, claimed, margin, barred)])[0]


PAIRS = [
    (Sample(81.0, 0.4, 5), Sample(80.0, 0.9, 5)),
    (Sample(52.3, 2.1, 3), Sample(53.38, 1.53, 5)),
    (Sample(-20.1, 0.2, 12), Sample(-20.42, 1.6, 5)),
]


def test_a_sample_is_mean_sd_with_n_minus_1_and_n():
    assert sample([1.0, 2.0, 4.0]) == Sample(pytest.approx(7 / 3), pytest.approx(math.sqrt(7 / 3)), 3)
    assert math.isnan(sample([3.0]).sd)
    assert sample([]).n == 0


def test_the_t_interval_is_scipys():
    values = [88.1, 87.9, 88.6, 88.2]
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert interval(sample(values)) == pytest.approx(expected)
    assert interval(Sample(1.0, math.nan, 1)) is None


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_welch_is_scipys(ours, theirs):
    expected = stats.ttest_ind_from_stats(ours.mean, ours.sd, ours.n, theirs.mean, theirs.sd, theirs.n, equal_var=False)
    gap = welch(ours, theirs)
    assert gap.value / gap.error == pytest.approx(expected.statistic)
    assert p_difference(gap) == pytest.approx(expected.pvalue)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_welchs_interval_is_that_of_a_two_sample_test(ours, theirs):
    rng = np.random.default_rng(0)

    def draw(s):  # a sample with exactly this mean and sd
        x = rng.normal(size=s.n)
        return (x - x.mean()) / x.std(ddof=1) * s.sd + s.mean

    expected = stats.ttest_ind(draw(ours), draw(theirs), equal_var=False).confidence_interval(0.95)
    assert welch(ours, theirs).interval() == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("margin", [0.5, 1.0, 2.0, 4.0])
def test_equivalence_is_the_90_percent_interval_within_the_margin(ours, theirs, margin):
    gap = welch(ours, theirs)
    low, high = gap.interval(0.90)
    assert (p_equivalence(gap, margin) < 0.05) == (-margin < low and high < margin)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_the_p_of_equivalence_is_the_larger_one_sided_one(ours, theirs):
    def one_sided(shift, side):
        s = ours.mean + shift, ours.sd, ours.n
        return stats.ttest_ind_from_stats(
            *s, theirs.mean, theirs.sd, theirs.n, equal_var=False, alternative=side
        ).pvalue

    expected = max(one_sided(1.5, "greater"), one_sided(-1.5, "less"))
    assert p_equivalence(welch(ours, theirs), 1.5) == pytest.approx(expected)


def test_a_population_sd_is_that_of_the_runs_themselves():
    values = np.array([51.5, 54.2, 49.1, 56.8, 46.9])
    claimed = claim(mean=values.mean(), spread=values.std(), kind="population sd")
    assert published(claimed) == Sample(pytest.approx(values.mean()), pytest.approx(values.std(ddof=1)), 5)
    assert verdict(sample(values), claimed, margin=20.0).outcome == "reproduced"  # the kind is known


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_counts_the_tests_that_were_not_made():
    # ten in the family, three made: 10 x 0.001, 9 x 0.01, 8 x 0.02
    assert holm([0.02, 0.001, 0.01], family=10) == pytest.approx([0.16, 0.01, 0.09])


@pytest.mark.parametrize(
    ("kind", "spread", "sd"),
    [
        ("sd", 0.5, 0.5),
        # five runs: the sum of squares over 5 becomes that over 4
        ("population sd", 0.4, 0.4 * math.sqrt(5 / 4)),
        ("sem", 0.5, 0.5 * math.sqrt(5)),
        # half-width of an interval of five runs: t(4) = 2.776 standard errors
        ("95% interval", 2.776445, math.sqrt(5)),
        ("unknown", 0.5, 0.5 * math.sqrt(5)),
    ],
)
def test_kinds_of_spread(kind, spread, sd):
    assert published(claim(spread=spread, kind=kind)).sd == pytest.approx(sd, rel=1e-6)


@pytest.mark.parametrize("broken", [{"spread": None}, {"runs": 1}, {"runs": None}])
def test_a_claim_without_spread_is_no_sample(broken):
    assert published(claim(**broken)) is None


# -- verdicts ------------------------------------------------------------------------------------------------------


def test_reproduced():
    judged = verdict(Sample(80.1, 0.3, 5), claim(spread=0.3))
    assert (judged.outcome, judged.dagger) == ("reproduced", False)
    assert judged.difference == pytest.approx(0.1)


def test_reproduced_though_a_tiny_difference_is_significant():
    judged = verdict(Sample(80.2, 0.02, 5), claim(spread=0.02))
    assert judged.p_difference < 0.001
    assert judged.outcome == "reproduced"


def test_differs():
    judged = verdict(Sample(75.0, 0.5, 5), claim())
    assert judged.outcome == "differs"
    assert judged.interval[1] < 0


def test_a_significant_difference_is_no_reproduction_where_the_margin_is_missing():
    assert verdict(Sample(80.01, 0.3, 5), claim(spread=0.3), margin=None).outcome == "inconclusive"


def test_a_spread_of_unknown_kind_may_differ_but_never_agrees():
    near, far = Sample(80.0, 0.01, 50), Sample(70.0, 0.5, 5)
    judged = verdict(near, claim(kind="unknown", spread=0.01))
    assert judged.outcome == "inconclusive"
    assert "unknown kind" in judged.reason
    assert judged.p_equivalence is None
    assert verdict(far, claim(kind="unknown")).outcome == "differs"


@pytest.mark.parametrize(
    ("ours", "claimed", "barred", "reason"),
    [
        (Sample(80, 1, 5), None, "", "no published number"),
        (None, claim(), "", "no run of ours"),
        (Sample(math.nan, math.nan, 0), claim(), "", "no run of ours"),
        (Sample(80, math.nan, 1), claim(), "", "one run of ours has no spread"),
        (Sample(80, 1, 5), claim(spread=None), "", "no published spread"),
        (Sample(80, 1, 5), claim(runs=1), "", "the published ± stands for one run"),
        (Sample(80, 1, 5), claim(), "--quick", "--quick"),
    ],
)
def test_not_judged(ours, claimed, barred, reason):
    judged = verdict(ours, claimed, barred=barred)
    assert (judged.outcome, judged.reason) == ("not judged", reason)
    assert judged.p_difference is None


@pytest.mark.parametrize("known", ["authors", "second-hand", "recalled", None])
def test_a_number_nobody_read_in_the_paper_has_a_dagger(known):
    assert verdict(Sample(80, 0.3, 5), claim(known=known)).dagger
    assert verdict(None, claim(known=known)).dagger


def test_two_spreads_of_zero_do_not_divide_by_zero():
    zero = claim(mean=0.0, spread=0.0)
    assert verdict(Sample(0.0, 0.0, 5), zero).outcome == "reproduced"
    assert verdict(Sample(3.0, 0.0, 5), zero).outcome == "differs"
    assert verdict(Sample(0.0, 0.0, 5), None).outcome == "not judged"
    assert verdict(Sample(0.0, 0.0, 5), claim(mean=0.2, spread=0.1)).outcome == "reproduced"


def test_more_claims_in_the_table_make_a_cell_harder_to_decide():
    cell = Question(Sample(81.0, 0.5, 5), claim(spread=0.5), None)
    alone = judge([cell])[0]
    among = judge([cell] + [Question(None, claim(), None)] * 19)[0]
    assert alone.outcome == "differs"
    assert among.outcome == "inconclusive"
    assert among.p_difference == pytest.approx(20 * alone.p_difference)


def test_claims_that_cannot_be_tested_do_not_count():
    cell = Question(Sample(81.0, 0.5, 5), claim(spread=0.5), None)
    untestable = [Question(Sample(80, 1, 5), claim(spread=None), 1.0), Question(Sample(80, 1, 5), None, 1.0)]
    assert judge([cell, *untestable])[0].p_difference == pytest.approx(judge([cell])[0].p_difference)


# -- how many runs -------------------------------------------------------------------------------------------------


def simulated(ours: Sample, theirs: Sample, n: int, aim: str, margin: float, alpha: float) -> float:
    """The share of 20,000 new samples of ours for which the test against the fixed published number decides."""
    draws = np.random.default_rng(1).normal(ours.mean, ours.sd, size=(20_000, n))
    a, b = draws.var(axis=1, ddof=1) / n, theirs.sd**2 / theirs.n
    df = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (theirs.n - 1))
    gap, error = draws.mean(axis=1) - theirs.mean, np.sqrt(a + b)
    if aim == "difference":
        return float(np.mean(2 * stats.t.sf(np.abs(gap) / error, df) < alpha))
    return float(np.mean(stats.t.sf((margin - np.abs(gap)) / error, df) < alpha))


@pytest.mark.parametrize(
    ("ours", "theirs", "aim", "margin", "alpha"),
    [
        (Sample(80.3, 0.8, 5), Sample(80, 0.3, 5), "equivalence", 1.0, 0.05),
        (Sample(80.0, 1.5, 5), Sample(80, 0.2, 5), "equivalence", 1.0, 0.01),
        (Sample(81.0, 1.2, 5), Sample(80, 0.4, 5), "difference", math.nan, 0.05),
    ],
)
def test_the_number_of_runs_reaches_the_power_and_one_less_hardly(ours, theirs, aim, margin, alpha):
    n = runs_to_decide(ours, theirs, aim, margin, alpha)
    assert n is not None
    assert simulated(ours, theirs, n, aim, margin, alpha) == pytest.approx(POWER, abs=0.05)
    assert simulated(ours, theirs, max(2, n // 2), aim, margin, alpha) < POWER - 0.05
    for runs in (3, n, 2 * n):
        said = power(ours, theirs, runs, aim, margin, alpha)
        assert said == pytest.approx(simulated(ours, theirs, runs, aim, margin, alpha), abs=0.015)


def test_no_number_of_runs_decides_where_the_paper_is_the_limit():
    independent = claim(mean=60.74, spread=4.55)
    judged = verdict(Sample(60.5, 0.5, 5), independent)
    assert judged.outcome == "inconclusive"
    assert judged.runs is None
    # t(4, one-sided 5%) = 2.132 standard errors of the published mean, which is more than the margin of 1
    assert judged.limit == pytest.approx(2.131847 * 4.55 / math.sqrt(5), rel=1e-5)
    assert "undecidable" in judged.reason
    assert simulated(Sample(60.5, 0.5, 5), Sample(60.74, 4.55, 5), 2000, "equivalence", 1.0, 0.05) == 0


def test_an_inconclusive_cell_says_how_many_runs_would_decide():
    ours, theirs = Sample(80.1, 1.2, 5), claim(spread=0.2)
    judged = verdict(ours, theirs)
    assert (judged.outcome, judged.aim) == ("inconclusive", "equivalence")
    assert judged.runs == runs_to_decide(ours, published(theirs), "equivalence", 1.0, ALPHA)
    assert judged.runs > ours.n
    assert str(judged.runs) in judged.reason


def test_beyond_the_margin_the_aim_is_the_difference():
    judged = verdict(Sample(81.5, 2.5, 5), claim(spread=0.4))
    assert (judged.outcome, judged.aim) == ("inconclusive", "difference")
    assert judged.runs > 5


def test_where_equivalence_is_out_of_reach_a_difference_may_not_be():
    # 0.95 apart with a margin of 1: the published spread alone covers the 0.05 that is left, but not the 0.95
    judged = verdict(Sample(80.95, 1.5, 5), claim(spread=0.3))
    assert (judged.outcome, judged.aim) == ("inconclusive", "difference")
    assert judged.runs is not None


def test_more_runs_than_anyone_makes():
    # 0.4 apart, of which the published number alone leaves 0.399 open: only a huge number of runs is enough
    theirs = Sample(80.0, 0.399 * math.sqrt(5) / 2.776445, 5)
    assert runs_to_decide(Sample(80.4, 5.0, 5), theirs, "difference") is None
    assert published_limit(theirs, "difference") < 0.4
    judged = verdict(Sample(80.4, 5.0, 5), claim(spread=theirs.sd), margin=0.3)
    assert str(MOST_RUNS) in judged.reason


def test_what_five_runs_can_promise():
    """Both sides new, five runs each: 80% for a margin near 2.1 sd. Ours is conditional on the published sample."""
    hits = 0
    rng = np.random.default_rng(2)
    for _ in range(2000):
        ours, theirs = sample(rng.normal(size=5)), sample(rng.normal(size=5))
        hits += p_equivalence(welch(ours, theirs), 2.1) < ALPHA
    assert hits / 2000 == pytest.approx(0.80, abs=0.04)


def test_runs_are_counted_at_the_level_that_the_table_leaves():
    """Of twenty claims one is decided, so Holm tests the next at 0.05 / 19."""
    ours, theirs = Sample(80.1, 1.2, 5), claim(spread=0.2)
    decided = Question(Sample(80.0, 0.01, 5), claim(spread=0.01), 1.0)
    table = [Question(ours, theirs, 1.0), decided] + [Question(None, claim(), 1.0)] * 18
    among, alone = judge(table)[0], verdict(ours, theirs)
    assert among.runs == runs_to_decide(ours, published(theirs), "equivalence", 1.0, ALPHA / 19)
    assert among.runs > alone.runs
