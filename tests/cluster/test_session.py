"""Addresses that lead nowhere, and what a cluster is said to offer."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import waiting

from clray.cluster.interrupt import Interrupt
from clray.cluster.session import machines, session, workers_as_started
from clray.errors import ClusterError


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


def test_trials_of_an_embedded_ray_need_no_processes_of_their_own() -> None:
    from ray.tune.execution import class_cache

    class Trainable:
        pass

    def environment() -> dict[str, str]:
        return class_cache._ActorClassCache().get(Trainable)._default_options["runtime_env"].get("env_vars", {})

    tunes_own = environment()
    assert tunes_own, "Tune gives none any more: workers_as_started has become needless"
    with workers_as_started(None):
        assert environment() == {}
    with workers_as_started("10.0.0.1:6379"):
        assert environment() == tunes_own, "on a cluster the store's keys travel that way"
    assert environment() == tunes_own


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


class Head:
    """A port that answers, or does not; it stands for a cluster's head."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.ray = SimpleNamespace(get_runtime_context=lambda: SimpleNamespace(gcs_address=f"127.0.0.1:{self.port}"))


def test_a_head_that_answers_again_in_time_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    from clray.cluster import session as module

    monkeypatch.setattr(module, "_HEAD_LOOK_SECONDS", 0.05)
    now = [1000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    left, knocks = [], []
    monkeypatch.setattr(module, "_leave", lambda *told: left.append(told[0]))
    head, connect = Head(), socket.create_connection

    def knock(*where: Any) -> Any:
        knocks.append(where)
        return connect(*where)

    def look_twice() -> None:
        """Until a look is over that began after this call."""
        seen = len(knocks)
        waiting.wait_for(lambda: len(knocks) >= seen + 2)

    monkeypatch.setattr(module.socket, "create_connection", knock)
    with module.watched(head.ray, "10.0.0.1:6379", "results", lambda: None):
        look_twice()
        head.socket.close()
        look_twice()
        now[0] += module._HEAD_SILENCE_SECONDS - 1
        look_twice()
        assert not left, "it is not silent for long enough"
        head.socket = socket.create_server(("127.0.0.1", head.port))
        look_twice()
        now[0] += 1000
        look_twice()
        assert not left
        head.socket.close()
        look_twice()
        now[0] += module._HEAD_SILENCE_SECONDS + 1
        waiting.wait_for(lambda: left)
        assert left[0] == "10.0.0.1:6379"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (
            "10.0.0.1:6379",
            "error: the head of the Ray cluster at 10.0.0.1:6379 is lost (Connection refused): start the ",
        ),
        (None, "error: the embedded Ray died (Connection refused): the same command goes on from here"),
    ],
)
def test_what_is_said_of_a_lost_head(address: str | None, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    import os

    from clray.cluster.session import _leave

    child = os.fork()
    if not child:
        _leave(
            address,
            ConnectionRefusedError(111, "Connection refused"),
            "/shared/results",
            lambda: print("bye", flush=True),
        )
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    told = capfd.readouterr()
    assert told.out == "bye\n"
    assert told.err.startswith(said)
    assert told.err.endswith("what is finished or saved is in /shared/results\n")
