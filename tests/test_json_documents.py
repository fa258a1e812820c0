"""``--json`` of ``clray plan``, ``status`` and ``costs``: one JSON document on standard output, nothing else there."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from test_leases import A, of_another_host, put
from test_store import record
from typer.testing import CliRunner

import clray
from clray.cli import app
from clray.leases import acquire
from clray.loading import reproduction_names
from clray.output import finite, to_json
from clray.store import Store

TRIAL = {
    "id", "track", "sweep", "variant", "method", "benchmark", "seed", "task_order", "state", "diverged", "lacking",
    "seconds", "cpu", "gpu", "gpu_memory", "max_hours", "max_memory", "data", "code", "failure",
}  # fmt: skip
BEGUN = {"id", "variant", "seed", "progress", "state", "by", "seen", "gpu_memory"}


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty working folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")
    return folder


def strict(text: str) -> Any:
    """A JSON document as the standard has it: without NaN and Infinity."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def document(*arguments: object) -> Any:
    """The document that a command prints, with nothing beside it."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return strict(result.stdout)


class TestText:
    def test_numbers_that_json_lacks_are_null(self):
        value = {"a": [math.nan, 1.5, (math.inf, {"b": -math.inf})], "c": "NaN", "d": None, "e": True, "f": 3}
        assert finite(value) == {"a": [None, 1.5, [None, {"b": None}]], "c": "NaN", "d": None, "e": True, "f": 3}
        assert strict(to_json(value)) == finite(value)

    def test_a_terminal_is_not_obeyed(self):
        assert "\x1b" not in to_json({"name": "a\x1b[2J"})
        assert json.loads(to_json({"name": "a\x1b[2J ±"})) == {"name": "a\x1b[2J ±"}

    def test_comparisons_without_spread(self, place):
        """Variants with one run each: their spread is not a number."""
        for command in (("compare", "mer_rotations"), ("leaderboard", "mer_rotations")):
            assert document(*command, "--seeds", "0")


class TestPlan:
    def test_what_is_to_do(self, place, tiny):
        data = document("plan", tiny, "--only", "online,er")
        assert set(data) == {
            "name", "results", "comparable", "counts", "left", "reference_runs", "trials", "other_ids", "problems",
        }  # fmt: skip
        assert (data["name"], data["results"], data["comparable"]) == ("tiny", "results", True)
        assert data["counts"] == {"finished": 0, "stale": 0, "half-done": 0, "to do": 4}
        assert data["left"]["trials"] == 4
        assert data["left"]["core_hours"] == pytest.approx(sum(t["seconds"] * t["cpu"] for t in data["trials"]) / 3600)
        assert data["left"]["command"] == f"clray sweep {tiny} --only online --only er"
        assert all(set(trial) == TRIAL for trial in data["trials"])
        first = data["trials"][0]
        assert (first["variant"], first["seed"], first["method"], first["state"]) == ("online", 0, "online", "to do")
        assert first["data"]["source"] == "embedded"
        assert first["task_order"] is None
        assert list(place.iterdir()) == []

    @pytest.mark.usefixtures("kernels")
    def test_what_is_finished_stale_or_failed(self, place, tiny, monkeypatch):
        made = clray.run(tiny, variant="online", seed=[0, 1], results="r")
        store = Store("r")
        old = dataclasses.replace(made.records[1], provenance={**made.records[1].provenance, "code": "0" * 16})
        store.write(old)
        todo = next(t for t in document("plan", tiny, "--results", "r")["trials"] if t["variant"] == "ewc")
        store.write_failure(todo["id"], {"error": "it\nburned", "time": time.time(), "host": "there"})
        (place / "r" / "records" / "x.parquet").write_bytes(b"torn")
        data = document("plan", tiny, "--only", "online,ewc", "--results", "r")
        assert data["counts"] == {"finished": 1, "stale": 1, "half-done": 0, "to do": 2}
        by_id = {trial["id"]: trial for trial in data["trials"]}
        assert by_id[made.records[0].id]["state"] == "finished"
        assert by_id[made.records[0].id]["seconds"] == made.records[0].undisturbed_seconds
        assert by_id[old.id]["state"] == "stale"
        assert by_id[todo["id"]]["failure"] == "it\nburned"
        assert [p["path"] for p in data["problems"]] == [str(place / "r" / "records" / "x.parquet")]
        again = document("plan", tiny, "--only", "online", "--results", "r", "--rerun-stale")
        assert again["left"]["trials"] == 1
        assert again["left"]["command"].endswith("--results r --rerun-stale")
        nothing = document("plan", tiny, "--only", "online", "--seeds", "0", "--results", "r")
        assert nothing["left"] == {"trials": 0, "core_hours": 0, "gpu_hours": 0, "command": None}

    def test_a_reproduction(self, place):
        data = document("plan", "mer_rotations", "--quick", "--set", "benchmark.source=embedded")
        assert (data["name"], data["comparable"]) == ("mer_rotations", False)
        assert data["left"]["command"].startswith("python -m clray.reproduce mer_rotations --quick")

    def test_keys_of_a_store_are_not_told(self, place, tiny, monkeypatch):
        monkeypatch.setattr("clray.commands.plan.store_at", lambda uri: Store(place / "r"))
        text = json.dumps(document("plan", tiny, "--results", "s3://name:secret@bucket/x"))
        assert "secret" not in text
        assert "s3://***@bucket/x" in text


class TestStatus:
    def test_an_empty_store(self, place):
        assert document("status") == {
            "results": str(place / "results"), "finished": 0, "diverged": 0, "begun": [], "failed": [], "problems": [],
        }  # fmt: skip
        assert list(place.iterdir()) == []

    def test_trials_in_every_state(self, place):
        store, one = Store("results"), record()
        store.write(one)
        others = [record(seed=seed, status="running") for seed in (1, 2, 3)]
        for other in others:
            store.write(other)
        holder = acquire(store, others[0].id, "launch", variant="er", seed=1, progress=0.25)
        put(store, others[1].id, of_another_host(others[1].id).to_bytes())
        try:
            data = document("status")
        finally:
            holder.release()
        assert (data["finished"], data["diverged"]) == (1, 0)
        begun = {line["id"]: line for line in data["begun"]}
        assert all(set(line) == BEGUN for line in begun.values())
        assert set(begun) == {other.id for other in others}
        running = begun[others[0].id]
        assert (running["state"], running["variant"], running["seed"], running["progress"]) == (
            "running",
            "er",
            1,
            0.25,
        )
        assert 0 <= running["seen"] < 60
        assert (begun[others[1].id]["state"], begun[others[1].id]["by"]) == ("running", of_another_host(A).owner)
        assert (begun[others[2].id]["state"], begun[others[2].id]["seen"]) == ("stopped", None)

    def test_failures_and_foreign_files(self, place):
        store = Store("results")
        store.write_failure(A, {"error": "no\nluck", "host": "there", "time": 12.5, "traceback": "Traceback …"})
        (place / "results" / "records").mkdir()
        (place / "results" / "records" / "x.parquet").write_bytes(b"torn")
        data = document("status")
        assert data["failed"] == [
            {"id": A, "host": "there", "time": 12.5, "error": "no luck", "traceback": "Traceback …"}
        ]
        assert data["problems"][0]["path"].endswith("x.parquet")
        assert data["problems"][0]["reason"].startswith("not a record")


def test_the_page_about_them_names_every_key(place, tiny):
    page = Path(__file__).resolve().parents[1] / "docs" / "python.md"
    if not page.exists():
        pytest.skip("docs/ is not part of an installed package")
    text = page.read_text(encoding="utf-8")
    plan, status = document("plan", tiny), document("status")
    keys = {*plan, *plan["counts"], *plan["left"], *TRIAL, *plan["trials"][0]["data"], *status, *BEGUN}
    assert [key for key in sorted(keys) if f"`{key}`" not in text] == []


def test_costs(place):
    data = document("costs")
    assert [cost["name"] for cost in data["costs"]] == reproduction_names()
    assert set(data["costs"][0]) == {
        "name", "title", "trials", "measured", "core_hours", "measured_core_hours", "gpu_hours", "processors",
    }  # fmt: skip
    rotations = next(cost for cost in data["costs"] if cost["name"] == "mer_rotations")
    assert (rotations["trials"], rotations["measured"]) == (70, 70)
    assert rotations["core_hours"] == rotations["measured_core_hours"] > 0
    said = CliRunner().invoke(app, ["costs"], catch_exceptions=False).stdout
    assert f"| {rotations['core_hours']:.2f} |" in next(line for line in said.splitlines() if "`mer_rotations`" in line)
