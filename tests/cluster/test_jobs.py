"""`ray job submit` of a sweep, to a head of the test's own with a token and with its dashboard on the loopback only.

Needs ray[default], which `pip install -c constraints.txt '.[cluster]'` installs; without it the tests are skipped.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from launching import GUARD, wait_for

from clray.store import Store

ROOT = Path(__file__).resolve().parents[2]

SWEEP = """\
version: 1
paper: mer
track: vision
benchmark: {name: mnist-rotations, tasks: 2, train_per_task: 30, source: embedded}
model: {name: mlp, hidden: [20, 20]}
seeds: [0, 1]
variants:
  online: {method: online, lr: 0.01}
"""


pytestmark = [
    pytest.mark.slow,
    # One of the packages that only ray[default] brings.
    pytest.mark.skipif(not importlib.util.find_spec("aiohttp_cors"), reason="needs ray[default]: clray[cluster]"),
]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _tree(root: int) -> set[int]:
    """A process and all its descendants."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


@dataclass
class Head:
    """A head that takes jobs."""

    url: str
    environment: dict[str, str]

    def ray(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", *arguments],
            env=self.environment | changes,
            capture_output=True,
            text=True,
            timeout=GUARD,
        )

    def answer(self, path: str, token: str = "") -> int:
        """The HTTP status of a page."""
        request = urllib.request.Request(self.url + path)
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            return urllib.request.urlopen(request, timeout=GUARD).status
        except urllib.error.HTTPError as error:
            return error.code


@pytest.fixture(scope="module")
def head(ray_tmpdir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    home = tmp_path_factory.mktemp("home")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "WANDB_"))}
    environment |= {
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # as in conftest.py
        "RAY_enable_metrics_collection": "0",
    }
    port, dashboard, client = _free_ports(3)
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", "--include-dashboard=true"]
    command += ["--num-cpus=1", "--num-gpus=0", "--object-store-memory=100000000"]
    command += [f"--temp-dir={ray_tmpdir}", f"--ray-client-server-port={client}", "--disable-usage-stats"]
    with open(home / "head.log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    made = Head(f"http://127.0.0.1:{dashboard}", environment)
    try:

        def answers() -> bool:
            assert process.poll() is None, (home / "head.log").read_text()
            with contextlib.suppress(OSError):
                return made.answer("/api/jobs/", environment["RAY_AUTH_TOKEN"]) == 200
            return False

        wait_for(answers)
        yield made
    finally:
        # Never `ray stop`: it would end every Ray of this user.
        processes = _tree(process.pid)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(10)


def test_a_submitted_sweep_is_run_and_its_log_kept(head: Head, tmp_path: Path) -> None:
    file, results = tmp_path / "small.yaml", tmp_path / "results"
    file.write_text(SWEEP)
    command = [sys.executable, "-m", "clray", "sweep", str(file), "--address", "auto", "--results", str(results)]
    done = head.ray("job", "submit", "--address", head.url, "--submission-id", "small", "--", *command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[2/2] online seed" in done.stdout
    store = Store(results)
    assert len(store.finished()) == 2
    assert not store.running()
    status = head.ray("job", "status", "--address", head.url, "small")
    assert "succeeded" in status.stdout.lower()
    assert "2 of 2 finished" in head.ray("job", "logs", "--address", head.url, "small").stdout
    # Again: the same command, and nothing is left to do.
    again = head.ray("job", "submit", "--address", head.url, "--", *command)
    assert "left to run: 0 trials" in again.stdout, again.stdout + again.stderr


def test_who_has_no_token_submits_nothing(head: Head) -> None:
    assert head.answer("/api/jobs/") in (401, 403)
    assert head.answer("/api/jobs/", "0" * 64) in (401, 403)
    refused = head.ray("job", "submit", "--address", head.url, "--", "true", RAY_AUTH_TOKEN="0" * 64)
    assert refused.returncode != 0
    assert "submitted successfully" not in refused.stdout + refused.stderr
