"""Hyper-parameter searches: the selected point, shown beside the published choice."""

from __future__ import annotations

import csv as csv_format
import io
import json as json_format
from dataclasses import replace
from pathlib import Path

import pytest
from made_records import of
from rich.console import Console

from clray import analysis
from clray.analysis import formatting
from clray.analysis.comparison import compare
from clray.analysis.runs import DivergedRun, Runs, run_of
from clray.analysis.searches import select_point
from clray.errors import DeclarationError
from clray.grid import setting_text
from clray.reproduction import load_reproduction
from clray.selection import Selection

SWEEP = """\
version: 1
paper: mer
title: A search
track: vision
benchmark: {name: mnist-rotations, tasks: 3, train_per_task: 50}
seeds: [0, 1]
variants:
  plain: {method: online, grid: {lr: [0.1, 0.01, 0.001]}}
  plain-published: {method: online, lr: 0.02}
  replay: {method: er, memories: 20, grid: {replay_batch: [5, 10], lr: [0.1, 0.01]}}
quick:
  benchmark: {tasks: 2}
"""
REPRODUCTION = """\
version: 1
paper: mer
title: What is selected
runs: 2
spread: sd
known: authors
margins: {}
searches:
  - title: Searches
    sweep: SWEEP
    source: the script
    metric: RA
    rows:
      - {label: Plain, variant: plain, published: {lr: 0.02}, note: a note}
      - {label: Replay, variant: replay, published: {replay_batch: 10, lr: 0.1}}
"""
NAME = "search"


@pytest.fixture
def declared(tmp_path: Path):
    """``declared(old=new)`` is the reproduction with some of its text replaced."""

    def write(*changes: tuple[str, str]):
        (tmp_path / "sweep.yaml").write_text(SWEEP, encoding="utf-8")
        text = REPRODUCTION.replace("SWEEP", str(tmp_path / "sweep.yaml"))
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / f"{NAME}.yaml").write_text(text, encoding="utf-8")
        return load_reproduction(tmp_path / f"{NAME}.yaml")

    return write


@pytest.fixture
def compared(declared, store, fill):
    """The comparison of a store where each variant named has these final accuracies, a run each."""

    def of_runs(accuracies: dict[str, list[float]], selection: Selection | None = None):
        reproduction = declared()
        sweeps = reproduction.sweeps(selection or Selection())
        (sweep,) = sweeps.values()
        for variant, values in accuracies.items():
            fill(sweep, variant, [(90.0, value) for value in values])
        return compare(NAME, sweeps, store, reproduction)

    return of_runs


PLAIN = {"plain@lr=0.1": [50.0, 52.0], "plain@lr=0.01": [60.0, 62.0], "plain@lr=0.001": [61.0, 61.0]}
REPLAY = {
    "replay@replay_batch=5@lr=0.1": [70.0, 70.0],
    "replay@replay_batch=5@lr=0.01": [71.0, 71.0],
    "replay@replay_batch=10@lr=0.1": [72.0, 74.0],
    "replay@replay_batch=10@lr=0.01": [60.0, 60.0],
}
ALL = PLAIN | REPLAY | {"plain-published": [64.0, 66.0]}


def printed(comparison, width: int = 80) -> str:
    out = io.StringIO()
    Console(width=width, force_terminal=False, color_system=None, file=out).print(analysis.to_terminal(comparison))
    return out.getvalue()


class TestSelection:
    def test_the_first_of_the_best_means(self, compared):
        plain, replay = compared(ALL).searches[0].rows
        assert plain.selected == "plain@lr=0.01"  # the same mean as 0.001, and before it
        assert replay.selected == "replay@replay_batch=10@lr=0.1"

    def test_a_point_that_lacks_runs_takes_no_part(self, compared):
        plain, _ = compared({**ALL, "plain@lr=0.1": [99.0]}).searches[0].rows
        assert plain.selected == "plain@lr=0.01"
        assert plain.complete == 2
        assert plain.agrees is None

    def test_nothing_is_selected_without_runs(self, compared):
        plain, _ = compared({}).searches[0].rows
        assert plain.selected is None
        assert plain.published_runs is not None
        assert plain.agrees is None

    def test_order_decides_among_equals_whatever_the_store_says(self, declared, make):
        (sweep,) = declared().sweeps().values()
        names = list(PLAIN)
        runs = {
            name: Runs(name, [run_of(make(cell, 90.0, 60.0)) for cell in of(sweep, name)], expected=2) for name in names
        }
        assert select_point(runs, "RA") == names[0]
        assert select_point(dict(reversed(runs.items())), "RA") == names[-1]
        assert select_point({}, "RA") is None
        assert select_point(runs, "ValAccRetrieval") is None, "nobody measured it"

    def test_a_point_of_which_a_run_lacks_the_metric_takes_no_part(self, declared, make):
        """Its mean would be one of fewer runs."""
        (sweep,) = declared().sweeps().values()
        names = list(PLAIN)[:2]
        runs = {n: Runs(n, [run_of(make(cell, 90.0, 60.0)) for cell in of(sweep, n)], expected=2) for n in names}
        high = run_of(make(of(sweep, names[0])[0], 90.0, 95.0))
        without = replace(high, seed=1, metrics={})
        runs[names[0]] = replace(runs[names[0]], runs=[high, without])
        assert select_point(runs, "RA") == names[1]

    def test_less_is_better_where_the_metric_says_so(self, declared, make):
        (sweep,) = declared().sweeps().values()
        names = list(PLAIN)[:2]
        forgets = {names[0]: (90.0, 60.0), names[1]: (90.0, 80.0)}
        runs = {
            name: Runs(name, [run_of(make(cell, *forgets[name])) for cell in of(sweep, name)], expected=2)
            for name in names
        }
        assert select_point(runs, "RA") == names[1]
        assert select_point(runs, "F") == names[1]
        assert select_point(runs, "forgetting") == names[1]

    def test_a_point_of_which_a_run_diverged_takes_no_part(self, declared, make):
        (sweep,) = declared().sweeps().values()
        names = list(PLAIN)[:2]
        runs = {n: Runs(n, [run_of(make(cell, 90.0, 60.0)) for cell in of(sweep, n)], expected=2) for n in names}
        lost = DivergedRun("0" * 16, 1, None, 0, 10, "weights")
        runs[names[0]] = replace(runs[names[0]], runs=runs[names[0]].runs[:1], diverged=[lost])
        assert select_point(runs, "RA") == names[1]


class TestThePublishedChoice:
    def test_beside_the_grid(self, compared):
        plain, _ = compared(ALL).searches[0].rows
        assert not plain.published_in_grid
        assert plain.published_runs.sample("RA").mean == pytest.approx(65.0)
        assert plain.agrees is False

    def test_on_the_grid_and_selected(self, compared):
        _, replay = compared(ALL).searches[0].rows
        assert replay.published_in_grid
        assert replay.published_runs.variant == "replay@replay_batch=10@lr=0.1"
        assert replay.agrees is True

    def test_on_the_grid_and_not_selected(self, compared):
        _, replay = compared({**ALL, "replay@replay_batch=5@lr=0.01": [80.0, 80.0]}).searches[0].rows
        assert replay.published_in_grid
        assert replay.agrees is False


class TestForms:
    def test_the_terminal_form_fits(self, compared):
        text = printed(compared(ALL))
        assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
        lines = [" ".join(line.split()) for line in text.splitlines()]
        assert "search setting RA ± sd (n)" in lines
        assert "Plain selected lr 0.01 61.00 ± 1.41 (2) of 3 points" in lines
        assert "published lr 0.02 65.00 ± 1.41 (2) not in the grid" in lines
        assert "Replay selected replay_batch 10, lr 0.1 73.00 ± 1.41 (2) of 4 points" in lines
        assert "published replay_batch 10, lr 0.1 73.00 ± 1.41 (2) selected here too" in lines
        flat = " ".join(text.split())
        assert "16 of 16 finished" in flat
        assert "measured on the test data" in flat
        assert "Plain: a note" in flat

    def test_what_is_missing_is_said(self, compared):
        text = " ".join(printed(compared({**PLAIN, "replay@replay_batch=5@lr=0.1": [70.0]})).split())
        assert "0 of 4 points so far" in text
        assert "7 of 16 finished" in text
        assert "Replay selected – – 0 of 4" in text

    def test_markdown(self, compared):
        lines = analysis.to_markdown(compared(ALL)).splitlines()
        assert "| search |  | setting | RA ± sd (n) |  |" in lines
        assert "| --- | --- | --- | ---: | --- |" in lines
        assert "| Plain | selected | lr 0.01 | 61.00 ± 1.41 (2) | of 3 points |" in lines

    def test_latex_is_balanced(self, compared):
        text = analysis.to_latex(compared(ALL))
        assert text.count(r"\begin{") == text.count(r"\end{") == 2
        assert r"Plain & selected & lr 0.01 & 61.00 $\pm$ 1.41 (2) & of 3 points \\" in text

    def test_csv_has_a_line_a_point(self, compared):
        lines = list(csv_format.DictReader(analysis.to_csv(compared(ALL)).splitlines()))
        assert len(lines) == 3 + 1 + 4
        selected = [line["variant"] for line in lines if line["selected"] == "True"]
        assert selected == ["plain@lr=0.01", "replay@replay_batch=10@lr=0.1"]
        outside = next(line for line in lines if line["in_grid"] == "False")
        assert (outside["variant"], outside["published"], float(outside["ours_mean"])) == (
            "plain-published",
            "True",
            65,
        )
        assert len(outside["trials"].split()) == 2

    def test_json(self, compared):
        (group,) = json_format.loads(analysis.to_json(compared(ALL)))["searches"]
        plain, replay = group["rows"]
        assert (plain["selected"], plain["published"], plain["selects_the_published"]) == (
            {"lr": 0.01}, {"lr": 0.02}, False,
        )  # fmt: skip
        assert replay["selected"] == {"replay_batch": 10, "lr": 0.1}
        assert [len(row["results"]) for row in group["rows"]] == [4, 4]
        assert group["comparable"] is True

    def test_an_empty_store_has_all_forms(self, compared):
        empty = compared({})
        assert "0 of 16 finished" in printed(empty)
        json_format.loads(analysis.to_json(empty))
        assert analysis.to_csv(empty).count("\n") == 1 + 8

    def test_another_experiment_is_labelled(self, compared):
        quick = compared({}, Selection(quick=True))
        assert quick.searches[0].warning == "NOT COMPARABLE WITH THE PAPER (--quick)"
        for form in (printed(quick), analysis.to_markdown(quick), analysis.to_latex(quick)):
            assert "NOT COMPARABLE WITH THE PAPER" in form

    def test_rows_that_were_not_asked_for(self, compared):
        part = compared(ALL, Selection(only=("plain",)))
        assert [row.label for row in part.searches[0].rows] == ["Plain"]
        assert dict(formatting.search_notes(part.searches[0]))["left out"] == "not asked for: Replay"
        assert part.commands[0].endswith("--only plain")

    def test_settings_are_written_as_people_write_them(self):
        assert setting_text({"b": 5, "lr": 0.000025}) == "b 5, lr 0.000025"
        assert setting_text({"model.dropout": 0.25, "gamma": 1.0}) == "dropout 0.25, gamma 1.0"


class TestDeclarations:
    def test_its_sweep_has_the_points_and_the_published_choice(self, declared):
        (sweep,) = declared().sweeps().values()
        assert list(dict.fromkeys(cell.variant for cell in sweep.cells)) == [*PLAIN, "plain-published", *REPLAY]

    def test_a_variant_without_grid_is_an_error(self, declared):
        wrong = declared(("variant: plain,", "variant: plain-published,"))
        with pytest.raises(
            DeclarationError, match=r"yaml:\d+: .*is not a variant of .* with a grid; allowed: plain, replay"
        ):
            wrong.sweeps()

    @pytest.mark.parametrize("published", ["{}", "{rate: 0.02}", "{lr: 0.02, batch: 5}"])
    def test_the_published_choice_names_each_axis(self, declared, published):
        wrong = declared(("{lr: 0.02}", published))
        with pytest.raises(
            DeclarationError,
            match=r"yaml:\d+: searches\.0\.rows\.0\.published: expected a value for each axis of the grid: lr",
        ):
            wrong.sweeps()

    def test_its_metric_exists(self, declared):
        with pytest.raises(DeclarationError, match=r"searches.0: metric: 'RAA' is not a metric; did you mean 'RA'"):
            declared(("metric: RA", "metric: RAA"))

    def test_a_reproduction_shows_something(self, tmp_path):
        text = REPRODUCTION.partition("searches:")[0]
        (tmp_path / "empty.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(DeclarationError, match="at least one table or search"):
            load_reproduction(tmp_path / "empty.yaml")
