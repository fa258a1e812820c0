"""Whatever is killed in the middle, launching again, or Tune's retry, ends with the bits of a run that nothing hit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launching import LONG, ROOT, environment, numbers, planned, quiet, wait_for

from clray.cluster.launch import run_here
from clray.results import Record, Store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sweep") / "long.yaml"
    file.write_text(LONG)
    return file


@pytest.fixture(scope="module")
def undisturbed(kernels: None, sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("undisturbed"))
    assert len(run_here(planned(sweep, store), store, quiet()).finished) == 2
    return store


def launch(sweep: Path, results: Path, ray_tmpdir: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__).with_name("driver.py")), str(sweep), str(results)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment(ray_tmpdir), stdout=pipe, stderr=pipe, text=True)


def completed(process: subprocess.Popen[str]) -> list[str]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert err == "", "the driver leaves stderr to errors"
    assert json.loads(out.splitlines()[-1])["failed"] == {}
    return out.splitlines()


def under_way(store: Store) -> str | None:
    """A trial that has left notes of its progress, and is neither at its beginning nor at its end."""
    for id in store.running():
        record = store.read(id, "running")
        if isinstance(record, Record) and 0.1 < record.provenance["progress"] < 0.8:
            return id
    return None


def workers(ray_tmpdir: Path) -> list[int]:
    """The processes of one Ray session, told by its folder, that run trials."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            title = (folder / "cmdline").read_bytes()
            if (
                title.startswith(b"ray::PackTrainable")
                and str(ray_tmpdir).encode() in (folder / "environ").read_bytes()
            ):
                found.append(int(folder.name))
        except (OSError, ValueError):
            continue
    return found


def test_a_killed_driver_is_followed_by_one_that_goes_on(
    sweep: Path, undisturbed: Store, ray_tmpdir: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "results")
    first = launch(sweep, tmp_path / "results", ray_tmpdir)
    wait_for(lambda: under_way(store))
    first.kill()
    first.communicate()
    wait_for(lambda: not workers(ray_tmpdir))
    assert store.running() - store.finished(), "killed in the middle"

    lines = completed(launch(sweep, tmp_path / "results", ray_tmpdir))

    assert any("% on:" in line for line in lines), "it went on from a checkpoint"
    assert numbers(store) == numbers(undisturbed)
    assert not store.running()


def test_a_killed_worker_is_started_again_and_goes_on(
    sweep: Path, undisturbed: Store, ray_tmpdir: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "results")
    driver = launch(sweep, tmp_path / "results", ray_tmpdir)
    wait_for(lambda: under_way(store))
    for pid in workers(ray_tmpdir):
        os.kill(pid, signal.SIGKILL)

    lines = completed(driver)

    assert any("% on:" in line for line in lines), "it went on from a checkpoint"
    assert numbers(store) == numbers(undisturbed)


def test_ctrl_c_keeps_what_was_learned(sweep: Path, undisturbed: Store, ray_tmpdir: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "clray", "sweep", str(sweep), "--results", "results", "--wandb", "off"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(ray_tmpdir), stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    wait_for(lambda: workers(ray_tmpdir))
    time.sleep(3)  # past the imports; before the first checkpoint of the clock, which comes after 15 s
    begun = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everything that the command has started
    out, err = process.communicate(timeout=60)

    assert process.returncode == 130, err
    assert time.monotonic() - begun < 30
    assert "the same command goes on from here" in out
    assert "failed" not in out
    store = Store(tmp_path / "results")
    begun_trials = [t for t in planned(sweep, store).trials if t.state == "half-done"]
    assert begun_trials or numbers(store), "nothing was kept"
    run_here(planned(sweep, store), store, quiet())
    assert numbers(store) == numbers(undisturbed)


def test_one_trial_alone_in_a_plain_process_agrees(sweep: Path, undisturbed: Store, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "clray", "run", str(sweep), "--variant", "mer", "--seed", "1", "--json"]
    run = subprocess.run(
        [*command, "--results", str(tmp_path)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    id = json.loads(run.stdout)["trial"]
    assert numbers(Store(tmp_path))[id] == numbers(undisturbed)[id]
