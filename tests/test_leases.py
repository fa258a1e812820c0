"""Leases: one of many processes gets a trial, live holders keep their leases, dead ones lose them.

Tested on disks and on object stores.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs
from waiting import wait_for

from clray import leases
from clray.errors import StoreError
from clray.leases import Lease, LeaseHolder, LeaseMonitor, RunsElsewhere, acquire
from clray.storage import ObjectStorage, PyarrowStorage, StoredLease
from clray.store import Store

ROOT = Path(__file__).resolve().parents[1]
A, B, C = ("a" * 16, "b" * 16, "c" * 16)


def through_pyarrow(store: Store) -> Store:
    """The same store as HDFS is used: through pyarrow, without exclusive creation."""
    store.storage = PyarrowStorage(fs.LocalFileSystem(), store.path())
    return store


def as_bucket(store: Store) -> Store:
    """A store in a bucket of this process's memory."""
    from obstore.store import MemoryStore

    store.storage = ObjectStorage(MemoryStore(), "bucket")
    return store


@pytest.fixture(params=["disk", "pyarrow", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    made = Store(tmp_path / "results")
    return {"disk": lambda made: made, "pyarrow": through_pyarrow, "bucket": as_bucket}[request.param](made)


def put(store: Store, trial: str, content: bytes) -> None:
    """Write a lease, whatever the store has."""
    store.write_file(f"claims/{trial}.json", content)


@pytest.fixture
def held() -> Iterator[Callable[[LeaseHolder], LeaseHolder]]:
    """Holds to be let go at the end of a test."""
    holds: list[LeaseHolder] = []

    def keep(hold: LeaseHolder) -> LeaseHolder:
        holds.append(hold)
        return hold

    yield keep
    for hold in holds:
        hold.release()


def of_another_host(trial: str, **changes: Any) -> Lease:
    mine = Lease.of_this_process(trial, "another launch", {"executions": [{"host": "far", "pid": 7}]})
    return dataclasses.replace(mine, host="far", pid=7, processes="another boot", **changes)


def age(store: Store, trial: str, seconds: float) -> None:
    """Make a lease look as if it had not been renewed for so long."""
    if isinstance(store.storage, ObjectStorage):
        store._clock = (store.clock() + seconds, time.monotonic())
        return
    path = store.path("claims", f"{trial}.json")
    stamp = os.stat(path).st_mtime - seconds
    os.utime(path, (stamp, stamp))


def test_it_says_who_and_goes_when_released(store: Store) -> None:
    hold = acquire(store, A, "launch 1", variant="er", seed=3)
    found = store.read_lease(A)
    assert found is not None
    lease = Lease.from_bytes(A, found.content)
    assert (lease.trial, lease.launch, lease.pid) == (A, "launch 1", os.getpid())
    assert lease.notes == {"variant": "er", "seed": 3}
    assert lease == hold.lease
    assert store.leased() == {A}
    hold.release()
    hold.release()
    assert store.leased() == set()
    assert store.storage.names("claims") == [], "and nothing else is left"


def test_a_live_one_is_respected(store: Store, held: Any) -> None:
    held(acquire(store, A, "launch 1"))
    with pytest.raises(RunsElsewhere, match=f"trial {A} is being run by .*, process {os.getpid()}"):
        acquire(store, A, "launch 2")
    held(acquire(store, B, "launch 2"))
    live = LeaseMonitor(store).live(A)
    assert live is not None
    assert live.launch == "launch 1"
    assert LeaseMonitor(store).live(C) is None


def test_its_own_launch_takes_it_over(store: Store, held: Any) -> None:
    first = held(acquire(store, A, "launch 1"))
    second = held(acquire(store, A, "launch 1"))
    first.renew()
    assert first.lost
    second.renew()
    assert not second.lost
    first.release()
    assert store.leased() == {A}, "who lost it does not remove the other's"


LEASE_AND_SLEEP = """
import sys, time
from clray.leases import acquire
from clray.store import Store
hold = acquire(Store(sys.argv[1]), "a" * 16, executions=[{"host": "here", "pid": 1}])
print("leased", flush=True)
time.sleep(600)
"""


@pytest.fixture
def another_process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lease on the trial ``a`` of the store in ``results``."""
    process = subprocess.Popen(
        [sys.executable, "-c", LEASE_AND_SLEEP, str(tmp_path / "results")],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "leased\n"
    yield process
    process.kill()
    process.communicate()


def test_that_of_a_killed_process_is_taken_over_at_once(another_process: Any, tmp_path: Path, held: Any) -> None:
    store = Store(tmp_path / "results")
    with pytest.raises(RunsElsewhere, match=f"process {another_process.pid}"):
        acquire(store, A)
    another_process.kill()
    # Not waited for: a process that is dead but not buried yet is dead.
    stat = Path(f"/proc/{another_process.pid}/stat")
    wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z")
    hold = held(acquire(store, A))
    assert hold.earlier == [{"host": "here", "pid": 1}], "what its holder knew of executions before is kept"
    assert LeaseMonitor(store).live(A) == hold.lease


def test_a_process_id_that_was_given_again_is_not_the_same_process(store: Store, held: Any) -> None:
    mine = Lease.of_this_process(A, "another launch", {})
    store.create_lease(A, dataclasses.replace(mine, start_ticks=(mine.start_ticks or 0) - 1).to_bytes())
    held(acquire(store, A))


def test_of_another_host_only_silence_tells(store: Store, held: Any) -> None:
    store.create_lease(A, of_another_host(A).to_bytes())
    with pytest.raises(RunsElsewhere, match="by far, process 7"):
        acquire(store, A)
    age(store, A, leases.SILENCE_SECONDS - 20)
    with pytest.raises(RunsElsewhere):
        acquire(store, A)
    age(store, A, 30)
    assert held(acquire(store, A)).earlier == [{"host": "far", "pid": 7}]


def test_a_store_without_a_clock_is_watched_with_a_stopwatch(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(leases.time, "monotonic", lambda: now[0])
    renewed = [0]

    def unstamped(trial: str) -> Any:
        content = of_another_host(A, token=str(renewed[0]), acquired=0.0).to_bytes()
        return StoredLease(content, None)

    monkeypatch.setattr(store, "read_lease", unstamped)
    monitor = LeaseMonitor(store)
    for step in range(5):
        now[0] += 20
        renewed[0] = step
        assert monitor.live(A) is not None, "it is renewed every twenty seconds"
    now[0] += leases.SILENCE_SECONDS - 1
    assert monitor.live(A) is not None
    now[0] += 2
    assert monitor.live(A) is None


def test_a_wrong_clock_of_this_machine_does_no_harm(store: Store, held: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store.create_lease(A, of_another_host(A).to_bytes())
    monkeypatch.setattr(leases.time, "time", lambda: 4e9)
    with pytest.raises(RunsElsewhere):
        acquire(store, A)
    age(store, A, 60)
    monkeypatch.setattr(leases.time, "time", lambda: 0.0)
    held(acquire(store, A))


def test_the_heartbeat(store: Store, held: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.05)
    hold = held(acquire(store, A, progress=0.0))
    age(store, A, 600)
    hold.note(progress=0.5)

    def renewed() -> bool:
        found = store.read_lease(A)
        assert found is not None
        return Lease.from_bytes(A, found.content).notes["progress"] == 0.5

    wait_for(renewed)
    found = store.read_lease(A)
    assert found is not None
    assert found.mtime is not None
    store._clock = None
    assert store.clock() - found.mtime < 300
    store.storage.delete([f"claims/{A}.json"])
    wait_for(lambda: store.leased() == {A})
    assert not hold.lost, "somebody cleared the folder: it is written again"
    hold.release()
    time.sleep(0.3)
    assert store.leased() == set(), "no heartbeat after the release"


def test_one_that_is_forgotten_is_renewed_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.05)
    before = set(threading.enumerate())
    hold = acquire(Store(tmp_path), A)
    [thread] = set(threading.enumerate()) - before
    time.sleep(0.2)
    assert thread.is_alive()
    del hold
    gc.collect()
    wait_for(lambda: not thread.is_alive())


def test_one_that_was_out_of_reach_too_long_learns_it(store: Store, held: Any) -> None:
    hold = held(acquire(store, A, "launch 1"))
    put(store, A, of_another_host(A).to_bytes())
    hold.renew()
    assert hold.lost
    hold.release()
    assert store.leased() == {A}


def test_who_lost_it_does_not_write_it_again_when_the_other_is_done(store: Store) -> None:
    first, second = acquire(store, A, "launch 1"), acquire(store, A, "launch 1")
    first.renew()
    second.release()
    first.renew()
    assert first.lost
    assert store.leased() == set()


def test_one_that_was_renewed_since_it_was_read_cannot_be_taken_over(store: Store, held: Any) -> None:
    """Although it says the same: S3's etag is a hash of the content."""
    holder = held(acquire(store, A))
    found = store.read_lease(A)
    assert found is not None
    holder.renew()
    assert store.take_over_lease(A, b"of another", found) is None
    assert LeaseMonitor(store).live(A) is not None


def test_a_torn_one_counts_until_it_is_old(store: Store, held: Any) -> None:
    store.create_lease(A, b'{"trial": "aaaaaaaaaaaaaaaa", "laun')
    with pytest.raises(RunsElsewhere, match="by another launch"):
        acquire(store, A)
    age(store, A, 60)
    held(acquire(store, A))


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "claims").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match=r"claims/a+\.json: cannot be (written|read)"):
        acquire(Store(tmp_path), A)


RACE = """
import sys, time
from clray.leases import RunsElsewhere, acquire
from clray.store import Store
store = Store(sys.argv[1])
won = []
print("ready", flush=True)
start = float(sys.stdin.readline())
for round in range(int(sys.argv[2])):
    while time.time() < start + 0.1 * round:
        pass
    try:
        won.append((round, acquire(store, f"{round:016x}")))
    except RunsElsewhere:
        pass
print(*[round for round, _ in won], flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("dead", [False, True], ids=["free", "of a dead one"])
def test_one_of_several_that_try_at_once_gets_it(dead: bool, tmp_path: Path) -> None:
    store, rounds = Store(tmp_path / "results"), 12
    for round in range(rounds if dead else 0):
        store.create_lease(f"{round:016x}", of_another_host(f"{round:016x}").to_bytes())
        age(store, f"{round:016x}", 60)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, store.uri, str(rounds)],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    assert [racer.stdout.readline() for racer in racers if racer.stdout] == ["ready\n"] * 3
    start = time.time() + 0.2
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write(f"{start}\n")
        racer.stdin.flush()
    won = [racer.stdout.readline().split() for racer in racers if racer.stdout]
    for racer in racers:
        racer.communicate("")
    flat = [round for rounds in won for round in rounds]
    assert len(flat) == len(set(flat)), "two have got the same trial"
    assert len(flat) == rounds


def test_one_process_is_stopped_for_long_and_another_goes_on(tmp_path: Path, another_process: Any, held: Any) -> None:
    """A laptop that sleeps, a process under a debugger: its heart does not beat, and it is not dead either."""
    store = Store(tmp_path / "results")
    os.kill(another_process.pid, signal.SIGSTOP)
    age(store, A, 60)
    held(acquire(store, A))


def test_a_lease_is_plain_json(tmp_path: Path) -> None:
    acquire(Store(tmp_path), A, progress=0.5).release()
    lease = Lease.of_this_process(A, "launch", {"progress": 0.5})
    assert json.loads(lease.to_bytes())["notes"] == {"progress": 0.5}
    assert Lease.from_bytes(A, lease.to_bytes()) == lease
    assert Lease.from_bytes(A, b"[") == Lease(A)


NONSENSE = (None, float("nan"), -1, 10**40, 1e308, "x" * 200_000, True, [], {}, [[]], [None], {"": None}, [{"pid": {}}])


@pytest.mark.parametrize(
    "key", ["trial", "launch", "host", "pid", "processes", "born", "taken", "token", "renewals", "notes"]
)
def test_a_lease_that_says_nonsense_is_told_or_passed_over(key: str, tmp_path: Path, held: Any) -> None:
    """Neither who wants the trial nor ``clray status`` ends over it."""
    from typer.testing import CliRunner

    from clray.cli import app

    store = Store(tmp_path)
    for value in NONSENSE:
        said = {**json.loads(of_another_host(A).to_bytes()), key: value}
        put(store, A, json.dumps(said).encode())
        lease = Lease.from_bytes(A, json.dumps(said).encode())
        status = CliRunner().invoke(app, ["status", "--results", store.uri], catch_exceptions=False)
        assert status.exit_code == 0
        assert ("not a lease: " in status.output.replace("\n", " ")) == bool(lease.foreign)
        if lease.foreign:
            held(acquire(store, A)).release()
        else:
            with pytest.raises(RunsElsewhere):
                acquire(store, A)
            assert key == "notes" or said == {**json.loads(lease.to_bytes()), "notes": said["notes"]}


@pytest.mark.parametrize("note", ["variant", "sweep", "seed", "device", "progress", "executions", "gpu_memory"])
def test_notes_that_say_nonsense_are_left_out(note: str, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from clray.cli import app

    store = Store(tmp_path)
    for value in NONSENSE:
        if isinstance(value, str) and note in ("variant", "sweep", "device"):
            continue
        content = of_another_host(A, notes={"seed": 3, note: value}).to_bytes()
        put(store, A, content)
        notes = Lease.from_bytes(A, content).notes
        # Nothing yet was executed, or needed memory: that may be said.
        assert note not in notes or notes[note] in ([], {})
        assert CliRunner().invoke(app, ["status", "--results", store.uri], catch_exceptions=False).exit_code == 0


@pytest.mark.parametrize("content", [b"null", b"3", b"[]", b"{}", b'"x"'])
def test_json_that_is_no_lease_is_passed_over(content: bytes, store: Store, held: Any) -> None:
    store.create_lease(A, content)
    assert Lease.from_bytes(A, content).foreign
    assert LeaseMonitor(store).live(A) is None
    held(acquire(store, A))


def test_a_lease_under_another_trial_s_name_is_passed_over(store: Store, held: Any) -> None:
    store.create_lease(B, of_another_host(A).to_bytes())
    held(acquire(store, B))


def test_the_lease_of_an_older_clray_is_read_and_it_reads_ours(tmp_path: Path) -> None:
    """Both may share a store: the keys in the file are those that claims had."""
    older = {
        "trial": A, "launch": "l", "host": "far", "pid": 7, "processes": "boot", "born": 3, "taken": 1.7e9,
        "token": "t", "notes": {"seed": 1},
    }  # fmt: skip
    lease = Lease.from_bytes(A, json.dumps(older).encode())
    assert (lease.start_ticks, lease.acquired, lease.renewals, lease.foreign) == (3, 1.7e9, 0, "")
    assert json.loads(lease.to_bytes()) == {**older, "renewals": 0}
    acquire(Store(tmp_path), A).release()
    assert os.listdir(tmp_path) == ["claims"]


def test_a_later_clray_may_say_more(store: Store) -> None:
    said = {**json.loads(of_another_host(A).to_bytes()), "colour": "blue"}
    store.create_lease(A, json.dumps(said).encode())
    live = LeaseMonitor(store).live(A)
    assert live is not None
    assert live.host == "far"


def test_a_stamp_from_the_future_does_not_keep_a_dead_one_alive(
    store: Store, held: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launch watches it until it is dead, and whoever it sends to run the trial takes its word for it."""
    now, real = [100.0], time.monotonic
    store.create_lease(A, of_another_host(A).to_bytes())
    age(store, A, -3600)
    store.clock()
    monkeypatch.setattr(leases.time, "monotonic", lambda: real() + now[0])
    monitor = LeaseMonitor(store, "mine")
    assert monitor.live(A) is not None
    now[0] += leases.SILENCE_SECONDS + 1
    assert monitor.live(A) is None
    with pytest.raises(RunsElsewhere):
        acquire(store, A, "mine")
    assert held(acquire(store, A, "mine", monitor.last_seen(A))).earlier == [{"host": "far", "pid": 7}]


def test_one_that_was_renewed_since_it_was_seen_dead_is_alive(store: Store) -> None:
    store.create_lease(A, of_another_host(A).to_bytes())
    monitor = LeaseMonitor(store)
    monitor.live(A)
    put(store, A, of_another_host(A, token="another").to_bytes())
    with pytest.raises(RunsElsewhere):
        acquire(store, A, dead=monitor.last_seen(A))
    assert monitor.last_seen(B) == ""


def test_without_proc_a_process_is_told_by_its_machine_and_number(
    store: Store, held: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_proc(*_: Any) -> Any:
        raise FileNotFoundError("/proc")

    monkeypatch.setattr(leases.Path, "read_text", no_proc)
    monkeypatch.setattr(leases, "_processes", leases._processes.__wrapped__)
    mine = Lease.of_this_process(A, "another launch", {})
    assert mine.start_ticks is None
    assert not mine.process_is_gone()
    dead = subprocess.Popen(["true"])
    dead.wait()
    gone = dataclasses.replace(mine, pid=dead.pid)
    assert gone.process_is_gone()
    store.create_lease(A, gone.to_bytes())
    held(acquire(store, A))
