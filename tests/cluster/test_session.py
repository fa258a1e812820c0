"""Addresses at which no cluster answers, and the resources reported for a cluster."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from waiting import GUARD

from clray.cluster import session as module
from clray.cluster.session import _environment, machines, session
from clray.errors import ClusterError
from clray.interrupt import Interrupt


@pytest.mark.parametrize("address", ["ray://10.0.0.1:10001", "10.0.0.1", "10.0.0.1:head", ":6379"])
def test_an_address_of_another_kind_is_an_error_that_names_the_kind(address: str) -> None:
    with pytest.raises(ClusterError, match=r"expected HOST:PORT"), session(address):
        pass


def test_where_nobody_listens_is_one_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        with pytest.raises(ClusterError, match=r"no Ray cluster answers at .*refused"):
            session(f"127.0.0.1:{taken.getsockname()[1]}").__enter__()


def test_a_host_that_does_not_exist_is_one_error() -> None:
    with pytest.raises(ClusterError, match=r"no Ray cluster answers at 'head\.invalid:6379'"):
        session("head.invalid:6379").__enter__()


def test_the_environment_is_as_it_was_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLRAY_GIVEN", "the user's")
    monkeypatch.delenv("CLRAY_ADDED", raising=False)
    monkeypatch.setenv("CLRAY_CHANGED", "before")
    before = dict(os.environ)
    within = _environment({"CLRAY_GIVEN": "ours", "CLRAY_ADDED": "1"})
    with within:
        assert (os.environ["CLRAY_GIVEN"], os.environ["CLRAY_ADDED"]) == ("the user's", "1")
        os.environ |= {"CLRAY_CHANGED": "as Ray does", "CLRAY_FURTHER": "as Ray does"}
    assert dict(os.environ) == before


def test_a_session_that_fails_leaves_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(os.environ)
    with pytest.raises(ClusterError):
        session("head.invalid:6379").__enter__()
    assert dict(os.environ) == before


@pytest.mark.slow
def test_embedded_sessions_begin_where_ray_is_known_and_leave_nothing(ray_tmpdir: Path, tmp_path: Path) -> None:
    """Ray reads at its import whether it needs a token, and which: a notebook imports it before it calls clray."""
    code = (
        "import os\n"
        "import ray\n"
        "from clray.cluster.session import session\n"
        "before = dict(os.environ)\n"
        "for turn in range(2):\n"
        "    with session(None, cpus=1) as ray:\n"
        "        assert os.environ['RAY_AUTH_MODE'] == 'token'\n"
        "        print(ray.get(ray.remote(lambda: 7).remote()))\n"
        "    assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())\n"
        "os.environ['RAY_AUTH_MODE'] = 'disabled'\n"
        "ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)\n"
        "print(ray.get(ray.remote(lambda: 8).remote()))\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
    root = str(Path(__file__).resolve().parents[2])
    env = {**kept, "PYTHONPATH": root, "RAY_TMPDIR": str(ray_tmpdir), "HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=GUARD)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["7", "7", "8"]
    assert not (tmp_path / ".ray").exists()


def test_machines_that_would_be_started_on_demand_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    node = {"Alive": True, "Resources": {"CPU": 2.0}}
    ray = SimpleNamespace(nodes=lambda: [node, {"Alive": False, "Resources": {"CPU": 64.0}}])
    (tmp_path / "ray_bootstrap_config.yaml").write_text(
        "available_node_types:\n"
        "  head: {resources: {CPU: 2}, max_workers: 0}\n"
        "  gpu: {resources: {CPU: 4, GPU: 1}, max_workers: 2}\n"
    )
    assert machines(ray, "auto") == [{"CPU": 2.0}, {"CPU": 4, "GPU": 1}]
    assert machines(ray) == [{"CPU": 2.0}], "an embedded Ray starts no machines"


@pytest.mark.parametrize(
    ("cpus", "gpus", "started"), [(None, None, (3, None)), (2, None, (2, None)), (None, 0, (3, 0)), (8, 1, (8, 1))]
)
def test_an_embedded_ray_has_the_cores_of_the_process_or_what_was_asked_for(
    cpus: int | None, gpus: int | None, started: tuple[int, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {}

    def start(otherwise: str, **arguments: object) -> object:
        given.update(arguments)
        return SimpleNamespace(shutdown=lambda: None)

    monkeypatch.setattr(module, "_started", start)
    monkeypatch.setattr(module, "cores_given", lambda: 3)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with session(None, cpus, gpus):
        pass
    assert (given["num_cpus"], given["num_gpus"]) == started
    assert given["include_dashboard"] is False


def test_signals_of_a_queue_that_reach_a_process_twice_are_one_wish() -> None:
    import signal

    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.requested
        interrupt.since -= 60
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_an_interrupt_is_a_wish_the_first_time_only() -> None:
    import signal

    former = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interrupt() as interrupt:
        assert not interrupt.requested
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == former
