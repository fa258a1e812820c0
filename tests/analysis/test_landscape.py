"""The figure of accuracies, eigenvalues and displacements, for different measurements."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
from made_records import measured, shaped

from clray.analysis import plots
from clray.analysis.landscape import figure, landscape, svg

PLASTIC = [[8.0, 4.0, 2.0], [16.0, 8.0, 4.0], [12.0, 6.0, 3.0]]
STABLE = [[0.5, 0.25, 0.125], [0.4, 0.2, 0.1], [0.6, 0.3, 0.15]]


def both(runs: int = 1):
    return {
        "plastic": [shaped(measured(3, 95, 80 - i), PLASTIC, [0, 3, 6 + i]) for i in range(runs)],
        "stable": [shaped(measured(3, 93, 90), STABLE, [0, 9, 12]) for _ in range(runs)],
    }


def lines(axes, label):
    return next(line for line in axes.get_lines() if line.get_label() == label)


def test_without_eigenvalues_there_is_no_figure():
    plain = {"online": [measured(3, 90, 80)], "nothing": []}
    assert figure(plain) is None
    assert svg(plain) == ""
    assert landscape([measured(3, 90, 80)]) is None
    assert figure({}) is None


def test_a_column_a_variant_that_was_measured():
    drawn = figure({**both(), "online": [measured(3, 90, 80)]})
    assert len(drawn.axes) == 4 * 2
    assert [a.get_title() for a in drawn.axes[:2]] == ["plastic", "stable"]
    left = [drawn.axes[i].get_ylabel().split("\n")[0] for i in range(0, 8, 2)]
    assert left == ["accuracy (%)", "eigenvalue", "distance from the", "the same, as a share"]
    assert [t.get_text() for t in drawn.legends[0].get_texts()] == ["task 1", "task 2", "task 3"]


def test_accuracy_begins_when_a_task_was_learned():
    accuracy = figure(both()).axes[0]
    first, last = lines(accuracy, "task 1"), lines(accuracy, "task 3")
    # as `measured` makes them: LA on the diagonal, half of it elsewhere, and a last row whose mean is RA
    assert first.get_xdata() == pytest.approx([1, 2, 3])
    assert first.get_ydata() == pytest.approx([95, 47.5, 72.5])
    assert last.get_xdata() == pytest.approx([3])
    assert last.get_ydata() == pytest.approx([95])
    assert first.get_color() == plots.SERIES[0]
    assert last.get_color() == plots.SERIES[2]


def test_eigenvalues_and_displacements_are_those_of_the_task_just_learned():
    drawn = figure(both())
    plastic, stable = drawn.axes[2:4]
    assert lines(plastic, "task 2").get_ydata() == pytest.approx(PLASTIC[1])
    assert lines(stable, "task 3").get_ydata() == pytest.approx(STABLE[2])
    assert lines(plastic, "task 2").get_xdata() == pytest.approx([1, 2, 3])
    moved = drawn.axes[4]
    assert moved.get_lines()[0].get_ydata() == pytest.approx([0, 3, 6])
    assert lines(moved, "task 3").get_ydata() == pytest.approx([6])
    assert drawn.axes[6].get_lines()[0].get_ydata() == pytest.approx([0, 0.3, 0.6])


def test_a_row_shares_its_scale():
    drawn = figure(both())
    for row in range(4):
        left, right = drawn.axes[2 * row : 2 * row + 2]
        assert left.get_ylim() == right.get_ylim()
    assert drawn.axes[2].get_yscale() == "log"  # from 0.1 to 16
    alone = figure({"plastic": both()["plastic"]})
    assert alone.axes[1].get_yscale() == "linear"
    assert alone.axes[1].get_ylim()[0] == 0
    negative = figure({"one": [shaped(measured(2, 90, 80), [[9, -3], [5, 0.01]], [0, 1])]})
    assert negative.axes[1].get_yscale() == "linear"
    assert negative.axes[1].get_ylim()[0] < -3


def test_runs_are_averaged_and_their_spread_is_a_band():
    drawn = figure(both(runs=3))
    assert drawn.axes[4].get_lines()[0].get_ydata() == pytest.approx([0, 3, 7])
    assert len(drawn.axes[0].collections) >= 2
    assert not figure(both()).axes[0].collections
    assert [t.get_text() for t in drawn.legends[0].get_texts()] == ["task 1", "task 2", "task 3"]


def test_displacements_that_were_not_measured_have_no_row():
    drawn = figure({"one": [shaped(measured(3, 90, 80), PLASTIC, None)]})
    assert len(drawn.axes) == 2


def test_the_last_measurement_of_a_task_counts_and_other_tasks_are_left_out():
    run = shaped(measured(3, 95, 80), PLASTIC, [0, 3, 6])
    earlier = [m._replace(step=m.step - 1, value=99.0) for m in run if m.metric == "eigenvalue_1"]
    foreign = [m._replace(eval_task=0, value=77.0) for m in run if m.metric == "eigenvalue_1" and m.eval_task == 2]
    found = landscape([[*run, *earlier, *foreign]])
    assert found.eigenvalues == pytest.approx(np.array([PLASTIC]))


def test_runs_that_measured_less_leave_gaps():
    found = landscape([shaped(measured(3, 90, 80), PLASTIC, [0, 1, 2]), shaped(measured(3, 90, 80), [[1.0]] * 3, None)])
    assert found.eigenvalues.shape == (2, 3, 3)
    assert np.isnan(found.eigenvalues[1, :, 1:]).all()
    assert list(found.displacements) == ["displacement", "relative_displacement"]
    assert figure({"one": [shaped(measured(2, 90, 80), [[float("nan")], [1.0]], [0, 1])]}) is not None


def test_the_svg_says_in_words_what_it_shows():
    text = svg(both(), "l0")
    root = ElementTree.fromstring(text)
    said = root.get("aria-label")
    assert "plastic: the largest eigenvalue 8 after the first task, 12 after the last, displacement 6" in said
    assert "stable: the largest eigenvalue 0.5 after the first task" in said
    assert "relative displacement 1.2 (1 run)" in said
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert all(i.startswith("l0-") for i in ids)
    assert svg(both(), "l0") == text
    assert "var(--series-0, #0072b2)" in text
    assert plots.INK not in text
    assert len(svg({"a": both(5)["plastic"], "b": both(5)["stable"]})) < 120_000
