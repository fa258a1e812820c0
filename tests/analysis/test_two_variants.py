"""The statistics of two variants against scipy, hand computation and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from clray.analysis.two_variants import (
    Values,
    differences,
    further_seeds,
    gap,
    improvement_interval,
    power_of_test,
    probability_of_improvement,
    strata,
    t_test,
    unit,
    variance_of_mean,
    with_further_seeds,
)
from clray.analysis.verdict import POWER, Variance, combined, holm


def seeds(values, order=None, first: int = 0) -> Values:
    """Runs of one task order, by seed."""
    return {(first + i, order): float(value) for i, value in enumerate(values)}


def crossed(matrix) -> Values:
    """Runs of several seeds (rows) of several task orders (columns)."""
    return {(i, (j,)): float(value) for (i, j), value in np.ndenumerate(np.asarray(matrix))}


A, B = [88.1, 90.4, 87.9, 91.0, 88.8], [87.2, 88.9, 87.5, 88.0, 86.1]


class TestPaired:
    def test_it_is_scipys_paired_test(self):
        expected = stats.ttest_rel(A, B)
        found = gap(seeds(A), seeds(B))
        assert (found.test, found.pairs, found.left_out) == ("paired", 5, 0)
        assert found.p == pytest.approx(expected.pvalue)
        assert found.difference.value == pytest.approx(np.mean(A) - np.mean(B))
        ends = expected.confidence_interval(0.95)
        assert found.interval() == pytest.approx((ends.low, ends.high))

    def test_pairs_are_found_by_place_and_not_by_position(self):
        shuffled = dict(reversed(seeds(B).items()))
        assert gap(seeds(A), shuffled).p == gap(seeds(A), seeds(B)).p

    def test_runs_without_a_partner_are_left_out_and_counted(self):
        found = gap(seeds([*A, 10.0]), seeds(B))
        assert (found.test, found.pairs, found.left_out) == ("paired", 5, 1)
        assert found.p == pytest.approx(stats.ttest_rel(A, B).pvalue)

    @pytest.mark.parametrize(("others", "paired"), [(3, True), (4, True), (5, False), (9, False)])
    def test_it_needs_half_of_the_runs_of_each(self, others, paired):
        """Two to four common seeds and some others of one variant."""
        a, b = seeds(range(others + 3)), seeds([3.0, 1.0, 2.0] if others < 4 else [3.0, 1.0, 2.0, 5.0])
        a = seeds(range(len(b) + others))
        assert (differences(a, b) is not None) == paired

    def test_one_pair_is_no_pair(self):
        assert differences(seeds([1.0]), seeds([2.0])) is None
        assert gap(seeds([1.0]), seeds([2.0, 3.0])) is None

    def test_task_orders_are_part_of_the_place(self):
        assert gap(seeds(A, order=(0, 1)), seeds(B, order=(1, 0))).test == "unpaired"


class TestUnpaired:
    def test_it_is_scipys_welch_test(self):
        expected = stats.ttest_ind(A, B[:4], equal_var=False)
        found = gap(seeds(A), seeds(B[:4], first=10))
        assert (found.test, found.pairs) == ("unpaired", 0)
        assert found.p == pytest.approx(expected.pvalue)
        ends = expected.confidence_interval(0.95)
        assert found.interval() == pytest.approx((ends.low, ends.high))

    def test_one_run_has_no_spread(self):
        assert gap(seeds(A), seeds([80.0], first=10)) is None
        assert gap(seeds(A), {}) is None


class TestNoSpread:
    def test_equal_runs_do_not_differ(self):
        found = gap(seeds([80.0] * 5), seeds([80.0] * 5))
        assert (found.p, found.certain, found.interval()) == (1.0, False, None)

    @pytest.mark.parametrize("n", [2, 3, 5])
    def test_paired_p_is_that_of_the_signs(self, n):
        """Wilcoxon's exact test of n differences with the same sign."""
        found = gap(seeds(np.arange(n) + 0.1), seeds(np.arange(n)))
        assert not found.certain
        assert found.p == pytest.approx(stats.wilcoxon(np.arange(n) + 1.0, method="exact").pvalue)

    def test_unpaired_p_is_that_of_all_divisions(self):
        found = gap(seeds([80.0] * 5), seeds([81.0] * 4, first=9))
        assert found.p == pytest.approx(stats.mannwhitneyu(range(5), range(10, 14), method="exact").pvalue)

    def test_rounding_is_no_spread(self):
        a = [88.1 + 0.7 * i for i in range(5)]
        assert not gap(seeds(a), seeds([value - 0.2 for value in a])).certain


class TestCrossed:
    def test_runs_that_share_no_seed_and_no_order_are_independent(self):
        values = {(i, (i,)): value for i, value in enumerate(A)}
        (part,) = variance_of_mean(values)
        assert part == Variance(pytest.approx(np.var(A, ddof=1) / 5), 4)

    def test_one_seed_of_several_orders(self):
        values = {(0, (i,)): value for i, value in enumerate(A)}
        (part,) = variance_of_mean(values)
        assert part == Variance(pytest.approx(np.var(A, ddof=1) / 5), 4)
        assert (unit(values), unit(seeds(A))) == ("task orders", "seeds")

    def test_the_parts_are_those_of_the_means_of_seeds_and_of_orders(self):
        matrix = np.random.default_rng(1).normal(size=(4, 6))
        by_seed, by_order = variance_of_mean(crossed(matrix))
        assert by_seed == Variance(pytest.approx(matrix.mean(axis=1).var(ddof=1) / 4), 3)
        assert by_order == Variance(pytest.approx(matrix.mean(axis=0).var(ddof=1) / 6), 5)

    def test_it_is_clarks_min_f(self):
        """min F' = F1 F2 / (F1 + F2), with (F1 + F2)^2 / (F1^2 / n2 + F2^2 / n1) degrees of freedom."""
        matrix = np.random.default_rng(2).normal(0.6, size=(4, 6))
        f1, f2 = (stats.ttest_1samp(matrix.mean(axis=axis), 0).statistic ** 2 for axis in (1, 0))
        f, df = f1 * f2 / (f1 + f2), (f1 + f2) ** 2 / (f1**2 / 5 + f2**2 / 3)
        found = gap(crossed(matrix), crossed(np.zeros((4, 6))))
        assert found.difference.df == pytest.approx(df)
        assert found.p == pytest.approx(stats.f.sf(f, 1, df))

    @pytest.mark.parametrize("missing", [(0, (0,)), (3, (5,))])
    def test_a_missing_run_changes_little(self, missing):
        values = crossed(np.random.default_rng(3).normal(size=(4, 6)))
        whole = combined(variance_of_mean(values))
        part = combined(variance_of_mean({place: v for place, v in values.items() if place != missing}))
        assert part.value == pytest.approx(whole.value, rel=0.4)
        assert part.df == pytest.approx(whole.df, rel=0.4)


# --------------------------------------------------------------------------------------------------------------
# Simulations


def share_of_hits(draw, repeats: int) -> float:
    """The share of intervals around a true difference of 0.5 that contain it."""
    hits = 0
    for _ in range(repeats):
        low, high = gap(*draw()).interval()
        hits += low <= 0.5 <= high
    return hits / repeats


REPEATS = 1500
TOLERANCE = 3 * math.sqrt(0.05 * 0.95 / REPEATS)


class TestCoverage:
    def test_of_paired_seeds(self):
        """The effect of a seed on both variants is not in the difference."""
        rng = np.random.default_rng(10)

        def draw():
            common = rng.normal(0, 3, 5)
            return seeds(common + rng.normal(0.5, 1, 5)), seeds(common + rng.normal(0, 0.5, 5))

        assert share_of_hits(draw, REPEATS) == pytest.approx(0.95, abs=TOLERANCE)

    def test_of_unpaired_seeds(self):
        rng = np.random.default_rng(11)

        def draw():
            return seeds(rng.normal(0.5, 1, 5)), seeds(rng.normal(0, 2, 5), first=5)

        assert 0.95 - TOLERANCE <= share_of_hits(draw, REPEATS) <= 0.98

    def test_of_seeds_crossed_with_orders(self):
        """A case in which a test that takes all runs as independent is wrong most of the time."""
        rng = np.random.default_rng(12)

        def runs():
            effects = rng.normal(0, 1, (4, 1)) + rng.normal(0, 1, (1, 8)) + rng.normal(0, 0.5, (4, 8))
            return crossed(0.5 + effects), crossed(np.zeros((4, 8)))

        def naive(repeats):
            hits = 0
            for _ in range(repeats):
                low, high = stats.ttest_1samp(list(runs()[0].values()), 0).confidence_interval(0.95)
                hits += low <= 0.5 <= high
            return hits / repeats

        assert share_of_hits(runs, REPEATS) >= 0.95 - TOLERANCE
        assert naive(300) < 0.75


def test_holm_keeps_the_error_of_a_family():
    """Six variants that do not differ from their common baseline; without the correction the error is far larger."""
    rng, wrong, uncorrected, repeats = np.random.default_rng(13), 0, 0, 800
    for _ in range(repeats):
        common = rng.normal(0, 1, 5)
        base = seeds(common + rng.normal(0, 1, 5))
        p_values = [gap(seeds(common + rng.normal(0, 1, 5)), base).p for _ in range(6)]
        wrong += min(holm(p_values)) < 0.05
        uncorrected += min(p_values) < 0.05
    assert wrong / repeats <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / repeats)
    assert uncorrected / repeats > 0.12


class TestFurtherSeeds:
    @pytest.mark.parametrize(("value", "sd", "n"), [(1.0, 1.0, 5), (0.3, 1.0, 20), (4.0, 1.0, 3), (0.02, 0.1, 50)])
    @pytest.mark.parametrize("alpha", [0.05, 0.004])
    def test_the_power_is_scipys_noncentral_t(self, value, sd, n, alpha):
        reach, away = stats.t.ppf(1 - alpha / 2, n - 1), value / (sd / math.sqrt(n))
        expected = stats.nct.sf(reach, n - 1, away) + stats.nct.cdf(-reach, n - 1, away)
        assert power_of_test(value, Variance(sd**2 / n, n - 1), alpha) == pytest.approx(expected, abs=1e-3)

    def test_the_power_of_a_difference_that_nobody_can_miss(self):
        assert power_of_test(100.0, Variance(1e-4, 4)) == pytest.approx(1.0)
        assert power_of_test(1.0, Variance(0.0, math.inf)) == 1.0
        assert power_of_test(0.0, Variance(0.0, math.inf)) == 0.0

    @pytest.mark.parametrize(("away", "df"), [(3.0, 1), (35.0, 2), (80.0, 2), (6.0, 2.4)])
    def test_the_power_with_few_degrees_of_freedom(self, away, df):
        """The case in which scipy.special gives no number; here against the function of scipy.stats."""
        reach = stats.t.ppf(1 - 0.001 / 2, df)
        assert power_of_test(away, Variance(1.0, df), 0.001) == pytest.approx(stats.nct.sf(reach, df, away), abs=2e-3)

    @pytest.mark.parametrize("alpha", [0.05, 0.01])
    def test_the_advice_is_the_fewest_that_reach_the_power(self, alpha):
        a, b = seeds([0.0, 2.0, 1.5, -1.0, 2.5]), seeds(np.zeros(5))
        advised = further_seeds(a, b, alpha)
        d = np.array([0.0, 2.0, 1.5, -1.0, 2.5])

        def power(n):
            return power_of_test(d.mean(), Variance(d.var(ddof=1) / n, n - 1), alpha)

        assert advised is not None
        assert power(5 + advised - 1) < POWER <= power(5 + advised)

    def test_advised_paired_seeds_decide_in_four_of_five_cases(self):
        rng = np.random.default_rng(14)
        d = np.array([0.9, -0.4, 1.3, 0.2, 0.5])
        total = 5 + further_seeds(seeds(d), seeds(np.zeros(5)))
        new = rng.normal(d.mean(), d.std(ddof=1), (4000, total))
        assert (stats.ttest_1samp(new, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(POWER, abs=0.04)

    def test_advised_unpaired_seeds_decide_in_four_of_five_cases(self):
        rng = np.random.default_rng(15)
        a, b = np.array([1.0, 2.2, 0.4, 1.9, 1.2]), np.array([0.9, 1.1, 0.2, 0.6, 1.3])
        more = further_seeds(seeds(a), seeds(b, first=5))
        x = rng.normal(a.mean(), a.std(ddof=1), (4000, 5 + more))
        y = rng.normal(b.mean(), b.std(ddof=1), (4000, 5 + more))
        found = stats.ttest_ind(x, y, axis=1, equal_var=False).pvalue < 0.05
        assert found.mean() == pytest.approx(POWER, abs=0.04)

    def test_looking_again_after_the_advised_seeds_may_double_the_error(self):
        """Two variants that do not differ: five seeds, then the advised ones, then a second test."""
        rng, once, twice, repeats = np.random.default_rng(22), 0, 0, 600
        for _ in range(repeats):
            d = seeds(rng.normal(size=1005))
            nothing = dict.fromkeys(d, 0.0)

            def first(n, d=d, nothing=nothing):
                return [dict(list(of.items())[:n]) for of in (d, nothing)]

            if gap(*first(5)).p < 0.05:
                once += 1
            elif (more := further_seeds(*first(5))) and gap(*first(5 + more)).p < 0.05:
                twice += 1
        assert once / repeats == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / repeats))
        assert 0.05 < (once + twice) / repeats < 0.10 + 3 * math.sqrt(0.10 * 0.90 / repeats)

    def test_the_variance_with_further_seeds_is_what_more_seeds_show(self):
        """Crossed with orders: the parts that are expected of 12 seeds, from the variances themselves."""
        rng = np.random.default_rng(16)
        small, large = [], []
        for _ in range(400):
            effects = rng.normal(0, 1, (12, 1)) + rng.normal(0, 0.7, (1, 6)) + rng.normal(0, 1.5, (12, 6))
            small.append([part.value for part in with_further_seeds(crossed(effects[:4]), 8)])
            large.append([part.value for part in variance_of_mean(crossed(effects))])
        assert np.mean(small, axis=0) == pytest.approx(np.mean(large, axis=0), rel=0.15)
        assert [part.df for part in with_further_seeds(crossed(effects[:4]), 8)] == [11, 5]

    def test_without_further_seeds_nothing_changes(self):
        for values in (seeds(A), crossed(np.random.default_rng(17).normal(size=(3, 5)))):
            now = [(part.value, part.df) for part in variance_of_mean(values)]
            then = [(part.value, part.df) for part in with_further_seeds(values, 0)]
            assert np.array(then) == pytest.approx(np.array(now))

    def test_there_is_no_advice_without_a_difference_or_a_spread(self):
        assert further_seeds(seeds([1.0, 2.0, 3.0]), seeds([3.0, 2.0, 1.0])) is None
        assert further_seeds(seeds([1.0, 1.0]), seeds([2.0, 2.0])) is None
        assert further_seeds(seeds([1.0]), seeds([2.0])) is None

    def test_there_is_none_where_no_number_would_do(self):
        a = seeds(np.random.default_rng(18).normal(0, 1, 6))
        b = {place: value + (0.001 if place[0] % 2 else -0.0009) for place, value in a.items()}
        noisy = {place: value + (-1) ** place[0] for place, value in b.items()}
        assert further_seeds(a, noisy) is None
        # A spread between orders alone is not made smaller by seeds.
        orders = np.tile([5.0, -4.0, 4.5, -5.0], (3, 1)) + np.random.default_rng(19).normal(0, 0.1, (3, 4))
        assert further_seeds(crossed(orders), crossed(np.zeros((3, 4)))) is None


# --------------------------------------------------------------------------------------------------------------
# The probability of improvement


class TestProbability:
    def test_it_is_mann_and_whitneys_u(self):
        x, y = [3.0, 1.0, 4.0, 1.0], [2.0, 1.0, 0.5]
        expected = stats.mannwhitneyu(x, y).statistic / 12
        assert probability_of_improvement([x], [y]) == pytest.approx(expected)
        assert probability_of_improvement([y], [x]) == pytest.approx(1 - expected)

    def test_it_is_the_mean_over_tasks(self):
        x, y = [[1.0, 2.0], [5.0]], [[0.0], [6.0, 4.0]]
        assert probability_of_improvement(x, y) == pytest.approx((1.0 + 0.5) / 2)

    def test_an_order_is_a_task(self):
        """Runs of an easy order are not compared with those of a hard one."""
        a = {(0, (0, 1)): 50.0, (1, (0, 1)): 51.0, (0, (1, 0)): 90.0, (1, (1, 0)): 91.0}
        b = {place: value - 10 for place, value in a.items()}
        assert probability_of_improvement(*strata(a, b)) == 1.0
        assert [len(of) for of in strata(a, b)[0]] == [2, 2]

    def test_orders_that_only_one_has_take_no_part(self):
        a = {(0, (0, 1)): 50.0, (0, (1, 0)): 90.0}
        assert [of.tolist() for of in strata(a, {(0, (0, 1)): 60.0})[0]] == [[50.0]]
        assert [of.tolist() for of in strata(a, {(0, (2, 0)): 60.0})[0]] == [[50.0, 90.0]]

    def test_the_interval_is_scipys_stratified_bootstrap(self):
        rng = np.random.default_rng(20)
        x, y = rng.normal(0.4, 1, 12), rng.normal(0, 1, 9)

        def statistic(a, b, axis=-1):
            return (np.sign(a[..., :, None] - b[..., None, :]) / 2 + 0.5).mean(axis=(-1, -2))

        expected = stats.bootstrap(
            (x, y), statistic, vectorized=True, method="percentile", n_resamples=9999, random_state=rng
        ).confidence_interval
        found = improvement_interval([x], [y], resamples=9999)
        assert found == pytest.approx((expected.low, expected.high), abs=0.02)

    def test_it_covers_about_what_it_says_with_many_runs_and_less_with_few(self):
        rng, true = np.random.default_rng(21), stats.norm.cdf(0.5 / math.sqrt(2))

        def coverage(n):
            hits = 0
            for _ in range(300):
                low, high = improvement_interval([rng.normal(0.5, 1, n)], [rng.normal(0, 1, n)], resamples=300)
                hits += low <= true <= high
            return hits / 300

        assert coverage(40) > 0.90
        assert coverage(4) < 0.93

    def test_the_same_runs_give_the_same_interval(self):
        x, y = [[1.0, 2.0, 3.0]], [[0.5, 2.5, 1.5]]
        assert improvement_interval(x, y) == improvement_interval(x, y)
        assert improvement_interval([[2.0, 3.0]], [[0.0, 1.0]]) == (1.0, 1.0)


def test_a_published_sample_without_any_spread_is_not_certain():
    """Two samples of five whose spread is zero: one of 252 divisions, on each side."""
    parts = [Variance(0.0, 4)]
    _, p, certain = t_test(1.0, [parts, [*parts, Variance(0.0, math.inf)]], 80.0)
    assert (p, certain) == (pytest.approx(2 / 252), False)
