"""The lifelong-learning metrics against the figures of the official code, and against cases worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from clray.analysis.comparison import ComparedRow, ComparedTable
from clray.analysis.formatting import number
from clray.analysis.gather import Gathered
from clray.analysis.lifelong import (
    Block,
    blocks_of,
    metrics_of_tasks,
    of_life,
    of_run,
    prepared,
    recovery_times,
    smooth,
)
from clray.analysis.lifelong_table import experts_of, has_life, life, lifelong_blocks
from clray.analysis.runs import Run, Runs
from clray.metrics import Measurement, accuracy_matrix
from clray.trial import Trial

KNOWN = json.loads((Path(__file__).parents[1] / "fixtures" / "online" / "l2metrics.json").read_text())
LOG = [
    Block(block["type"] == "train", part["task"], np.array(part["perf"]))
    for block in KNOWN["log"]
    for part in block["parts"]
]
EXPERTS = {task: [np.array(curve)] for task, curve in KNOWN["ste"].items()}
NAMES = {
    "perf_recovery": "recovery",
    "avg_train_perf": "learning_performance",
    "avg_eval_perf": "evaluation_performance",
    "perf_maintenance_mrlep": "maintenance",
    "perf_maintenance_mrtlp": "maintenance_of_learning",
    "forward_transfer_ratio": "forward_ratio",
    "backward_transfer_ratio": "backward_ratio",
    "forward_transfer_contrast": "forward_contrast",
    "backward_transfer_contrast": "backward_contrast",
    "ste_rel_perf": "relative_performance",
    "sample_efficiency": "sample_efficiency",
}


@pytest.fixture(
    params=KNOWN["runs"], ids=lambda run: "-".join(map(str, list(run["options"].values())[2:])) or "default"
)
def case(request):
    options = request.param["options"]
    ready, experts = prepared(
        LOG,
        EXPERTS,
        smoothed=options.get("smoothing_method") != "none",
        clamped=options.get("clamp_outliers", False),
        normalised=options.get("normalization_method") != "none",
    )
    return (
        request.param,
        ready,
        metrics_of_tasks(ready, experts, options.get("ste_averaging_method", "metrics")),
        experts,
    )


def test_terminal_performance_of_every_block(case):
    known, ready, _, _ = case
    assert [b.task for b in ready] == [r["task_name"] for r in known["regime"]]
    assert [b.terminal for b in ready] == pytest.approx([r["term_perf"] for r in known["regime"]])
    assert [float(smooth(b.curve).max()) for b in ready] == pytest.approx([r["saturation"] for r in known["regime"]])


def test_each_metric_of_each_task(case):
    known, ready, found, _ = case
    for task, values in known["task"].items():
        for theirs, ours in NAMES.items():
            value = getattr(found[task], ours)
            if isinstance(values[theirs], dict):
                assert set(value) == set(values[theirs]), (task, theirs)
                for other, numbers in values[theirs].items():
                    assert value[other] == pytest.approx(numbers), (task, theirs, other)
            elif values[theirs] is None:
                assert value is None, (task, theirs)
            else:
                assert value == pytest.approx(values[theirs]), (task, theirs)
        learning = [b for b in ready if b.learns and b.task == task]
        assert recovery_times(learning) == values["recovery_times"]


def test_each_metric_of_the_life(case):
    known, _, found, _ = case
    life = of_life(found)
    for theirs, ours in NAMES.items():
        assert life[ours] == pytest.approx(known["lifetime"][theirs], abs=1e-9), theirs


def test_the_range_of_the_normalisation(case):
    known, ready, _, experts = case
    if known["normalisation_range"]:
        for task in EXPERTS:
            values = np.concatenate([*(b.curve for b in ready if b.task == task), *experts[task]])
            assert (values.min(), values.max()) == pytest.approx((1, 101))


def test_several_experts_are_averaged_over_metrics_or_over_time():
    log = [Block(True, "a", np.array([1.0, 2.0]))]
    experts = {"a": [np.array([1.0, 1.0, 5.0]), np.array([3.0, 5.0])]}
    over_metrics = metrics_of_tasks(log, experts)["a"].relative_performance
    over_time = metrics_of_tasks(log, experts, "time")["a"].relative_performance
    assert over_metrics == pytest.approx((3 / 2 + 3 / 8) / 2)
    assert over_time == pytest.approx(3 / 5)


def test_sample_efficiency_is_zero_or_missing_where_nothing_was_learned():
    expert = {"a": [np.array([1.0, 2.0, 10.0])]}

    def efficiency(values):
        return metrics_of_tasks([Block(True, "a", np.array(values))], expert)["a"].sample_efficiency

    assert efficiency([1.0, 1.5, 1.9]) == 0  # less than a fifth of 10
    assert efficiency([6.0, 9.0, 3.0]) == 0  # it got worse
    assert efficiency([9.0, 8.0, 9.0]) is None  # at its best from the start
    assert efficiency([1.0, 8.0, 6.0]) == pytest.approx(0.8 * 2 / 1)


def of_matrix(matrix, every=()):
    found = [
        Measurement(100 * (i + 1), i + 1, j, "accuracy", v) for i, row in enumerate(matrix) for j, v in enumerate(row)
    ]
    return found + [Measurement(step, t + 1, t, "accuracy", v) for step, t, v in every]


def test_a_constant_matrix_maintains_and_transfers_nothing():
    before = [Measurement(0, 0, j, "accuracy", 0.5) for j in range(3)]
    life = of_run(before + of_matrix(np.full((3, 3), 0.5)))
    assert life["maintenance"] == 0
    assert life["forward_ratio"] == life["backward_ratio"] == 1
    assert "relative_performance" not in life


def test_a_matrix_by_hand():
    """Without the normalisation, so that the numbers stay readable."""
    matrix = np.array([[0.9, 0.2, 0.1], [0.6, 0.8, 0.4], [0.5, 0.7, 0.6]])
    log = blocks_of(of_matrix(matrix))
    life = of_life(metrics_of_tasks(log))
    assert life["maintenance"] == pytest.approx(((-0.3 - 0.4) / 2 + -0.1) / 2)
    assert life["forward_ratio"] == pytest.approx(0.4 / 0.1)  # task 1 on task 2; nothing was measured before task 0
    assert life["backward_ratio"] == pytest.approx((0.6 / 0.9 + 0.5 / 0.6 + 0.7 / 0.8) / 3)


def test_blocks_of_measurements():
    """Evaluations within a task are its learning block; the one at its end counts once."""
    found = of_matrix([[0.9], [0.6, 0.8]], every=[(50, 0, 0.4), (150, 1, 0.3)])
    log = blocks_of(found)
    assert [(b.learns, b.task, b.curve.tolist()) for b in log] == [
        (True, "0", [0.4, 0.9]),
        (False, "0", [0.9]),
        (True, "1", [0.3, 0.8]),
        (False, "0", [0.6]),
        (False, "1", [0.8]),
    ]


# ----------------------------------------------------------------------------------------------------------------------
# Runs and their experts


def trial(**changes) -> Trial:
    benchmark = {"name": "class-incremental", "dataset": "mnist", "classes": None, "class_order": "labels", "tasks": 5}
    declared = {
        "version": 1, "track": "vision", "benchmark": benchmark, "model": {"name": "mlp"}, "method": "ocl_er",
        "hyperparameters": {"lr": 0.1}, "evaluate": 10, "randomness": "clray", "engine": "auto",
        "precision": "float32", "seed": 0, "task_order": None,
    }  # fmt: skip
    changes = {**changes, "benchmark": benchmark | changes.get("benchmark", {})}
    return Trial(**declared | changes)


def run(measurements=(), **changes) -> Run:
    declared = trial(**changes)
    matrix, baseline = accuracy_matrix(measurements)
    return Run(
        "id", declared.method, declared.seed, None, {}, matrix, baseline, {}, measurements=measurements, trial=declared
    )


ALONE = [Measurement(10, 1, 0, "accuracy", 0.5), Measurement(20, 1, 0, "accuracy", 0.8)]


def test_an_expert_has_the_classes_of_one_task_and_all_else_alike():
    def alone(**changes):
        return run(ALONE, **{"benchmark": {"tasks": 1, "classes": [3, 2]}, **changes})

    found = experts_of(run(), [alone(), run(ALONE)])
    assert {task: [c.tolist() for c in curves] for task, curves in found.items()} == {1: [[0.5, 0.8]]}
    for change in (
        {"seed": 1},
        {"method": "er_ace"},
        {"hyperparameters": {"lr": 0.2}},
        {"benchmark": {"tasks": 1, "classes": [2, 4]}},
        {"benchmark": {"tasks": 2, "classes": [2, 3]}},
        {"benchmark": {"tasks": 1, "classes": [2, 3], "dataset": "cifar10"}},
    ):
        assert experts_of(run(), [alone(**change)]) == {}, change
    assert experts_of(run(benchmark={"class_order": "trial"}), [alone()]) == {}
    listed = run(benchmark={"class_order": [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]})
    assert list(experts_of(listed, [alone()])) == [3]


def test_a_life_with_experts_has_all_metrics_that_need_them():
    course = of_matrix([[0.9], [0.6, 0.8]], every=[(50, 0, 0.4), (150, 1, 0.3)])
    here = run(course, benchmark={"tasks": 2, "classes": [2, 3, 4, 5]})
    expert = run(ALONE, benchmark={"tasks": 1, "classes": [2, 3]})
    assert "relative_performance" not in life(here)
    found = life(here, [here, expert])
    low, high = 0.4, 0.9  # of task 0, over its evaluations and its expert
    scaled = [100 * (v - low) / (high - low) + 1 for v in (0.4, 0.9, 0.5, 0.8)]
    assert found["relative_performance"] == pytest.approx(sum(scaled[:2]) / sum(scaled[2:]))
    assert found["sample_efficiency"] == pytest.approx(scaled[1] / scaled[3])
    assert not has_life(expert)
    assert not has_life(run(of_matrix([[0.9], [0.6, 0.8]])))


def test_the_table_below_a_table_shows_what_was_measured():
    """A line for each method with learning curves; experts have none of their own."""

    def row(label, runs):
        return ComparedRow(label, label, "", Runs(label, runs, len(runs)), {})

    def table(*rows):
        return ComparedTable("t", "", "s", ["ACC"], rows, Gathered({}, None))

    course = of_matrix([[0.9], [0.6, 0.8]], every=[(50, 0, 0.4), (150, 1, 0.3)])
    here = run(course, benchmark={"tasks": 2, "classes": [2, 3, 4, 5]})
    expert = run(ALONE, benchmark={"tasks": 1, "classes": [2, 3]})
    [block] = lifelong_blocks(table(row("er", [here]), row("er-alone", [expert])))
    assert [line[0] for line in block.body] == ["er"]
    shown = dict(zip(block.head, block.body[0], strict=True))
    assert shown["PM"] == number(life(here, [expert])["maintenance"])
    assert shown["RP"] == number(life(here, [expert])["relative_performance"])
    assert len(block.columns) == len(block.head) == len(block.body[0])
    [without] = lifelong_blocks(table(row("er", [here])))
    assert "RP" not in without.head
    assert "experts" in dict(without.notes)
    assert lifelong_blocks(table(row("er", [run(of_matrix([[0.9], [0.6, 0.8]]))]))) == []
