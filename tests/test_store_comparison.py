"""Two stores compared: what each lacks, where the bits differ and by how much, and what made the records."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from test_store import record
from typer.testing import CliRunner, Result

import clray.loading
import clray.reproduction
from clray.cli import app
from clray.errors import ClrayError, DeclarationError, StoreError
from clray.loading import load_sweep
from clray.metrics import Measurement
from clray.record import Record
from clray.reproduction import Tolerance
from clray.selection import Selection
from clray.store import Store
from clray.store_comparison import compare_stores, compared
from clray.trial import Trial

WIDE = Tolerance(points=3.0, reason="a test")
FACTS: dict[str, Any] = {
    "code": "c" * 16, "clray": "0.1.0", "python": "3.12.1", "packages": {"numpy": "2.0", "torch": "2.5"},
    "machine": {"host": "here", "processor": "A CPU"}, "seconds": 1.0, "engine": "fused", "device": "cpu",
}  # fmt: skip


def with_value(one: Record, place: int, value: float) -> Record:
    measurements = [m._replace(value=value) if i == place else m for i, m in enumerate(one.measurements)]
    return dataclasses.replace(one, measurements=measurements)


class TestCompared:
    def test_the_same_bits(self):
        found = compared(record(), record())
        assert (found.agreement, found.changed, found.measurements) == ("same bits", 0, 6)
        assert (found.first, found.largest, found.statuses, found.made_by) == (None, None, None, {})
        assert found.words() == "same bits"

    def test_the_first_and_the_largest_change(self):
        one = record()
        other = with_value(with_value(one, 5, 0.75), 2, 0.89)
        found = compared(one, other, WIDE)
        assert (found.agreement, found.changed) == ("different", 2)
        assert (found.first.one, found.first.other, found.first.size) == (0.9, 0.89, pytest.approx(1.0))
        assert (found.largest.one, found.largest.other, found.largest.size) == (0.8, 0.75, pytest.approx(5.0))
        assert found.largest.measured == one.measurements[5]
        assert found.words() == (
            "different; 2 of 6 measurements; "
            "the largest difference: accuracy on task 2 after 2 tasks, 10 examples: 0.8 in A, 0.75 in B, 5 points "
            "apart; the first: accuracy on task 1 after 1 tasks, 5 examples: 0.9 in A, 0.89 in B, 1 points apart"
        )
        assert compared(one, with_value(one, 2, 0.89), WIDE).agreement == "within tolerance"
        assert compared(one, with_value(one, 2, 0.89)).agreement == "different"
        last_bit = compared(one, with_value(one, 2, math.nextafter(0.9, 1)))
        assert (last_bit.agreement, last_bit.changed) == ("different", 1)
        assert 0 < last_bit.largest.size < 1e-10

    @pytest.mark.parametrize("turned", [False, True])
    def test_a_measurement_that_only_one_has(self, turned):
        one = record()
        further = dataclasses.replace(one, measurements=[*one.measurements, Measurement(3, 0, 1, "loss", 0.5)])
        found = compared(*((further, one) if turned else (one, further)), WIDE)
        assert (found.agreement, found.changed, found.measurements) == ("different", 1, 7)
        assert (found.largest.one, found.largest.other) == ((0.5, None) if turned else (None, 0.5))
        assert f"loss on task 2 after 0 tasks, 3 examples, only in {'A' if turned else 'B'}" in found.words()
        assert found.to_json()["largest"]["points"] == "inf"
        json.dumps(found.to_json(), allow_nan=False)

    def test_values_that_are_no_numbers(self):
        one = record()
        loss = Measurement(3, 0, 1, "loss", math.nan)
        lost = dataclasses.replace(one, measurements=[*one.measurements, loss])
        assert compared(lost, dataclasses.replace(lost, measurements=[*one.measurements, loss])).changed == 0
        found = compared(lost, dataclasses.replace(lost, measurements=[*one.measurements, loss._replace(value=1.0)]))
        assert (found.agreement, found.largest.size) == ("different", math.inf)
        assert (found.to_json()["largest"]["a"], found.to_json()["largest"]["b"]) == ("nan", 1.0)

    def test_another_end(self):
        found = compared(record(), record(status="diverged"), WIDE)
        assert (found.agreement, found.statuses) == ("different", ("finished", "diverged"))
        assert found.words(("the one", "the other")) == "different; finished in the one and diverged in the other"

    def test_the_same_measurements_in_another_order(self):
        one = record()
        found = compared(one, dataclasses.replace(one, measurements=one.measurements[::-1]))
        assert (found.agreement, found.changed) == ("different", 0)
        assert "in another order, or some of them twice" in found.words()

    def test_what_made_them(self, monkeypatch):
        one = record(provenance=FACTS)
        other = {
            **FACTS, "code": "d" * 16, "python": "3.13.0", "packages": {"numpy": "2.1", "torch": "2.5", "ray": "2.60"},
            "machine": {"host": "there", "processor": "B CPU", "gpu": "H"}, "seconds": 2.0, "device": "cuda",
        }  # fmt: skip
        found = compared(one, record(provenance=other))
        assert found.agreement == "same bits"
        assert found.made_by == {
            "code": ("c" * 16, "d" * 16), "python": ("3.12.1", "3.13.0"), "device": ("cpu", "cuda"),
            "numpy": ("2.0", "2.1"), "ray": ("unknown", "2.60"), "processor": ("A CPU", "B CPU"),
            "gpu": ("unknown", "H"),
        }  # fmt: skip
        assert "made by code " in found.words()
        monkeypatch.setattr("clray.store_comparison.is_equal", lambda one, other: True)
        assert "code" not in compared(one, record(provenance=other)).made_by, "it is known to give the same bits"

    def test_provenance_that_says_little(self):
        assert compared(record(provenance={}), record(provenance={"packages": 7, "machine": {}})).made_by == {}


def test_stores():
    ours = [record(seed) for seed in (0, 1, 2, 3)]
    theirs = [with_value(record(1), 2, 0.89), record(2), record(3), record(4)]
    found = compare_stores((ours, []), (theirs, []), lambda r: WIDE if r.trial.seed == 1 else None)
    assert [r.trial.seed for r in found.only_a] == [0]
    assert [r.trial.seed for r in found.only_b] == [4]
    assert [(c.seed, c.agreement) for c in found.both] == [(1, "within tolerance"), (2, "same bits"), (3, "same bits")]
    assert (found.count("same bits"), found.different) == (2, [])
    few = compare_stores((ours, []), (theirs, []), lambda r: None, lambda r: r.trial.seed < 2)
    assert ([c.seed for c in few.different], few.only_b) == ([1], [])


SWEEP = """\
version: 1
track: vision
benchmark: {name: mnist-rotations, tasks: 2, train_per_task: 30, source: embedded}
model: {name: mlp, hidden: [20, 20]}
seeds: [0, 1]
variants:
  online: {method: online, lr: 0.01}
  er: {method: er, lr: 0.05, memories: 20, replay_batch: 10}
"""
REPRODUCTION = """\
version: 1
paper: mer
title: A reproduction of seconds
runs: 2
spread: sd
known: paper
margins: {{RA: {{points: 1.0, reason: small enough}}}}
{tolerance}
tables:
  - title: A table
    source: a test
    sweep: {sweep}
    metrics: [RA]
    rows:
      - {{label: Online, variant: online, claims: {{RA: 50.0 ± 1.0}}}}
      - {{label: ER, variant: er, claims: {{RA: 50.0 ± 1.0}}}}
"""


class TestCommand:
    @pytest.fixture
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "200")
        (tmp_path / "tiny.yaml").write_text(SWEEP)
        for name in ("a", "b"):
            for one in self.records():
                Store(tmp_path / name).write(one)
            Store(tmp_path / name).write(record())
        return tmp_path

    def records(self) -> list[Record]:
        """Records of the sweep's trials, with numbers of no training."""
        found = []
        for cell in load_sweep("tiny.yaml", Selection()).cells:
            one = record()
            id = cell.trial.id(one.data["fingerprint"])
            found.append(dataclasses.replace(one, id=id, trial=cell.trial, variant=cell.variant, provenance=FACTS))
        return found

    def run(self, *arguments: object) -> Result:
        return CliRunner().invoke(app, ["compare-stores", *map(str, arguments)], catch_exceptions=False)

    def change(self, place: Path, amount: float, variant: str = "er", store: str = "b") -> Record:
        [one, *_] = [r for r in Store(place / store).records()[0] if r.variant == variant]
        changed = with_value(one, 5, one.measurements[5].value - amount)
        facts = {**FACTS, "machine": {"processor": "B CPU"}}
        Store(place / store).write(dataclasses.replace(changed, provenance=facts))
        return one

    def test_the_same(self, place):
        done = self.run("a", "b")
        assert done.exit_code == 0
        assert "same bits             5" in done.output

    def test_what_only_one_has(self, place):
        one = self.records()[0]
        Store(place / "a").delete_files([f"records/{one.id}.parquet"])
        Store(place / "b").delete_files([f"records/{record().id}.parquet"])
        done = self.run("a", "b")
        assert done.exit_code == 0
        assert "only in A: tiny: er-5 (1)" in done.output
        assert f"only in B: tiny: {one.variant} (1)" in done.output
        assert self.run("a", "b", "--complete").exit_code == 1
        few = self.run("a", "b", "tiny.yaml", "--complete", "--only", "er")
        assert (few.exit_code, "same bits             2" in few.output) == (0, True)

    def test_one_that_differs(self, place):
        one = self.change(place, 0.02)
        done = self.run("a", "b")
        assert done.exit_code == 1
        assert "different             1" in done.output
        assert "made by another: processor (1 trial)" in done.output
        [line] = [line for line in done.output.splitlines() if line.startswith(one.id)]
        assert "0.8 in A, 0.78 in B, 2 points apart; made by processor A CPU and B CPU" in line
        assert self.run("a", "b", "tiny.yaml", "--only", "online").exit_code == 0
        assert self.run("a", "b", "tiny.yaml").exit_code == 1
        data = json.loads(self.run("b", "a", "--json").output)
        assert data["counts"] == {"only_a": 0, "only_b": 0, "same_bits": 4, "within_tolerance": 0, "different": 1}
        [found] = [c for c in data["both"] if c["agreement"] == "different"]
        assert (found["id"], found["largest"]["a"], found["largest"]["b"]) == (one.id, 0.78, 0.8)
        assert found["largest"]["metric"] == "accuracy"
        assert found["made_by"] == {"processor": ["B CPU", "A CPU"]}

    @pytest.fixture
    def reproduction(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        """``declare(points)`` makes a reproduction of the sweep the only one, with this tolerance."""
        (place / "sweeps").mkdir()
        (place / "sweeps" / "tiny.yaml").write_text(SWEEP)
        (place / "reproduce").mkdir()
        shipped = clray.loading.declared_root() / "reproduce" / "papers.yaml"
        (place / "reproduce" / "papers.yaml").write_text(shipped.read_text())
        for module in (clray.loading, clray.reproduction):
            monkeypatch.setattr(module, "declared_root", lambda: place)

        def declare(points: float | None, name: str = "tiny_table") -> None:
            tolerance = "" if points is None else f"tolerance: {{points: {points}, reason: a test}}"
            text = REPRODUCTION.format(tolerance=tolerance, sweep="tiny")
            (place / "reproduce" / f"{name}.yaml").write_text(text)

        return declare

    @pytest.mark.parametrize(("points", "code"), [(None, 1), (1.5, 1), (2.5, 0)])
    def test_the_tolerance_of_the_reproduction(self, place, reproduction, points, code):
        reproduction(points)
        self.change(place, 0.02)
        kind = "different             1" if code else "within tolerance      1"
        for arguments in ((), ("tiny_table",), ("tiny",)):
            done = self.run("a", "b", *arguments)
            assert (done.exit_code, kind in done.output) == (code, True), (arguments, done.output)

    def test_of_several_tolerances_the_smallest(self, place, reproduction):
        reproduction(2.5)
        reproduction(1.5, "another_table")
        self.change(place, 0.02)
        assert self.run("a", "b").exit_code == 1
        assert self.run("a", "b", "tiny_table").exit_code == 0

    def test_a_record_that_cannot_be_read(self, place):
        path = Path(Store(place / "b").path("records", f"{record().id}.parquet"))
        path.write_bytes(b"torn")
        done = self.run("a", "b")
        assert done.exit_code == 1
        assert f"{path}: skipped: not a readable record" in done.output

    def test_nothing_to_compare_is_no_success(self, place):
        (place / "empty").mkdir()
        with pytest.raises(StoreError, match=r"neither .*empty nor .*empty holds a finished trial") as caught:
            self.run("empty", "empty")
        assert caught.value.exit_code == 1
        with pytest.raises(StoreError, match=r"holds a finished trial of mer/rotations"):
            self.run("a", "b", "mer/rotations")

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("a", "nowhere"), "B nowhere: no such folder"),
            (("", "b"), "A '': names no store"),
            (("a", "b", "mer/rotation"), "did you mean 'mer/rotations'"),
            (("a", "b", "--only", "er"), "--only: selects trials of a sweep: name it after A and B"),
            (("a", "b", "tiny.yaml", "--only", "e"), "no such variant"),
        ],
    )
    def test_wrong_use_exits_with_2(self, place, arguments, said):
        with pytest.raises(ClrayError) as caught:
            self.run(*arguments)
        assert isinstance(caught.value, DeclarationError)
        assert caught.value.exit_code == 2
        assert said in str(caught.value)
        assert not (place / "nowhere").exists()

    def test_one_store_is_wrong_use(self, place):
        assert self.run("a").exit_code == 2


class TestShow:
    def show(self, *arguments: object) -> Result:
        return CliRunner().invoke(app, ["show", *map(str, arguments)], catch_exceptions=False)

    @pytest.fixture
    def again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
        """A store with a trial that other code had run before, twice without saying which."""
        monkeypatch.setenv("COLUMNS", "200")
        store = Store(tmp_path / "results")
        store.write(with_value(record(provenance={"saved": 1e9}), 5, 0.7))
        store.write(record(provenance={"saved": 1.1e9}))
        store.write(record(provenance={**FACTS, "code": "b" * 16, "saved": 1.2e9}))
        store.write(record(provenance={**FACTS, "saved": 1.3e9}))
        return store

    def test_every_superseded_record_is_told(self, again):
        said = self.show(record().id, "--results", again.path())
        lines = [line for line in said.output.splitlines() if line.startswith("superseded record: ")]
        assert len(lines) == 3
        assert "by code that it does not name on 20" in lines[0]
        assert "0.7 in the earlier record, 0.8 in the present one, 10 points apart" in lines[0]
        assert "; same bits" in lines[1]
        assert f"made by the code {'b' * 16} on here" in lines[2]
        assert f"clray show {record().id} --superseded shows them in full" in said.output

    def test_in_full(self, again):
        [first, second, third] = json.loads(self.show(record().id, "--results", again.path(), "--superseded").output)
        assert [one["provenance"]["saved"] for one in (first, second, third)] == [1e9, 1.1e9, 1.2e9]
        assert first["metrics"]["RA"] == pytest.approx(0.5)
        assert first["present"]["metrics"]["RA"] == pytest.approx(0.55)
        assert (first["present"]["agreement"], first["present"]["changed"]) == ("different", 1)
        assert third["present"]["made_by"] == {"code": ["b" * 16, "c" * 16]}
        assert Path(third["path"]).is_file()

    def test_a_broken_one_is_told(self, again):
        [first, *_] = again.superseded(record().id)
        Path(first.path).write_bytes(b"torn")
        said = self.show(record().id, "--results", again.path())
        assert f"superseded record: {first.path}: skipped: not a readable record" in said.output
        full = json.loads(self.show(record().id, "--results", again.path(), "--superseded").output)
        assert "not a readable record" in full[0]["problem"]

    def test_without_any_it_is_an_error(self, tmp_path):
        Store(tmp_path).write(record())
        assert "superseded" not in self.show(record().id, "--results", tmp_path).output
        with pytest.raises(ClrayError, match="it has no superseded record") as caught:
            self.show(record().id, "--results", tmp_path, "--superseded")
        assert caught.value.exit_code == 1
        with pytest.raises(DeclarationError, match="only trials have superseded records"):
            self.show("mer/rotations", "--superseded")


def test_a_declaration_is_a_trial():
    """The trials above are what a store takes for trials."""
    assert isinstance(record().trial, Trial)
