"""A worker that is lost, in whatever way, gives a failed trial with a reason, or is started again; others continue."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from launching import GUARD, environment, numbers, planned, quiet

from clray.cluster import session
from clray.launch import run_here
from clray.store import Store

SWEEP = """
version: 1
paper: mer
track: vision
benchmark: {name: mnist-rotations, tasks: 2, train_per_task: 60, seed: 0, source: embedded}
evaluate: 20
seeds: [0, 1, 2]
variants:
  er: {method: er, lr: 0.1, memories: 20, replay_batch: 5}
"""


@pytest.fixture
def file(kernels: None, tmp_path: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    return path


def launched(way: str, file: Path, results: Path, ray_tmpdir: Path) -> dict[str, Any]:
    """The outcome of a launch in a process of its own, which has nothing to say on stderr."""
    command = [sys.executable, str(Path(__file__).with_name("lost_driver.py")), way, str(file), str(results)]
    done = subprocess.run(command, env=environment(ray_tmpdir), capture_output=True, text=True, timeout=GUARD)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return {**json.loads(done.stdout.splitlines()[-1]), "printed": done.stdout}


@pytest.mark.slow
def test_errors_that_do_not_travel_are_reasons_like_others(file: Path, ray_tmpdir: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    whole, unreadable, unpicklable = (t.id for t in planned(file, store).trials)
    outcome = launched("odd", file, tmp_path / "results", ray_tmpdir)
    assert outcome["finished"] == [whole]
    assert set(outcome["failed"]) == {unreadable, unpicklable}
    assert "Unreadable" in outcome["failed"][unreadable], "Ray itself has lost the rest"
    assert "Unpicklable isn't serializable" in outcome["failed"][unpicklable]
    for id in (unreadable, unpicklable):
        assert outcome["failed"][id].startswith("ClusterError: 1 attempts: ")
        failure = store.failure(id)
        assert failure is not None
        assert failure["error"] in outcome["failed"][id]


@pytest.mark.slow
def test_a_trial_that_comes_farther_each_time_is_not_given_up(file: Path, ray_tmpdir: Path, tmp_path: Path) -> None:
    """Its process ends after every second step, and Tune itself would not start it once more."""
    file.write_text(SWEEP.replace("[0, 1, 2]", "[0]").replace("evaluate: 20", "evaluate: 30"))
    store, whole = Store(tmp_path / "results"), Store(tmp_path / "whole")
    run_here(planned(file, whole), whole, quiet())
    outcome = launched("preempted", file, tmp_path / "results", ray_tmpdir)
    assert outcome["failed"] == {}
    assert numbers(store) == numbers(whole)
    [record] = store.records()[0]
    assert len(record.provenance["executions"]) > 2


@pytest.mark.slow
def test_what_was_done_counts_where_tune_itself_fails(file: Path, ray_tmpdir: Path, tmp_path: Path) -> None:
    outcome = launched("full", file, tmp_path / "results", ray_tmpdir)
    assert outcome["failed"] == {}
    assert len(outcome["finished"]) == 3


@pytest.mark.slow
def test_ray_s_memory_monitor_is_a_reason(file: Path, ray_tmpdir: Path, tmp_path: Path) -> None:
    file.write_text(SWEEP.replace("[0, 1, 2]", "[0]"))
    command = [sys.executable, "-m", "clray", "sweep", str(file), "--results", str(tmp_path / "results")]
    done = subprocess.run(
        [*command, "--wandb", "off"],
        env=environment(ray_tmpdir, RAY_memory_usage_threshold="0.001"),
        capture_output=True,
        text=True,
        timeout=GUARD,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    reason = "4 attempts: the machine's memory ran out, and Ray ended its worker process: "
    assert reason in done.stdout
    store = Store(tmp_path / "results")
    [id] = store.failed()
    failure = store.failure(id)
    assert failure is not None
    assert failure["error"].startswith(reason)
    assert "COMMAND" not in failure["traceback"], "what else runs on the machine is nobody's business"
    assert not store.finished()


class TestClustersThatGrow:
    NODE = "9a3b6ec4606243a95cc82717d59e3d1e6a62c3bef3825ce1cb25ef2d"

    def cluster(self, **labels: str) -> SimpleNamespace:
        node = {"Alive": True, "NodeID": self.NODE, "Labels": labels, "Resources": {}}
        return SimpleNamespace(nodes=lambda: [node])

    def test_an_embedded_ray_does_not(self) -> None:
        assert not session.may_grow(self.cluster(**{"ray.io/node-group": "head"}))

    def test_one_with_groups_of_nodes_may(self) -> None:
        assert session.may_grow(self.cluster(**{"ray.io/node-group": "headgroup"}), "10.0.0.1:6379")

    @pytest.mark.parametrize(
        ("types", "grows"),
        [
            ({f"node_{NODE}"}, False),  # made up for a cluster that has no autoscaler
            ({"headgroup"}, True),
            ({f"node_{NODE}", "small"}, True),
            (set(), True),  # nobody says: then it is waited for
        ],
    )
    def test_else_its_report_says(self, types: set[str], grows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(session, "_REPORT_SECONDS", 0.0)
        monkeypatch.setattr(session, "_node_types", lambda: types)
        assert session.may_grow(self.cluster(), "10.0.0.1:6379") is grows
