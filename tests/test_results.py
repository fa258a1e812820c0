"""The store: what is written comes back, and what was torn, renamed or foreign is said and never read."""

from __future__ import annotations

import builtins
import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from clray import results
from clray.errors import CheckpointError, StoreError
from clray.metrics import Measurement
from clray.results import Problem, Record, Store, checkpoint_bytes, checkpoint_state
from clray.spec import Trial

DATA = {"name": "mnist", "source": "embedded", "fingerprint": "f" * 16}


def record(seed: int = 0, **changes: Any) -> Record:
    trial = Trial(
        version=1, track="vision", benchmark={"name": "mnist-rotations", "tasks": 2}, model={"name": "mlp"},
        method="er", hyperparameters={"lr": 0.1}, evaluate="after_task", randomness="clray", engine="auto",
        precision="float32", seed=seed, task_order=[1, 0],
    )  # fmt: skip
    values = [(0, 0, 0, 0.1), (0, 0, 1, 0.2), (5, 1, 0, 0.9), (5, 1, 1, 0.3), (10, 2, 0, 0.1 + 0.2), (10, 2, 1, 0.8)]
    measurements = [Measurement(s, t, e, "accuracy", v) for s, t, e, v in values]
    made = {
        "id": trial.id(DATA["fingerprint"]), "trial": trial, "data": DATA, "measurements": measurements,
        "provenance": {"code": "c" * 16, "seconds": 1.5, "git": {}}, "variant": "er-5", "sweep": "tiny",
    }  # fmt: skip
    return Record(**{**made, **changes})


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results")


def files(store: Store) -> list[str]:
    root = Path(store.path())
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


class TestRecords:
    def test_a_record_comes_back_to_the_last_bit(self, store):
        written = record()
        path = store.write(written)
        assert path == store.path("records", f"{written.id}.parquet")
        assert store.read(written.id) == written
        assert store.read(written.id).measurements[4].value == 0.1 + 0.2

    def test_one_without_measurements_too(self, store):
        written = record(measurements=[])
        store.write(written)
        assert store.read(written.id) == written

    def test_nothing_is_made_before_something_is_written(self, tmp_path):
        store = Store(tmp_path / "results")
        assert store.read("0" * 16) is None
        assert store.records() == ([], [])
        assert store.finished() == store.running() == set()
        assert not (tmp_path / "results").exists()

    def test_a_file_uri_is_the_same_store(self, tmp_path):
        written = record()
        Store((tmp_path / "results").as_uri()).write(written)
        assert Store(tmp_path / "results").read(written.id) == written
        assert Store((tmp_path / "results").as_uri()).records() == ([written], [])

    def test_no_such_file_system(self):
        with pytest.raises(StoreError, match="nfs9://there: cannot be opened as a results store"):
            Store("nfs9://there")

    def test_a_folder_of_records_reads_as_one_data_set(self, store):
        for seed in (0, 1):
            store.write(record(seed))
        table = pyarrow.dataset.dataset(store.path("records"), format="parquet").to_table()
        assert table.num_rows == 12
        assert sorted(set(table.column("seed").to_pylist())) == [0, 1]
        assert set(table.column("method").to_pylist()) == {"er"}

    def test_running_records_lie_apart_and_go_when_the_trial_is_finished(self, store):
        written = record()
        store.write(record(status="running", measurements=written.measurements[:2]))
        store.write_checkpoint(written.id, b"first")
        store.write_checkpoint(written.id, b"second")
        store.write_failure(written.id, {"error": "died"})
        assert store.running() == {written.id}
        assert store.finished() == set()
        assert store.read(written.id) is None
        assert store.read(written.id, "running").status == "running"
        store.write(written)
        assert files(store) == [f"records/{written.id}.parquet"]

    def test_metrics_come_with_it(self):
        assert record().metrics["LA"] == pytest.approx(0.85)


class TestForeignFiles:
    def spoiled(self, store: Store, content: bytes | None = None, name: str | None = None) -> Problem:
        written = record()
        path = Path(store.write(written))
        if content is not None:
            path.write_bytes(content)
        if name is not None:
            path.rename(path.with_name(name))
        found, problems = store.records()
        assert found == []
        [problem] = problems
        return problem

    def test_a_torn_record(self, store):
        written = record()
        whole = Path(store.write(written)).read_bytes()
        for content in (whole[: len(whole) // 2], whole[:-1], b"", b"PAR1"):
            problem = self.spoiled(store, content)
            assert problem.path == store.path("records", f"{written.id}.parquet")
            assert str(problem).startswith(f"{problem.path}: skipped: not a readable record")
            assert "\n" not in str(problem)

    def test_a_renamed_record(self, store):
        problem = self.spoiled(store, name=f"{'0' * 16}.parquet")
        assert f"it holds the trial {record().id}" in problem.reason

    def test_a_parquet_file_of_something_else(self, store, tmp_path):
        pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "x.parquet")
        assert "no clray metadata" in self.spoiled(store, (tmp_path / "x.parquet").read_bytes()).reason

    def test_a_record_of_a_later_format(self, store, tmp_path):
        table = record().to_table()
        metadata = json.loads(table.schema.metadata[b"clray"])
        later = table.replace_schema_metadata({b"clray": json.dumps({**metadata, "format": 99}).encode()})
        pq.write_table(later, tmp_path / "x.parquet")
        assert "its format is 99" in self.spoiled(store, (tmp_path / "x.parquet").read_bytes()).reason

    def test_others_are_read_all_the_same(self, store):
        store.write(record(1))
        Path(store.path("records", "junk.parquet")).write_bytes(b"junk")
        Path(store.path("records", "notes.txt")).write_text("mine")
        Path(store.path("records", ".hidden.parquet")).write_bytes(b"a leftover of an interrupted write")
        found, problems = store.records()
        assert [r.trial.seed for r in found] == [1]
        assert [Path(p.path).name for p in problems] == ["junk.parquet"]


class TestAtomicity:
    @pytest.mark.parametrize("where", ["write", "fsync", "replace"])
    def test_a_failing_write_leaves_the_old_file_and_nothing_else(self, store, monkeypatch, where):
        store.write(record())
        before = files(store)
        old = Path(store.path("records", f"{record().id}.parquet")).read_bytes()

        def fail(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        if where == "write":

            class Full:
                def __init__(self, file: Any) -> None:
                    self.file = file

                def __enter__(self) -> Any:
                    return self

                def __exit__(self, *_: Any) -> None:
                    self.file.close()

                def write(self, content: bytes) -> None:
                    self.file.write(content[:10])
                    fail()

            real = builtins.open
            monkeypatch.setattr(results, "open", lambda path, mode: Full(real(path, mode)), raising=False)
        else:
            monkeypatch.setattr(results.os, where, fail)
        with pytest.raises(StoreError, match=r"cannot be written: .*No space left"):
            store.write(record(measurements=[]))
        monkeypatch.undo()
        assert files(store) == before
        assert Path(store.path("records", f"{record().id}.parquet")).read_bytes() == old

    def test_a_reader_never_sees_a_half_written_file(self, store, monkeypatch):
        """The content is whole under its temporary name, and flushed, before it gets its own."""
        seen = []
        real = os.replace

        def replace(source: str, target: str) -> None:
            seen.append((Path(target).exists(), pq.read_table(source).num_rows, Path(source).name.startswith(".")))
            real(source, target)

        monkeypatch.setattr(results.os, "replace", replace)
        store.write(record())
        assert seen == [(False, 6, True)]

    def test_what_a_killed_writer_left_goes_with_the_trial(self, store, monkeypatch):
        class Killed(BaseException):
            pass

        def die(*_: Any) -> None:
            raise Killed

        for folder in ("records", "checkpoints"):
            with monkeypatch.context() as patch:
                patch.setattr(results.os, "replace", die)
                patch.setattr(Store, "_delete", lambda *_: None)  # the dead tidy nothing up
                with pytest.raises(Killed):
                    store.write(record()) if folder == "records" else store.write_checkpoint(record().id, b"x")
                with pytest.raises(Killed):
                    store.write(record(seed=1))
        assert len(files(store)) == 4
        assert store.finished() == set()
        path = store.write(record())
        assert Path(path).is_file()
        assert len(files(store)) == 3, "those of the other trial, which somebody may be writing just now, stay"

    @pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
    def test_a_folder_without_permission(self, tmp_path):
        (tmp_path / "results").mkdir(mode=0o500)
        with pytest.raises(StoreError, match="cannot be written"):
            Store(tmp_path / "results").write(record())

    def test_a_store_that_cannot_be_written_says_where(self, tmp_path):
        (tmp_path / "results").write_text("a file where the folder should be")
        with pytest.raises(StoreError) as caught:
            Store(tmp_path / "results").write(record())
        assert str(caught.value).startswith(str(tmp_path / "results" / "records" / record().id))
        assert "cannot be written" in str(caught.value)


class TestCheckpoints:
    def test_the_newest_comes_first_then_the_one_before(self, store):
        for content in (b"one", b"two", b"three"):
            store.write_checkpoint("a", content)
        assert next(store.checkpoints("a")) == b"three"
        assert store.has_checkpoint("a")
        assert not store.has_checkpoint("b")

    def test_a_torn_one_falls_back_to_the_one_before(self, store):
        for content in (b"one" * 100, b"two" * 100):
            store.write_checkpoint("a", content)
        path = Path(store.path("checkpoints", "a.ckpt"))
        whole = path.read_bytes()
        for torn in (whole[:-1], whole[:10], b"", whole[:-1] + b"x", b"x" + whole[1:]):
            path.write_bytes(torn)
            assert list(store.checkpoints("a")) == [b"one" * 100]
        path.unlink()
        assert list(store.checkpoints("a")) == [b"one" * 100]

    def test_both_torn_is_none(self, store):
        for content in (b"one", b"two"):
            store.write_checkpoint("a", content)
        for name in ("a.ckpt", "a.ckpt.previous"):
            Path(store.path("checkpoints", name)).write_bytes(b"torn")
        assert not store.has_checkpoint("a")

    def test_a_torn_newest_never_replaces_the_intact_one_before(self, store):
        """A process that died over its checkpoint, a restart from the one before, and its next checkpoint."""
        for content in (b"one", b"two"):
            store.write_checkpoint("a", content)
        Path(store.path("checkpoints", "a.ckpt")).write_bytes(b"torn")
        store.write_checkpoint("a", b"three")
        assert next(store.checkpoints("a")) == b"three"

    def test_forgetting_one(self, store):
        store.write_checkpoint("a", b"one")
        store.write_checkpoint("a", b"two")
        store.delete_checkpoint("a")
        assert files(store) == []

    def test_states_come_back(self):
        import torch

        state = {"x": [1, 2.5, "three", None, True], "w": torch.arange(3), "big": 2**100, "nested": {"a": [{}]}}
        again = checkpoint_state("a", checkpoint_bytes("a", state))
        assert (again.pop("w") == state.pop("w")).all()
        assert again == state

    def test_of_another_trial(self):
        with pytest.raises(CheckpointError, match="this is a checkpoint of trial a, not of b"):
            checkpoint_state("b", checkpoint_bytes("a", {}))

    @pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk"])
    def test_of_no_trial(self, content):
        with pytest.raises(CheckpointError, match="cannot be read"):
            checkpoint_state("b", content)

    @pytest.mark.filterwarnings("ignore:Detected pickle protocol")
    def test_code_in_a_checkpoint_is_not_run(self, tmp_path):
        import io
        import pickle

        import torch

        class Evil:
            def __reduce__(self) -> Any:
                return os.mkdir, (str(tmp_path / "ran"),)

        buffer = io.BytesIO()
        torch.save({"id": "a", "state": Evil()}, buffer)
        for content in (buffer.getvalue(), pickle.dumps(Evil())):
            with pytest.raises(CheckpointError):
                checkpoint_state("a", content)
        assert not (tmp_path / "ran").exists()


class TestFailures:
    def test_they_come_back(self, store):
        store.write_failure("a", {"error": "it died", "host": "here"})
        assert store.failure("a") == {"error": "it died", "host": "here"}
        assert store.failure("b") is None

    def test_a_torn_one_is_still_a_failure(self, store):
        store.write_failure("a", {"error": "it died"})
        Path(store.path("failures", "a.json")).write_text('{"err')
        assert "torn" in store.failure("a")["error"]


def test_a_store_may_be_copied(store, tmp_path):
    store.write(record())
    shutil.copytree(store.path(), tmp_path / "copy")
    assert Store(tmp_path / "copy").records() == store.records()
