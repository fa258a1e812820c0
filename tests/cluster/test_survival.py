"""Drivers are killed or stopped half-way; after a new launch the bits are those of an undisturbed run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from held import Meeting
from launching import (
    HERE,
    ROOT,
    SHORT,
    communicate,
    completed,
    environment,
    launch,
    numbers,
    planned,
    printed,
    quiet,
    until_held,
)
from typer.testing import CliRunner

from clray.cli import app
from clray.launch import run_here
from clray.store import Store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sweep") / "short.yaml"
    file.write_text(SHORT)
    return file


@pytest.fixture(scope="module")
def undisturbed(kernels: None, sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("undisturbed"))
    assert len(run_here(planned(sweep, store), store, quiet()).finished) == 2
    return store


def executions(store: Store) -> dict[str, list[dict[str, Any]]]:
    """By trial, who is known to have run it, the last one to the end."""
    return {record.id: record.provenance["executions"] for record in store.records()[0]}


def test_a_killed_driver_is_followed_by_one_that_goes_on(
    sweep: Path, undisturbed: Store, meet: Meeting, ray_tmpdir: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "results")
    first = launch(sweep, tmp_path / "results", ray_tmpdir, meet=meet)
    until_held(meet, 2, first)
    first.kill()
    first.communicate()
    assert store.running() - store.finished(), "killed in the middle"

    lines = completed(launch(sweep, tmp_path / "results", ray_tmpdir))  # at once, whatever is left of the first

    assert any("% on:" in line for line in lines), "it went on from a checkpoint"
    assert numbers(store) == numbers(undisturbed)
    assert not store.running()
    assert not store.leased()
    assert max(len(chain) for chain in executions(store).values()) == 2


def test_two_launches_at_once_share_the_work(
    sweep: Path, undisturbed: Store, meet: Meeting, ray_tmpdir: Path, tmp_path: Path
) -> None:
    file, plain = tmp_path / "five.yaml", Store(tmp_path / "plain")
    file.write_text(sweep.read_text().replace("seeds: [0, 1]", "seeds: [0, 1, 2, 3, 4]"))
    command = [sys.executable, str(HERE / "held.py"), "sweep", str(file), "--results", "results", "--wandb", "off"]
    environ, two_cores = environment(ray_tmpdir, **meet.environment), sorted(os.sched_getaffinity(0))[:2]
    both = [
        subprocess.Popen(
            ["taskset", "-c", ",".join(map(str, two_cores)), *command],
            cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    until_held(meet, 3, *both)  # a launch with two cores holds two
    meet.go()
    ended = [communicate(process) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended

    store = Store(tmp_path / "results")
    by_trial = executions(store)
    assert len(by_trial) == 5
    assert all(len(chain) == 1 for chain in by_trial.values()), "each was taken up once"
    assert len({chain[0]["launch"] for chain in by_trial.values()}) == 2, "both have worked"
    for seed in range(5):
        lines = [[line for line in out.splitlines() if f" mer seed {seed}: RA" in line] for out, _ in ended]
        assert [len(found) for found in lines] == [1, 1], "each launch tells how each trial ended"
        assert sorted(" s by " in found[0] for found in lines) == [False, True], "and exactly one has run it"
    tables = [out[out.index("left)\n", out.index("[5/5]")) : out.index("Report:")] for out, _ in ended]
    assert tables[0] == tables[1]
    assert "mer" in tables[0]
    assert not store.leased()
    run_here(planned(file, plain), plain, quiet())
    assert numbers(store) == numbers(plain)


def test_what_a_killed_driver_was_running_is_taken_over_by_one_that_waits_for_it(
    sweep: Path, undisturbed: Store, meet: Meeting, ray_tmpdir: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "results")
    first = launch(sweep, tmp_path / "results", ray_tmpdir, meet=meet)
    until_held(meet, 2, first)
    status = CliRunner().invoke(app, ["status", "--results", store.uri]).output
    assert re.search(r"mer seed 0: \d+% on .*, process \d+, seen \d+ s ago", status), status
    assert re.search(r"mer seed 1: \d+% on", status), status
    second = launch(sweep, tmp_path / "results", ray_tmpdir)
    said: list[str] = []
    assert second.stdout is not None
    while not said or not said[-1].startswith("Waiting for what other launches run: mer seed"):
        said.append(second.stdout.readline())
        assert said[-1], said
    assert first.poll() is None, "the first was over before it could be killed"
    first.kill()
    first.communicate()

    lines = completed(second)

    assert any(line.startswith("Taking over what they left: mer seed") for line in lines)
    assert numbers(store) == numbers(undisturbed)
    assert not store.leased()


def test_ctrl_c_keeps_what_was_learned(
    sweep: Path, undisturbed: Store, meet: Meeting, ray_tmpdir: Path, tmp_path: Path
) -> None:
    command = [sys.executable, str(HERE / "held.py"), "sweep", str(sweep), "--results", "results", "--wandb", "off"]
    pipe, env = subprocess.PIPE, environment(ray_tmpdir, **meet.environment)
    process = subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True,
    )  # fmt: skip
    until_held(meet, 1, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everything that the command has started
    lines: list[str] = []
    assert process.stdout is not None
    while not lines or not lines[-1].startswith("Stopping: trials save what they have"):
        lines.append(process.stdout.readline())
        assert lines[-1], lines
    meet.go()
    out, err = communicate(process)

    assert process.returncode == 130, err
    assert "The same command continues from here." in " ".join(out.split())
    assert "failed" not in out
    store = Store(tmp_path / "results")
    assert any(t.state == "half-done" for t in planned(sweep, store).trials), "nothing was kept"
    assert not store.leased()
    run_here(planned(sweep, store), store, quiet())
    assert numbers(store) == numbers(undisturbed)


def test_ctrl_c_in_a_step_that_does_not_end_costs_what_came_after_the_checkpoint(
    sweep: Path, undisturbed: Store, meet: Meeting, ray_tmpdir: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "results")
    driver = launch(sweep, tmp_path / "results", ray_tmpdir, meet=meet)
    until_held(meet, 2, driver)
    driver.send_signal(signal.SIGINT)
    out, err = communicate(driver)
    assert driver.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["interrupted"]
    assert "Traceback" not in out + err

    console = quiet()
    run_here(planned(sweep, store), store, console)
    assert "% on:" in printed(console)
    assert numbers(store) == numbers(undisturbed)
    assert max(chain[-1]["from"] for chain in executions(store).values()) > 0


def test_one_trial_alone_in_a_plain_process_agrees(sweep: Path, undisturbed: Store, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "clray", "run", str(sweep), "--variant", "mer", "--seed", "1", "--json"]
    run = subprocess.run(
        [*command, "--results", str(tmp_path)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    id = json.loads(run.stdout)["trial"]
    assert numbers(Store(tmp_path))[id] == numbers(undisturbed)[id]
