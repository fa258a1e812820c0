"""A store in a bucket of S3: moto's server answers, and counts the requests. Needs moto, which the dev extra brings."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("moto", reason="the stand-in for S3: pip install -c constraints.txt -e '.[dev]'")

import s3
from test_leases import A, B, of_another_host, put
from test_store import kept, record, save

from clray import leases
from clray.checkpoints import Checkpoints, read_state, write_state
from clray.errors import StoreError
from clray.leases import LeaseHolder, LeaseMonitor, RunsElsewhere, acquire
from clray.storage import ObjectStorage
from clray.store import Store

ROOT = Path(__file__).resolve().parents[1]
CLAIMANTS = 12


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.Bucket]:
    with s3.serve(tmp_path_factory.mktemp("s3")) as bucket:
        yield bucket


@pytest.fixture
def bucket(server: s3.Bucket, request: pytest.FixtureRequest) -> s3.Bucket:
    """The bucket, with a folder for this test alone."""
    own = dataclasses.replace(server, folder=request.node.name)
    own.requests()
    return own


@pytest.fixture
def store(bucket: s3.Bucket) -> Store:
    made = Store(bucket.uri)
    assert isinstance(made.storage, ObjectStorage)
    return made


class TestBytes:
    def test_records_come_back(self, store):
        running, finished = record(status="running"), record()
        store.write(running)
        assert (store.read(running.id), store.read(running.id, "running")) == (None, running)
        store.write(finished)
        store.write(record(1))
        assert store.running() == set()
        found, problems = store.records()
        assert sorted(found, key=lambda r: r.trial.seed) == [finished, record(1)]
        assert problems == []

    def test_the_record_of_other_code_is_kept(self, store):
        store.write(record(provenance={"code": "0123456789abcdef"}))
        store.write(record())
        store.write_artifact(record().id, "weights.pt", b"new")
        store.write(record(provenance={"code": "b" * 16}))
        first, second = sorted(store.superseded(record().id), key=lambda one: one.relative)
        assert first.relative.startswith(f"superseded/{record().id}.0123456789abcdef.")
        assert (first.record.provenance, first.files) == ({"code": "0123456789abcdef"}, ())
        assert (second.record, second.files) == (record(), ("weights.pt",))
        assert store.artifacts(record().id) == []

    def test_checkpoints_rotate(self, store):
        for content in (b"one", b"two", b"three"):
            save(store, A, content)
        assert kept(store, A) == [b"three", b"two"]
        store.storage.write(f"checkpoints/{A}.ckpt", b"torn")
        assert kept(store, A) == [None, b"two"]
        save(store, A, b"four")
        assert kept(store, A) == [b"four", b"two"], "a torn checkpoint never replaces an intact one"
        assert store.checkpointed() == {A}
        store.delete_checkpoint(A)
        assert store.checkpointed() == set()

    def test_a_large_state_comes_back(self, store, monkeypatch):
        """Put in several parts, and read piece by piece."""
        import torch

        monkeypatch.setattr("clray.storage._PIECE", 2**21)
        state = {"w": torch.arange(900_000)}
        Checkpoints(store, A).write(lambda file: write_state(A, state, file))
        [found] = [read_state(A, found.content)["w"] for found in Checkpoints(store, A).read()]
        assert (found == state["w"]).all()

    def test_failures_artifacts_and_reports(self, store, bucket):
        store.write_failure(A, {"error": "it died"})
        store.write_artifact(A, "model.bin", b"weights")
        assert (store.failed(), store.failure(A)) == ({A}, {"error": "it died"})
        assert (store.artifacts(A), store.read_artifact(A, "model.bin")) == (["model.bin"], b"weights")
        assert store.write_report("mer.html", b"page") == f"s3://bucket/clray/{bucket.folder}/reports/mer.html"
        assert store.storage.read("reports/mer.html") == b"page"
        store.require_writable()

    def test_nothing_is_made_before_something_is_written(self, store):
        assert (store.records(), store.finished(), store.read(A), kept(store, A)) == (([], []), set(), None, [])

    def test_requests(self, store, bucket):
        """Through pyarrow a finished record took 8, a checkpoint 4 and reading a record 2."""
        store.write(record(status="running"))
        assert bucket.requests() == [f"PUT running/{record().id}.parquet"]
        written = Checkpoints(store, A)
        written.write(lambda file: file.write(b"one"))
        bucket.requests()
        written.write(lambda file: file.write(b"two"))
        newest = f"checkpoints/{A}.ckpt"
        assert bucket.requests() == [f"HEAD {newest}", f"PUT {newest}.previous", f"PUT {newest}", f"HEAD {newest}"]
        store.write(record())
        name = f"records/{record().id}.parquet"
        assert [line.partition("?")[0] for line in bucket.requests()] == [f"GET {name}", f"PUT {name}", "POST /bucket"]
        store.read(record().id)
        assert bucket.requests() == [f"GET {name}"]


class TestHousekeeping:
    def test_gc(self, store, bucket):
        """As a user types it. What a live lease holds stays, and so does what a stranger has put there."""
        from typer.testing import CliRunner

        from clray.cli import app

        def gc(*flags: str) -> Any:
            kinds = "checkpoints,stale,temporary,superseded,leases"
            arguments = ["gc", "--results", bucket.uri, "--only", kinds, *flags]
            return CliRunner().invoke(app, arguments, catch_exceptions=False)

        for seed in (0, 1):
            store.write(record(seed, provenance={"code": "b" * 16}))
            store.write(record(seed))
            save(store, record(seed).id, b"checkpoint")
        store.write_file("claims/.probe.0123abcd", b"x")
        store.write_file("checkpoints/notes.txt", b"a stranger's")
        held = acquire(store, record(1).id)
        try:
            shown = gc()
            assert shown.exit_code == 0
            # Of this record's trial nobody knows whether the code here can continue the checkpoint, which is torn.
            assert f"superseded/{record(0).id}.{'b' * 16}" in shown.output
            assert record(1).id in shown.output.partition("left alone")[2]
            assert "secret" not in shown.output
            assert len(store.superseded(record(0).id)) == 1
            done = gc("--delete")
            assert "deleted: 1 files" in done.output
        finally:
            held.release()
        assert (store.superseded(record(0).id), len(store.superseded(record(1).id))) == ([], 1)
        assert store.finished() == {record(0).id, record(1).id}
        assert store.checkpointed() == {record(0).id, record(1).id}
        assert store.storage.read("checkpoints/notes.txt") == b"a stranger's"
        assert [file.size for file in store.files("checkpoints") if file.name == "notes.txt"] == [12]

    def test_compare_stores(self, store, bucket, tmp_path):
        from typer.testing import CliRunner

        from clray.cli import app

        here = Store(tmp_path / "here")
        for made in (record(), record(1)):
            here.write(made)
            store.write(made)
        compared = ["compare-stores", here.path(), bucket.uri]
        same = CliRunner().invoke(app, compared, catch_exceptions=False)
        assert (same.exit_code, "secret" in same.output) == (0, False)
        last = record().measurements[-1]
        store.write(record(measurements=[*record().measurements[:-1], last._replace(value=0.9)]))
        other = CliRunner().invoke(app, compared, catch_exceptions=False)
        assert other.exit_code == 1
        assert "accuracy on task 2 after 2 tasks, 10 examples: 0.8 in A, 0.9 in B, 10 points apart" in other.output


class TestTrials:
    def test_a_trial_is_continued_and_finished_with_the_same_bits(self, store, bucket, tiny, tmp_path):
        from test_execution import task, to_the_end
        from typer.testing import CliRunner

        from clray.cli import app
        from clray.execution import Execution

        here = Store(tmp_path / "results")
        expected = to_the_end(Execution(task(tiny, here, "er"), here))
        todo = task(tiny, store, "er")
        begun = Execution(todo, store)
        while begun.progress < 0.3:
            begun.step()
        status = CliRunner().invoke(app, ["status", "--results", store.uri], catch_exceptions=False).output
        assert f"{todo.id} er seed 0: " in status
        assert f"process {os.getpid()}, seen " in status
        begun.stop()
        assert (store.checkpointed(), store.leased(), store.finished()) == ({todo.id}, set(), set())
        again = Execution(todo, Store(store.uri))
        assert again.resumed == begun.progress
        assert again.passed_over == []
        assert to_the_end(again) == expected
        assert (store.checkpointed(), store.leased(), store.finished()) == (set(), set(), {todo.id})


class TestAddresses:
    def test_keys_from_the_environment(self, server, store, monkeypatch):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
        store.write(record())
        assert Store(f"s3://bucket/{store.path().removeprefix('bucket/')}").finished() == {record().id}

    def test_keys_from_the_user_s_files(self, tmp_path, monkeypatch):
        from clray.storage import _AWS_KEYS, _aws_profile

        (tmp_path / "credentials").write_text(
            "[default]\naws_access_key_id = a\naws_secret_access_key = b%c\n[other]\naws_access_key_id=x\n"
        )
        (tmp_path / "config").write_text("[default]\nregion = eu-west-1\n[profile other]\nregion = eu-west-2\n")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.delenv("AWS_PROFILE", raising=False)
        found = _aws_profile("AWS_SHARED_CREDENTIALS_FILE", "credentials", _AWS_KEYS)
        assert found == {"access_key_id": "a", "secret_access_key": "b%c"}
        monkeypatch.setenv("AWS_PROFILE", "other")
        assert _aws_profile("AWS_CONFIG_FILE", "config", ("region",)) == {"region": "eu-west-2"}
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        assert _aws_profile("AWS_CONFIG_FILE", "config", ("region",)) == {}

    @pytest.mark.parametrize(
        ("uri", "path"),
        [
            ("gs://anonymous@bucket/a/b", "bucket/a/b"),
            ("gs://anonymous@bucket/a?endpoint_override=127.0.0.1:1&scheme=http", "bucket/a"),
            ("abfss://container@account.dfs.core.windows.net/a", "container@account.dfs.core.windows.net/a"),
            ("az://container/a", "container/a"),
        ],
    )
    def test_other_clouds_are_opened(self, uri, path, monkeypatch):
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
        opened = Store(uri)
        assert isinstance(opened.storage, ObjectStorage)
        assert opened.path() == path

    def test_what_is_unknown_is_refused(self):
        with pytest.raises(StoreError, match=r"us-east-1: cannot be opened as a results store: .*address: colour"):
            Store("s3://k:s@bucket/a?colour=blue&region=us-east-1")

    def test_a_bucket_that_does_not_exist_is_no_empty_store(self, server):
        with pytest.raises(StoreError, match=r"nobody/clray/store/records: cannot be listed: "):
            Store(server.uri.replace("@bucket", "@nobody")).records()
        with pytest.raises(StoreError, match=r"\.parquet: cannot be written: ") as caught:
            Store(server.uri.replace("@bucket", "@nobody")).write(record())
        assert "\n" not in str(caught.value)


class TestLeases:
    @pytest.fixture
    def held(self) -> Iterator[Any]:
        holders: list[LeaseHolder] = []
        yield lambda holder: holders.append(holder) or holder
        for holder in holders:
            holder.release()

    def test_requests(self, store, bucket):
        """Through pyarrow, with flags: 8 to acquire, 3 a heartbeat, 8 for the first look, then 3, and 7 to release."""
        holder, lease = acquire(store, A), f"claims/{A}.json"
        assert bucket.requests() == [f"PUT {lease}"]
        holder.renew()
        assert bucket.requests() == [f"PUT {lease}"]
        monitor = LeaseMonitor(Store(store.uri))
        monitor.live(A)
        assert bucket.requests() == [f"GET {lease}", "PUT claims/.clock", "HEAD claims/.clock"]
        monitor.live(A)
        assert bucket.requests() == [f"GET {lease}"]
        holder.release()
        assert [line.partition("?")[0] for line in bucket.requests()] == [f"PUT {lease}", "POST /bucket"]
        assert store.leased() == set()

    def test_a_live_one_is_respected(self, store, held):
        holder = held(acquire(store, A, "launch 1", variant="er"))
        with pytest.raises(RunsElsewhere, match=f"process {os.getpid()}"):
            acquire(Store(store.uri), A, "launch 2")
        assert LeaseMonitor(store).live(A) == holder.lease

    def test_one_of_twelve_gets_it(self, store, held):
        assert len(self.race(store, held, [A, B])) == 2

    @pytest.mark.slow
    def test_one_of_twelve_processes_gets_it(self, store):
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", RACE, store.uri], env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for _ in range(CLAIMANTS)
        ]  # fmt: skip
        assert [racer.stdout.readline() for racer in racers if racer.stdout] == ["ready\n"] * CLAIMANTS
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        won = [racer.stdout.readline().split() for racer in racers if racer.stdout]
        for racer in racers:
            racer.communicate("")
        assert sorted(round for rounds in won for round in rounds) == sorted(map(str, range(10)))

    def test_an_expired_one_is_taken_over_by_one_of_twelve(self, store, held, monkeypatch):
        for trial in (A, B):
            put(store, trial, of_another_host(trial).to_bytes())
        with pytest.raises(RunsElsewhere, match="by far, process 7"):
            acquire(store, A)
        real = ObjectStorage.read_lease

        def aged(storage: ObjectStorage, relative: str) -> Any:
            found = real(storage, relative)
            old = found is not None and b'"host": "far"' in found.content
            return dataclasses.replace(found, mtime=found.mtime - leases.SILENCE_SECONDS - 5) if old else found

        monkeypatch.setattr(ObjectStorage, "read_lease", aged)
        holders = self.race(store, held, [A, B])
        assert sorted(holder.lease.trial for holder in holders) == [A, B]
        assert [holder.earlier for holder in holders] == [[{"host": "far", "pid": 7}]] * 2

    def race(self, store: Store, held: Any, trials: list[str]) -> list[LeaseHolder]:
        start, won = threading.Barrier(CLAIMANTS), list[LeaseHolder]()

        def claim(number: int) -> None:
            own = Store(store.uri)
            start.wait()
            for trial in trials:
                with contextlib.suppress(RunsElsewhere):
                    won.append(held(acquire(own, trial, f"launch {number}")))

        claimants = [threading.Thread(target=claim, args=(number,)) for number in range(CLAIMANTS)]
        for claimant in claimants:
            claimant.start()
        for claimant in claimants:
            claimant.join()
        return won

    def test_who_lost_it_cannot_renew(self, store, held):
        holder = held(acquire(store, A, "launch"))
        other = held(acquire(Store(store.uri), A, "launch"))  # a launch takes over its own
        holder.renew()
        assert holder.lost
        other.renew()
        assert not other.lost
        holder.renew()
        holder.release()
        found = LeaseMonitor(store).live(A)
        assert found is not None
        assert found.token == other.lease.token

    def test_one_whose_answer_was_lost_is_still_held(self, store, held, monkeypatch):
        """The bucket wrote the lease, the answer did not arrive, and the request that was repeated is refused."""
        real = ObjectStorage._put_if

        def deaf(*arguments: Any) -> None:
            assert real(*arguments) is not None

        with monkeypatch.context() as patch:
            patch.setattr(ObjectStorage, "_put_if", deaf)
            holder = held(acquire(store, A))
        with monkeypatch.context() as patch:
            patch.setattr(ObjectStorage, "_put_if", deaf)
            holder._store.storage.renew(f"claims/{A}.json", holder.lease.to_bytes() + b" ", holder._written)
        holder.renew()
        assert not holder.lost

    def test_one_that_somebody_deleted_is_written_again(self, store, held):
        holder = held(acquire(store, A))
        store.storage.delete([f"claims/{A}.json"])
        holder.renew()
        assert not holder.lost
        assert store.leased() == {A}

    def test_the_clock_of_the_store_is_asked_once(self, store, bucket):
        assert abs(store.clock() - time.time()) < 5
        assert bucket.requests() == ["PUT claims/.clock", "HEAD claims/.clock"]
        store.clock()
        assert bucket.requests() == []
        assert store.leased() == set()


RACE = """
import sys
from clray.leases import RunsElsewhere, acquire
from clray.store import Store
store, won = Store(sys.argv[1]), []
store.leased()
print("ready", flush=True)
sys.stdin.readline()
for round in range(10):
    try:
        won.append((round, acquire(store, f"{round:016x}")))
    except RunsElsewhere:
        pass
print(*[round for round, _ in won], flush=True)
sys.stdin.read()
"""
