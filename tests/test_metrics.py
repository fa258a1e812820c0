"""The published metrics against matrices worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from clray.analysis.verdict import interval, published, sample
from clray.metrics import (
    METRICS,
    Measurement,
    accuracy_matrix,
    average_over_seen_classes,
    final_matrix,
    summarize,
)
from clray.reproduction import Claim

R = np.array(
    [
        [0.9, 0.2, 0.1],
        [0.6, 0.8, 0.4],
        [0.5, 0.7, 0.6],
    ]
)
B = np.array([0.1, 0.15, 0.05])
BY_HAND = {
    "RA": 0.6,  # (0.5 + 0.7 + 0.6) / 3
    "ACC": 0.6,
    "LA": 2.3 / 3,  # (0.9 + 0.8 + 0.6) / 3
    "BTI": -0.5 / 3,  # (-0.4 - 0.1 + 0) / 3: MER divides by T
    "BWT": -0.25,  # GEM's paper divides the same sum by T - 1
    "FWT": 0.2,  # ((0.2 - 0.15) + (0.4 - 0.05)) / 2
    "FWT_T": 0.4 / 3,  # as GEM's and MER's code have it
    "forgetting": 0.25,  # ((0.9 - 0.5) + (0.8 - 0.7)) / 2
    "F": 0.25,  # the same here, where no task is best at the end
    "AAA": (0.9 + 0.7 + 0.6) / 3,
    "Avg_End_Fgt": 0.5 / 3,  # (0.4 + 0.1 + 0) / 3
    "Bwtp": 0.0,  # (-0.3 - 0.4 - 0.1) / 3 is negative
}


def measured(matrix=R, baseline=B) -> list[Measurement]:
    found = [Measurement(0, 0, j, "accuracy", float(v)) for j, v in enumerate(baseline)]
    for i, row in enumerate(matrix):
        found += [Measurement(10 * (i + 1), i + 1, j, "accuracy", float(v)) for j, v in enumerate(row)]
    return found


@pytest.mark.parametrize("name", BY_HAND)
def test_each_metric_by_hand(name):
    assert METRICS[name].compute(R, B) == pytest.approx(BY_HAND[name])
    assert summarize(measured())[name] == pytest.approx(BY_HAND[name])


def test_an_accuracy_before_a_task_was_learned_is_an_earlier_one():
    """Chaudhry's maximum is over all tasks before the last one; of this matrix also over those before task 1."""
    early = np.array([[0.9, 0.8, 0.1], [0.9, 0.5, 0.1], [0.9, 0.4, 0.6]])
    assert METRICS["forgetting"].compute(early, B) == pytest.approx((0.0 + 0.4) / 2)
    assert METRICS["F"].compute(early, B) == pytest.approx(0.2)
    early[2, 0] = 0.95
    assert METRICS["forgetting"].compute(early, B) == pytest.approx((-0.05 + 0.4) / 2)
    assert METRICS["F"].compute(early, B) == pytest.approx(0.2)
    early[0, 1:] = np.nan
    assert METRICS["forgetting"].compute(early, B) == pytest.approx((-0.05 + 0.1) / 2)
    early[1, 0] = np.nan
    assert np.isnan(METRICS["forgetting"].compute(early, B)), "it may have been the best one"


def of_accuracy() -> set[str]:
    """The metrics of an accuracy matrix over tasks; the others are tested below."""
    return {
        name
        for name, m in METRICS.items()
        if (m.measured, m.reads) == ("accuracy", "matrix") and m.columns != "classes"
    }


def test_every_metric_was_worked_out():
    assert set(BY_HAND) == of_accuracy()
    assert set(METRICS) - of_accuracy() == {*OF_EPISODES, *OF_STREAMS}


OF_STREAMS = {"TaskACC", "min-ACC", "WC-ACC", "A_AUC", "A_avg", "A_last", "F_last"}
OF_EPISODES = {"TestAcc": 0.9, "ValAccRetrieval": 0.8, "ValAccGeneralize": 0.7}


def test_the_metrics_of_episodes_are_what_was_measured_last():
    early = [Measurement(100, 1, 0, name, 0.1) for name in ("val_retrieval", "val_generalize", "train_loss")]
    late = [("test_accuracy", 0.9), ("val_retrieval", 0.8), ("val_generalize", 0.7), ("train_loss", 0.6)]
    found = early + [Measurement(200, 1, 0, name, value) for name, value in late]
    assert summarize(found) == OF_EPISODES
    assert summarize(early) == {"ValAccRetrieval": 0.1, "ValAccGeneralize": 0.1}
    assert final_matrix(found)[0].tolist() == [[0.9]]
    assert len(final_matrix(early)[0]) == 0


def test_the_final_matrix_of_images_is_that_of_their_accuracy():
    assert (final_matrix(measured())[0] == R).all()
    assert (final_matrix(iter(measured()))[1] == B).all()


def test_the_matrix_comes_back_from_its_measurements_in_any_order():
    found = measured()
    for order in (found, found[::-1]):
        matrix, baseline = accuracy_matrix(order)
        assert (matrix == R).all()
        assert (baseline == B).all()


def test_of_several_evaluations_in_a_task_the_last_counts():
    """The official code keeps the row taken just before the next task's first example."""
    early = [Measurement(step, 2, j, "accuracy", 0.99) for step in (11, 15) for j in range(3)]
    for found in (early + measured(), measured() + early):
        assert (accuracy_matrix(found)[0] == R).all()


def test_forgetting_is_from_the_best_earlier_accuracy():
    matrix = R.copy()
    matrix[1, 0] = 0.95  # better than right after learning
    assert METRICS["forgetting"].compute(matrix, B) == pytest.approx(((0.95 - 0.5) + (0.8 - 0.7)) / 2)
    assert METRICS["BWT"].compute(matrix, B) == pytest.approx(-0.25)


def test_forgetting_as_coded_counts_a_gain_as_nothing():
    matrix = R.copy()
    matrix[2, 1] = 0.85  # better at the end than ever before
    assert METRICS["forgetting"].compute(matrix, B) == pytest.approx(((0.9 - 0.5) + (0.8 - 0.85)) / 2)
    assert METRICS["F"].compute(matrix, B) == pytest.approx((0.9 - 0.5) / 2)


def test_where_only_seen_tasks_are_measured_transfer_to_new_ones_alone_is_missing():
    """Task-incremental benchmarks: nothing above the diagonal, nothing before training."""
    seen = [m for m in measured() if m.trained_tasks and m.eval_task < m.trained_tasks]
    matrix, baseline = accuracy_matrix(seen)
    assert np.isnan(matrix[np.triu_indices(3, 1)]).all()
    assert np.isnan(baseline).all()
    assert summarize(seen) == pytest.approx({k: v for k, v in BY_HAND.items() if k not in ("FWT", "FWT_T")})


def test_where_only_the_end_is_measured_there_is_an_accuracy_and_nothing_else():
    """Multi-task, which goes through the tasks again and again."""
    assert summarize([m for m in measured() if m.trained_tasks == 3]) == pytest.approx({"RA": 0.6, "ACC": 0.6})


def test_the_two_normalisations_differ_by_their_count():
    T = len(R)
    assert METRICS["BTI"].compute(R, B) == pytest.approx(METRICS["BWT"].compute(R, B) * (T - 1) / T)
    assert METRICS["FWT_T"].compute(R, B) == pytest.approx(METRICS["FWT"].compute(R, B) * (T - 1) / T)


def test_what_was_not_measured_gives_no_number():
    half = [m for m in measured() if m.trained_tasks < 2]
    matrix, _ = accuracy_matrix(half)
    assert np.isnan(matrix[1]).all()
    assert summarize(half) == {}
    without = [m for m in measured() if m.trained_tasks]
    assert set(summarize(without)) == of_accuracy() - {"FWT", "FWT_T"}


def test_one_task_has_no_transfer():
    found = summarize([Measurement(0, 0, 0, "accuracy", 0.1), Measurement(5, 1, 0, "accuracy", 0.7)])
    assert found["RA"] == found["LA"] == 0.7
    assert not {"BWT", "FWT", "FWT_T", "forgetting", "F"} & set(found)


def test_nothing_gives_nothing_and_other_metrics_stay_out():
    assert summarize([]) == {}
    assert summarize([Measurement(5, 1, 0, "loss", 2.5)]) == {}
    other = [m._replace(metric="loss", value=9.0) for m in measured()]
    assert summarize(measured() + other) == summarize(measured())


# ----------------------------------------------------------------------------------------------------------------------
# Metrics of online continual learning

ONLINE = json.loads((Path(__file__).parent / "fixtures" / "online" / "metrics.json").read_text())
CASES = ["full", "cil_lower_triangular"]


def matrices(case: str) -> list[np.ndarray]:
    return [np.array(run) for run in ONLINE[case]["acc"]]


def measured_run(matrix: np.ndarray, unseen: bool) -> list[Measurement]:
    """A record's measurements of a run; unseen tasks, which that code logs as 0, are not measured here."""
    return [m for m in measured(matrix, []) if unseen or m.eval_task < m.trained_tasks]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("name", "published"),
    [("ACC", "Avg_End_Acc"), ("Avg_End_Fgt", "Avg_End_Fgt"), ("AAA", "Avg_Acc"), ("Bwtp", "Avg_Bwtp")],
)
def test_raptormai_figures(case, name, published):
    """Means over three runs and the half-widths of their 95% intervals, as ``compute_performance`` gives them."""
    values = [summarize(measured_run(run, case == "full"))[name] for run in matrices(case)]
    mean, half = ONLINE[case][published]
    ours = sample(values)
    assert ours.mean == pytest.approx(mean, abs=1e-12)
    assert interval(ours) == pytest.approx((mean - half, mean + half), abs=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_forgetting_has_two_denominators_and_one_figure_that_is_not_offered(case):
    per_run = ONLINE[case]["per_run"]
    for i, run in enumerate(matrices(case)):
        found = summarize(measured_run(run, case == "full"))
        assert found["ACC"] == pytest.approx(per_run["end_acc"][i])
        assert found["Avg_End_Fgt"] == pytest.approx(per_run["forgetting_div_T"][i])
        if case != "full":  # there that code takes the best over rows before a task was learned, and F does not
            assert found["F"] == pytest.approx(per_run["forgetting_div_T_minus_1"][i])
        faulty = ONLINE[case]["single_run_avg_end_fgt_as_coded"][i]
        assert np.mean(run.max(axis=1) - run[-1]) == pytest.approx(faulty)
        assert not any(value == pytest.approx(faulty) for value in found.values())


def test_mammoth_figures():
    """Its forgetting takes the best over all rows, its forward transfer subtracts the accuracy before training."""
    for case in CASES:
        for run, known in zip(matrices(case), ONLINE[case]["mammoth"], strict=True):
            assert METRICS["BWT"].compute(run, B) == pytest.approx(known["backward_transfer"])
            assert METRICS["FWT"].compute(run, np.full(5, 0.1)) == pytest.approx(known["forward_transfer_random_0p1"])
            if case != "full":
                assert METRICS["F"].compute(run, B) == pytest.approx(known["forgetting"])


def test_the_interval_is_that_of_the_recorded_rule():
    known = ONLINE["ci"]
    low, high = interval(sample(known["example"]["values"]))
    assert (low + high) / 2 == pytest.approx(known["example"]["mean"])
    assert (high - low) / 2 == pytest.approx(known["example"]["half"])
    for runs, ratio in known["half_width_over_std_ddof1"].items():
        claim = Claim(mean=0.0, spread=ratio, kind="95% interval", runs=int(runs), decimals=2)
        assert published(claim).sd == pytest.approx(1.0)


def within_tasks() -> list[Measurement]:
    """Three tasks of 100 examples, evaluated every 50; by hand the lowest after learning are 0.2 and 0.4."""
    rows = [
        (50, 1, [0.5]),
        (100, 1, [0.1]),  # right after it was learned: not later than that, so it does not count
        (150, 2, [0.2, 0.3]),
        (200, 2, [0.7, 0.9]),
        (250, 3, [0.6, 0.4, 0.1]),
        (300, 3, [0.5, 0.6, 0.8]),
    ]
    found = [Measurement(step, t, j, "accuracy", v) for step, t, row in rows for j, v in enumerate(row)]
    found += [Measurement(step, t, t - 1, "seen_accuracy", float(np.mean(row))) for step, t, row in rows]
    return found + [m._replace(metric="task_accuracy", value=0.9) for m in found if m.metric == "accuracy"]


def test_the_lowest_accuracy_between_tasks_is_seen_in_both_orders():
    for found in (within_tasks(), within_tasks()[::-1]):
        values = summarize(found)
        assert values["min-ACC"] == pytest.approx(0.3)  # (0.2 + 0.4) / 2
        assert values["WC-ACC"] == pytest.approx(0.8 / 3 + 2 / 3 * 0.3)
        assert values["A_AUC"] == pytest.approx(np.mean([0.5, 0.1, 0.25, 0.8, 1.1 / 3, 1.9 / 3]))
        assert values["TaskACC"] == pytest.approx(0.9)
        assert values["ACC"] == pytest.approx(1.9 / 3)
        assert not {"A_avg", "A_last", "F_last"} & set(values)


def test_without_evaluations_within_tasks_there_is_no_lowest_accuracy():
    ends = [m for m in within_tasks() if m.step % 100 == 0]
    assert not {"min-ACC", "WC-ACC"} & set(summarize(ends))


def by_class() -> list[Measurement]:
    """Two tasks that share classes, four classes; class 3 arrives in the second task, class 2 was never recognised."""
    rows = [(100, 1, {0: 0.8, 1: 0.5, 2: 0.0}), (200, 2, {0: 0.6, 1: 0.7, 2: 0.4, 3: 0.9})]
    return [Measurement(step, t, c, "accuracy", v) for step, t, row in rows for c, v in row.items()]


def test_metrics_over_classes():
    matrix, baseline = accuracy_matrix(by_class(), sharing=2)
    assert matrix.shape == (2, 4)
    assert np.isnan(baseline).all()
    values = summarize(by_class(), 2)
    assert values == pytest.approx(
        {
            "ACC": 0.65,
            "A_last": 0.65,  # (0.6 + 0.7 + 0.4 + 0.9) / 4
            "A_avg": (1.3 / 3 + 0.65) / 2,
            "F_last": ((0.8 - 0.6) + (0.5 - 0.7)) / 2,
        }
    )
    # as many classes as tasks: the matrix is square, and its columns are no tasks all the same
    square = [m for m in by_class() if m.eval_task < 2]
    assert set(summarize(square, 2)) == {"ACC", "A_last", "A_avg", "F_last"}
    assert set(summarize(square)) > {"LA", "BWT"}
    fewer = [m for m in by_class() if m.eval_task < 1]
    assert summarize(fewer, 2)["A_last"] == pytest.approx(0.6)
    half = summarize([m for m in by_class() if m.trained_tasks == 1], 2)
    assert "A_last" not in half


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_says_what_it_is(name):
    metric = METRICS[name]
    assert metric.title
    assert metric.definition
    assert metric.lower_is_better == ("forgetting" in metric.title), "a direction that is better"
    assert set(metric.computed_from) <= set(METRICS)


def test_tasks_without_images_do_not_lose_a_avg():
    nan = float("nan")
    R = np.array([[nan, nan], [0.4, nan], [nan, nan], [0.6, 0.8]])  # the first task and the third one had no image
    assert average_over_seen_classes(R, R[0]) == pytest.approx((0.4 + 0.4 + 0.7) / 3)
    assert np.isnan(average_over_seen_classes(R[:3], R[0]))
