"""Rows of a reproduction whose settings a tuning phase chooses, on runs that these tests make up."""

from __future__ import annotations

import io
import json as json_format
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from clray import analysis, tuning
from clray.analysis.comparison import NOTHING_CHOSEN, compare
from clray.analysis.formatting import notes
from clray.analysis.report import render
from clray.cli import app
from clray.errors import DeclarationError
from clray.loading import load_sweep, reproduction_names
from clray.reproduction import load_reproduction
from clray.selection import Selection

SWEEP = """\
version: 1
title: A tuned sweep
track: vision
benchmark: {name: class-incremental, dataset: mnist, classes: [5, 6, 7, 8], tasks: 2}
model: {name: mlp, hidden: [10]}
seeds: [0, 1]
metrics: [ACC]
variants:
  er: {method: ocl_er, memories: 20, grid: {lr: [0.1, 0.01]}}
  fixed: {method: ocl_naive, lr: 0.5}
tuning: {benchmark: {classes: [0, 1, 2, 3]}, seeds: [7, 8]}
quick: {seeds: [0], tuning: {seeds: [7]}}
"""
REPRODUCTION = """\
version: 1
paper: survey
title: Tuned
runs: 2
spread: sd
known: authors
margins: {}
tables:
  - title: Tuned on other classes
    sweep: SWEEP
    source: nowhere
    metrics: [ACC]
    rows:
      - {label: Replay, variant: er, note: a note}
      - {label: Fixed, variant: fixed, note: no grid}
"""
LOW, HIGH = "er@lr=0.1", "er@lr=0.01"


@pytest.fixture
def declared(tmp_path: Path):
    """``declared((old, new))`` is the reproduction after some of its text is replaced."""

    def write(*changes: tuple[str, str], sweep: str = SWEEP):
        (tmp_path / "sweep.yaml").write_text(sweep, encoding="utf-8")
        text = REPRODUCTION.replace("SWEEP", str(tmp_path / "sweep.yaml"))
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "tuned.yaml").write_text(text, encoding="utf-8")
        return load_reproduction(tmp_path / "tuned.yaml")

    return write


@pytest.fixture
def compared(declared, store, fill):
    """The comparison of a store where the points have these accuracies, a run each, in both phases."""

    def of_runs(tuned: dict[str, list[float]], evaluated: dict[str, list[float]]):
        reproduction = declared()
        sweeps = reproduction.sweeps()
        phase, evaluation = sweeps.values()
        for sweep, points in ((phase, tuned), (evaluation, evaluated)):
            for point, accuracies in points.items():
                fill(sweep, point, [(90.0, accuracy) for accuracy in accuracies])
        return compare("tuned", sweeps, store, reproduction)

    return of_runs


TUNED = {LOW: [80.0, 82.0], HIGH: [60.0, 62.0]}
EVALUATED = {LOW: [50.0, 52.0], HIGH: [70.0, 74.0], "fixed": [60.0, 60.0]}


def every_form(comparison) -> list[str]:
    out = io.StringIO()
    Console(width=80, color_system=None, file=out).print(analysis.to_terminal(comparison))
    return [analysis.to_markdown(comparison), analysis.to_latex(comparison), render(comparison), out.getvalue()]


class TestDeclared:
    def test_both_phases_run(self, declared):
        phase, evaluation = declared().sweeps().items()
        assert phase[0] == f"{evaluation[0]}, tuning phase", "it is the first, because it runs first"
        trials = [(cell.variant, cell.trial.benchmark["classes"][0], cell.trial.seed) for cell in phase[1].cells]
        assert trials == [(LOW, 0, 7), (LOW, 0, 8), (HIGH, 0, 7), (HIGH, 0, 8)]
        assert [cell.variant for cell in evaluation[1].cells] == [LOW, LOW, HIGH, HIGH, "fixed", "fixed"]

    def test_the_phases_are_those_of_the_command(self, declared):
        phase, evaluation = declared().sweeps().values()
        found = tuning.phases(evaluation.with_variants({n: s for n, s in evaluation.variant_settings() if "@" in n}))
        assert [cell.trial for cell in found.tuning.cells] == [cell.trial for cell in phase.cells]

    def test_a_row_without_a_grid_needs_no_tuning_phase(self, declared):
        assert len(declared().sweeps(Selection(only=("fixed",)))) == 1
        assert len(declared().sweeps(Selection(only=("er",)))) == 2

    def test_the_quick_form_has_both_phases(self, declared):
        assert [len(sweep.cells) for sweep in declared().sweeps(Selection(quick=True)).values()] == [2, 3]

    def test_a_grid_beside_one_of_its_points_is_refused(self, declared):
        with pytest.raises(DeclarationError, match=r"rows\.0: .er. is shown at the point that the tuning"):
            declared(("variant: fixed", f"variant: {LOW}"))

    def test_a_grid_without_a_tuning_phase_is_refused(self, declared):
        plain = "".join(line for line in SWEEP.splitlines(True) if not line.startswith(("tuning", "quick")))
        with pytest.raises(DeclarationError, match=r"'er' is not a variant of .*; allowed: er@lr=0\.1, er@lr="):
            declared(sweep=plain).sweeps()

    def test_every_shipped_one_keeps_its_phases_apart(self):
        found = 0
        for name in reproduction_names():
            reproduction = load_reproduction(name)
            for table in reproduction.tables:
                every = dict(load_sweep(table.sweep).variant_settings())
                if any(row.variant not in every for row in table.rows):
                    tuning.phases(load_sweep(table.sweep))
                    found += 1
        assert found


class TestChosen:
    def test_the_row_shows_the_point_that_the_tuning_phase_chose(self, compared):
        """The other point would be better on the evaluated streams."""
        found = compared(TUNED, EVALUATED)
        replay, fixed = found.tables[0].rows
        assert replay.cells["ACC"].ours.mean == pytest.approx(51)
        assert replay.note == "a note; chosen in the tuning phase: lr 0.1"
        assert fixed.cells["ACC"].ours.mean == pytest.approx(60)
        assert fixed.note == "no grid"
        protocols = found.tables[0].protocols
        assert protocols.chosen("er").regret == pytest.approx(21)
        assert protocols.tuning_means == {"er": pytest.approx(81)}
        assert {choice.method for choice in protocols.choices} == {"er"}, "the other row has nothing to choose"

    @pytest.mark.parametrize("tuned", [{}, {LOW: [80.0, 82.0]}, {LOW: [80.0, 82.0], HIGH: [60.0]}])
    def test_nothing_is_chosen_before_all_tuning_runs_are_finished(self, compared, tuned):
        [table] = compared(tuned, EVALUATED).tables
        replay, fixed = table.rows
        assert replay.cells["ACC"].ours is None
        assert replay.note == "a note; chosen in the tuning phase: nothing yet, as tuning runs are missing"
        assert fixed.cells["ACC"].ours.mean == pytest.approx(60)
        said = dict(notes(table))
        assert said["runs"].startswith("2 of 2 finished"), "those of the other row"
        ran = sum(map(len, tuned.values()))
        assert said["tuning"] == f"{ran} of 4 runs of the tuning phase, and 4 of 4 of all settings afterwards"

    def test_diverged_tuning_runs_have_ended_and_choose_nothing(self, compared, declared, store, fill):
        compared({}, EVALUATED)
        sweeps = declared().sweeps()
        phase, _ = sweeps.values()
        for point in (LOW, HIGH):
            fill(phase, point, [(90.0, 80.0), (90.0, 80.0)], status="diverged")
        replay, _ = compare("tuned", sweeps, store, declared()).tables[0].rows
        assert replay.note == f"a note; chosen in the tuning phase: {NOTHING_CHOSEN}"

    def test_reference_runs_choose_for_themselves(self, declared, store, fill, tmp_path):
        reproduction = declared()
        sweeps = reproduction.sweeps()
        phase, evaluation = sweeps.values()
        for sweep, point, accuracies in (
            (phase, LOW, [80.0, 80.0]), (phase, HIGH, [60.0, 60.0]), (evaluation, LOW, [50.0, 50.0]),
        ):  # fmt: skip
            fill(sweep, point, [(90.0, accuracy) for accuracy in accuracies])
        shipped, _ = store.records()
        for sweep, point, accuracies in ((phase, LOW, [50.0, 50.0]), (evaluation, HIGH, [72.0, 72.0])):
            fill(sweep, point, [(90.0, accuracy) for accuracy in accuracies])
        found = compare("tuned", sweeps, store, reproduction, None, shipped, "both")
        row = found.tables[0].rows[0]
        assert row.note == "a note; chosen in the tuning phase: lr 0.01; reference: lr 0.1"
        assert row.cells["ACC"].ours.mean == pytest.approx(72)
        assert row.cells["ACC"].reference.sample("ACC").mean == pytest.approx(50)
        for text in every_form(found):
            assert "72.00" in text

    def test_every_form_shows_the_ways_of_choosing(self, compared):
        found = compared(TUNED, EVALUATED)
        for text in every_form(found):
            assert "Ways of choosing the settings" in text
            assert "two phases" in text
        assert f",{LOW},ACC," in analysis.to_csv(found)
        choices = json_format.loads(analysis.to_json(found))["tables"][0]["protocols"]["choices"]
        of_replay = [(c["protocol"], c["point"]) for c in choices if c["method"] == "er"]
        assert of_replay == [("end of stream", HIGH), ("two phases", LOW)]

    def test_a_sweeps_own_table_shows_them_once_something_is_chosen(self, compared, declared, store):
        compared(TUNED, EVALUATED)
        _, evaluation = declared().sweeps().values()
        [table] = compare("sweep", {"sweep": evaluation}, store).tables
        assert table.protocols.chosen("er").point == LOW


def test_the_lifelong_reproduction_has_experts_of_both_methods():
    (sweep,) = load_reproduction("online_lifelong").sweeps().values()
    assert {cell.variant.partition("@")[0] for cell in sweep.cells} == {"er", "er-alone", "er-ace", "er-ace-alone"}


class TestOtherCommands:
    """`clray compare` and `clray leaderboard` on the shipped reproduction, with runs that these tests make up."""

    @pytest.fixture
    def results(self, tmp_path, fill, store):
        sweeps = load_reproduction("online_tuning").sweeps(Selection(quick=True))
        phase, evaluation = sweeps.values()
        for sweep, best in ((phase, "lr=0.03"), (evaluation, "lr=0.3")):
            for name, _ in sweep.variant_settings():
                accuracy = 70.0 if best in name.split("@") else 60.0
                fill(sweep, name, [(90.0, accuracy + i) for i in range(3)])
        return store.uri

    @pytest.mark.parametrize("command", [["compare", "online_tuning", "er", "MIR"], ["leaderboard", "online_tuning"]])
    def test_they_take_the_chosen_points(self, results, command):
        done = CliRunner().invoke(app, [*command, "--quick", "--results", results], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert "61.00 ± 1.00 (3)" in done.output, "the evaluation would have chosen another point"
        assert "71.00" not in done.output
        assert "@" not in done.output
        assert "tuning phase" not in done.output

    @pytest.mark.parametrize("command", [["compare", "online_tuning", "er", "mir"], ["leaderboard", "online_tuning"]])
    def test_without_a_choice_they_say_what_to_run(self, tmp_path, command):
        done = CliRunner().invoke(app, [*command, "--quick", "--records", "own", "--results", str(tmp_path)])
        assert isinstance(done.exception, DeclarationError)
        assert "the tuning phase has not chosen a setting yet; `python -m clray.reproduce" in str(done.exception)

    def test_a_method_without_a_choice_is_left_out(self, results, store):
        sweeps = load_reproduction("online_tuning").sweeps(Selection(quick=True))
        phase, _ = sweeps.values()
        cell = next(cell for cell in phase.cells if cell.variant.startswith("mir@"))
        Path(store.path("records", f"{cell.trial.id('0123456789abcdef')}.parquet")).unlink()
        command = ["leaderboard", "online_tuning", "--quick", "--records", "own", "--results", results]
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        assert "left out" in done.output
        assert "MIR: the tuning phase has not chosen a setting yet" in " ".join(done.output.split())


def test_images_in_both_phases_are_refused_before_a_launch(tmp_path, monkeypatch):
    same = [("mnist", 1, "mnist", 7)]
    monkeypatch.setattr("clray.vision.disjoint.shared_images", lambda one, other, data: same)
    command = ["reproduce", "online_tuning", "--quick", "--local", "--results", str(tmp_path)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code != 0
    assert isinstance(done.exception, DeclarationError)
    assert "images in both phases: 1, of class 1 of mnist and class 7 of mnist" in str(done.exception)
    assert not list(tmp_path.glob("records/*"))
