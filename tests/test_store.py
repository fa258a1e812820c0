"""The store: written files are read back, and damaged, renamed or foreign files are reported and not read."""

from __future__ import annotations

import builtins
import errno
import io
import json
import math
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from clray import atomic
from clray.checkpoints import Checkpoints, check_state, read_state, write_state
from clray.errors import CheckpointError, DeclarationError, StateError, StoreError
from clray.metrics import Measurement
from clray.record import Record
from clray.storage import PyarrowStorage
from clray.store import Problem, Store
from clray.trial import Trial

A, B = "a" * 16, "b" * 16
PROVENANCE = {
    "code": "c" * 16, "git": {"commit": "d" * 40, "uncommitted_changes": False}, "machine": {"host": "here"},
    "seconds": 1.5, "progress": 1.0, "saved": 1.7e9, "gpu_memory": {"reserved": 1, "allocated": 1, "total": 2**34},
    "executions": [{"launch": "l", "host": "here", "pid": 7, "began": 1.7e9, "from": 0.0}],
}  # fmt: skip
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


def save(store: Store, id: str, content: bytes, **options: Any) -> None:
    Checkpoints(store, id).write(lambda file: file.write(content), **options)


def kept(store: Store, id: str) -> list[bytes | None]:
    """The contents of a trial's checkpoints, the newest first; None for a torn one."""
    return [found.content and found.content.read() for found in Checkpoints(store, id).read()]


def state_bytes(id: str, state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    write_state(id, state, buffer)
    return buffer.getvalue()


def state_of(id: str, content: bytes) -> dict[str, Any]:
    return read_state(id, io.BytesIO(content))


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
        written = record(measurements=[], status="diverged")
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
        save(store, written.id, b"first")
        save(store, written.id, b"second")
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
            monkeypatch.setattr(atomic, "open", lambda path, mode: Full(real(path, mode)), raising=False)
        else:
            monkeypatch.setattr(os, where, fail)
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

        monkeypatch.setattr(os, "replace", replace)
        store.write(record())
        assert seen == [(False, 6, True)]

    def test_what_a_killed_writer_left_goes_with_the_trial(self, store, monkeypatch):
        class Killed(BaseException):
            pass

        def die(*_: Any) -> None:
            raise Killed

        for folder in ("records", "checkpoints"):
            with monkeypatch.context() as patch:
                patch.setattr(os, "replace", die)
                patch.setattr(Path, "unlink", lambda *_, **__: None)  # the dead tidy nothing up
                with pytest.raises(Killed):
                    store.write(record()) if folder == "records" else save(store, record().id, b"x")
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


class Killed(BaseException):
    """The process dies here."""


def dies_at(call: int) -> Any:
    """``os.replace`` of a process that dies when it calls it for the so manieth time."""
    real, left = os.replace, [call]

    def replace(source: str, target: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        real(source, target)

    return replace


class TestCheckpoints:
    def test_the_newest_comes_first_then_the_one_before(self, store):
        for content in (b"one", b"two", b"three"):
            save(store, A, content)
        assert kept(store, A) == [b"three", b"two"]
        assert store.checkpointed() == {A}

    @pytest.mark.parametrize("cut", [slice(0, -1), slice(0, 10), slice(0, 0), slice(1, None)])
    def test_a_torn_one_is_said_to_be_and_the_one_before_is_there(self, store, cut):
        for content in (b"one" * 100, b"two" * 100):
            save(store, A, content)
        path = Path(store.path("checkpoints", f"{A}.ckpt"))
        path.write_bytes(path.read_bytes()[cut])
        assert kept(store, A) == [None, b"one" * 100]
        path.unlink()
        assert kept(store, A) == [b"one" * 100]
        assert store.checkpointed() == {A}

    @pytest.mark.parametrize("again", [False, True], ids=["by this process", "by another"])
    def test_a_torn_newest_never_replaces_the_intact_one_before(self, store, again, monkeypatch):
        """Its writer's disk tore it, the trial was taken up from the one before, and dies over its next checkpoint."""
        for content in (b"one", b"two"):
            save(store, A, content)
        path = Path(store.path("checkpoints", f"{A}.ckpt"))
        path.write_bytes(path.read_bytes()[:-1])
        store = Store(store.uri) if again else store
        assert kept(store, A) == [None, b"one"]
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", dies_at(1))
            with pytest.raises(Killed):
                save(store, A, b"three")
        assert kept(store, A) == [None, b"one"]
        save(store, A, b"three")
        assert kept(store, A) == [b"three", b"one"]

    @pytest.mark.parametrize("at", [1, 2])
    def test_a_process_that_dies_between_the_steps_leaves_an_intact_one(self, store, at, monkeypatch):
        for content in (b"one", b"two"):
            save(store, A, content)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", dies_at(at))
            patch.setattr(Path, "unlink", lambda *_, **__: None)  # the dead tidy nothing up
            with pytest.raises(Killed):
                save(store, A, b"three")
        assert kept(store, A) == [[b"two", b"one"], [b"two"]][at - 1]
        assert store.checkpointed() == {A}
        assert len(files(store)) == 3 - (at == 2)
        save(Store(store.uri), A, b"three")
        assert kept(store, A) == [b"three", b"two"]
        assert len(files(store)) == 2, "what the dead left unfinished is gone"

    def test_one_of_no_use_is_replaced_rather_than_kept(self, store):
        for content in (b"good", b"of no use"):
            save(store, A, content)
        save(store, A, b"new", replace=True)
        assert kept(store, A) == [b"new", b"good"]

    def test_what_is_refused_changes_nothing(self, store):
        for content in (b"one", b"two"):
            save(store, A, content)

        def refuse(file: Any) -> None:
            assert file.read() == b"three"
            raise StateError("no")

        with pytest.raises(StateError):
            save(store, A, b"three", check=refuse)
        assert kept(store, A) == [b"two", b"one"]
        assert len(files(store)) == 2

    def test_a_disk_that_is_full_in_the_middle(self, store, monkeypatch):
        """torch hides an error in the middle of a file behind one of its own."""
        import torch

        save(store, A, b"one")

        class Full:
            def __init__(self, file: Any) -> None:
                self.file, self.left = file, 2**20

            def __getattr__(self, name: str) -> Any:
                return getattr(self.file, name)

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                self.file.close()

            def write(self, piece: Any) -> int:
                self.left -= len(piece)
                if self.left < 0:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return self.file.write(piece)

        real = builtins.open
        monkeypatch.setattr(atomic, "open", lambda path, mode: Full(real(path, mode)), raising=False)
        state = {"w": torch.zeros(2**20)}
        with pytest.raises(StoreError, match=r"cannot be written: .*No space left"):
            Checkpoints(store, A).write(lambda file: write_state(A, state, file))
        monkeypatch.undo()
        assert kept(store, A) == [b"one"]
        assert len(files(store)) == 1

    def test_saving_takes_no_second_copy_of_a_large_state(self, store):
        """Counted in bytes that Python's allocator gives out; a tensor's own memory is none of them."""
        import tracemalloc

        import torch

        state = {"w": torch.arange(8 * 2**20, dtype=torch.float32)}
        size = state["w"].nbytes

        def write() -> None:
            Checkpoints(store, A).write(
                lambda file: write_state(A, state, file), check=lambda file: check_state(A, file)
            )

        write()
        tracemalloc.start()
        try:
            write()
            Store(store.uri).checkpointed()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert Path(store.path("checkpoints", f"{A}.ckpt")).stat().st_size > size
        assert peak < size / 8
        [newest, _] = [read_state(A, found.content)["w"].sum() for found in Checkpoints(store, A).read()]
        assert newest == state["w"].sum()

    def test_forgetting_one(self, store):
        save(store, A, b"one")
        save(store, A, b"two")
        store.delete_checkpoint(A)
        assert files(store) == []

    def test_states_come_back(self):
        import torch

        state = {"x": [1, 2.5, "three", None, True], "w": torch.arange(3), "big": 2**100, "nested": {"a": [{}]}}
        again = state_of(A, state_bytes(A, state))
        assert (again.pop("w") == state.pop("w")).all()
        assert again == state

    def test_the_attributes_of_a_state_of_torch_come_back(self):
        import torch

        state = torch.nn.BatchNorm1d(2).state_dict()
        again = state_of(A, state_bytes(A, {"net": state}))["net"]
        assert again._metadata == state._metadata
        assert list(again) == list(state)

    def test_numpy_numbers_and_arrays_come_back_as_what_they_were(self):
        """With a Python number in place of a float32, a trial would go on with other bits."""
        scalars = [np.float32(0.1), np.float64(0.1), np.float16(0.1), np.int64(-3), np.uint64(2**63), np.bool_(True)]
        arrays = [np.arange(6, dtype=np.uint16).reshape(2, 3).T, np.array(2.5), np.zeros((0, 3), np.complex64)]
        again = state_of(A, state_bytes(A, {"method": {"scalars": scalars, "arrays": tuple(arrays)}}))["method"]
        for was, value in zip(scalars, again["scalars"], strict=True):
            assert type(value) is type(was)
            assert value == was
        for was, value in zip(arrays, again["arrays"], strict=True):
            assert (value.dtype, value.shape) == (was.dtype, was.shape)
            assert (value == was).all()
        assert again["scalars"][0] * 0.9 == np.float32(0.1) * 0.9
        again["arrays"][0][0, 0] = 7

    @pytest.mark.parametrize(
        ("state", "place"),
        [
            ({"method": {"when": [np.datetime64("2020-01-01")]}}, "state.method.when.0: a NumPy datetime64"),
            ({"method": {"names": np.array(["a", object()])}}, "state.method.names: a NumPy object"),
            ({"method": {"by": {np.int64(3): 1}}}, r"state.method.by: its key .*3.* is a NumPy number"),
        ],
    )
    def test_a_state_that_cannot_be_kept_is_refused_by_the_name_of_its_key(self, state, place):
        with pytest.raises(StateError, match=place):
            state_bytes(A, state)

    def test_a_state_that_cannot_be_read_back_is_refused(self):
        content = state_bytes(A, {"path": Path("a")})
        with pytest.raises(StateError, match="cannot be read"):
            check_state(A, io.BytesIO(content))

    def test_of_another_trial(self):
        with pytest.raises(CheckpointError, match=f"this is a checkpoint of trial {A}, not of {B}"):
            state_of(B, state_bytes(A, {}))

    @pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk"])
    def test_of_no_trial(self, content):
        with pytest.raises(CheckpointError, match="cannot be read"):
            state_of(B, content)

    @pytest.mark.filterwarnings("ignore:Detected pickle protocol")
    def test_code_in_a_checkpoint_is_not_run(self, tmp_path):
        import pickle

        import torch

        class Evil:
            def __reduce__(self) -> Any:
                return os.mkdir, (str(tmp_path / "ran"),)

        buffer = io.BytesIO()
        torch.save({"id": A, "state": Evil()}, buffer)
        for content in (buffer.getvalue(), pickle.dumps(Evil())):
            with pytest.raises(CheckpointError):
                state_of(A, content)
        assert not (tmp_path / "ran").exists()


class TestForeignRecords:
    """Whatever a record says: it is a record of clray's or a problem, never an error."""

    NONSENSE = (None, float("nan"), -1, 200_000, "x" * 200_000, True, [], {}, [[]], {"": None}, 10**400, 1e308)

    def look(self, store: Store, **metadata: Any) -> Record | Problem:
        written = record(provenance=PROVENANCE)
        path = Path(store.write(written))
        table = pq.read_table(path)
        content = {**json.loads(table.schema.metadata[b"clray"]), **metadata}
        pq.write_table(table.replace_schema_metadata({b"clray": json.dumps(content).encode()}), path)
        found = store.read(written.id)
        assert store.records()[0] == ([found] if isinstance(found, Record) else [])
        return found

    @pytest.mark.parametrize("value", NONSENSE, ids=lambda value: repr(value)[:12])
    def test_another_value_at_any_key(self, store, value):
        whole = {"provenance": PROVENANCE, "data": DATA, "trial": record().trial.model_dump(mode="json")}
        for key in ("format", "id", "status", "sweep", "variant", *whole):
            found = self.look(store, **{key: value})
            harmless = (
                isinstance(value, str) if key in ("sweep", "variant")
                else (key == "format" and value is True) or (key == "provenance" and isinstance(value, dict))
            )  # fmt: skip
            assert isinstance(found, Problem) or harmless, key
        for group, content in whole.items():
            for key in content:
                found = self.look(store, **{group: {**content, key: value}})
                if isinstance(found, Record):
                    self.show(found)
                    assert group == "provenance" or isinstance(value, str) or content[key] == value, (group, key)
        strict = ("git", "machine", "executions", "gpu_memory")
        for key in strict:
            found = self.look(store, provenance={**PROVENANCE, key: value})
            empty = value in ([], {}) and type(value) is type(PROVENANCE[key])
            assert isinstance(found, Problem) or empty or (key in ("git", "machine") and value == {"": None}), key

    def show(self, found: Record) -> None:
        """Use a record in the same way as the commands that only show it."""
        from clray.gpu import words

        facts = found.provenance
        assert f"{facts.get('seconds', 0.0):.0f} {100 * facts.get('progress', 0):.0f}"
        assert str(facts.get("git", {}).get("commit", ""))[:10] + facts.get("machine", {}).get("host", "") is not None
        if facts.get("gpu_memory"):
            assert words(facts["gpu_memory"])
        for execution in facts.get("executions", []):
            assert execution.get("host", "") is not None

    @pytest.mark.parametrize(
        ("column", "values"),
        [
            ("value", [0.1, 0.2, 0.9, 0.3, float("nan"), 0.8]),
            ("value", [0.1, 0.2, 0.9, 0.3, 87.5, 0.8]),
            ("value", [0.1, 0.2, 0.9, 0.3, -0.5, 0.8]),
            ("value", [0.1, 0.2, 0.9, 0.3, None, 0.8]),
            ("value", ["a"] * 6),
            ("trained_tasks", [0, 0, 1, 1, 2, 200_000]),
            ("trained_tasks", [0, 0, 1, 1, 2, 1]),
            ("eval_task", [0, 1, 0, 1, 0, 200_000]),
            ("eval_task", [0, 1, 0, 1, 0, -1]),
            ("eval_task", [0, 1, 0, 1, 0, 0]),
            ("step", [0, 0, 5, 5, -10, 10]),
            ("step", [0, 0, 5, 5, None, 10]),
            ("step", [0.5] * 6),
            ("metric", ["accuracy"] * 5 + [None]),
            ("metric", [1] * 6),
            ("metric", ["loss"] * 6),
        ],
    )
    def test_numbers_that_no_trial_measures(self, store, column, values):
        path = Path(store.write(record()))
        table = pq.read_table(path)
        place = table.schema.get_field_index(column)
        pq.write_table(table.set_column(place, column, pa.array(values)), path)
        for measurements in (True, False):
            [problem] = store.records(measurements=measurements)[1]
            assert problem.path == str(path)

    def test_a_loss_that_is_not_finite_is_a_measurement(self, store):
        loss = Measurement(10, 2, 1, "train_loss", float("inf"))
        store.write(record(measurements=[*record().measurements, loss]))
        assert store.read(record().id).measurements[-1] == loss

    def test_one_of_another_declaration(self, store):
        trial = {**record().trial.model_dump(mode="json"), "seed": 7}
        assert "its id is not that of its declaration and data" in self.look(store, trial=trial).reason

    def test_one_that_no_reader_would_take_is_not_written_by_a_trial(self):
        with pytest.raises(StateError, match="an accuracy of it is no number from 0 to 1"):
            record(measurements=[*record().measurements[:-1], Measurement(10, 2, 1, "accuracy", float("nan"))]).check()
        record().check()

    def test_without_measurements_the_rest_is_there(self, store):
        store.write(record())
        assert store.records(measurements=False) == ([record(measurements=[])], [])

    @pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read anything")
    def test_one_that_may_not_be_read_hides_no_other(self, store):
        store.write(record())
        Path(store.write(record(1))).chmod(0)
        found, [problem] = store.records()
        assert [one.trial.seed for one in found] == [0]
        assert "Permission denied" in problem.reason

    @pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read anything")
    def test_a_folder_that_may_not_be_listed(self, store):
        folder = Path(store.write(record())).parent
        folder.chmod(0)
        try:
            with pytest.raises(StoreError, match="records: cannot be listed: "):
                store.records()
        finally:
            folder.chmod(0o700)


class TestSuperseded:
    def test_the_record_of_other_code_is_kept(self, store):
        old = record(provenance={"code": "0123456789abcdef"})
        store.write(old)
        assert store.superseded(old.id) == []
        store.write(record())
        store.write(record())
        [earlier] = store.superseded(old.id)
        assert re.fullmatch(rf"superseded/{old.id}\.0123456789abcdef\.[0-9a-f]{{12}}\.parquet", earlier.relative)
        assert earlier.path == store.path(earlier.relative)
        assert Record.from_table(pq.read_table(earlier.path), old.id) == old == earlier.record
        assert store.read(old.id) == record()
        assert store.records()[0] == [record()], "it counts no more"

    def test_whatever_its_code_is_called(self, store):
        store.write(record(provenance={"code": "../../x"}))
        store.write(record())
        [earlier] = store.superseded(record().id)
        assert Path(earlier.path).parent == Path(store.path("superseded"))

    def test_none_is_lost_whichever_code_made_them(self, store):
        """Two records without a code had one name, and so had two of the same code."""
        moments = [1e9, 2e9, 3e9, 4e9]
        codes = [{}, {}, {"code": "c" * 16}, {"code": "b" * 16}]
        for code, saved in [*zip(codes, moments, strict=True), ({"code": "c" * 16}, 5e9), ({"code": "b" * 16}, 6e9)]:
            store.write(record(provenance={**code, "saved": saved}))
        earlier = store.superseded(record().id)
        assert [one.saved for one in earlier] == [*moments, 5e9]
        assert [one.record.provenance.get("code") for one in earlier] == [
            None, None, "c" * 16, "b" * 16, "c" * 16,
        ]  # fmt: skip
        assert store.read(record().id).provenance["saved"] == 6e9

    def test_the_same_code_with_other_numbers_supersedes_too(self, store):
        old = record()
        store.write(old)
        last = old.measurements[-1]
        other = record(measurements=[*old.measurements[:-1], last._replace(value=math.nextafter(last.value, 1))])
        store.write(other)
        store.write(other)
        [earlier] = store.superseded(old.id)
        assert earlier.record == old
        store.write(record(measurements=old.measurements[:2], status="diverged"))
        assert [one.record.status for one in store.superseded(old.id)] == ["finished", "finished"]

    def test_of_an_earlier_clray_and_broken_ones(self, store):
        """Earlier versions left the hash out of the name."""
        old = record(provenance={"saved": 1.0})
        path = Path(store.write(old))
        folder = path.parent.parent / "superseded"
        folder.mkdir()
        shutil.copy(path, folder / f"{old.id}.None.parquet")
        (folder / f"{old.id}.x.parquet").write_bytes(b"torn")
        (folder / f"{B}.x.parquet").write_bytes(b"another trial's")
        (folder / "notes.txt").write_bytes(b"")
        broken, whole = store.superseded(old.id)
        assert whole.record == old
        assert isinstance(broken.record, Problem)
        assert broken.record.path.endswith(f"{old.id}.x.parquet")

    def test_the_files_that_were_kept_with_it_move_along(self, store):
        old = record(provenance={"code": "0123456789abcdef"})
        store.write(old)
        store.write_artifact(old.id, "weights.pt", b"old weights")
        store.write_artifact(old.id, "weights.json", b"{}")
        store.write_artifact(old.id, "samples.json", b"[]")
        store.write(record())
        [earlier] = store.superseded(old.id)
        assert sorted(earlier.files) == ["weights.json", "weights.pt"]
        assert store.artifacts(old.id) == ["samples.json"], "its own trial writes it again"
        stem = earlier.relative.removesuffix("parquet")
        assert store.storage.read(f"{stem}weights.pt") == b"old weights"

    def test_a_torn_one_is_not(self, store):
        Path(store.write(record(provenance={"code": "old"}))).write_bytes(b"torn")
        store.write(record())
        assert store.superseded(record().id) == []


class TestThroughPyarrow:
    """HDFS and the like: pyarrow's local files stand in for them."""

    @pytest.fixture
    def store(self, store: Store) -> Store:
        store.storage = PyarrowStorage(fs.LocalFileSystem(), store.path())
        return store

    def test_records(self, store):
        assert store.records() == ([], [])
        store.write(record(status="running"))
        store.write(record())
        store.write(record())
        assert store.records() == ([record()], [])
        assert files(store) == [f"records/{record().id}.parquet"]

    def test_checkpoints(self, store):
        for content in (b"one", b"two", b"three"):
            save(store, A, content)
        assert kept(store, A) == [b"three", b"two"]
        Path(store.path("checkpoints", f"{A}.ckpt")).write_bytes(b"torn")
        save(store, A, b"four")
        assert kept(store, A) == [b"four", b"two"]
        store.delete_checkpoint(A)
        assert files(store) == []

    def test_a_failing_write_leaves_the_old_file_and_nothing_else(self, store):
        store.write_failure(A, {"error": "it died"})

        def fail() -> None:
            raise OSError("no")

        with pytest.raises(StoreError, match="cannot be written: no"):
            store.write_file(f"failures/{A}.json", b"new", before=fail)
        assert store.failure(A) == {"error": "it died"}
        assert files(store) == [f"failures/{A}.json"]

    def test_its_clock(self, store):
        assert abs(store.clock() - time.time()) < 60
        assert files(store) == []


@pytest.mark.parametrize("id", ["", "a", "../../x", "A" * 16, f"{A}/..", f"{A}\n", "x" * 5000])
def test_only_an_id_is_taken_for_one(store, id):
    for ask in (
        store.read, store.artifacts, store.failure, store.read_lease, store.delete_checkpoint,
        lambda id: Checkpoints(store, id).read(), lambda id: store.read_artifact(id, "x"),
        lambda id: save(store, id, b""),
    ):  # fmt: skip
        with pytest.raises(DeclarationError, match="not the id of a trial"):
            list(ask(id) or [])
    assert files(store) == []


class TestFailures:
    def test_they_come_back(self, store):
        store.write_failure(A, {"error": "it died", "host": "here"})
        assert store.failure(A) == {"error": "it died", "host": "here"}
        assert store.failure(B) is None

    def test_a_torn_one_is_still_a_failure(self, store):
        store.write_failure(A, {"error": "it died"})
        Path(store.path("failures", f"{A}.json")).write_text('{"err')
        assert "torn" in store.failure(A)["error"]

    @pytest.mark.parametrize("content", ["null", "[]", '{"error": 3}', '{"time": "x"}', '{"time": 1e400}', "[" * 10**5])
    def test_one_that_clray_has_not_written_is_one_too(self, store, content):
        store.write_failure(A, {})
        assert store.failure(A) == {"error": "it does not say why"}
        Path(store.path("failures", f"{A}.json")).write_text(content)
        assert store.failure(A)["error"].startswith(store.path("failures", f"{A}.json"))
        assert len(store.failure(A)["error"]) < 1000


def test_a_store_may_be_copied(store, tmp_path):
    store.write(record())
    shutil.copytree(store.path(), tmp_path / "copy")
    assert Store(tmp_path / "copy").records() == store.records()
