"""Verification: trials are run again, and every measurement is compared with the reference run's."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import clray.loading
import clray.reproduction
from clray import reference_runs
from clray.cli import app
from clray.errors import ClrayError, DataError, DeclarationError
from clray.execution import Execution
from clray.loading import load_sweep
from clray.metrics import Measurement
from clray.planning import plan
from clray.record import Record
from clray.reproduction import Tolerance
from clray.selection import Selection
from clray.store import Store
from clray.verification import Difference, Verified, agreement, compare, draw, verify

SOME = [
    Measurement(0, 0, 0, "accuracy", 0.125),
    Measurement(30, 1, 0, "accuracy", 0.5),
    Measurement(30, 1, 0, "displacement", 40.0),
    Measurement(60, 2, 1, "accuracy", 0.25),
]


def with_value(measurements: list[Measurement], place: int, value: float) -> list[Measurement]:
    """The measurements with another value at one place."""
    return [m._replace(value=value) if i == place else m for i, m in enumerate(measurements)]


class TestCompare:
    def test_the_same_bits(self):
        assert compare(SOME, list(SOME)) == Difference(0.0, "")
        assert compare([], []) == Difference(0.0, "")

    @pytest.mark.parametrize("value", [0.5, 1 / 3, 5e-324, 1e300])
    def test_the_last_bit_is_a_difference_of_next_to_nothing(self, value):
        one = with_value(SOME, 1, value)
        found = compare(one, with_value(SOME, 1, math.nextafter(value, math.inf)))
        assert found.where == "accuracy on task 1 after 1 tasks, 30 examples"
        assert 0 < found.size < 1e-9

    def test_the_sign_of_zero_is_a_bit(self):
        found = compare(with_value(SOME, 1, 0.0), with_value(SOME, 1, -0.0))
        assert found.size == 0
        assert found.where

    def test_a_value_that_is_no_number(self):
        lost = with_value(SOME, 2, math.nan)
        assert compare(lost, list(lost)) == Difference(0.0, "")
        where = "displacement on task 1 after 1 tasks, 30 examples"
        assert compare(lost, SOME) == compare(SOME, lost) == Difference(math.inf, where)
        found = compare(lost, with_value(lost, 1, 0.48))
        assert found == Difference(pytest.approx(2.0), "accuracy on task 1 after 1 tasks, 30 examples")
        endless = with_value(SOME, 2, math.inf)
        assert compare(endless, list(endless)) == Difference(0.0, "")
        assert compare(endless, SOME) == Difference(math.inf, where)
        assert compare(endless, with_value(SOME, 2, -math.inf)) == Difference(math.inf, where)

    @pytest.mark.parametrize("lacking", range(4))
    def test_a_measurement_that_only_one_of_them_has(self, lacking):
        fewer = SOME[:lacking] + SOME[lacking + 1 :]
        m = SOME[lacking]
        place = f"{m.metric} on task {m.eval_task + 1} after {m.trained_tasks} tasks, {m.step} examples"
        for found in (compare(SOME, fewer), compare(fewer, SOME)):
            assert found == Difference(math.inf, f"1 measurements that only one of the two has, such as {place}")

    @pytest.mark.parametrize(
        "changed", [{"step": 31}, {"trained_tasks": 2}, {"eval_task": 1}, {"metric": "test_accuracy"}]
    )
    def test_a_measurement_at_another_place_is_another_one(self, changed):
        moved = [m._replace(**changed) if i == 1 else m for i, m in enumerate(SOME)]
        found = compare(SOME, moved)
        assert found.size == math.inf
        assert found.where.startswith("2 measurements that only one of the two has, such as accuracy on task 1 after 1")

    def test_a_measurement_that_was_made_twice(self):
        assert compare(SOME, [*SOME, SOME[-1]]).where

    def test_a_fraction_differs_by_per_cent_points(self):
        assert compare(SOME, with_value(SOME, 1, 0.48)).size == pytest.approx(2.0)
        assert compare(with_value(SOME, 1, 0.0), with_value(SOME, 1, 1.0)).size == pytest.approx(100.0)

    def test_another_value_differs_by_per_cent_of_the_reference(self):
        assert compare(SOME, with_value(SOME, 2, 41.0)).size == pytest.approx(2.5)
        assert compare(with_value(SOME, 2, -2.0), with_value(SOME, 2, -1.0)).size == pytest.approx(50.0)
        assert compare(with_value(SOME, 2, 0.5), with_value(SOME, 2, 1.5)).size == pytest.approx(200.0)
        assert compare(with_value(SOME, 2, 0.0), with_value(SOME, 2, 2.0)).size > 1e9

    def test_the_largest_difference_is_named(self):
        here = with_value(with_value(with_value(SOME, 0, 0.13), 2, 42.0), 3, 0.26)
        assert compare(SOME, here) == Difference(
            pytest.approx(5.0), "displacement on task 1 after 1 tasks, 30 examples"
        )
        here = with_value(with_value(SOME, 1, 0.49), 3, 0.35)
        assert compare(SOME, here).where == "accuracy on task 2 after 2 tasks, 60 examples"


class TestAgreement:
    HALF = Tolerance(points=0.5, reason="half a point")

    @pytest.mark.parametrize(
        ("size", "where", "without", "within_half"),
        [
            (0.0, "", "same bits", "same bits"),
            (0.0, "somewhere", "different", "within tolerance"),
            (1e-14, "somewhere", "different", "within tolerance"),
            (0.5, "somewhere", "different", "within tolerance"),
            (0.500001, "somewhere", "different", "different"),
            (math.inf, "somewhere", "different", "different"),
        ],
    )
    def test_only_a_declared_tolerance_allows_other_bits(self, size, where, without, within_half):
        difference = Difference(size, where)
        assert agreement(difference, None) == without
        assert agreement(difference, self.HALF) == within_half

    def test_fractions_and_other_values_have_tolerances_of_their_own(self):
        """By default one number is for both."""
        both = Tolerance(points=1.0, percent=10.0, reason="eigenvalues move more")
        near = with_value(with_value(SOME, 1, 0.495), 2, 43.0)
        assert agreement(compare(SOME, near, both), both) == "within tolerance"
        assert agreement(compare(SOME, near, self.HALF), self.HALF) == "different"
        for i, value in ((1, 0.48), (2, 45.0)):
            found = compare(SOME, with_value(near, i, value), both)
            assert agreement(found, both) == "different"
            assert SOME[i].metric in found.where

    @pytest.mark.parametrize("points", [0, -1, math.nan, math.inf])
    def test_a_tolerance_is_a_number_above_zero(self, points):
        with pytest.raises(ValueError, match="points"):
            Tolerance(points=points, reason="none")


SWEEP = """\
version: 1
paper: mer
title: A sweep of seconds
track: vision
benchmark: {name: mnist-rotations, tasks: 3, train_per_task: 30, source: embedded}
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
margins: {RA: {points: 1.0, reason: small enough}}
tables:
  - title: Seconds
    sweep: tiny
    source: Table 0
    metrics: [RA]
    rows:
      - {label: Online, variant: online, claims: {RA: 50.0 ± 1.0}}
      - {label: Replay, variant: er, claims: {RA: 60.0 ± 1.0}}
"""
TOLERANCE = "tolerance: {points: 0.5, reason: an exponential function of another library}\n"


@pytest.fixture(scope="module")
def made(kernels, tmp_path_factory) -> list[Record]:
    """Two trials of Online and two of replay, on embedded digits, as this machine runs them."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "tiny.yaml").write_text(SWEEP)
    store = Store(folder / "results")
    sweep = load_sweep(folder / "tiny.yaml")
    for planned in plan({"tiny": sweep}, store).trials:
        execution = Execution(planned.task(), store)
        while not execution.done:
            execution.step()
    found, problems = store.records()
    assert (len(found), problems) == (4, [])
    return sorted(found, key=lambda record: (record.variant, record.trial.seed))


def changed(record: Record, place: int, value: float) -> Record:
    return dataclasses.replace(record, measurements=with_value(record.measurements, place, value))


def silent(record: Record, progress: float) -> None:
    """Takes note of no progress."""


class TestDraw:
    def test_one_seed_gives_one_draw_whatever_the_order_of_the_records(self, made):
        first = draw(made, 2, 7)
        assert draw(made, 2, 7) == draw(made[::-1], 2, 7) == first
        assert len({record.id for record in first}) == 2
        assert all(record in made for record in first)

    def test_another_seed_gives_another_draw(self, made):
        draws = {tuple(record.id for record in draw(made, 2, seed)) for seed in range(20)}
        assert len(draws) > 5
        assert {id for drawn in draws for id in drawn} == {record.id for record in made}, "each may be drawn"

    @pytest.mark.parametrize("trials", [4, 5, 1000])
    def test_all_of_them_where_more_are_asked_for(self, made, trials):
        assert sorted(r.id for r in draw(made, trials, 1)) == sorted(r.id for r in made)

    def test_none_of_none(self):
        assert draw([], 3, 1) == []


class TestVerify:
    def test_trials_that_are_run_again_have_the_same_bits(self, made):
        noted: list[tuple[str, float]] = []
        found = list(verify(made[:3], None, lambda record, progress: noted.append((record.id, progress))))
        assert [v.reference for v in found] == made[:3]
        assert {v.agreement for v in found} == {"same bits"}
        assert {v.difference for v in found} == {Difference(0.0, "")}
        assert all(v.seconds > 0 for v in found)
        for record in made[:3]:
            progress = [p for id, p in noted if id == record.id]
            assert progress == sorted(progress)
            assert progress[-1] == 1

    def test_they_are_compared_with_what_is_read_from_a_file(self, made, tmp_path, monkeypatch):
        monkeypatch.setattr(reference_runs, "path_of", lambda name: tmp_path / f"{name}.parquet")
        reference_runs.write("tiny", made)
        [found] = verify(draw(reference_runs.read("tiny"), 1, 3), None, silent)
        assert found.agreement == "same bits"

    def one(self, record: Record, tolerance: Tolerance | None = None) -> Verified:
        [found] = verify([record], tolerance, silent)
        return found

    def test_one_bit_of_one_measurement_is_found(self, made):
        online = next(r for r in made if r.variant == "online")
        value = online.measurements[-1].value
        found = self.one(changed(online, -1 + len(online.measurements), math.nextafter(value, 1)))
        assert found.agreement == "different"
        assert found.difference.where.startswith("accuracy on task 3 after 3 tasks")
        assert 0 < found.difference.size < 1e-9
        near = self.one(
            changed(online, -1 + len(online.measurements), math.nextafter(value, 1)),
            Tolerance(points=0.5, reason="half a point"),
        )
        assert near.agreement == "within tolerance"

    def test_a_lost_measurement_is_found_whatever_the_tolerance(self, made):
        record = dataclasses.replace(made[0], measurements=made[0].measurements[1:])
        found = self.one(record, Tolerance(points=100, reason="anything goes"))
        assert (found.agreement, found.difference.size) == ("different", math.inf)

    def test_a_trial_that_diverged_there_and_not_here(self, made):
        found = self.one(dataclasses.replace(made[0], status="diverged"), Tolerance(points=100, reason="anything goes"))
        assert found.agreement == "different"
        assert found.difference == Difference(math.inf, "finished here, and diverged there")

    def test_a_trial_that_diverges_again(self, tiny, tmp_path):
        store = Store(tmp_path / "results")
        sets = ("variants.online.lr=1e30",)
        sweep = load_sweep(tiny, Selection(only=("online",), seeds=(0,), set=sets))
        [planned] = plan({"tiny": sweep}, store).trials
        execution = Execution(planned.task(), store)
        while not execution.done:
            execution.step()
        record = store.read(planned.id)
        assert record.status == "diverged"
        assert self.one(record).agreement == "same bits"

    def test_other_data_here_is_one_error(self, made):
        other = {"name": "mnist", "source": "cache", "fingerprint": "0123456789abcdef"}
        record = dataclasses.replace(made[0], data=other, id=made[0].trial.id(other["fingerprint"]))
        with pytest.raises(DataError) as caught:
            self.one(record)
        assert str(caught.value) == (
            f"{record.variant}: the data mnist here (embedded, {made[0].data['fingerprint']}) are other than those of "
            "the reference runs (cache, 0123456789abcdef); `clray data list` tells where to get them"
        )

    def test_a_reference_run_of_a_gpu_needs_one(self, made):
        import torch

        if torch.cuda.is_available():
            pytest.skip("there is a GPU")
        record = dataclasses.replace(made[0], provenance={**made[0].provenance, "device": "cuda"})
        with pytest.raises(ClrayError, match="seed 0: the reference run is of a GPU; there is none"):
            self.one(record)


class TestCommand:
    """``clray verify`` where a small reproduction and its reference runs ship in place of clray's own."""

    @pytest.fixture(autouse=True)
    def root(self, tmp_path, monkeypatch, made) -> Path:
        shipped = clray.loading.declared_root()
        root = tmp_path / "root"
        (root / "sweeps").mkdir(parents=True)
        (root / "reproduce").mkdir()
        (root / "sweeps" / "tiny.yaml").write_text(SWEEP)
        (root / "reproduce" / "papers.yaml").write_text(
            (shipped / "reproduce" / "papers.yaml").read_text("utf-8"), "utf-8"
        )
        (root / "reproduce" / "tiny_table.yaml").write_text(REPRODUCTION, encoding="utf-8")
        (root / "reproduce" / "second_table.yaml").write_text(REPRODUCTION, encoding="utf-8")
        for module in (clray.loading, clray.reproduction, reference_runs):
            monkeypatch.setattr(module, "declared_root", lambda: root)
        monkeypatch.setenv("COLUMNS", "160")
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")
        reference_runs.write("tiny_table", made)
        return root

    def verify(self, *arguments: object, name: str = "tiny_table") -> Result:
        return CliRunner().invoke(app, ["verify", name, *map(str, arguments)], catch_exceptions=False)

    def pack(self, made: list[Record], record: Record) -> None:
        """Ship this record in the place of the one with its id."""
        reference_runs.write("tiny_table", [record if record.id == r.id else r for r in made])

    def allow(self, root: Path) -> None:
        """Declare a tolerance."""
        file = root / "reproduce" / "tiny_table.yaml"
        file.write_text(REPRODUCTION.replace("tables:", f"{TOLERANCE}tables:"), encoding="utf-8")

    def rows(self, done: Result) -> dict[str, str]:
        """The printed lines about trials, by the trial's name."""
        lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
        return {line[: line.index(" seed ") + 7]: line for line in lines if line.startswith(("online seed", "er seed"))}

    def test_all_of_them(self, made):
        done = self.verify("--trials", 9, "--seed", 5)
        assert done.exit_code == 0, done.output
        rows = self.rows(done)
        assert set(rows) == {f"{r.variant} seed {r.trial.seed}" for r in made}
        assert all(": same bits (" in line for line in rows.values())
        there = next(r for r in made if (r.variant, r.trial.seed) == ("er", 1)).provenance["seconds"]
        assert rows["er seed 1"].endswith(f" s here, {there:.0f} s then)")
        assert "4 of 4 reference runs, drawn by: clray verify tiny_table --trials 4 --seed 5" in done.stdout
        assert "different" not in done.stdout
        assert list(Path.cwd().iterdir()) == [], "nothing is left where the user works"

    def test_the_printed_command_draws_the_same_trials_again(self, made):
        first = self.verify("--trials", 1)
        [line] = [line for line in first.stdout.splitlines() if "drawn by: " in line]
        assert line.startswith("1 of 4 reference runs, drawn by: clray verify tiny_table --trials 1 --seed ")
        second = self.verify(*line.split("clray verify tiny_table ")[1].split())
        assert set(self.rows(second)) == set(self.rows(first))
        assert len(self.rows(first)) == 1

    def test_only_some_variants(self):
        done = self.verify("--only", "er", "--trials", 1, "--seed", 2)
        assert done.exit_code == 0, done.output
        assert "1 of 2 reference runs, drawn by: clray verify tiny_table --only er --trials 1 --seed 2" in done.stdout
        assert {name.split()[0] for name in self.rows(done)} == {"er"}

    def test_a_changed_measurement_is_different_and_exits_with_1(self, made):
        online = next(r for r in made if r.variant == "online")
        last = len(online.measurements) - 1
        value = online.measurements[last].value
        self.pack(made, changed(online, last, value + 0.25 if value < 0.5 else value - 0.25))
        done = self.verify("--trials", 4, "--seed", 1, "--only", "online")
        assert done.exit_code == 1
        rows = self.rows(done)
        assert ": different, largest difference 25 points: accuracy on task 3 after 3 tasks, " in rows.pop(
            "online seed 0"
        )
        assert all(": same bits (" in line for line in rows.values())
        assert "1 of 2 are different" in done.stdout

    def test_the_last_bit_counts_unless_a_tolerance_is_declared(self, root, made):
        online = next(r for r in made if r.variant == "online")
        self.pack(made, changed(online, 0, math.nextafter(online.measurements[0].value, 1)))
        arguments = ("--only", "online", "--trials", 2, "--seed", 1)
        done = self.verify(*arguments)
        assert done.exit_code == 1
        assert "1 of 2 are different" in done.stdout
        assert "tolerance" not in done.stdout
        self.allow(root)
        done = self.verify(*arguments)
        assert done.exit_code == 0, done.output
        assert ": within tolerance, " in self.rows(done)["online seed 0"]
        assert ": same bits (" in self.rows(done)["online seed 1"]
        assert "tolerance: 0.5 points for each measurement: an exponential function of another library" in done.stdout

    def test_a_tolerance_does_not_hide_a_larger_difference(self, root, made):
        self.allow(root)
        online = next(r for r in made if r.variant == "online")
        value = online.measurements[0].value
        self.pack(made, changed(online, 0, value + 0.0051))
        done = self.verify("--only", "online", "--trials", 2, "--seed", 1)
        assert done.exit_code == 1
        assert (
            ": different, largest difference 0.51 points: accuracy on task 1 after 0 tasks, 0 examples"
            in self.rows(done)["online seed 0"]
        )

    def test_it_says_how_many_were_made_by_other_code(self, made):
        other = dataclasses.replace(made[0], provenance={**made[0].provenance, "code": "0" * 16})
        self.pack(made, other)
        done = self.verify("--only", other.variant, "--trials", 2, "--seed", 1)
        assert done.exit_code == 0, "other code may give the same bits"
        assert "1 of the 2 drawn runs were made by other code than this" in done.stdout
        assert "made by other code" not in self.verify("--only", "online", "--trials", 1, "--seed", 1).stdout

    @pytest.mark.parametrize("name", ["second_table"])
    def test_without_reference_runs_it_is_one_error_with_the_allowed_names(self, name):
        with pytest.raises(DeclarationError) as caught:
            self.verify(name=name)
        assert str(caught.value) == f"{name}: no reference runs of this ship with clray; allowed: tiny_table"

    def test_without_any_at_all(self):
        reference_runs.path_of("tiny_table").unlink()
        with pytest.raises(DeclarationError, match=r"tiny_table: no reference runs .*; allowed: none$"):
            self.verify()

    def test_records_of_trials_that_are_declared_no_more_are_not_run(self, root, made):
        file = root / "sweeps" / "tiny.yaml"
        file.write_text(file.read_text().replace("seeds: [0, 1]", "seeds: [0, 2]", 1))
        done = self.verify("--trials", 9, "--seed", 1)
        assert set(self.rows(done)) == {"er seed 0", "online seed 0"}

    def test_a_name_that_there_is_not(self):
        with pytest.raises(DeclarationError, match=r"tiny_tables: no such reproduction; did you mean 'tiny_table'"):
            self.verify(name="tiny_tables")

    def test_a_torn_file_is_one_error(self):
        reference_runs.path_of("tiny_table").write_bytes(b"PAR1 torn")
        with pytest.raises(DeclarationError, match=r"tiny_table\.parquet: not a file of reference runs: "):
            self.verify()

    @pytest.mark.parametrize("flags", [("--trials", 0), ("--seed", -1), ("--trials", "all")])
    def test_wrong_usage(self, flags: tuple[Any, ...]):
        assert self.verify(*flags).exit_code == 2


def test_a_shipped_reference_run_is_reproduced_here(mnist, kernels, tmp_path, monkeypatch):
    """One trial of MER's rotations as it ships: it needs MNIST, and some seconds."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)
    arguments = ["verify", "mer_rotations", "--only", "independent", "--trials", "1", "--seed", "1"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert (
        "1 of 5 reference runs, drawn by: clray verify mer_rotations --only independent --trials 1 --seed 1"
        in done.stdout
    )
    [line] = [line for line in done.stdout.splitlines() if line.startswith("  independent seed ")]
    assert "same bits" in line or "within tolerance" in line
