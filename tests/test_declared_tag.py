"""TAG's sweeps and tables against the official scripts and the authors' logs, line by line.

``fixtures/tag/script_rows.json`` holds every command of the official scripts at 187d4df, ``authors_logs.json`` the
settings and the runs of every section of the logs (accuracy, forgetting as a fraction, learning accuracy).
"""

from __future__ import annotations

import json
import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clray.loading import load_sweep, reproduction_names
from clray.reproduction import Claim, Row, SearchRow, load_reproduction
from clray.sweep import Cell

FIXTURES = Path(__file__).parent / "fixtures" / "tag"
SCRIPTS: list[dict[str, str]] = json.loads((FIXTURES / "script_rows.json").read_text())
LOGS = {(log["file"], log["line"]): log for log in json.loads((FIXTURES / "authors_logs.json").read_text())}

DATASETS = {"cifar100": "cifar100", "mini_imagenet": "mini_imagenet", "cub": "cub", "5data": "5_dataset"}
BENCHMARKS = {
    "cifar100": "split-cifar100", "mini_imagenet": "split-mini-imagenet", "cub": "split-cub", "5data": "5-dataset",
}  # fmt: skip
TABLES = [name for name in reproduction_names() if name.startswith("tag_") and "grid" not in name]
SEARCHES = [name for name in reproduction_names() if name.startswith("tag_grid")]

# Where the published run was not what the script says: the sweep has what the log says.
FOLLOWS_THE_LOG = {
    ("replicate_experiment_baselines.sh", "mini_imagenet", "Naive SGD", 5): {"lr": 0.1},
    ("replicate_experiment_baselines.sh", "cifar100", "Stable SGD", 5): {"dropout": 0.0},
}
# Published with one epoch; the script's five are declared too, and shown in the table of five epochs.
FIVE_EPOCHS_IN_THE_SCRIPT = {
    (f"replicate_{script}.sh", "5data", "TAG-RMSProp") for script in
    ("experiment_naive", "experiment_hybrid", "appendix_replay")
}  # fmt: skip

OPTIMIZERS = {"rms": "rmsprop", "adagrad": "adagrad", "adam": "adam"}


def method_of(opt: str, tag_opt: str, gamma: float, multi: bool, name: str) -> dict[str, Any]:
    """The settings that the official main.py derives from its flags; it looks for substrings in ``--opt``."""
    parts = {"ewc": "ewc_online", "agem": "agem", "er": "er_reservoir"}
    method = next((parts[part] for part in parts if part in opt), "naive")
    if multi:
        return {"method": "multitask_cyclic"}
    if name == "Stable SGD":
        return {"method": "stable_sgd", "gamma": gamma, "momentum": 0.0}
    if "tag" in opt or opt == "param":  # the name that the option had when the logs were made
        return {"method": method, "optimizer": f"tag-{OPTIMIZERS[tag_opt]}"}
    return {"method": method, "optimizer": next((o for key, o in OPTIMIZERS.items() if key in opt), "sgd")}


def facts(cell: Cell) -> dict[str, Any]:
    """A trial as far as the scripts and logs tell theirs."""
    trial = cell.trial
    settings = {key: value for key, value in trial.hyperparameters.items() if value is not None}
    return {
        "benchmark": trial.benchmark["name"], "tasks": trial.benchmark["tasks"], "epochs": trial.benchmark["epochs"],
        "validation": trial.benchmark["validation"], "method": trial.method,
        "dropout": trial.model.get("dropout", 0.0), **settings,
    }  # fmt: skip


@cache
def declared(sweep: str) -> list[tuple[str, dict[str, Any]]]:
    """Each variant of a sweep, points of grids included, with the facts of its trials."""
    return list({cell.variant: (cell.variant, facts(cell)) for cell in load_sweep(sweep).cells}.values())


def has(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(found.get(key) == value for key, value in wanted.items())


def wanted_of(row: dict[str, str], epochs: int) -> dict[str, Any]:
    wanted: dict[str, Any] = {
        "benchmark": BENCHMARKS[row["ds"]], "tasks": int(row["tasks"]), "epochs": epochs, "batch": int(row["bs"]),
        "dropout": float(row["do"]), "validation": bool(row["gs"]),
        **method_of(row["opt"], row["tagopt"], float(row["gamma"]), row["multi"] == "1", row["name"]),
    }  # fmt: skip
    if row["lr"]:
        wanted["lr"] = float(row["lr"])
    if row["b"] and "tag" in row["opt"]:
        wanted["b"] = float(row["b"])
    if row["lambd"] and "ewc" in row["opt"]:
        wanted["strength"] = float(row["lambd"])
    if row["mem"] or wanted["method"] in ("agem", "er_reservoir"):
        wanted["memories_per_class"] = int(row["mem"] or 1)
    return wanted


def named(row: dict[str, str]) -> str:
    return "-".join([row["script"][10:-3], row["ds"], row["name"], row["mem"], row["gs"]]).strip("-").replace(" ", "-")


def test_the_scripts_are_all_there():
    assert len(SCRIPTS) == 180


@pytest.mark.parametrize("row", [r for r in SCRIPTS if not r["gs"]], ids=named)
class TestScripts:
    def test_each_line_is_a_declared_variant(self, row):
        dataset = DATASETS[row["ds"]]
        # the script of the baselines takes the number of epochs as an argument: 1 in the paper, 5 in its appendix
        for epochs in (1, 5) if row["ep"] == "$2" else (int(row["ep"]),):
            wanted = wanted_of(row, epochs) | FOLLOWS_THE_LOG.get((row["script"], row["ds"], row["name"], epochs), {})
            variants = declared(f"tag/{dataset}" + ("_5epochs" if epochs == 5 else ""))
            assert [name for name, found in variants if has(found, wanted)], wanted

    def test_its_runs_are_ours(self, row):
        assert load_sweep(f"tag/{DATASETS[row['ds']]}").seeds == [1, 2, 3, 4, 5]
        assert row["runs"] == "5"

    def test_five_epochs_are_named_where_the_published_run_had_one(self, row):
        if (row["script"], row["ds"], row["name"]) in FIVE_EPOCHS_IN_THE_SCRIPT:
            assert row["ep"] == "5"
            variants = declared("tag/5_dataset")
            assert [name for name, found in variants if has(found, wanted_of(row, 1))] == ["tag-rmsprop"]
        else:
            assert row["ep"] in ("1", "$2")


LR = [0.1, 0.05, 0.01, 0.001]
GRIDS: dict[str, list[dict[str, float]]] = {  # utils.py at 187d4df, in its order
    "lr": [{"lr": lr} for lr in LR],
    "ewc": [{"lr": lr, "strength": strength} for lr in LR for strength in (1, 10, 100)],
    "stable": [
        {"dropout": dropout, "lr": lr, "gamma": gamma}
        for dropout in (0, 0.1, 0.25, 0.5) for lr in (0.1, 0.05, 0.01) for gamma in (0.9, 0.8, 0.7)
    ],
    "tag": [{"b": b, "lr": lr} for b in (5, 1, 7, 3) for lr in (0.005, 0.001, 0.0005, 0.0001, 0.00005, 0.00001)],
}  # fmt: skip


@pytest.mark.parametrize("row", [r for r in SCRIPTS if r["gs"]], ids=named)
def test_each_search_has_the_official_grid_in_its_order(row):
    wanted = wanted_of(row, 1)
    grid = GRIDS[row["gs"]]
    if row["gs"] == "stable" and row["ds"] == "cub":  # its network has no dropout: the points would repeat
        grid = grid[:9]
    for axis in grid[0]:
        wanted.pop(axis, None)
    points = [f for name, f in declared(f"tag/{DATASETS[row['ds']]}_grid") if "@" in name and has(f, wanted)]
    assert [{axis: point[axis] for axis in grid[0]} for point in points] == grid


# --------------------------------------------------------------------------------------------------------------
# The authors' logs


def claims(name: str) -> list[tuple[Row, str, Claim, Cell]]:
    reproduction = load_reproduction(name)
    sweeps = reproduction.sweeps()
    return [
        (row, metric, claim, next(c for c in sweeps[table.sweep].cells if c.variant == row.variant))
        for table in reproduction.tables
        for row in table.rows
        for metric in table.metrics
        if (claim := reproduction.claim(table, row, metric)) is not None
    ]


def log_of(claim: Claim) -> dict[str, Any]:
    match = re.fullmatch(r"analysis/(\w+\.txt) at 837ec4e\^, line (\d+)", claim.source or "")
    assert match, claim.source
    return LOGS[match[1], int(match[2])]


def statistics(log: dict[str, Any], metric: str) -> tuple[float, float]:
    """Mean and population standard deviation over the runs in the log, in per cent."""
    column = ("ACC", "F", "LA").index(metric)
    scale = 100 if metric == "F" else 1
    if not log["runs"]:  # multi-task: the log prints only the two
        return scale * log["printed"][2 * column], scale * log["printed"][2 * column + 1]
    values = scale * np.array(log["runs"])[:, column]
    return float(values.mean()), float(values.std())


@pytest.mark.parametrize("name", TABLES)
class TestLogs:
    def test_claims_are_the_runs_of_the_logs(self, name):
        found = claims(name)
        assert len(found) >= 21
        for row, metric, claim, _ in found:
            mean, sd = statistics(log_of(claim), metric)
            assert claim.mean == pytest.approx(mean, abs=0.0051), (row.label, metric)
            assert claim.spread == pytest.approx(sd, abs=0.0051), (row.label, metric)
            assert (claim.kind, claim.runs, claim.known) == ("population sd", 5, "authors")
            assert len(log_of(claim)["runs"]) == (0 if row.label == "Multi-task" else 5)

    def test_variants_have_the_settings_of_the_logs(self, name):
        for row, _, claim, cell in claims(name):
            log = log_of(claim)
            params = log["params"]
            opt = (params["opt"] or "").replace("sgd", "").replace("None", "")
            wanted: dict[str, Any] = {
                "epochs": int(params["epochs"]), "batch": int(params["batch"]), "lr": float(params["lr"]),
                "dropout": float(params["dropout"]),
                **method_of(opt, params.get("tag-opt", ""), float(params["gamma"]),
                            log["section"] == "Multi-task", log["section"]),
            }  # fmt: skip
            wanted |= {"b": float(params["b"])} if "b" in params else {}
            wanted |= {"strength": float(params["lambda"])} if "lambda" in params else {}
            wanted |= {"memories_per_class": int(params["mem"])} if "mem" in params else {}
            if row.variant == "stable-sgd-momentum":  # no log prints it; an earlier code has it
                wanted["momentum"] = 0.8
            assert has(facts(cell), wanted), row.label
            assert log["section"].replace("RMSProp ", "RMSProp-") == row.label.split(",")[0]

    def test_forgetting_is_no_fraction_and_never_negative(self, name):
        values = [claim.mean for _, metric, claim, _ in claims(name) if metric == "F"]
        assert min(values) > 1

    def test_accuracy_is_at_least_learned_less_forgotten(self, name):
        """Equal where no task gains after it was learned: the code's forgetting is from the best, the gain included."""
        by_row: dict[str, dict[str, float]] = {}
        for row, metric, claim, cell in claims(name):
            by_row.setdefault(row.label, {"T": cell.trial.benchmark["tasks"]})[metric] = claim.mean
        for label, m in by_row.items():
            if "LA" in m:
                lost = m["F"] * (m["T"] - 1) / m["T"]
                assert m["ACC"] >= m["LA"] - lost - 0.02, label


def test_cells_that_were_printed_of_fewer_runs_have_all_five():
    for name, label, printed in (
        ("tag_cifar100_hybrids", "TAG-EWC", (63.98, 0.65)),
        ("tag_mini_imagenet_hybrids", "TAG-EWC", (58.15, 0.16)),
    ):
        row, _, claim, _ = next(c for c in claims(name) if c[0].label == label and c[1] == "ACC")
        log = log_of(claim)
        assert (round(log["printed"][0], 2), round(log["printed"][1], 2)) == printed
        assert claim.spread is not None
        assert claim.spread != printed[1]
        assert f"{printed[0]} ± {printed[1]}" in row.note


def test_the_margins_cannot_turn_the_order_of_tag_and_the_next_best():
    for name, rival in (("tag_cifar100", "ER"), ("tag_mini_imagenet", "ER"), ("tag_cub", "ER"),
                        ("tag_mini_imagenet_5epochs", "ER"), ("tag_cub_5epochs", "ER")):  # fmt: skip
        found = {row.label: claim.mean for row, metric, claim, _ in claims(name) if metric == "ACC"}
        best = max(v for label, v in found.items() if label not in ("TAG-RMSProp", "Multi-task"))
        assert found[rival] == best
        assert load_reproduction(name).margins["ACC"].points <= (found["TAG-RMSProp"] - best) / 2


@pytest.mark.parametrize("name", SEARCHES)
def test_the_published_choices_are_those_of_the_tables(name):
    """The published choices are the settings of the variant of the same name in the sweep that fills the tables."""
    for group in load_reproduction(name).searches:
        tables = dict(declared(group.sweep.removesuffix("_grid")))
        for row in group.rows:
            found = tables[row.variant]
            for axis, value in row.published.items():
                assert found[axis.removeprefix("model.")] == value, (row.label, axis)


def test_which_published_choices_are_in_no_shipped_grid():
    outside = {
        (name, row.label)
        for name in SEARCHES
        for group in load_reproduction(name).searches
        for row in group.rows
        if not _in_grid(row, group.sweep)
    }
    assert outside == {
        ("tag_grid", "Naive RMSProp"), ("tag_grid", "Naive Adam"), ("tag_grid", "TAG-RMSProp"),
        ("tag_grid_mini_imagenet", "TAG-Adam"),
        ("tag_grid_cub", "Naive RMSProp"), ("tag_grid_cub", "Naive Adagrad"), ("tag_grid_cub", "Naive Adam"),
        ("tag_grid_cub", "TAG-RMSProp"), ("tag_grid_5_dataset", "Naive Adagrad"),
    }  # fmt: skip


def _in_grid(row: SearchRow, sweep: str) -> bool:
    variants = dict(load_sweep(sweep).variant_settings())
    place = row.published_point(variants)
    assert place is not None, f"{row.label}: nothing runs the published choice"
    return place in row.points(variants)


def test_a_population_spread_is_smaller_by_a_known_factor():
    values = np.array(LOGS["cifar.txt", 1930]["runs"])[:, 0]
    assert values.std(ddof=1) == pytest.approx(values.std() * math.sqrt(5 / 4))
