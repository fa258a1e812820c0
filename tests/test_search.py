"""Axes with distributions, and ``clray search``: draws, suggestions, the choice, the chosen runs, refusals."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typed import here
from typer.testing import CliRunner
from wandb_offline import read_run

from clray.axes import Distribution, Search, drawn_points
from clray.cli import app
from clray.errors import ClrayError, DeclarationError
from clray.loading import load_sweep
from clray.selection import Selection
from clray.suggestions import suggest

SWEEP = """
version: 1
title: A search
track: vision
benchmark: {name: rotated-mnist, tasks: 2, train_per_task: 60, test_per_task: 50, source: embedded}
model: {name: mlp, hidden: [20]}
seeds: [0, 1, 2]
metrics: [ACC, F]
grid:
  lr: {log_uniform: [0.001, 1]}
search: {samples: 5, seed: 1, benchmark: {validation: true}, seeds: [100, 101]}
variants:
  er: {method: er_reservoir, grid: {memories_per_class: {choice: [1, 5]}}}
  naive: {method: naive}
"""


@pytest.fixture
def sweep(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    return path


def names(path: Path, *changes: str) -> list[str]:
    return [name for name, _ in load_sweep(path, Selection(set=changes)).variant_settings()]


def search(*arguments: str) -> Any:
    command = ["search", "sweep.yaml", "--local", "--json", *arguments]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


class TestDraws:
    def test_they_follow_their_distribution(self):
        rng = np.random.default_rng(0)
        draws = [Distribution(log_uniform=[0.001, 1]).draw(rng) for _ in range(3000)]
        assert all(0.001 <= x <= 1 for x in draws)
        assert abs(np.mean([math.log10(x) for x in draws]) + 1.5) < 0.05
        assert abs(np.mean([Distribution(uniform=[2, 4]).draw(rng) for _ in range(3000)]) - 3) < 0.05
        counts = np.bincount([Distribution(integers=[1, 3]).draw(rng) for _ in range(3000)], minlength=4)
        assert counts[0] == 0
        assert all(900 < count < 1100 for count in counts[1:])
        chosen = [Distribution(choice=["a", "b"]).draw(rng) for _ in range(1000)]
        assert 430 < chosen.count("a") < 570

    def test_they_have_four_digits_and_stay_inside(self):
        axis = Distribution(uniform=[0.123456, 0.123457])
        assert axis.draw(np.random.default_rng(0)) in (0.123456, 0.123457)
        assert Distribution(uniform=[0, 1]).rounded(0.123456) == 0.1235

    def test_more_samples_keep_the_points_before(self, sweep):
        assert names(sweep, "search.samples=9", "variants={naive: {method: naive}}")[:5] == names(sweep)[5:]
        assert names(sweep, "search.seed=2") != names(sweep)

    def test_another_variant_or_axis_changes_no_point(self, sweep):
        alone = [name for name in names(sweep) if name.startswith("naive")]
        more = names(sweep, "variants={naive: {method: naive}}", "grid.batch={integers: [5, 20]}")
        assert [name.partition("@batch")[0] for name in more if name.startswith("naive")] == alone

    def test_lists_are_crossed_with_them(self, sweep):
        found = names(sweep, "variants.er.grid={memories_per_class: [1, 5]}")
        assert sum(name.startswith("er@") for name in found) == 10
        assert len({name.partition("@memories")[0] for name in found if name.startswith("er@")}) == 5

    def test_points_are_different(self):
        axes = {"a": Distribution(choice=[1, 2, 3]), "b": Distribution(integers=[0, 1])}
        rule = Search(samples=6)
        assert len({str(point) for point in drawn_points(axes, rule, "er", 6)}) == 6
        with pytest.raises(ValueError, match="7 different points are asked for, and these axes gave 6"):
            drawn_points(axes, rule, "er", 7)

    def test_they_are_ordinary_trials(self, sweep):
        """A point has the trial of a variant that declares its values."""
        drawn = next(cell for cell in load_sweep(sweep).cells if cell.variant.startswith("naive@"))
        lr = drawn.trial.hyperparameters["lr"]
        declared = Selection(set=(f"grid.lr=[{lr}]", "variants={naive: {method: naive}}"))
        assert drawn.trial in [cell.trial for cell in load_sweep(sweep, declared).cells]


class TestSuggestions:
    AXES = {"lr": Distribution(log_uniform=[0.0001, 1]), "kind": Distribution(choice=[[1], [2]])}

    def value(self, point: dict[str, Any]) -> float:
        """Best at lr 0.01, and with the second kind."""
        return -abs(math.log10(point["lr"]) + 2) + (point["kind"] == [2])

    def run(self, seed: int, lower: bool = False) -> list[dict[str, Any]]:
        points = drawn_points(self.AXES, Search(samples=8, seed=seed), "v", 8)
        while len(points) < 40:
            seen = [(point, (-1 if lower else 1) * self.value(point)) for point in points]
            points += suggest(self.AXES, seen, lower, seed, "v", 4)
        return points

    @pytest.mark.parametrize("lower", [False, True])
    def test_they_come_nearer_to_the_best(self, lower):
        pytest.importorskip("optuna", reason="an extra: pip install 'clray[search]'")
        for seed in range(3):
            values = [self.value(point) for point in self.run(seed, lower)]
            assert np.mean(values[-12:]) > np.mean(values[:8]) + 0.4

    def test_they_depend_on_results_alone_and_are_new(self):
        pytest.importorskip("optuna", reason="an extra: pip install 'clray[search]'")
        assert self.run(0) == self.run(0)
        assert len({str(point) for point in self.run(0)}) == 40

    def test_a_diverged_point_is_the_worst(self):
        pytest.importorskip("optuna", reason="an extra: pip install 'clray[search]'")
        axes = {"lr": Distribution(log_uniform=[0.0001, 1])}
        points = drawn_points(axes, Search(samples=20), "v", 20)
        seen = [(point, None if point["lr"] > 0.01 else 50.0) for point in points]
        suggested = suggest(axes, seen, False, 0, "v", 10)
        assert sum(point["lr"] <= 0.01 for point in suggested) >= 8

    def test_where_there_are_no_more_points_there_are_fewer(self):
        pytest.importorskip("optuna", reason="an extra: pip install 'clray[search]'")
        axes = {"kind": Distribution(choice=[1, 2, 3])}
        assert suggest(axes, [({"kind": 1}, 0.5)], False, 0, "v", 5) in (
            [{"kind": 2}, {"kind": 3}],
            [{"kind": 3}, {"kind": 2}],
        )


class TestTheCommand:
    def test_it_chooses_the_best_and_runs_it_with_the_seeds_of_the_result(self, sweep):
        found = search()
        chosen = {choice["variant"]: choice for choice in found["chosen"]}
        assert set(chosen) == {"er", "naive"}
        assert {choice["points"] for choice in chosen.values()} == {5}
        shown = {cell["variant"] for table in found["table"]["tables"] for cell in table["cells"]}
        assert shown == {choice["point"] for choice in chosen.values()}
        from clray.analysis.gather import gather, read
        from clray.analysis.protocols import results
        from clray.store import Store

        choosing = load_sweep(sweep).choosing_phase()
        assert all(cell.trial.benchmark["validation"] for cell in choosing.cells)
        assert {cell.trial.seed for cell in choosing.cells} == {100, 101}
        every = [name for name, _ in choosing.variant_settings()]
        values = results(gather(choosing, every, read(Store("results"))), "ACC")
        for variant, choice in chosen.items():
            means = {name: float(np.mean(values[name])) for name in every if name.startswith(f"{variant}@")}
            assert means[choice["point"]] == max(means.values()) == pytest.approx(choice["mean"])

    def test_a_relaunch_runs_nothing_and_says_the_same(self, sweep):
        first = search("--only", "naive")
        before = sorted(path.name for path in Path("results/records").iterdir())
        assert search("--only", "naive")["chosen"] == first["chosen"]
        assert sorted(path.name for path in Path("results/records").iterdir()) == before

    def test_less_is_better_of_forgetting(self, sweep):
        wide = ("--set", "search.metric=F", "--set", "benchmark.train_per_task=300", "--only", "naive")
        chosen = search(*wide)["chosen"][0]
        from clray.store import Store

        records, _ = Store("results").records()
        means: dict[float, list[float]] = {}
        for record in records:
            if record.trial.seed >= 100:
                means.setdefault(record.trial.hyperparameters["lr"], []).append(record.metrics["F"])
        assert len(means) == 5
        best = min(float(np.mean(values)) for values in means.values())
        assert chosen["mean"] == pytest.approx(100 * best)

    def test_optuna_in_rounds_and_after_an_interruption(self, sweep):
        """A search that begins with half of its trials in another store's order gives the same points."""
        pytest.importorskip("optuna", reason="an extra: pip install 'clray[search]'")
        optuna = ["--only", "naive"]
        for key in ("algorithm=optuna", "startup=3", "samples=7", "batch=2"):
            optuna += ["--set", f"search.{key}"]
        first = search(*optuna)
        assert first["chosen"][0]["points"] == 7
        for i, record in enumerate(sorted(Path("results/records").iterdir())):
            if i % 2:
                record.unlink()
        assert search(*optuna)["chosen"] == first["chosen"]
        from clray.store import Store

        records, _ = Store("results").records()
        assert len({r.trial.hyperparameters["lr"] for r in records if r.trial.seed >= 100}) == 7

    def test_the_chosen_points_are_compared(self, sweep):
        with pytest.raises(ClrayError, match=r"naive: no variant of .*; allowed: er@lr="):
            here("compare", sweep, "naive", "er")
        search("--set", "search.samples=2")
        compared = json.loads(here("compare", sweep, "naive", "er", "--set", "search.samples=2", "--json"))
        (contrast,) = compared["comparisons"]
        assert (contrast["variant"], contrast["against"], contrast["metric"]) == ("er", "naive", "ACC")
        board = json.loads(here("leaderboard", sweep, "--set", "search.samples=2", "--json"))["leaderboards"][0]
        assert sorted(entry["variant"] for entry in board["entries"]) == ["er", "naive"]

    def test_the_runs_that_choose_are_published_apart(self, sweep, tmp_path):
        pytest.importorskip("wandb")
        chosen = search("--only", "naive", "--seeds", "0", "--set", "search.samples=2", "--wandb", "offline")
        assert chosen["chosen"][0]["variant"] == "naive"
        groups = Counter(read_run(folder).run.run_group for folder in Path("results/wandb").glob("offline-run-*"))
        changed = Selection(set=("search.samples=2",)).suffix
        assert groups == {f"{tmp_path.name}, search{changed}": 2 * 2 + 1, f"{tmp_path.name}{changed}": 1 + 1}

    def test_text(self, sweep):
        result = CliRunner().invoke(app, ["search", "sweep.yaml", "--local", "--only", "naive"], catch_exceptions=False)
        assert result.exit_code == 0
        said = " ".join(result.output.split())
        assert "Settings are chosen by ACC with seeds 100, 101, on a benchmark with validation: True." in said
        assert "naive: lr 0." in said
        assert "of 5 settings (ACC " in said
        same = ["--set", "search.benchmark={}", "--dry-run", "--only", "naive"]
        result = CliRunner().invoke(app, ["search", "sweep.yaml", "--local", *same], catch_exceptions=False)
        assert "on the test images of the result itself" in " ".join(result.output.split())


WRONG = {
    "grid.lr={log_uniform: [0, 1]}": r"grid.lr: log_uniform: numbers must be above 0",
    "grid.lr={uniform: [2, 1]}": r"grid.lr: uniform: the first number must be the smaller one",
    "grid.lr={uniform: [1]}": r"grid.lr.uniform: expected at least 2 values",
    "grid.lr={normal: [0, 1]}": r"grid.lr: 'normal' is not a known key; .*allowed: uniform, log_uniform, int",
    "grid.lr={}": r"grid.lr: expected one distribution; allowed: uniform, log_uniform, integers, choice",
    "grid.lr=0.1": r"grid.lr: expected a list \(it is 0.1\)",
    "grid.lr={choice: [1, 1]}": r"grid.lr: a value stands twice: 1",
    "grid.lr={choice: [0.1]}": r"search.samples: er: 5 different points are asked for, and these axes gave 2",
    "variants.er.grid={lr: {uniform: [0, 1]}}": r"variants.er.grid.lr: the sweep's own grid has this axis already",
    "variants.er.grid.memories_per_class={normal: 1}": r"memories_per_class: 'normal' is not a known key; .*uniform",
    "variants.er.grid.memories_per_class=3": r"expected a list of values, or a distribution such as",
    "search.samples=0": r"search.samples: expected a number greater than or equal to 1",
    "search.metric=acc": r"search.metric: 'acc' is not a metric; .*ACC",
    "search.seeds=[100, 100]": r"search.seeds: a seed stands twice: 100",
    "search.seeds=[]": r"search: it names no seeds for the runs that choose",
    "search.benchmark={validation: 3}": r"search: in the search phase: .*benchmark.validation",
    "search=null": r"search",
}


@pytest.mark.parametrize(("change", "message"), WRONG.items())
def test_what_is_wrong_is_one_error(sweep, change, message):
    command = ["search", "sweep.yaml", "--local", "--set", change]
    with pytest.raises(ClrayError, match=message) as caught:
        CliRunner().invoke(app, command, catch_exceptions=False)
    assert "\n" not in str(caught.value)
    assert not Path("results").exists()


def test_the_runs_of_the_result_choose_nothing(sweep):
    command = ["search", "sweep.yaml", "--set", "search.benchmark={}", "--set", "search.seeds=[1, 9]"]
    with pytest.raises(DeclarationError, match=r"search.seeds: 1 is also a seed of the result, on the same benchmark"):
        CliRunner().invoke(app, command, catch_exceptions=False)


def test_a_distribution_needs_a_search(sweep):
    sweep.write_text("\n".join(line for line in SWEEP.splitlines() if not line.startswith("search")))
    with pytest.raises(DeclarationError, match=r"sweep.yaml:10: grid.lr: a distribution needs a key search"):
        load_sweep(sweep)
    with pytest.raises(DeclarationError, match=r"online/mnist.yaml.*: this sweep declares no search"):
        CliRunner().invoke(app, ["search", "online/mnist"], catch_exceptions=False)
    with pytest.raises(DeclarationError, match="a reproduction; only a sweep can have a key search"):
        CliRunner().invoke(app, ["search", "mer_rotations"], catch_exceptions=False)


def test_with_optuna_each_axis_is_a_distribution(sweep):
    changes = ("search.algorithm=optuna", "variants.er.grid={memories_per_class: [1, 5]}")
    with pytest.raises(DeclarationError, match=r"memories_per_class: with algorithm: optuna, each axis is a distrib"):
        load_sweep(sweep, Selection(set=changes))


def test_without_optuna_it_says_what_to_install(sweep, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "optuna", None)
    command = ["search", "sweep.yaml", "--set", "search.algorithm=optuna"]
    with pytest.raises(DeclarationError, match=r"optuna is not installed here: pip install 'clray\[search\]'"):
        CliRunner().invoke(app, command, catch_exceptions=False)
