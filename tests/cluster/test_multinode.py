"""A sweep on a Ray cluster of three nodes, one of which dies in the middle: Ray's own test cluster, on this machine.

The nodes are processes of one machine, so this runs anywhere. ``test_ray_up.py`` tests the death of a whole host, and a
cluster made by `ray up`. The cluster and the driver get a process each: Ray reads the environment once in a process,
and other tests need another environment.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from held import Meeting
from launching import GUARD, communicate, environment, until_held

from clray.launch import run_here
from clray.loading import load_sweep
from clray.planning import Plan, plan
from clray.record import Record
from clray.store import Store

pytestmark = pytest.mark.slow

SWEEP = """\
version: 1
paper: mer
track: vision
benchmark: {name: mnist-rotations, tasks: 5, train_per_task: 30, seed: 0, source: embedded}
model: {name: mlp, hidden: [20, 20]}
seeds: [0, 1, 2, 3]
variants:
  er: {method: er, algorithm: 4, memories: 200, lr: 0.1, replay_batch: 10}
"""

DRIVER = """\
import sys
from held import hold_trials
from rich.console import Console
from test_multinode import launched, Store
from clray.cluster.tune import run_on_ray
from clray.launch import Options

if __name__ == "__main__":
    file, results, address = sys.argv[1:]
    hold_trials()
    options = Options(address=address, checkpoint_seconds=0)
    outcome = run_on_ray(launched(file, Store(results)), Store(results), Console(), options)
    assert not outcome.failed, outcome.failed
"""

# How soon a node counts as dead: about two seconds instead of twelve.
IMPATIENCE = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 3,
}


def launched(file: str | Path, store: Store) -> Plan:
    sweep = load_sweep(str(file))
    return plan({sweep.name: sweep}, store)


def _cluster(pipe: Connection) -> None:
    """The process of the cluster: makes three nodes, answers where trials run, kills a node's raylet when told to."""
    import ray
    from ray.cluster_utils import Cluster

    size: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={**size, "_system_config": IMPATIENCE})
    try:
        nodes = {node.node_id: node for node in (cluster.add_node(**size), cluster.add_node(**size))}
        cluster.wait_for_nodes()
        ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
        pipe.send((cluster.address, sorted(nodes)))
        while (asked := pipe.recv()) != "stop":
            if asked == "placed":
                groups = ray.util.placement_group_table().values()
                created = [group for group in groups if group["state"] == "CREATED"]
                pipe.send({node for group in created for node in group["bundles_to_node_id"].values()})
            else:
                nodes[asked].kill_raylet(check_alive=False)
                pipe.send("killed")
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def cluster(meet: Meeting, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    temporary = tempfile.mkdtemp(prefix="clr", dir="/tmp")  # short: Ray's sockets lie below it
    for variable, value in environment(Path(temporary), **meet.environment).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("RAY_ENABLE_MULTI_NODE", "1")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_cluster, args=(theirs,))
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        with contextlib.suppress(OSError):
            ours.send("stop")
        process.join(GUARD)
        process.kill()
        process.join()
        shutil.rmtree(temporary, ignore_errors=True)


def _ask(cluster: Connection, question: str) -> Any:
    cluster.send(question)
    assert cluster.poll(GUARD), f"the cluster does not answer to {question!r}"
    return cluster.recv()


def test_a_sweep_outlives_a_node(kernels: None, cluster: Connection, meet: Meeting, tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(SWEEP)
    store, plain = Store(tmp_path / "results"), Store(tmp_path / "plain")
    assert cluster.poll(GUARD), "the cluster did not start"
    address, workers = cluster.recv()
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, file, store.uri, address],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        until_held(meet, 3, driver)
        placed = _ask(cluster, "placed")
        assert _ask(cluster, workers[0]) == "killed"
        assert not store.finished()
        assert len(store.running()) == 3
        meet.go()
        output, _ = communicate(driver)
    finally:
        driver.kill()
    assert driver.returncode == 0, output
    assert len(placed) == 3, "the trials ran on fewer nodes than there were"

    from rich.console import Console

    assert not run_here(launched(file, plain), plain, Console(quiet=True)).failed
    assert _measurements(store) == _measurements(plain)


def _measurements(store: Store) -> dict[str, list[Any]]:
    records, problems = store.records()
    assert not problems
    assert len(records) == 4
    return {record.id: record.measurements for record in records if isinstance(record, Record)}
