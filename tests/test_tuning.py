"""Honest tuning: what is chosen, what is refused, and the command from a user's side."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from typed import here
from typer.testing import CliRunner
from wandb_offline import read_run

from clray import tuning
from clray.analysis.gather import Gathered
from clray.analysis.protocols import after_tasks, choose, compare_protocols, kendall, results
from clray.analysis.protocols_text import lines
from clray.analysis.runs import DivergedRun, Run, Runs
from clray.analysis.verdict import interval, sample
from clray.cli import app
from clray.errors import DeclarationError, StateError
from clray.loading import load_sweep
from clray.metrics import Measurement, accuracy_matrix, summarize
from clray.planning import plan
from clray.selection import Selection
from clray.store import Store
from clray.vision.datasets.published import ImageSet

SHIPPED = "online/tuning_mnist"
SMALL = {
    "version": 1,
    "track": "vision",
    "benchmark": {
        "name": "class-incremental", "dataset": "mnist", "source": "embedded", "classes": [5, 6, 7, 8], "tasks": 2,
        "class_order": "trial", "train_per_class": 20, "test_per_class": 10,
    },
    "model": {"name": "mlp", "hidden": [10]},
    "seeds": [0, 1],
    "metrics": ["ACC"],
    "grid": {"lr": [0.01, 0.1]},
    "variants": {
        "er": {"method": "ocl_er", "memories": 20},
        "er-ace": {"method": "er_ace", "memories": 20},
    },
    "tuning": {"benchmark": {"classes": [0, 1, 2, 3]}, "seeds": [7], "first_tasks": 1},
}  # fmt: skip


def written(folder: Path, **changes) -> Path:
    file = folder / "tuned.yaml"
    file.write_text(yaml.safe_dump({**SMALL, **changes}))
    return file


def sweep_of(folder: Path, **changes):
    return load_sweep(written(folder, **changes))


def tune(*arguments: object):
    return CliRunner().invoke(app, ["tune", *map(str, arguments)], catch_exceptions=False)


# ----------------------------------------------------------------------------------------------------------------------
# What is chosen


METHODS = {"er": ["er@lr=0.01", "er@lr=0.1"], "er-ace": ["er-ace@lr=0.01", "er-ace@lr=0.1"]}


def values(er_low, er_high, ace_low, ace_high) -> dict[str, list[float]]:
    return {"er@lr=0.01": er_low, "er@lr=0.1": er_high, "er-ace@lr=0.01": ace_low, "er-ace@lr=0.1": ace_high}


def test_the_best_mean_is_chosen_and_of_equals_the_earlier_setting():
    found = choose(METHODS, values([50, 60], [40, 72], [30, 30], [20, 40]), "ACC")
    assert found == {"er": "er@lr=0.1", "er-ace": "er-ace@lr=0.01"}
    assert choose(METHODS, values([50], [40], [30], [31]), "F") == {"er": "er@lr=0.1", "er-ace": "er-ace@lr=0.01"}
    assert choose(METHODS, values([], [1], [], []), "ACC") == {"er": "er@lr=0.1", "er-ace": None}


def run(seed: int, matrix) -> Run:
    found = [
        Measurement(100 * (i + 1), i + 1, j, "accuracy", v) for i, row in enumerate(matrix) for j, v in enumerate(row)
    ]
    metrics = {name: 100 * value for name, value in summarize(found).items()}
    R, b = accuracy_matrix(found)
    return Run(f"{seed}", "ocl_er", seed, None, metrics, R, b, {}, measurements=found)


def test_a_metric_after_the_first_tasks_is_that_of_a_run_which_ends_there():
    whole = run(0, [[0.9], [0.6, 0.8], [0.1, 0.2, 0.3]])
    assert after_tasks(whole, "ACC", 2) == pytest.approx(70)
    assert after_tasks(whole, "F", 2) == pytest.approx(30)
    assert after_tasks(whole, "ACC", 1) == pytest.approx(90)
    assert after_tasks(whole, "FWT", 2) is None


def test_a_point_without_all_its_runs_has_no_results():
    ran = [run(0, [[0.5]]), run(1, [[0.7]])]
    lost = DivergedRun("x", 1, None, 0, 5, "loss")
    gathered = Gathered(
        {
            "whole": Runs("whole", ran, 2),
            "missing": Runs("missing", ran[:1], 2, missing=[(1, None)]),
            "diverged": Runs("diverged", ran[:1], 2, diverged=[lost]),
        },
        None,
    )
    found = results(gathered, "ACC")
    assert found == {"whole": pytest.approx([50, 70]), "missing": [], "diverged": []}
    assert results(gathered, "BWT")["whole"] == []


def test_protocols_are_compared_by_hand(tmp_path):
    sweep = sweep_of(tmp_path)
    evaluated = values([60, 64], [70, 74], [66, 66], [50, 50])
    first = values([90, 90], [80, 80], [70, 70], [75, 75])
    frozen = {"er": "er@lr=0.01", "er-ace": "er-ace@lr=0.01"}
    found = compare_protocols(sweep, frozen, values([80], [70], [60], [50]), evaluated, first)
    table = {(c.protocol, c.method): (c.point, c.result.mean, c.rank, c.regret) for c in found.choices}
    assert table == {
        ("end of stream", "er"): ("er@lr=0.1", 72, 1, 0),
        ("end of stream", "er-ace"): ("er-ace@lr=0.01", 66, 2, 0),
        ("first 1 tasks", "er"): ("er@lr=0.01", 62, 1, 10),
        ("first 1 tasks", "er-ace"): ("er-ace@lr=0.1", 50, 2, 16),
        ("two phases", "er"): ("er@lr=0.01", 62, 2, 10),
        ("two phases", "er-ace"): ("er-ace@lr=0.01", 66, 1, 0),
    }
    assert found.taus == {
        ("end of stream", "first 1 tasks"): pytest.approx(1),
        ("end of stream", "two phases"): pytest.approx(-1),
        ("first 1 tasks", "two phases"): pytest.approx(-1),
    }
    assert found.tuning_means == {"er": 80, "er-ace": 60}
    assert found.tuning_tau == pytest.approx(-1)
    head, body = lines(found)
    low, high = interval(sample([70, 74]))
    assert body[0] == ["er", "end of stream", "lr 0.1", f"72.00 ± {(high - low) / 2:.2f} (2)", "1", "0.00"]
    assert len(head) == len(body[0])


def test_lower_is_better_turns_ranks_and_regret_around(tmp_path):
    sweep = sweep_of(tmp_path, tuning={**SMALL["tuning"], "metric": "F"})
    evaluated = values([10], [20], [15], [30])
    frozen = {"er": "er@lr=0.1", "er-ace": "er-ace@lr=0.01"}
    found = compare_protocols(sweep, frozen, {}, evaluated)
    table = {(c.protocol, c.method): (c.point, c.rank, c.regret) for c in found.choices}
    assert table["end of stream", "er"] == ("er@lr=0.01", 1, 0)
    assert table["two phases", "er"] == ("er@lr=0.1", 2, 10)
    assert table["two phases", "er-ace"] == ("er-ace@lr=0.01", 1, 0)


def test_kendalls_tau_by_hand():
    """One of six pairs is the other way round: (5 - 1) / 6."""
    assert kendall({"a": 1, "b": 2, "c": 3, "d": 4}, {"a": 1, "b": 3, "c": 2, "d": 4}) == pytest.approx(4 / 6)
    assert kendall({"a": 1}, {"a": 1}) is None
    assert kendall({"a": 1, "b": 1}, {"a": 1, "b": 2}) is None


# ----------------------------------------------------------------------------------------------------------------------
# What is refused


def refusal(folder: Path, **changes) -> str:
    with pytest.raises(DeclarationError) as caught:
        tuning.phases(sweep_of(folder, **changes))
    return str(caught.value)


def tuned_on(**changes) -> dict:
    return {"tuning": {**SMALL["tuning"], **changes}}


def test_an_overlap_of_classes_is_refused_and_named(tmp_path):
    message = refusal(tmp_path, **tuned_on(benchmark={"classes": [0, 1, 6, 8]}))
    assert "tuned.yaml" in message
    assert "classes of both phases: mnist 6, 8;" in message
    assert "mnist 5, 6, 7, 8;" in refusal(tmp_path, **tuned_on(benchmark={}))
    assert "mnist 5, 6, 7, 8;" in refusal(tmp_path, **tuned_on(benchmark={"classes": None}))


def test_a_variants_own_classes_count_in_both_phases(tmp_path):
    variants = {"er": {**SMALL["variants"]["er"], "benchmark": {"classes": [1, 2, 3, 9]}}}
    assert "mnist 1, 2, 3, 9;" in refusal(tmp_path, variants=variants)


def test_the_same_labels_of_another_data_set_are_other_classes(tmp_path):
    tuning.phases(
        sweep_of(
            tmp_path, **tuned_on(benchmark={"classes": [5, 6, 7, 8], "dataset": "fashion-mnist", "source": "auto"})
        )
    )


def test_a_seed_of_both_phases_is_refused(tmp_path):
    assert "seeds of both phases: 1;" in refusal(tmp_path, **tuned_on(seeds=[9, 1]))


def test_too_many_first_tasks_are_refused(tmp_path):
    assert "first_tasks: 2, and er@lr=0.01 has only 2 tasks; allowed: fewer" in refusal(
        tmp_path, **tuned_on(first_tasks=2)
    )


def test_a_sweep_without_a_tuning_phase_is_refused(tmp_path):
    assert "declares no tuning phase" in refusal(tmp_path, tuning=None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metric": "AC"}, "tuning.metric: 'AC' is not a metric; did you mean 'ACC'?"),
        ({"seeds": [3, 3]}, "tuning.seeds: a seed stands twice: 3"),
        ({"seed": 3}, "'seed' is not a known key; did you mean 'seeds'?"),
        ({"benchmark": {"classes": [0, 1, 2]}}, "in the tuning phase: "),
    ],
)
def test_a_mistake_is_named(tmp_path, changes, said):
    assert said in refusal(tmp_path, **tuned_on(**changes))


def test_common_images_are_refused_and_their_classes_named(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 784), dtype=np.uint8)
    labels = np.repeat(np.arange(10), 4)
    content = ImageSet(pixels, labels, pixels[::2].copy() + 1, labels[::2].copy())
    found = tuning.phases(sweep_of(tmp_path))
    store = Store(tmp_path / "store")
    plans = tuple(plan({"tuned": phase}, store) for phase in (found.tuning, found.evaluation))
    monkeypatch.setattr("clray.vision.disjoint.sources.load", lambda data: content)
    tuning.refuse_shared_images(found, plans)
    content.test_images[content.test_labels == 7] = pixels[labels == 2][0]
    with pytest.raises(DeclarationError, match=r"images in both phases: 1, of class 2 of mnist and class 7 of mnist;"):
        tuning.refuse_shared_images(found, plans)
    tuning.refuse_shared_images(tuning.phases(sweep_of(tmp_path, **tuned_on(common_images=1))), plans)


# ----------------------------------------------------------------------------------------------------------------------
# Frozen settings


@pytest.fixture
def frozen(tmp_path):
    """Phases with their plans, and settings that are frozen in a store."""
    found = tuning.phases(sweep_of(tmp_path))
    store = Store(tmp_path / "store")
    plans = tuple(plan({"tuned": phase}, store) for phase in (found.tuning, found.evaluation))
    chosen = {"er": "er@lr=0.1", "er-ace": "er-ace@lr=0.01"}
    means = {"er@lr=0.01": 40.0, "er@lr=0.1": 50.0, "er-ace@lr=0.01": 60.0, "er-ace@lr=0.1": 60.0}
    settings = tuning.Frozen.of(found, plans, chosen, means)
    tuning.write_frozen(store, "tuning/x.json", settings)
    return found, plans, store, settings


def test_frozen_settings_come_back(frozen):
    found, plans, store, settings = frozen
    assert tuning.read_frozen(store, "tuning/x.json") == settings
    settings.require(found, plans, "x.json")
    assert tuning.read_frozen(store, "tuning/y.json") is None


@pytest.mark.parametrize(
    ("part", "what"), [({"digest": "0" * 16}, "sweep"), ({"code": "0" * 16}, "code"), ({"data": ["f"]}, "data")]
)
def test_settings_of_another_sweep_code_or_data_are_refused(frozen, part, what):
    found, plans, _, settings = frozen
    with pytest.raises(DeclarationError, match=rf"x\.json: its settings were frozen for another {what} "):
        replace(settings, **part).require(found, plans, "x.json")


@pytest.mark.parametrize("chosen", [{"er": "er@lr=0.1"}, {"er": "er@lr=0.1", "er-ace": "er@lr=0.01"}])
def test_a_choice_that_is_no_point_is_refused(frozen, chosen):
    found, plans, _, settings = frozen
    with pytest.raises(DeclarationError, match="does not hold a point of each variant's grid"):
        replace(settings, chosen=chosen).require(found, plans, "x.json")


@pytest.mark.parametrize(
    ("edited", "said"),
    [
        ({"chosen": {"er": "er@lr=0.01", "er-ace": "er-ace@lr=0.01"}}, "choice er@lr=0.01, and er@lr=0.1 is better"),
        ({"means": {"er@lr=0.1": 50.0}}, "choice er-ace@lr=0.01, and no tuning result of this method"),
        ({"metric": "AAA"}, "its metric is AAA, and the sweep chooses by ACC"),
    ],
)
def test_an_edited_choice_is_refused(frozen, edited, said):
    found, plans, _, settings = frozen
    with pytest.raises(DeclarationError, match=rf"^x\.json: .*{said}.*was edited"):
        replace(settings, **edited).require(found, plans, "x.json")
    equal = {"er": "er@lr=0.1", "er-ace": "er-ace@lr=0.1"}  # as good as the other one
    replace(settings, chosen=equal).require(found, plans, "x.json")


def test_the_digest_is_that_of_all_trials_and_of_the_rule(tmp_path):
    def digest(**changes):
        return tuning.phases(sweep_of(tmp_path, **changes)).digest

    same = digest()
    assert digest(title="another title") == same
    changes = [
        {"seeds": [0, 2]},
        {"grid": {"lr": [0.01, 0.2]}},
        tuned_on(seeds=[8]),
        tuned_on(metric="AAA"),
        tuned_on(benchmark={"classes": [0, 1, 2, 9]}),
    ]
    assert len({same, *(digest(**change) for change in changes)}) == 1 + len(changes)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format": 2}', b'{"format": 1, "chosen": {}}', b"\xff"])
def test_a_file_with_something_else_is_refused(tmp_path, content):
    store = Store(tmp_path)
    store.write_file("tuning/x.json", content)
    with pytest.raises(StateError, match="holds no frozen settings"):
        tuning.read_frozen(store, "tuning/x.json")


# ----------------------------------------------------------------------------------------------------------------------
# The command


def test_the_shipped_sweep_has_two_phases_in_both_forms():
    for quick in (False, True):
        found = tuning.phases(load_sweep(SHIPPED, Selection(quick=quick)))
        classes = [phase.cells[0].trial.benchmark["classes"] for phase in (found.tuning, found.evaluation)]
        assert classes == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_nothing_runs_where_classes_overlap(tmp_path):
    file = written(tmp_path, **tuned_on(benchmark={"classes": [0, 1, 2, 5]}))
    with pytest.raises(DeclarationError, match="classes of both phases: mnist 5;"):
        tune(file, "--results", tmp_path / "store", "--local")
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_a_small_sweep_is_tuned_frozen_and_evaluated(tmp_path, monkeypatch):
    file, store = written(tmp_path), tmp_path / "store"
    first = tune(file, "--results", store, "--local")
    assert first.exit_code == 0, first.output
    frozen = json.loads((store / "tuning" / "tuned.json").read_text())
    assert set(frozen["chosen"]) == {"er", "er-ace"}
    assert len(list((store / "records").iterdir())) == 4 * (1 + 2)
    assert f"The settings are frozen: {store}/tuning/tuned.json" in first.output.replace("\n", "")
    again = tune(file, "--results", store, "--local")
    assert "were frozen before" in again.output
    title = "chosen by"
    assert again.output[again.output.index(title) :] == first.output[first.output.index(title) :]
    data = json.loads(tune(file, "--results", store, "--local", "--json").stdout)
    two_phases = {c["method"]: c["point"] for c in data["choices"] if c["protocol"] == "two phases"}
    assert two_phases == frozen["chosen"]
    ends = {c["method"]: c["mean"] for c in data["choices"] if c["protocol"] == "end of stream"}
    assert all(c["mean"] <= ends[c["method"]] and c["regret"] >= 0 for c in data["choices"])
    file_of_choice = store / "tuning" / "tuned.json"
    choice = file_of_choice.read_text()
    file_of_choice.unlink()
    monkeypatch.setattr("clray.commands.tune.run_stage", lambda *_: file_of_choice.write_text(choice))
    assert "were frozen before" in tune(file, "--results", store, "--local").output, "by a launch at the same time"
    monkeypatch.undo()
    compared = json.loads(here("compare", file, "er", "er-ace", "--results", store, "--json"))
    (contrast,) = compared["comparisons"]
    assert (contrast["variant"], contrast["against"]) == ("er-ace", "er")
    board = json.loads(here("leaderboard", file, "--results", store, "--json"))["leaderboards"][0]
    assert {entry["variant"] for entry in board["entries"]} == {"er", "er-ace"}
    points = json.loads(here("compare", file, "er@lr=0.01", "er@lr=0.1", "--results", store, "--json"))
    assert points["comparisons"][0]["variant"] == "er@lr=0.1"
    with pytest.raises(DeclarationError, match="frozen for another sweep"):
        tune(written(tmp_path, seeds=[0, 1, 2]), "--results", store, "--local")


@pytest.mark.slow
def test_both_phases_are_published_apart(tmp_path):
    pytest.importorskip("wandb")
    file, store = written(tmp_path, variants={"er": SMALL["variants"]["er"]}), tmp_path / "store"
    done = tune(file, "--results", store, "--local", "--wandb", "offline")
    assert done.exit_code == 0, done.output
    groups = Counter(read_run(folder).run.run_group for folder in (store / "wandb").glob("offline-run-*"))
    assert groups == {"tuned, tuning phase": 2 + 1, "tuned": 4 + 1}, (
        "a run for each trial, and one that holds the table"
    )
    again = tune(file, "--results", store, "--local", "--wandb", "offline")
    assert again.output.count("W&B: publishing offline") == 2
    assert len(list((store / "wandb").glob("offline-run-*"))) == 8
    assert "W&B" not in tune(file, "--results", store, "--local").output


@pytest.mark.slow
def test_the_quick_form_of_the_shipped_sweep(tmp_path):
    chosen = ("--only", "er,der", "--seeds", "0")
    done = tune(SHIPPED, "--quick", "--results", tmp_path / "store", "--local", *chosen)
    assert done.exit_code == 0, done.output
    for words in ("end of stream", "first 3 tasks", "two phases", "Kendall's tau"):
        assert words in done.output
