"""The published metrics against matrices worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from clray.metrics import METRICS, Measurement, accuracy_matrix, final_matrix, summarize

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


def of_accuracy() -> set[str]:
    return {name for name, metric in METRICS.items() if metric.measured == "accuracy"}


def test_every_metric_was_worked_out():
    assert set(BY_HAND) == of_accuracy()
    assert set(METRICS) - of_accuracy() == set(OF_EPISODES)


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
    assert not {"BWT", "FWT", "forgetting", "F"} & set(found)


def test_nothing_gives_nothing_and_other_metrics_stay_out():
    assert summarize([]) == {}
    assert summarize([Measurement(5, 1, 0, "loss", 2.5)]) == {}
    other = [m._replace(metric="loss", value=9.0) for m in measured()]
    assert summarize(measured() + other) == summarize(measured())
