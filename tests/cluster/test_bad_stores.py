"""Stores that are full, read-only or damaged: one clear error, no partial files; later the same command continues."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from launching import GUARD, environment, numbers, planned, quiet

from clray import leases
from clray.launch import run_here
from clray.leases import Lease
from clray.record import Record
from clray.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kernels")]

SWEEP = """
version: 1
paper: mer
track: vision
benchmark: {name: mnist-rotations, tasks: 2, train_per_task: 30, seed: 0, source: embedded}
evaluate: 10
seeds: [0, 1]
variants:
  er: {method: er, lr: 0.1, memories: 20, replay_batch: 5}
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP)
    return file


def undisturbed(sweep: Path, folder: Path) -> dict[str, Any]:
    store = Store(folder)
    run_here(planned(sweep, store), store, quiet())
    return numbers(store)


# Runs in a mount namespace of its own. Reads what to do from its arguments, prints what came of it as JSON.
IN_A_NAMESPACE = """
import json, os, subprocess, sys
from pathlib import Path
folder, commands = Path(sys.argv[1]), json.loads(sys.argv[2])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=True)
came = []
for command in commands:
    if command[0] == "fill":
        with open(folder / "ballast", "wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(bytes(4096))
            except OSError:
                pass
        os.truncate(folder / "ballast", os.path.getsize(folder / "ballast") - int(command[1]))
    elif command[0] == "make room":
        (folder / "ballast").unlink()
    elif command[0] == "remount":
        subprocess.run(["mount", "-o", "remount," + command[1], folder], check=True)
    elif command[0] == "copy":
        subprocess.run(["cp", "-r", folder, command[1]], check=True)
    else:
        done = subprocess.run(command, capture_output=True, text=True)
        files = sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file() and f.name != "ballast")
        came.append({"rc": done.returncode, "out": done.stdout, "err": done.stderr, "files": files})
print(json.dumps(came))
"""


def unshare() -> list[str]:
    return ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--user", "--map-root-user"])


@pytest.fixture
def own_mounts() -> None:
    """Skips where this machine lets no one mount anything, not even in a namespace of his own."""
    try:
        attempt = subprocess.run(
            [*unshare(), "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("no unshare here: mount namespaces are Linux's")
    if attempt.returncode:
        pytest.skip(f"this machine lets no one mount anything: {attempt.stderr.strip()}")


def in_a_namespace(folder: Path, env: dict[str, str], *commands: list[str]) -> list[dict[str, Any]]:
    folder.mkdir()
    done = subprocess.run(
        [*unshare(), sys.executable, "-c", IN_A_NAMESPACE, str(folder), json.dumps(commands)],
        cwd=folder.parent, env=env, capture_output=True, text=True, timeout=GUARD,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def clray(*words: str) -> list[str]:
    return [sys.executable, "-m", "clray", *words]


# As clray(), but a pack whose process died or failed is started once more only: each start takes some seconds.
ONCE_MORE = [
    sys.executable,
    "-c",
    "from clray.cluster import tune; tune.RETRIES = 1; from clray.cli import main; main()",
]


def test_a_disk_without_a_byte(own_mounts: None, sweep: Path, ray_tmpdir: Path, tmp_path: Path) -> None:
    store = tmp_path / "results"
    launch = [*ONCE_MORE, "sweep", str(sweep), "--results", str(store), "--wandb", "off"]
    [full] = in_a_namespace(store, environment(ray_tmpdir), ["fill", "0"], launch)
    assert full["rc"] == 1
    assert "trials to run" not in full["out"], "it is found out before any trial"
    [line] = full["err"].splitlines()
    assert "cannot be written" in line
    assert "No space left on device" in line
    assert not full["files"], "nothing half-written"


def test_a_disk_with_room_for_a_lease_but_not_for_a_record(
    own_mounts: None, sweep: Path, ray_tmpdir: Path, tmp_path: Path
) -> None:
    store = tmp_path / "results"
    launch = [*ONCE_MORE, "sweep", str(sweep), "--results", str(store), "--wandb", "off"]
    full, after = in_a_namespace(
        store, environment(ray_tmpdir), ["fill", "8192"], launch, ["make room"], launch,
        ["copy", str(tmp_path / "copy")],
    )  # fmt: skip
    assert full["rc"] == 1
    assert "Traceback" not in full["out"] + full["err"]
    assert "2 trials failed" in full["out"], full
    told = [x for x in full["out"].splitlines() if x.startswith(("failed: er seed 0 ", "failed: er seed 1 "))]
    assert len(told) == 2
    for line in told:
        assert "2 attempts: StoreError" in line
        assert "cannot be written" in line
        assert "No space left on device" in line
    assert {Path(name).parent.name for name in full["files"]} <= {"failures"}, "nothing half-written"
    assert after["rc"] == 0, after
    assert numbers(Store(tmp_path / "copy")) == undisturbed(sweep, tmp_path / "plain")
    assert not [name for name in after["files"] if not name.startswith(("records/", "reports/"))]


def test_gc_on_a_read_only_store(own_mounts: None, sweep: Path, ray_tmpdir: Path, tmp_path: Path) -> None:
    """It shows what there is; a deletion is one clear error, and nothing is half deleted."""
    full, store = tmp_path / "full", tmp_path / "results"
    run_here(planned(sweep, Store(full)), Store(full), quiet())
    [one, *_], _ = Store(full).records()
    for code in ("1" * 16, "2" * 16):
        Store(full).write(dataclasses.replace(one, provenance={**one.provenance, "code": code}))
    at = ["--results", str(store), "--only", "superseded,temporary,checkpoints,stale,leases"]
    _, shown, refused, after = in_a_namespace(
        store, environment(ray_tmpdir), ["cp", "-r", f"{full}/.", str(store)], ["remount", "ro"],
        clray("gc", *at), clray("gc", *at, "--delete"), ["remount", "rw"], clray("gc", *at, "--delete"),
    )  # fmt: skip
    assert shown["rc"] == 0, shown
    assert "superseded: 2 files" in shown["out"]
    assert refused["rc"] == 1
    [line] = refused["err"].splitlines()
    assert line.startswith(f"error: {store}/claims/.probe.")
    assert "cannot be written" in line
    assert "Read-only file system" in line
    assert refused["files"] == shown["files"]
    assert after["rc"] == 0, after
    assert len(after["files"]) == 2
    assert all(name.startswith("records/") for name in after["files"])


def test_a_read_only_store(own_mounts: None, sweep: Path, ray_tmpdir: Path, tmp_path: Path) -> None:
    store = tmp_path / "results"
    at = ["--results", str(store)]
    one = clray("run", str(sweep), "--variant", "er", "--seed", "0", *at)
    rest = clray("sweep", str(sweep), *at, "--wandb", "off", "--local")
    first, refused, status, table, after = in_a_namespace(
        store, environment(ray_tmpdir), one, ["remount", "ro"], rest, clray("status", *at),
        clray("table", str(sweep), *at), ["remount", "rw"], rest,
    )  # fmt: skip
    assert first["rc"] == 0, first
    assert refused["rc"] == 1
    assert "Traceback" not in refused["out"] + refused["err"]
    assert "trials to run" not in refused["out"], "it is found out before any trial"
    [line] = refused["err"].splitlines()
    assert "cannot be written" in line
    assert "Read-only file system" in line
    assert refused["files"] == first["files"], "what was there is there"
    assert (status["rc"], table["rc"]) == (0, 0)
    assert "1 finished trial, 0 begun" in status["out"]
    assert after["rc"] == 0, after
    assert len([name for name in after["files"] if name.startswith("records/")]) == 2


def test_a_file_that_may_not_grow(sweep: Path, ray_tmpdir: Path, tmp_path: Path) -> None:
    """A quota as any machine can set it: no file over so many bytes. Leases are smaller, records are not."""
    store = Store(tmp_path / "results")
    command = clray("run", str(sweep), "--variant", "er", "--seed", "0", "--results", store.uri)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))

    env = environment(ray_tmpdir)
    full = subprocess.run(command, env=env, capture_output=True, text=True, preexec_fn=limited)
    assert full.returncode == 1
    [line] = full.stderr.splitlines()
    assert line.startswith(f"error: {store.uri}/records/")
    assert line.endswith("cannot be written: [Errno 27] File too large")
    assert [f for f in Path(store.path()).rglob("*") if f.is_file()] == []

    after = subprocess.run(command, env=env, capture_output=True, text=True)
    assert after.returncode == 0, after.stderr
    [id] = store.finished()
    assert numbers(store)[id] == undisturbed(sweep, tmp_path / "plain")[id]


def test_torn_records_and_checkpoints_are_said_and_made_again(sweep: Path, ray_tmpdir: Path, tmp_path: Path) -> None:
    """Through the whole command: one record cut short, one trial with its newest checkpoint cut short."""
    store = Store(tmp_path / "results")
    plain = undisturbed(sweep, tmp_path / "plain")
    run_here(planned(sweep, store), store, quiet())
    torn, begun = sorted(store.finished())
    record = Path(store.path("records", f"{torn}.parquet"))
    record.write_bytes(record.read_bytes()[:-50])
    Path(store.path("records", f"{begun}.parquet")).unlink()
    [trial] = [t for t in planned(sweep, store).trials if t.id == begun]

    from clray.execution import Execution

    execution = Execution(trial.task(), store)
    for _ in range(2):
        execution.step()
        execution.save()
    reached = execution.progress
    execution.step()
    execution.stop()
    newest = Path(store.path("checkpoints", f"{begun}.ckpt"))
    newest.write_bytes(newest.read_bytes()[:-50])

    command = clray("sweep", str(sweep), "--results", store.uri, "--wandb", "off", "--local")
    done = subprocess.run(command, env=environment(ray_tmpdir), capture_output=True, text=True, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert f"{record}: skipped: not a readable record" in done.stdout
    assert "2 trials to run, 0 finished before" in done.stdout
    assert f"from {100 * reached:.0f}% on:" in done.stdout, "from the checkpoint before the torn one"
    assert f"({begun}): {newest}: passed over: it is torn\n" in done.stdout
    assert numbers(store) == plain
    made = {r.id: r.provenance["executions"] for r in store.records()[0]}
    assert [e["from"] for e in made[begun]] == [0.0, pytest.approx(reached)]
    assert isinstance(store.read(torn), Record)


def test_a_lease_from_the_future_that_nobody_renews_is_taken_over(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its machine is gone, and the store's clock was set back since: no stamp will ever show that it is old."""
    monkeypatch.setattr(leases, "SILENCE_SECONDS", 3.0)
    store = Store(tmp_path / "results")
    trials = planned(sweep, store)
    for trial in trials.trials:
        mine = Lease.of_this_process(trial.id, "another launch", {"executions": [{"host": "far", "pid": 7}]})
        store.create_lease(trial.id, dataclasses.replace(mine, host="far", processes="another boot").to_bytes())
        ahead = time.time() + 3600
        os.utime(store.path("claims", f"{trial.id}.json"), (ahead, ahead))
    outcome = run_here(trials, store, quiet())
    assert len(outcome.finished) == 2
    assert numbers(store) == undisturbed(sweep, tmp_path / "plain")
    for record in store.records()[0]:
        assert record.provenance["executions"][0]["host"] == "far"


def test_a_store_full_of_nonsense_is_told_and_mended(sweep: Path, ray_tmpdir: Path, tmp_path: Path) -> None:
    """Every kind of file there is, with content of every kind, under the names of trials and others."""
    store = Store(tmp_path / "results")
    plain = undisturbed(sweep, tmp_path / "plain")
    ids = sorted(t.id for t in planned(sweep, store).trials)
    contents = [b"", b"null", b"[]", b"{}", b"[" * 100_000, b'{"error": null, "time": "x"}', b"PAR1", os.urandom(1000)]
    for folder, ending in (
        ("records", ".parquet"), ("running", ".parquet"), ("checkpoints", ".ckpt"), ("checkpoints", ".ckpt.previous"),
        ("failures", ".json"), ("claims", ".json"), ("artifacts", ".looks.json"), ("superseded", ".x.parquet"),
    ):  # fmt: skip
        Path(store.path(folder)).mkdir(parents=True, exist_ok=True)
        for i, name in enumerate([*ids, "junk", "0" * 16, "x" * 200]):
            Path(store.path(folder, f"{name}{ending}")).write_bytes(contents[(i + len(folder)) % len(contents)])
    for id in ids:
        Path(store.path("claims", f"{id}.json")).write_bytes(b"[3]")
    at = ["--results", store.uri]
    launch = clray("sweep", str(sweep), *at, "--wandb", "off", "--local")
    commands = [clray("status", *at), clray("plan", str(sweep), *at), clray("table", str(sweep), *at), launch]
    for command in commands:
        done = subprocess.run(command, env=environment(ray_tmpdir), capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        assert f"{ids[0]}.parquet: skipped: not a readable record" in done.stdout.replace("\n", "")
    for foreign in set(Path(store.path("records")).iterdir()) - {
        Path(store.path("records", f"{id}.parquet")) for id in ids
    }:
        foreign.unlink()
    assert numbers(store) == plain
