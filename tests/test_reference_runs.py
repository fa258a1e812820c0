"""Reference runs: the file that holds them, the records that may become some, and the files that ship."""

from __future__ import annotations

import dataclasses
import functools
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from clray import reference_runs
from clray.cli import app
from clray.data_sets import data_set_of
from clray.errors import DeclarationError, StateError
from clray.loading import load_sweep, reproduction_names
from clray.metrics import Measurement
from clray.provenance import code_digest, is_fresh
from clray.record import Record
from clray.reproduction import load_reproduction
from clray.selection import Selection
from clray.store import Store
from clray.sweep import Cell, Sweep

NAME = "mer_rotations"
REAL = {"name": "mnist", "source": "CLRAY_DATA", "fingerprint": "0123456789abcdef"}
OTHER = {"name": "mnist", "source": "cache", "fingerprint": "fedcba9876543210"}
HALF = {"name": "mnist", "source": "CLRAY_DATA", "fingerprint": "1111111111111111", "partial": "train-images"}
EMBEDDED = {"name": "mnist", "source": "embedded", "fingerprint": "embedded-fedcba9876543210"}
PRIVATE = {"host", "pid", "boot", "process", "launch", "executions", "system"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """The folder in which these tests' reference runs lie."""
    monkeypatch.setattr(reference_runs, "path_of", lambda name: tmp_path / "packed" / f"{name}.parquet")
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "packed"


@pytest.fixture(scope="module")
def sweeps() -> dict[str, Sweep]:
    return load_reproduction(NAME).sweeps()


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results")


def of(sweeps: dict[str, Sweep], variant: str) -> list[Cell]:
    return [cell for sweep in sweeps.values() for cell in sweep.cells if cell.variant == variant]


def made(cell: Cell, data: dict[str, Any] = REAL, accuracy: float = 0.5, **changes: Any) -> Record:
    """A finished record of a cell's trial, as the code here would have made it."""
    tasks = range(cell.trial.benchmark["tasks"])
    provenance = {
        "code": code_digest(cell.trial),
        "seconds": 61.5,
        "saved": 1795901526.3777788,
        "machine": {"host": "node-1", "system": "Linux 6.1", "processor": "a processor", "cores": 2},
        "executions": [{"launch": "node-1-77", "host": "node-1", "pid": 77, "began": 1.0, "from": 0.0}],
    }
    return Record(
        id=cell.trial.id(data["fingerprint"]),
        trial=cell.trial,
        data=dict(data),
        measurements=[Measurement(1000 * (i + 1), i + 1, j, "accuracy", accuracy) for i in tasks for j in tasks],
        **{"provenance": provenance, "variant": cell.variant, "sweep": "somewhere/else", **changes},
    )


def bits(record: Record) -> list[tuple[Any, ...]]:
    """Measurements with their values as bytes, so that NaN is equal to itself and 0 is not -0."""
    return [(*m[:-1], struct.pack("<d", m.value)) for m in record.measurements]


def keys_within(value: Any) -> Iterator[str]:
    """All keys of a mapping at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from keys_within(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys_within(inner)


class TestTheFile:
    ODD = (math.nan, math.inf, -0.0, 5e-324, 0.1 + 0.2, 1 / 3, 1e308)

    def test_it_keeps_every_bit_of_the_measurements(self, sweeps):
        record = made(of(sweeps, "ewc")[0], accuracy=1 / 3)
        record.measurements += [Measurement(7, 1, i, "displacement", value) for i, value in enumerate(self.ODD)]
        reference_runs.write(NAME, [record])
        [found] = reference_runs.read(NAME)
        assert bits(found) == bits(record)
        assert all(type(m) is Measurement for m in found.measurements)
        assert {tuple(map(type, m)) for m in found.measurements} == {(int, int, int, str, float)}

    def test_it_keeps_all_that_is_no_name_of_a_machine_or_process(self, sweeps):
        ewc, mer = of(sweeps, "ewc")[1], of(sweeps, "mer-5120")[4]
        lost = {"step": 3512, "task": 3, "what": "weights"}
        diverged = made(ewc, status="diverged", provenance={"code": "c0ffee", "diverged": lost})
        diverged.measurements = diverged.measurements[:5]
        records = [diverged, made(mer)]
        reference_runs.write(NAME, records)
        found = {record.id: record for record in reference_runs.read(NAME)}
        assert set(found) == {record.id for record in records}
        for record in records:
            back = found[record.id]
            assert (back.trial, back.data, back.status) == (record.trial, record.data, record.status)
            assert (back.variant, back.sweep) == (record.variant, record.sweep)
            assert back.trial.declaration == record.trial.declaration
            assert bits(back) == bits(record)
        assert found[diverged.id].provenance == diverged.provenance
        assert found[diverged.id].metrics == {}

    def test_a_record_without_any_measurement_stays_one_among_others(self, sweeps):
        first, second, third = (made(cell, accuracy=0.1 * i) for i, cell in enumerate(of(sweeps, "ewc")[:3], start=1))
        second.status, second.measurements = "diverged", []
        reference_runs.write(NAME, [first, second, third])
        found = {record.id: record for record in reference_runs.read(NAME)}
        assert {i: bits(found[i]) for i in found} == {r.id: bits(r) for r in (first, second, third)}

    def test_it_names_no_machine_and_no_process_at_any_depth(self, sweeps):
        record = made(of(sweeps, "ewc")[0])
        deep = [{"host": "node-2", "kept": {"pid": 1, "boot": "b", "process": "p", "launch": "l", "cores": 4}}]
        record.provenance["parts"] = deep
        reference_runs.write(NAME, [record])
        [found] = reference_runs.read(NAME)
        assert found.provenance == {
            "code": record.provenance["code"],
            "seconds": 61.5,
            "saved": 1795901526.3777788,
            "machine": {"processor": "a processor", "cores": 2},
            "parts": [{"kept": {"cores": 4}}],
        }
        assert record.provenance["machine"]["host"] == "node-1", "the record that was given stays as it is"

    def test_the_same_records_give_the_same_bytes_in_any_order(self, sweeps, folder):
        records = [made(cell) for cell in of(sweeps, "ewc")]
        path = reference_runs.write(NAME, records)
        first = path.read_bytes()
        assert reference_runs.write(NAME, records[::-1]) == path
        assert path.read_bytes() == first
        reference_runs.write(NAME, reference_runs.read(NAME))
        assert path.read_bytes() == first
        assert [path.name for path in folder.iterdir()] == [f"{NAME}.parquet"]
        assert [record.id for record in reference_runs.read(NAME)] == sorted(record.id for record in records)

    def test_no_file_gives_no_records(self, folder):
        assert reference_runs.read(NAME) == []
        assert reference_runs.names() == []
        assert not folder.exists()

    def test_the_names_are_those_of_the_files(self, sweeps):
        for name in ("second", "first"):
            reference_runs.write(name, [made(of(sweeps, "ewc")[0])])
        assert reference_runs.names() == ["first", "second"]

    def test_what_no_trial_may_produce_is_not_written(self, sweeps, folder):
        with pytest.raises(StateError, match="an accuracy of it is no number from 0 to 1"):
            reference_runs.write(NAME, [made(of(sweeps, "ewc")[0], accuracy=math.nan)])
        assert not folder.exists()

    def test_a_folder_that_cannot_be_written_is_one_error(self, sweeps, folder):
        folder.write_text("a file")
        with pytest.raises(DeclarationError, match=rf"{NAME}\.parquet: cannot be written: "):
            reference_runs.write(NAME, [made(of(sweeps, "ewc")[0])])


class TestAWrongFile:
    @pytest.fixture
    def path(self, sweeps) -> Path:
        return reference_runs.write(NAME, [made(cell) for cell in of(sweeps, "ewc")[:2]])

    def read_fails(self, path: Path, reason: str) -> None:
        with pytest.raises(DeclarationError) as caught:
            reference_runs.read(NAME)
        said = str(caught.value)
        assert said.startswith(f"{path}: not a file of reference runs: ")
        assert said.endswith("; install clray again")
        assert reason in said
        assert "\n" not in said

    @pytest.mark.parametrize("kept", [0, 4, 0.5, -1], ids=str)
    def test_a_torn_file(self, path, kept):
        content = path.read_bytes()
        path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
        self.read_fails(path, "arquet")

    def test_a_flipped_byte(self, path):
        content = bytearray(path.read_bytes())
        content[len(content) // 4] ^= 0xFF
        path.write_bytes(content)
        self.read_fails(path, "")

    def test_a_record_of_a_store(self, path, sweeps):
        pq.write_table(made(of(sweeps, "ewc")[0]).to_table(), path)
        self.read_fails(path, "its format is None, this clray reads 1")

    def test_a_text(self, path):
        path.write_text("id,status\n")
        self.read_fails(path, "")

    def test_a_folder(self, path):
        path.unlink()
        path.mkdir()
        self.read_fails(path, "directory")

    @pytest.mark.parametrize("number", [b"2", b"one", b""])
    def test_another_format(self, path, number):
        table = pq.read_table(path)
        pq.write_table(table.replace_schema_metadata({b"clray reference runs": number}), path)
        self.read_fails(path, f"its format is {number!r}, this clray reads 1")

    def change(self, path: Path, name: str, values: Any) -> None:
        """Replace a column of the file."""
        table = pq.read_table(path)
        pq.write_table(table.set_column(table.column_names.index(name), name, pa.array(values)), path)

    def test_an_id_that_is_not_that_of_the_declaration(self, path):
        first, second = pq.read_table(path).column("id").to_pylist()
        self.change(path, "id", [second, first])
        self.read_fails(path, f"the id of {second} is not that of its declaration and data")

    @pytest.mark.parametrize(
        ("column", "text"),
        [
            ("trial", "{}"),
            ("trial", '{"version": 1'),
            ("trial", "[" * 100_000),
            ("data", "[]"),
            ("data", "{}"),
            ("measurements", "none"),
        ],
    )
    def test_a_column_that_holds_something_else(self, path, column, text):
        self.change(path, column, [text, text])
        self.read_fails(path, "")

    @pytest.mark.parametrize("column", ["id", "trial", "measurements"])
    def test_a_lost_column(self, path, column):
        pq.write_table(pq.read_table(path).drop_columns(column), path)
        self.read_fails(path, column)


class TestCollect:
    @pytest.fixture
    def collect(self, store, sweeps):
        return lambda kept=(): reference_runs.collect(sweeps, store, is_fresh, kept)

    def test_it_takes_the_reproductions_finished_trials_under_the_names_of_its_sweep(self, store, sweeps, collect):
        online, ewc = of(sweeps, "online"), of(sweeps, "ewc")
        diverged = made(ewc[0], status="diverged", variant="of another name")
        diverged.measurements = []
        for record in (made(online[0]), made(online[1]), diverged, made(online[2], status="running")):
            store.write(record)
        found = collect()
        assert found.refused == [], "trials in progress are none of its business"
        assert {r.id: (r.variant, r.sweep, r.status) for r in found.records} == {
            made(online[0]).id: ("online", "mer/rotations", "finished"),
            made(online[1]).id: ("online", "mer/rotations", "finished"),
            diverged.id: ("ewc", "mer/rotations", "diverged"),
        }

    def test_trials_of_other_sweeps_are_passed_over(self, store, collect):
        changed = load_sweep("mer/rotations", Selection(only=("ewc",), set=("benchmark.seed=7",)))
        store.write(made(changed.cells[0]))
        store.write(made(load_sweep("mer/permutations").cells[0]))
        assert collect() == reference_runs.Collected([], [])

    def refused(self, collect, reason: str) -> None:
        found = collect()
        assert found.records == []
        [line] = found.refused
        assert reason in line

    def test_a_torn_file_is_refused_by_name(self, store, sweeps, collect):
        path = Path(store.write(made(of(sweeps, "ewc")[0])))
        path.write_bytes(path.read_bytes()[:100])
        self.refused(collect, f"{path}: not a readable record: ")

    def test_a_record_that_other_code_made(self, store, sweeps, collect):
        cell = of(sweeps, "ewc")[3]
        store.write(made(cell, provenance={"code": "0" * 16}))
        self.refused(collect, f"ewc seed 3 ({made(cell).id}): stale: other code made it than the code here")

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (HALF, "made on CLRAY_DATA data: only a part of the data: train-images"),
            (EMBEDDED, "made on embedded data: embedded data"),
            ({**REAL, "source": "CLRAY_DATA, embedded"}, "embedded data in place of a part"),
        ],
    )
    def test_a_record_on_data_that_no_paper_used(self, store, sweeps, collect, data, reason):
        cell = of(sweeps, "ewc")[0]
        store.write(made(cell, data))
        self.refused(collect, f"ewc seed 0 ({cell.trial.id(data['fingerprint'])}): made on {data['source']} data: ")
        self.refused(collect, reason)

    def test_records_on_a_second_data_set(self, store, sweeps, collect):
        cells = of(sweeps, "ewc")
        for cell, data in zip(cells, (OTHER, REAL, REAL, EMBEDDED), strict=False):
            store.write(made(cell, data))
        store.write(made(cells[1], OTHER))
        found = collect()
        assert {r.id for r in found.records} == {made(cells[1]).id, made(cells[2]).id}
        on_second = {made(cells[0], OTHER).id, made(cells[1], OTHER).id}
        told = {i for i in on_second for line in found.refused if i in line and "made on another data set" in line}
        assert told == on_second
        assert len(found.refused) == 3

    def test_most_records_decide_which_data_set_is_taken(self, store, sweeps, collect):
        cells = of(sweeps, "ewc")
        store.write(made(cells[0], OTHER))
        for cell in cells[1:4]:
            store.write(made(cell, REAL))
        found = collect()
        assert {r.data["fingerprint"] for r in found.records} == {REAL["fingerprint"]}
        [line] = found.refused
        assert f"made on another data set (cache, {OTHER['fingerprint']}) than most of these trials" in line

    def test_the_runs_that_are_there_already_decide_before_them(self, store, sweeps, collect):
        """Else the file would hold runs on two data sets, and a table shows those on one."""
        cells = of(sweeps, "ewc")
        for cell in cells[1:4]:
            store.write(made(cell, REAL))
        store.write(made(cells[4], OTHER))
        found = collect([made(cells[0], OTHER)])
        assert [r.id for r in found.records] == [made(cells[4], OTHER).id]
        assert len(found.refused) == 3

    def test_each_sweep_has_a_data_set_of_its_own(self, store):
        """Stable SGD's second experiment is on MNIST and on CIFAR-100."""
        sweeps = load_reproduction("stable_sgd_2").sweeps()
        data = {
            name: {"name": name, "source": "cache", "fingerprint": f"{i}" * 16} for i, name in enumerate(sorted(sweeps))
        }
        for name, sweep in sweeps.items():
            store.write(made(sweep.cells[0], data[name]))
        found = reference_runs.collect(sweeps, store, is_fresh)
        assert found.refused == []
        assert {r.sweep: r.data["name"] for r in found.records} == {name: name for name in sweeps}

    def test_a_record_that_is_not_finished_is_refused(self, store, sweeps, collect):
        record = made(of(sweeps, "ewc")[0], status="running")
        path = Path(store.write(record))
        target = Path(store.path("records", f"{record.id}.parquet"))
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
        self.refused(collect, f"({record.id}): not finished")


class TestCommands:
    def add(self, store: Store, name: str = NAME) -> Result:
        return CliRunner().invoke(app, ["records", "add", name, "--results", store.uri], catch_exceptions=False)

    def packed(self) -> dict[str, float]:
        return {r.id: r.measurements[0].value for r in reference_runs.read(NAME)}

    def test_add_adds_replaces_and_keeps(self, store, sweeps, folder):
        online, ewc = of(sweeps, "online"), of(sweeps, "ewc")
        for cell in (*online[:2], ewc[0]):
            store.write(made(cell))
        done = self.add(store)
        assert done.exit_code == 0, done.output
        total = sum(len(sweep.cells) for sweep in sweeps.values())
        path = folder / f"{NAME}.parquet"
        size = f"{path.stat().st_size / 1000:.0f} kB"
        said = f"{NAME}: 3 of {total} trials in {path} ({size}): 3 added, 0 replaced, 0 kept"
        assert done.stdout.strip() == said
        assert set(self.packed().values()) == {0.5}
        assert {(r.variant, r.sweep) for r in reference_runs.read(NAME)} == {
            ("online", "mer/rotations"),
            ("ewc", "mer/rotations"),
        }

        another = Store(f"{store.uri}-2")
        for cell in (online[1], ewc[1], ewc[2], ewc[3]):
            another.write(made(cell, accuracy=0.75))
        done = self.add(another)
        assert done.exit_code == 0, done.output
        assert f"{NAME}: 6 of {total} trials" in done.stdout
        assert done.stdout.strip().endswith(": 3 added, 1 replaced, 2 kept")
        kept = {made(cell).id: 0.5 for cell in (online[0], ewc[0])}
        assert self.packed() == kept | {made(cell).id: 0.75 for cell in (online[1], *ewc[1:4])}

    def test_trials_that_are_declared_no_more_are_not_kept(self, store, sweeps):
        changed = load_sweep("mer/rotations", Selection(only=("ewc",), set=("benchmark.seed=7",)))
        reference_runs.write(NAME, [made(changed.cells[0]), made(of(sweeps, "online")[0])])
        store.write(made(of(sweeps, "online")[1]))
        assert "1 added, 0 replaced, 1 kept" in self.add(store).stdout
        assert set(self.packed()) == {made(cell).id for cell in of(sweeps, "online")[:2]}

    def test_it_packs_the_rest_and_exits_with_1_where_something_was_refused(self, store, sweeps):
        first, second = of(sweeps, "ewc")[:2]
        store.write(made(first))
        store.write(made(second, provenance={"code": "0" * 16}))
        done = self.add(store)
        assert done.exit_code == 1
        assert "1 added" in done.stdout
        assert (
            done.stderr.strip()
            == f"refused: ewc seed 1 ({made(second).id}): stale: other code made it than the code here"
        )
        assert set(self.packed()) == {made(first).id}

    def test_where_all_are_refused_nothing_is_written(self, store, sweeps, folder):
        store.write(made(of(sweeps, "ewc")[0], EMBEDDED))
        done = self.add(store)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "made on embedded data" in done.stderr
        assert "run it" not in done.stderr
        assert not folder.exists()

    def test_runs_on_another_data_set_than_the_files_are_refused(self, store, sweeps):
        first, second = of(sweeps, "ewc")[:2]
        reference_runs.write(NAME, [made(first, OTHER)])
        store.write(made(first, REAL))
        store.write(made(second, REAL))
        done = self.add(store)
        assert done.exit_code == 1
        assert done.stderr.count("made on another data set") == 2
        assert set(self.packed()) == {made(first, OTHER).id}

    def test_with_nothing_to_pack_it_says_what_to_run(self, store, folder):
        done = self.add(store)
        assert (done.exit_code, done.stdout) == (1, "")
        said = f"{NAME}: the store holds no finished trial of it; run it: python -m clray.reproduce {NAME}"
        assert done.stderr.strip() == said
        assert not folder.exists()

    @pytest.mark.parametrize("name", ["mer_rotation", "mer_rotations.yaml", "mer/rotations", "reproduce/mer_rotations"])
    def test_only_the_name_of_a_reproduction_will_do(self, store, sweeps, folder, name):
        """Under another name the runs would be packed where nothing looks for them."""
        store.write(made(of(sweeps, "ewc")[0]))
        with pytest.raises(DeclarationError, match=rf"{name}: no such reproduction; did you mean '{NAME}'"):
            self.add(store, name)
        assert not folder.exists()

    def test_list(self, sweeps, folder):
        assert CliRunner().invoke(app, ["records", "list"], catch_exceptions=False).output == ""
        first, second, third = of(sweeps, "ewc")[:3]
        reference_runs.write("fresh", [made(first)])
        reference_runs.write("mixed", [made(first), made(second), made(third, provenance={"code": "0" * 16})])
        sizes = [f"{(folder / f'{name}.parquet').stat().st_size / 1000:.0f} kB" for name in ("fresh", "mixed")]
        shown = CliRunner().invoke(app, ["records", "list"], catch_exceptions=False)
        assert shown.exit_code == 0
        assert shown.output.splitlines() == [
            f"fresh: 1 trial, {sizes[0]}",
            f"mixed: 3 trials, {sizes[1]}, 1 of them stale",
        ]


SHIPPED = {path.stem: path for path in sorted(reference_runs.path_of("any").parent.glob("*.parquet"))}
REMEDY = (
    "other code made it than the code here. Where the numbers are the same, run bench/same_bits.py REV --write, with "
    "the revision before the change; else make the runs again and pack them with `clray records add`"
)


def test_some_reference_runs_ship():
    assert NAME in SHIPPED


@functools.cache
def records_of(name):
    """The reference runs of a reproduction, which the tests below only look at."""
    return reference_runs.read(name)


@pytest.mark.parametrize("name", SHIPPED)
class TestWhatShips:
    @pytest.fixture(autouse=True)
    def folder(self, monkeypatch):
        """The folder that ships, in place of the tests' own."""
        monkeypatch.setattr(reference_runs, "path_of", lambda name: SHIPPED[name])

    def test_it_is_a_reproduction(self, name):
        assert name in reproduction_names()

    def test_every_record_is_a_declared_trial_of_its_variant_and_stands_there_once(self, name):
        sweeps = load_reproduction(name).sweeps()
        declared = {(c.trial.declaration, sweep, c.variant) for sweep, of in sweeps.items() for c in of.cells}
        records = records_of(name)
        assert records
        assert {(r.trial.declaration, r.sweep, r.variant) for r in records} <= declared
        assert len({r.trial.declaration for r in records}) == len(records)

    def test_the_code_here_gives_the_same_numbers(self, name):
        stale = [r for r in records_of(name) if not is_fresh(r)]
        assert not stale, f"{len(stale)} reference runs of {name}, such as {stale[0].variant}: {REMEDY}"

    def test_every_record_is_one_that_a_trial_may_produce(self, name):
        for record in records_of(name):
            record.check()
            assert record.status in ("finished", "diverged")

    def test_its_data_may_be_compared_with_the_paper(self, name):
        for record in records_of(name):
            assert data_set_of(record.data).not_comparable_because == [], record.id

    def test_it_names_no_machine_and_no_process(self, name):
        for record in records_of(name):
            assert not PRIVATE & set(keys_within(record.provenance)), record.id
            assert not PRIVATE & set(keys_within(record.data)), record.id

    def test_it_says_which_code_made_it_when_and_in_what_time(self, name):
        for record in records_of(name):
            assert {"code", "git", "packages", "machine", "seconds", "saved"} <= set(record.provenance), record.id

    def test_it_is_small(self, name):
        measured = sum(len(record.measurements) for record in records_of(name))
        assert SHIPPED[name].stat().st_size < 150_000 + 2 * measured  # an accuracy on 10,000 images has 13.3 bits

    def test_packing_it_again_gives_the_same_records(self, name, tmp_path, monkeypatch):
        every = records_of(name)
        records = every[:: max(1, len(every) // 20)]  # of all files, all records hold 900,000 measurements
        monkeypatch.setattr(reference_runs, "path_of", lambda name: tmp_path / f"{name}.parquet")
        reference_runs.write(name, records)
        again = reference_runs.read(name)
        assert [bits(r) for r in again] == [bits(r) for r in records]
        assert [dataclasses.replace(r, measurements=[]) for r in again] == [
            dataclasses.replace(r, measurements=[]) for r in records
        ]
