"""Garbage: what nobody needs is found and deleted; what a launch, a live process or a stranger needs is not touched.

Tested on disks, through pyarrow, and on an object store in memory; tests/test_object_store.py has S3.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_execution import part_of_the_way, task, to_the_end
from test_leases import ROOT, A, age, as_bucket, of_another_host, put, through_pyarrow
from test_store import record
from typer.testing import CliRunner
from waiting import wait_for

from clray import cache, garbage
from clray.checkpoints import Checkpoints, write_state
from clray.cli import app
from clray.errors import ClrayError, DeclarationError, StoreError
from clray.execution import Execution
from clray.garbage import delete, find
from clray.loading import load_sweep
from clray.planning import plan
from clray.provenance import code_digest
from clray.selection import Selection
from clray.store import Store
from clray.trial import Trial

OTHER = "e" * 16
"""The digest of other code."""
IN_STORE = ("checkpoints", "stale", "temporary", "superseded", "leases")


@pytest.fixture(params=["disk", "pyarrow", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    made = Store(tmp_path / "results")
    return {"disk": lambda made: made, "pyarrow": through_pyarrow, "bucket": as_bucket}[request.param](made)


@pytest.fixture
def disk(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def made(seed: int = 0, code: str | None = None, **changes: Any) -> Any:
    """A record of a trial, by default one that the code here made."""
    one = record(seed)
    facts = {"code": code or code_digest(one.trial), "saved": 1000.0 + seed, **changes.pop("provenance", {})}
    return record(seed, provenance=facts, **changes)


def checkpoint(store: Store, id: str, code: str) -> None:
    state = {"training": {"w": torch.arange(1000.0)}, "measurements": [], "seconds": 1.0, "code": code}
    Checkpoints(store, id).write(lambda file: write_state(id, state, file))


def begin(store: Store, one: Any, code: str, **facts: Any) -> None:
    """The traces of a trial in progress: a checkpoint and the record of its progress, both by the same code."""
    checkpoint(store, one.id, code)
    store.write(dataclasses.replace(one, status="running", provenance={"code": code, "progress": 0.5, **facts}))


def names(store: Store, *kinds: str) -> list[str]:
    return [f"{one.kind}: {one.relative}" for one in find(store, kinds or IN_STORE).garbage]


def everything(store: Store) -> dict[str, int]:
    """The files of the store and their sizes."""
    folders = (*garbage._FOLDERS, "")
    found = {f"{folder}/{file.name}": file.size for folder in folders for file in store.files(folder)}
    return {name: size for name, size in found.items() if name != "claims/.clock"}  # an object store keeps it


def gc(*arguments: object, code: int = 0, **how: Any) -> str:
    result = CliRunner().invoke(app, ["gc", *map(str, arguments)], catch_exceptions=False, **how)
    assert result.exit_code == code, result.output
    return result.output


class TestProgress:
    def test_an_empty_store_has_none(self, store):
        assert find(store, IN_STORE) == garbage.Found([], [])
        assert everything(store) == {}

    def test_of_a_finished_trial(self, store):
        """A process that had lost the trial wrote these after another one had finished it."""
        one = made()
        store.write(one)
        begin(store, one, one.provenance["code"])
        checkpoint(store, one.id, one.provenance["code"])
        store.write_failure(one.id, {"error": "it died", "time": 999.0})
        kept = f"records/{one.id}.parquet"
        assert names(store) == [
            f"checkpoints: checkpoints/{one.id}.ckpt",
            f"checkpoints: checkpoints/{one.id}.ckpt.previous",
            f"checkpoints: failures/{one.id}.json",
            f"checkpoints: running/{one.id}.parquet",
        ]
        found = find(store, IN_STORE).garbage
        before = everything(store)
        assert {one.relative: one.size for one in found} == {k: v for k, v in before.items() if k != kept}
        done = delete(store, found)
        assert (sorted(done.garbage, key=lambda g: g.path), done.passed_over) == (found, {})
        assert list(everything(store)) == [kept]
        assert store.read(one.id) == one

    def test_a_failure_after_the_record_is_kept(self, store):
        """It is of an attempt to run the trial again."""
        one = made()
        store.write(one)
        store.write_failure(one.id, {"error": "it died", "time": 2000.0})
        assert names(store) == []

    def test_of_a_half_done_trial_is_kept(self, store):
        one = made()
        begin(store, one, one.provenance["code"])
        store.write_failure(one.id, {"error": "it died", "time": 2000.0})
        assert names(store) == []

    def test_of_a_half_done_trial_of_other_code_is_stale(self, store):
        one = made()
        begin(store, one, OTHER)
        assert names(store) == [f"stale: checkpoints/{one.id}.ckpt", f"stale: running/{one.id}.parquet"]
        delete(store, find(store, ["checkpoints"]).garbage)
        assert len(everything(store)) == 2, "only the kinds that were asked for"
        delete(store, find(store).garbage)
        assert everything(store) == {}

    @pytest.mark.parametrize("newest", [OTHER, None])
    def test_the_one_before_by_the_code_here_keeps_both(self, store, newest):
        """A launch from here passes over the newest, and continues from the one before."""
        one = made()
        begin(store, one, one.provenance["code"])
        if newest:
            begin(store, one, newest)
        else:
            store.write_file(f"checkpoints/{one.id}.ckpt.previous", b"torn")
            store.write(dataclasses.replace(one, status="running", provenance={"code": OTHER}))
        assert names(store) == []

    def test_whose_code_or_trial_nobody_knows_is_kept(self, store):
        one, two = made(0), made(1)
        checkpoint(store, one.id, OTHER)
        begin(store, two, OTHER)
        store.write_file(f"checkpoints/{two.id}.ckpt", b"torn")
        assert names(store) == []

    def test_a_method_of_another_checkout_is_kept(self, store):
        one = made()
        theirs = Trial(**{**one.trial.model_dump(), "method": "theirs"})
        theirs = dataclasses.replace(one, trial=theirs, id=theirs.id(one.data["fingerprint"]))
        begin(store, theirs, OTHER)
        assert store.read(theirs.id, "running").trial.method == "theirs"
        assert names(store) == []

    def test_what_is_left_of_a_finished_trial_of_another_checkout(self, store):
        """Its code made the record, and would not run it again; other code passes over its checkpoints."""
        one = made()
        theirs = Trial(**{**one.trial.model_dump(), "method": "theirs"})
        theirs = dataclasses.replace(
            one, trial=theirs, id=theirs.id(one.data["fingerprint"]), provenance={"code": OTHER}
        )
        store.write(theirs)
        begin(store, theirs, OTHER)
        assert names(store)[0] == f"checkpoints: checkpoints/{theirs.id}.ckpt"
        begin(store, theirs, "d" * 16)
        assert names(store) == [], "they run it again with changed code"

    def test_a_stale_trial_that_is_run_again_is_kept(self, store):
        one = made(code=OTHER)
        store.write(one)
        begin(store, one, code_digest(one.trial))
        assert names(store) == []
        begin(store, one, OTHER)
        assert names(store) == [], "the checkpoint before is one from which it goes on"
        begin(store, one, OTHER)
        begin(store, one, "d" * 16)
        assert names(store)[0] == f"stale: checkpoints/{one.id}.ckpt"
        begin(store, one, OTHER)
        assert names(store)[0] == f"checkpoints: checkpoints/{one.id}.ckpt", "left by who made the record"

    def test_one_that_is_run_again_for_its_files_is_kept(self, store):
        one = made()
        store.write(one)
        begin(store, one, one.provenance["code"], again=True)
        assert names(store) == []

    def test_beside_a_record_that_cannot_be_read_all_is_kept(self, store):
        one = made()
        store.write_file(f"records/{one.id}.parquet", b"torn")
        begin(store, one, OTHER)
        assert names(store) == []


class TestLeases:
    def test_only_dead_ones(self, store):
        alive, dead, one = of_another_host(A), of_another_host("b" * 16), made()
        put(store, dead.trial, dead.to_bytes())
        age(store, dead.trial, 60)
        put(store, A, alive.to_bytes())
        if store.storage.__class__.__name__ == "ObjectStorage":  # the clock went on for all leases in a bucket
            store._clock = None
            found = find(store, ["leases"])
            assert (found.garbage, [lease.trial for lease in found.held]) == ([], [A, dead.trial])
            return
        begin(store, dataclasses.replace(one), one.provenance["code"])
        found = find(store, IN_STORE)
        assert [g.relative for g in found.garbage] == [f"claims/{dead.trial}.json"]
        assert found.held == [alive]
        assert [g.relative for g in delete(store, found.garbage).garbage] == [f"claims/{dead.trial}.json"]
        assert store.leased() == {A}
        assert store.running() == {one.id}

    def test_of_a_stranger_is_left_alone_with_its_trial(self, store):
        one = made()
        store.write(one)
        begin(store, one, one.provenance["code"])
        put(store, one.id, b'{"trial": 7}')
        assert len(everything(store)) == 4
        assert names(store) == []
        assert find(store, IN_STORE).held == []


HOLD = """
import sys, time
from clray.leases import acquire
from clray.store import Store
holders = [acquire(Store(sys.argv[1]), trial) for trial in sys.argv[2:]]
print("leased", flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(disk: Store) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the leases on the trials of seeds 0 and 1."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, disk.path(), made(0).id, made(1).id],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "leased\n"
    yield process
    process.kill()
    process.communicate()


class TestHeld:
    """Another process holds a lease."""

    def fill(self, store: Store) -> None:
        for seed, code in ((0, OTHER), (1, None), (2, OTHER)):
            one = made(seed)
            if code is None:
                store.write(one)
                store.write(made(seed, OTHER))
                store.write(one)
            begin(store, one, code or one.provenance["code"])
            partial = Path(store.path("checkpoints", f".{one.id}.ckpt.0123abcd.tmp"))
            partial.write_bytes(b"part")
            os.utime(partial, (time.time() - 7200,) * 2)

    def test_nothing_of_its_trials_is_touched(self, disk, holder):
        self.fill(disk)
        before = everything(disk)
        said = gc("--results", disk.path(), "--only", "checkpoints,stale,temporary,superseded,leases", "--delete")
        free = made(2).id
        gone = {f"checkpoints/{free}.ckpt", f"running/{free}.parquet", f"checkpoints/.{free}.ckpt.0123abcd.tmp"}
        changing = {f"claims/{made(seed).id}.json" for seed in (0, 1)}
        after = everything(disk)
        assert before.keys() - after.keys() == gone
        assert {k: v for k, v in after.items() if k not in changing} == {
            k: v for k, v in before.items() if k not in gone | changing
        }
        for seed in (0, 1):
            assert f"left alone: {made(seed).id}, which {os.uname().nodename}, process {holder.pid} runs" in said
        assert "deleted: 3 files" in said

    def test_once_it_is_gone_it_is_garbage(self, disk, holder):
        self.fill(disk)
        holder.kill()
        stat = Path(f"/proc/{holder.pid}/stat")
        wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z")
        assert len(names(disk, "leases")) == 2
        delete(disk, find(disk, IN_STORE).garbage)
        assert sorted(everything(disk)) == [f"records/{made(1).id}.parquet"]

    def test_who_takes_a_trial_up_after_the_look_keeps_it(self, disk):
        self.fill(disk)
        found = find(disk, IN_STORE).garbage
        trial = made(2).id
        held = subprocess.Popen(
            [sys.executable, "-c", HOLD, disk.path(), trial],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert held.stdout is not None
            assert held.stdout.readline() == "leased\n"
            done = delete(disk, found)
        finally:
            held.kill()
            held.communicate()
        assert list(done.passed_over) == [trial]
        assert f"process {held.pid} has taken it up meanwhile" in done.passed_over[trial]
        assert f"checkpoints/{trial}.ckpt" in everything(disk)

    def test_what_has_become_of_use_since_the_look_is_kept(self, disk):
        one = made()
        begin(disk, one, OTHER)
        found = find(disk, IN_STORE).garbage
        begin(disk, one, one.provenance["code"])
        assert delete(disk, found).garbage == []
        assert f"checkpoints/{one.id}.ckpt" in everything(disk)


class TestTemporary:
    def test_those_of_killed_processes(self, disk, tmp_path):
        one = made()
        disk.write(one)
        disk.write_report("a.html", b"page")
        old = [f"records/.{one.id}.parquet.0123abcd.tmp", "records/.0123abcd.tmp", "claims/.probe.0123abcd",
               "reports/.a.html.0123abcd.tmp", f"artifacts/.{one.id}.weights.pt.0123abcd.tmp"]  # fmt: skip
        foreign = ["records/.notes.0123abcd.tmp", "records/notes.tmp", f"records/.{one.id}.parquet.tmp",
                   "records/.gitkeep", ".0123abcd.tmp", "reports/.a.html.swp"]  # fmt: skip
        fresh = [f"records/.{one.id}.parquet.89abcdef.tmp"]
        for name in (*old, *foreign, *fresh):
            path = Path(disk.path(name))
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"part")
            if name not in fresh:
                os.utime(path, (time.time() - 3700,) * 2)
        assert names(disk) == sorted(f"temporary: {name}" for name in old)
        before = everything(disk)
        delete(disk, find(disk, IN_STORE).garbage)
        assert before.keys() - everything(disk).keys() == set(old)


class TestSuperseded:
    def test_only_beside_a_present_record(self, store):
        for code in (OTHER, "d" * 16):
            store.write(made(code=code))
        store.write_artifact(made().id, "weights.pt", b"weights")
        store.write(made())
        assert [one.kind for one in find(store, IN_STORE).garbage] == ["superseded"] * 3
        alone = store.superseded(made().id)
        content = store.storage.read(f"records/{made().id}.parquet")
        store.delete_files([f"records/{made().id}.parquet"])
        assert names(store) == [], "it is all that is known of the trial"
        store.write_file(f"records/{made().id}.parquet", content)
        store.write_file(f"superseded/{made().id}.x.parquet", b"a stranger's")
        store.write_file("superseded/notes.txt", b"a stranger's")
        delete(store, find(store, IN_STORE).garbage)
        assert sorted(everything(store)) == [
            f"records/{made().id}.parquet", f"superseded/{made().id}.x.parquet", "superseded/notes.txt",
        ]  # fmt: skip
        assert len(alone) == 2


class TestCache:
    @pytest.fixture
    def folder(self, tmp_path, monkeypatch) -> Path:
        monkeypatch.setenv("CLRAY_CACHE", str(tmp_path / "cache"))
        return tmp_path / "cache" / "decoded"

    def age(self, folder: Path, days: float) -> None:
        for path in (*folder.rglob("*"), folder):
            os.utime(path, (time.time() - days * 86_400,) * 2)

    def test_data_that_nobody_read_for_long(self, folder, disk):
        for name in ("mnist-0123", "cifar-4567"):
            cache.write_decoded(folder / name, {"x.npy": lambda path: path.write_bytes(b"x" * 100) and None})
            self.age(folder / name, 100)
        stranger, unfinished = folder / "mine", folder / "mnist-89ab.tmp-xyz"
        for other, days in ((stranger, 100), (unfinished, 3)):
            other.mkdir()
            (other / "data").write_bytes(b"y" * 10)
            self.age(other, days)
        read = folder / "cifar-4567" / "x.npy"
        os.utime(read, (time.time() - 5 * 86_400, read.stat().st_mtime))
        assert [Path(one.path).name for one in find(disk).garbage] == ["mnist-0123", "mnist-89ab.tmp-xyz"]
        [whole] = [one for one in find(disk, ["cache"], 4).garbage if "cifar" in one.path]
        assert whole.size == 100 + (folder / "cifar-4567" / "note.json").stat().st_size
        delete(disk, find(disk).garbage)
        assert sorted(path.name for path in folder.iterdir()) == ["cifar-4567", "mine"]
        assert cache.read_decoded(folder / "cifar-4567") is not None

    def test_a_cache_that_is_not_there(self, folder, disk):
        assert find(disk).garbage == []


@pytest.mark.usefixtures("kernels")
class TestTrials:
    def test_what_is_left_after_gc_continues_with_the_same_bits(self, tiny, disk, tmp_path):
        elsewhere = Store(tmp_path / "elsewhere")
        expected = to_the_end(Execution(task(tiny, elsewhere, "mer"), elsewhere))
        begun = Execution(task(tiny, disk, "mer"), disk)
        part_of_the_way(begun, 40)
        begun.stop()
        stale = Execution(task(tiny, disk, "er"), disk)
        part_of_the_way(stale, 40)
        stale._code = OTHER
        stale.stop()
        to_the_end(Execution(task(tiny, disk, "online"), disk))
        said = gc("--results", disk.path(), "--delete", "--only", ",".join(IN_STORE))
        assert f"checkpoints/{stale.task.id}.ckpt" in said
        assert begun.task.id not in said
        states = {t.variant: t.state for t in plan({"tiny": load_sweep(tiny, Selection(seeds=(0,)))}, disk).trials}
        assert (states["mer"], states["er"], states["online"]) == ("half-done", "to do", "finished")
        again = Execution(task(tiny, disk, "mer"), disk)
        assert again.resumed > 0
        assert to_the_end(again) == expected


class TestCommand:
    @pytest.fixture
    def full(self, disk: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
        monkeypatch.setenv("CLRAY_CACHE", str(tmp_path / "cache"))
        for seed in range(7):
            begin(disk, made(seed), OTHER)
        disk.write(made(9, OTHER))
        disk.write(made(9))
        return disk

    def test_it_shows_and_deletes_nothing(self, full):
        before = everything(full)
        said = gc("--results", full.path())
        assert "15 files, " in said
        assert "stale: 14 files, " in said
        assert "superseded: 1 files, " in said
        assert "and 9 more (--all names them)" in said
        assert said.rstrip().endswith("Nothing was deleted. The same command with --delete deletes this.")
        assert everything(full) == before
        whole = gc("--results", full.path(), "--all")
        assert all(f"checkpoints/{made(seed).id}.ckpt" in whole for seed in range(7))

    def test_delete(self, full):
        said = gc("--results", full.path(), "--delete", "--only", "stale")
        assert "deleted: 14 files, " in said
        assert len(full.superseded(made(9).id)) == 1
        assert "0 files, 0 B" in gc("--results", full.path(), "--delete", "--only", "stale")
        gc("--results", full.path(), "--delete")
        assert list(everything(full)) == [f"records/{made(9).id}.parquet"]

    @pytest.mark.parametrize(("answer", "left"), [("y\n", 1), ("n\n", 16), ("", 16)])
    def test_on_a_terminal_it_asks(self, full, answer, left):
        """In a process of its own, with a terminal of its own."""
        command = f"[sys.executable, '-m', 'clray', 'gc', '--results', {full.path()!r}]"
        script = f"import pty, sys; sys.exit(pty.spawn({command}) >> 8)"
        done = subprocess.run(
            [sys.executable, "-c", script], input=answer or "\x04", capture_output=True, text=True, timeout=100,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert "Delete 15 files, " in done.stdout
        assert done.returncode == (0 if answer else 1), done.stdout
        assert len(everything(full)) == left

    def test_json(self, full):
        found = json.loads(gc("--results", full.path(), "--json"))
        assert found["kinds"]["stale"] == {"files": 14, "bytes": sum(
            size for name, size in everything(full).items() if name.startswith(("checkpoints", "running"))
        )}  # fmt: skip
        assert not any(one["deleted"] for one in found["files"])
        deleted = json.loads(gc("--results", full.path(), "--json", "--delete", "--only", "superseded"))
        assert [(one["kind"], one["deleted"]) for one in deleted["files"]] == [("superseded", True)]
        assert full.superseded(made(9).id) == []

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("--only", "checkpoint"), "--only 'checkpoint': not a kind of file; did you mean 'checkpoints'"),
            (("--only", ""), "not a kind of file"),
            (("--results", "nowhere"), "--results nowhere: no such folder"),
            (("--results", " "), "names no store"),
        ],
    )
    def test_wrong_use_exits_with_2(self, tmp_path, monkeypatch, arguments, said):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(DeclarationError, match=said) as caught:
            gc(*arguments)
        assert caught.value.exit_code == 2
        assert list(tmp_path.iterdir()) == []

    def test_negative_days_are_wrong_use(self):
        assert "--cache-days" in gc("--cache-days", "-1", code=2)

    def test_the_default_store_need_not_exist(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("CLRAY_CACHE", str(tmp_path / "cache"))
        assert "0 files, 0 B" in gc()
        assert list(tmp_path.iterdir()) == []

    def test_files_that_stay_are_one_error(self, full, monkeypatch):
        """A storage passes over what this user may not delete."""
        monkeypatch.setattr(type(full.storage), "delete", lambda self, relatives: None)
        with pytest.raises(StoreError, match=r"superseded/.*\.parquet: cannot be deleted: this user") as caught:
            gc("--results", full.path(), "--delete", "--only", "superseded")
        assert caught.value.exit_code == 1

    def test_a_store_that_cannot_be_read_exits_with_1(self, tmp_path):
        (tmp_path / "results").mkdir()
        (tmp_path / "results" / "checkpoints").write_text("a file")
        with pytest.raises(ClrayError, match="checkpoints: cannot be listed") as caught:
            gc("--results", tmp_path / "results")
        assert caught.value.exit_code == 1
