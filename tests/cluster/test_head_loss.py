"""The head of a cluster dies: Ray ends the driver, and on a new cluster the same command continues."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from held import Meeting
from launching import SHORT, communicate, completed, environment, launch, numbers, planned, processes, quiet, until_held

from clray.launch import run_here
from clray.store import Store

pytestmark = pytest.mark.slow

PATIENCE = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
"""For how long a driver looks for its lost head before Ray ends it: seconds, a minute by default."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Head:
    """A cluster of one machine, as `ray start --head` makes it, in a folder of its own."""

    def __init__(self, meet: Meeting | None = None) -> None:
        """
        Args:
            meet: where the trials that run on it wait in the middle; they do not by default.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="h", dir="/tmp"))
        self.address = f"127.0.0.1:{free_port()}"
        settings = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", **(meet.environment if meet else {})}
        self.environment = environment(self.folder, **settings)
        command = [
            str(Path(sys.executable).with_name("ray")), "start", "--head", f"--port={self.address.split(':')[1]}",
            "--num-cpus=2", "--include-dashboard=false", f"--object-store-memory={100 * 2**20}",
        ]  # fmt: skip
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def kill(self) -> None:
        """Everything at once, as when a machine loses its power; the drivers stand on another one."""
        for pid in processes(self.folder):
            with contextlib.suppress(OSError):
                if b"driver.py" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)

    def launch(self, sweep: Path, results: Path, **variables: str) -> subprocess.Popen[str]:
        return launch(sweep, results, self.folder, self.address, RAY_AUTH_MODE="disabled", **variables)


@pytest.fixture
def heads() -> Iterator[list[Head]]:
    made: list[Head] = []
    yield made
    for head in made:
        head.kill()
        shutil.rmtree(head.folder, ignore_errors=True)


def test_a_lost_head_and_a_new_cluster(kernels: None, heads: list[Head], meet: Meeting, tmp_path: Path) -> None:
    sweep, store, plain = tmp_path / "short.yaml", Store(tmp_path / "results"), Store(tmp_path / "plain")
    sweep.write_text(SHORT)
    heads.append(Head(meet))
    driver = heads[0].launch(sweep, tmp_path / "results", **PATIENCE)
    until_held(meet, 2, driver)
    heads[0].kill()
    out, _ = communicate(driver)

    assert driver.returncode != 0, "Ray ends it some seconds after the head is gone"
    assert "failed" not in out
    assert store.running() - store.finished(), "lost in the middle"

    heads.append(Head())
    lines = completed(heads[1].launch(sweep, tmp_path / "results"))
    assert any("% on:" in line for line in lines), "it went on from a checkpoint"
    run_here(planned(sweep, plain), plain, quiet())
    assert numbers(store) == numbers(plain)
    assert not store.leased()
