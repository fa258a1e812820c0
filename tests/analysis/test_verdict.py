"""The statistics against scipy, hand computation and simulation."""

from __future__ import annotations

import math
import typing

import numpy as np
import pytest
from scipy import stats

from clray.analysis.verdict import (
    ALPHA,
    POWER,
    CellInput,
    Sample,
    Variance,
    holm,
    interval,
    judge,
    p_difference,
    p_equivalence,
    power,
    prediction_half_width,
    published,
    rounding,
    runs_to_decide,
    sample,
    welch,
)
from clray.reproduction import Claim, SpreadKind


def claim(mean=80.0, spread=0.5, kind="sd", runs=5, known="paper", decimals=9, **more) -> Claim:
    """A published number; by default printed with so many digits that their rounding plays no part."""
    return Claim(mean=mean, spread=spread, kind=kind, runs=runs, known=known, decimals=decimals, **more)


def verdict(ours: Sample | None, claimed: Claim | None, margin: float | None = 1.0, blocked_reason: str = ""):
    return judge([CellInput(ours, claimed, margin, blocked_reason)])[0]


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
        ("population sem", 0.4, 0.4 * math.sqrt(5) * math.sqrt(5 / 4)),
        ("1.96 sem", 1.96, math.sqrt(5)),
        ("2 population sem", 0.8, 0.4 * math.sqrt(5) * math.sqrt(5 / 4)),
        ("unknown", 0.5, 0.5 * math.sqrt(5) * math.sqrt(5 / 4)),
    ],
)
def test_kinds_of_spread(kind, spread, sd):
    assert published(claim(spread=spread, kind=kind)).sd == pytest.approx(sd, rel=1e-6)


@pytest.mark.parametrize("runs", [2, 3, 5, 25])
def test_a_spread_of_unknown_kind_is_read_as_the_widest(runs):
    kinds = [kind for kind in typing.get_args(SpreadKind) if kind != "unknown"]
    widest = max(published(claim(kind=kind, runs=runs)).sd for kind in kinds)
    assert published(claim(kind="unknown", runs=runs)).sd == widest


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
    assert verdict(Sample(80.01, 0.3, 5), claim(spread=0.3), margin=None).outcome == "consistent"


def test_a_spread_of_unknown_kind_may_differ_but_never_agrees():
    near, far = Sample(80.0, 0.01, 50), Sample(70.0, 0.5, 5)
    judged = verdict(near, claim(kind="unknown", spread=0.01))
    assert judged.outcome == "inconclusive"
    assert "unknown kind" in judged.reason
    assert judged.p_equivalence is None
    assert verdict(far, claim(kind="unknown")).outcome == "differs"


@pytest.mark.parametrize(
    ("ours", "claimed", "blocked_reason", "reason"),
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
def test_not_judged(ours, claimed, blocked_reason, reason):
    judged = verdict(ours, claimed, blocked_reason=blocked_reason)
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


# -- the rounding of a printed number ------------------------------------------------------------------------------


def test_a_printed_number_has_the_variance_of_its_rounding():
    assert rounding(claim(decimals=2)).value == pytest.approx(0.01**2 / 12)
    assert rounding(claim(decimals=0)).value == pytest.approx(1 / 12)
    assert rounding(Claim(mean=1e-30)).value == 0, "printed in a way that has no last digit"
    rng = np.random.default_rng(0)
    values = rng.uniform(50, 60, 100_000)
    assert np.var(np.round(values, 1) - values) == pytest.approx(rounding(claim(decimals=1)).value, rel=0.02)


def test_ours_with_more_digits_than_theirs_do_not_differ_by_their_rounding():
    ours = sample([95.33333333] * 5)
    assert verdict(ours, claim(mean=95.33, spread=0.0, kind="unknown", decimals=2)).outcome != "differs"
    assert verdict(ours, claim(mean=95.33, spread=0.0, decimals=2), margin=0.5).outcome == "reproduced"
    assert verdict(ours, claim(mean=95.3, spread=0.0, kind="unknown", decimals=2)).outcome == "differs"


# -- the draw of the stream ----------------------------------------------------------------------------------------


def test_the_variance_of_the_stream_widens_the_difference():
    ours, theirs = Sample(81.0, 0.4, 5), Sample(80.0, 0.3, 5)
    without, known, measured = (welch(ours, theirs, o) for o in ([], [Variance(0.5, math.inf)], [Variance(0.5, 4)]))
    assert known.error**2 == pytest.approx(without.error**2 + 0.5)
    a, b = 0.4**2 / 5, 0.3**2 / 5
    assert measured.df == pytest.approx((a + b + 0.5) ** 2 / (a**2 / 4 + b**2 / 4 + 0.5**2 / 4))
    assert measured.df < known.df


def test_two_draws_of_the_stream_are_told_apart_only_where_their_variance_is_left_out():
    """Nothing differs but the draw: the error stays at the level where the stream's variance is included."""
    rng = np.random.default_rng(3)
    wrong = {"included": 0, "left out": 0}
    for _ in range(2000):
        ours, theirs = (sample(rng.normal(rng.normal(0, 1.0), 0.5, 5)) for _ in range(2))
        spread = rng.normal(0, 1.0, 10).std(ddof=1)  # as a measurement on ten draws finds it
        wrong["left out"] += p_difference(welch(ours, theirs)) < ALPHA
        wrong["included"] += p_difference(welch(ours, theirs, [Variance(2 * spread**2, 9)])) < ALPHA
    assert wrong["left out"] / 2000 > 0.5
    assert wrong["included"] / 2000 < 0.06


def test_a_cell_whose_stream_varies_is_judged_with_it():
    ours, theirs = Sample(81.0, 0.3, 5), claim(spread=0.3)
    assert judge([CellInput(ours, theirs, 0.5)])[0].outcome == "differs"
    with_stream = judge([CellInput(ours, theirs, 0.5, stream=Variance(2.0, 4))])[0]
    assert with_stream.outcome == "consistent"
    assert with_stream.prediction > 2


# -- families ------------------------------------------------------------------------------------------------------


def test_families_are_corrected_apart():
    cell = CellInput(Sample(81.0, 0.5, 5), claim(spread=0.5), None, family="RA")
    others = [CellInput(None, claim(), None, family="LA")] * 19
    assert judge([*others, cell])[-1].p_difference == pytest.approx(judge([cell])[0].p_difference)
    assert judge([*others, cell])[0].outcome == "not judged"


def test_more_claims_in_the_table_make_a_cell_harder_to_decide():
    cell = CellInput(Sample(81.0, 0.5, 5), claim(spread=0.5), None)
    alone = judge([cell])[0]
    among = judge([cell] + [CellInput(None, claim(), None)] * 19)[0]
    assert alone.outcome == "differs"
    assert among.outcome == "inconclusive"
    assert among.p_difference == pytest.approx(20 * alone.p_difference)


def test_claims_that_cannot_be_tested_do_not_count():
    cell = CellInput(Sample(81.0, 0.5, 5), claim(spread=0.5), None)
    untestable = [CellInput(Sample(80, 1, 5), claim(spread=None), 1.0), CellInput(Sample(80, 1, 5), None, 1.0)]
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


def test_where_no_number_of_runs_decides_ours_is_consistent_or_not():
    independent = claim(mean=60.74, spread=4.55)
    inside = verdict(Sample(60.5, 0.5, 5), independent)
    assert (inside.outcome, inside.runs) == ("consistent", None)
    # t(4) = 2.776 times the sd of the difference of two means of five runs
    assert inside.prediction == pytest.approx(2.776445 * 4.55 * math.sqrt(2 / 5), rel=1e-5)
    assert f"±{inside.prediction:.2f}" in inside.reason
    assert "not even 1,000 runs of ours" in inside.reason
    assert simulated(Sample(60.5, 0.5, 5), Sample(60.74, 4.55, 5), 2000, "equivalence", 1.0, 0.05) == 0


def test_outside_the_prediction_interval_a_cell_is_not_consistent():
    # Twenty claims in the family: not different after correction, and outside what their own runs would give.
    ours, theirs = Sample(83.5, 0.05, 5), claim(spread=1.9)
    among = judge([CellInput(ours, theirs, 1.0)] + [CellInput(None, claim(), 1.0)] * 19)[0]
    assert abs(among.difference) > prediction_half_width(published(theirs), 5)
    assert among.outcome == "inconclusive"
    assert "outside" in among.reason


def test_a_spread_of_unknown_kind_is_never_consistent():
    judged = verdict(Sample(60.5, 0.5, 5), claim(mean=60.74, spread=4.55, kind="unknown"))
    assert judged.outcome == "inconclusive"
    assert "unknown kind" in judged.reason


@pytest.mark.parametrize("n", [3, 5, 12])
def test_the_prediction_interval_covers_95_percent_of_means_made_alike(n):
    rng = np.random.default_rng(4)
    inside = 0
    for _ in range(4000):
        theirs, again = sample(rng.normal(80, 1.5, 5)), rng.normal(80, 1.5, n).mean()
        inside += abs(again - theirs.mean) <= prediction_half_width(theirs, n)
    assert inside / 4000 == pytest.approx(0.95, abs=0.012)


def test_power_need_not_grow_with_the_number_of_runs():
    """Three published runs: 5 of ours are enough, 1,000 are not."""
    ours, theirs = Sample(82.4, 0.8, 2), Sample(80.0, 1.0, 3)
    assert power(ours, theirs, 5, "difference") > POWER
    assert power(ours, theirs, 1000, "difference") < 0.01
    assert runs_to_decide(ours, theirs, "difference") == 5
    assert verdict(ours, claim(spread=1.0, runs=3), margin=None).runs == 5


def test_the_fewest_number_is_found_by_trying_all():
    rng = np.random.default_rng(5)
    for _ in range(20):
        ours = Sample(80 + rng.normal(), rng.uniform(0.2, 2), 3)
        theirs = Sample(80.0, rng.uniform(0.2, 2), int(rng.integers(2, 6)))
        aim = "equivalence" if rng.random() < 0.5 else "difference"
        slow = next((n for n in range(2, 121) if power(ours, theirs, n, aim, 2.0, 0.02) >= POWER), None)
        found = runs_to_decide(ours, theirs, aim, 2.0, 0.02)
        assert slow == (found if found is None or found <= 120 else None)


def test_only_more_runs_than_there_are_are_advised():
    ours, theirs = Sample(82.4, 0.8, 9), Sample(80.0, 1.0, 3)
    assert runs_to_decide(ours, theirs, "difference", more_than=9) != 5


def looks(rng: np.random.Generator, gap: float, margin: float | None, most: int = 3) -> list[str]:
    """The outcomes of judging, adding the advised runs, and judging again, until decided or after ``most`` looks."""
    theirs, values = sample(rng.normal(80, 1, 5)), rng.normal(80 + gap, 1, 5)
    claimed, outcomes = claim(mean=theirs.mean, spread=theirs.sd), []
    for _ in range(most):
        judged = verdict(sample(values), claimed, margin)
        outcomes.append(judged.outcome)
        if judged.runs is None or judged.runs > 200:
            break
        values = np.append(values, rng.normal(80 + gap, 1, judged.runs - len(values)))
    return outcomes


@pytest.mark.parametrize(
    ("gap", "margin", "wrong"),
    [(0.0, None, "differs"), pytest.param(1.5, 1.5, "reproduced", marks=pytest.mark.slow)],
)
def test_looking_again_after_the_advised_runs_may_double_the_error(gap, margin, wrong):
    """The notes of a table say so beside the number of runs that they advise (``formatting.MORE_RUNS``)."""
    rng = np.random.default_rng(6)
    found = [looks(rng, gap, margin) for _ in range(250)]
    first = np.mean([outcomes[0] == wrong for outcomes in found])
    last = np.mean([outcomes[-1] == wrong for outcomes in found])
    assert first < 0.07
    assert 1.2 * first < last < 0.15


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
    judged = verdict(Sample(80.4, 5.0, 5), claim(spread=theirs.sd), margin=0.3)
    assert judged.runs is None
    assert judged.outcome == "consistent"


def test_what_five_runs_can_promise():
    """Both sides new, five runs each: 80% for a margin near 2.1 sd. Ours is conditional on the published sample."""
    hits = 0
    rng = np.random.default_rng(2)
    for _ in range(2000):
        ours, theirs = sample(rng.normal(size=5)), sample(rng.normal(size=5))
        hits += p_equivalence(welch(ours, theirs), 2.1) < ALPHA
    assert hits / 2000 == pytest.approx(0.80, abs=0.04)


def test_runs_are_counted_at_the_level_that_the_table_leaves():
    """One of twenty claims is decided, so Holm's procedure tests the next one at the level 0.05 / 19."""
    ours, theirs = Sample(80.1, 1.2, 5), claim(spread=0.2)
    decided = CellInput(Sample(80.0, 0.01, 5), claim(spread=0.01), 1.0)
    table = [CellInput(ours, theirs, 1.0), decided] + [CellInput(None, claim(), 1.0)] * 18
    among, alone = judge(table)[0], verdict(ours, theirs)
    assert among.runs == runs_to_decide(ours, published(theirs), "equivalence", 1.0, ALPHA / 19)
    assert among.runs > alone.runs
