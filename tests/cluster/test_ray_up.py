"""`ray up docs/on_premises.yaml` on three hosts, a sweep on them, one host lost half-way, `ray down`.

The hosts are namespaces of this machine with an sshd each (``hosts.py``), so `ray up` works as in a lab: it copies the
files by rsync, starts the head by ssh, and the head starts the workers. The test changes only the addresses, the user
and the installation in the cluster file (the hosts see this Python), and gives each host one core. The results are in a
folder that all hosts see, in place of a lab's NFS.

`test_jobs.py` tests Ray's job submission (`ray job submit`): it needs ray[default], which the hosts do not install.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import held
import pytest
import yaml
from held import VARIABLE, Meeting
from hosts import Hosts, missing
from launching import GUARD, communicate, wait_for

import clray
from clray.record import Record
from clray.store import Store

CHECKOUT = Path(clray.__file__).resolve().parent.parent
CLUSTER_FILE = CHECKOUT / "docs" / "on_premises.yaml"
WORKERS = ("worker-1", "worker-2")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(reason := missing()), reason=reason)]

# On the plain engine: with the fused one every host would compile its kernels, as each has a copy of the code.
SWEEP = """\
version: 1
paper: mer
track: vision
engine: eager
benchmark: {name: mnist-rotations, tasks: 5, train_per_task: 60, seed: 0, source: embedded}
model: {name: mlp, hidden: [20, 20]}
seeds: [0, 1, 2, 3]
variants:
  er-50: {method: er, algorithm: 4, memories: 50, lr: 0.1, replay_batch: 10}
  er-20: {method: er, algorithm: 4, memories: 20, lr: 0.1, replay_batch: 10}
"""

# In place of the installation: what it leaves behind, made from the Python that runs this test. The code stays the
# copy that `ray up` made. Trials wait in the middle until the test lets them go on: held.py is the command.
INSTALLATION = r"""mkdir -p ~/clray/.venv/bin && for c in ray clray; do
f={bin}/$c; if [ $c = clray ]; then f={shared}/held.py; fi;
printf '%s\n' '#!/bin/bash' 'export PYTHONPATH=$HOME/clray:{shared} {variable}={shared}/meet RAY_worker_niceness=0'
"exec {bin}/python $f \"\$@\"" > ~/clray/.venv/bin/$c; chmod +x ~/clray/.venv/bin/$c; done"""


def _cluster_file(hosts: Hosts, shared: Path) -> str:
    """docs/on_premises.yaml, for these hosts."""
    config: dict[str, Any] = yaml.safe_load(CLUSTER_FILE.read_text())
    config["provider"]["head_ip"] = hosts["head"].address
    config["provider"]["worker_ips"] = [hosts[name].address for name in WORKERS]
    config["auth"]["ssh_user"] = "root"
    installs = [command for command in config["setup_commands"] if "pip install" in command]
    assert len(installs) == 1
    ours = INSTALLATION.format(bin=Path(sys.prefix) / "bin", shared=shared, variable=VARIABLE).replace("\n", " ")
    config["setup_commands"] = [ours if c in installs else c for c in config["setup_commands"]]
    config["head_setup_commands"] = []
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        config[key], found = zip(
            *(re.subn(r"\bray start\b", "ray start --num-cpus=1", c) for c in config[key]), strict=True
        )
        config[key] = list(config[key])
        assert sum(found) == 1
    return yaml.safe_dump(config)


class Desk:
    """Runs the commands that a user types at the desk."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    def start(self, *command: str | Path, output: Any = subprocess.PIPE) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._hosts.command(*command, folder=CHECKOUT),
            env=self._hosts.environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def type(self, *command: str | Path) -> str:
        process = self.start(*command)
        output, _ = communicate(process)
        assert process.returncode == 0, output
        return output


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """The folder that all hosts mount."""
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "small.yaml").write_text(SWEEP)
    shutil.copy(held.__file__, folder)
    return folder


def test_a_sweep_outlives_a_host(shared: Path, tmp_path: Path) -> None:
    python = [Path(sys.prefix), Path(sys.base_prefix)]
    with Hosts(["head", *WORKERS], visible=[*python, shared], desk=[CHECKOUT]) as hosts:
        desk = Desk(hosts)
        file = hosts.desk.home / "cluster.yaml"
        file.write_text(_cluster_file(hosts, shared))
        token = hosts.desk.home / ".ray/auth_token"
        token.parent.mkdir()
        token.write_text("0123456789abcdef" * 4)
        plain = _plain_run(shared / "small.yaml", tmp_path / "plain")
        try:
            _ray_up_and_down(desk, hosts, shared)
            output, _ = communicate(plain)
        finally:
            plain.kill()
        assert plain.returncode == 0, output
    ours, expected = _measurements(shared / "results"), _measurements(tmp_path / "plain")
    assert len(expected) == 8
    assert ours == expected
    # Made by the copies that `ray up` put on the hosts, not by the checkout: they are no git repository.
    assert not any(record.provenance["git"] for record in _records(Store(shared / "results")))


def _ray_up_and_down(desk: Desk, hosts: Hosts, shared: Path) -> None:
    begun = time.monotonic()

    def note(what: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s  {what}", flush=True)

    file = Path("~/cluster.yaml").expanduser()
    desk.type("ray", "up", "-y", "--no-config-cache", file)
    note("ray up is over")
    count = "until ray status 2>/dev/null | tee status | grep -q '^ 3 local'; do sleep 1; done; cat status"
    status = desk.type("ray", "exec", "--no-config-cache", file, count)
    note("3 nodes")
    assert "3.0 CPU" in status

    log = shared / "sweep.log"
    typed = f"clray sweep {shared}/small.yaml --address auto --results {shared}/results --wandb off"
    with open(log, "w") as output:
        sweep = desk.start("ray", "exec", "--no-config-cache", file, typed, output=output)
        try:
            store, meet = Store(shared / "results"), Meeting(shared / "meet")

            def each_has_one() -> bool:
                assert sweep.poll() is None, log.read_text()
                return len(meet.waiting()) == 3

            wait_for(each_has_one)
            assert sorted(meet.waiting().values()) == ["head", *WORKERS]
            hosts["worker-2"].kill()
            note("worker-2 lost")
            meet.go()
            assert sweep.wait(timeout=GUARD) == 0, log.read_text()
        finally:
            sweep.kill()
    note("the sweep is over")
    machines = _machines(store)
    assert set(machines) == {"head", "worker-1"}, "what was left did not run on what was left"
    assert "RA" in log.read_text()

    desk.type("ray", "down", "-y", file)
    note("ray down is over")
    assert not _ray_processes(hosts, "head")


def _plain_run(sweep: Path, results: Path) -> subprocess.Popen[str]:
    """The same sweep in one process without Ray, while the hosts start."""
    return subprocess.Popen(
        [sys.executable, "-m", "clray", "sweep", sweep, "--local", "--results", results, "--wandb", "off"],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: os.nice(5),
    )


def _records(store: Store) -> list[Record]:
    records, problems = store.records()
    assert not problems
    return records


def _machines(store: Store) -> list[str]:
    """The host that finished each trial, in the order in which they were finished."""
    finished = sorted(Path(store.path("records")).glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    by_id = {record.id: record.provenance["machine"]["host"] for record in _records(store)}
    return [by_id[path.stem] for path in finished if path.stem in by_id]


def _measurements(results: Path) -> dict[str, list[Any]]:
    return {record.id: record.measurements for record in _records(Store(results))}


def _ray_processes(hosts: Hosts, name: str) -> str:
    listing = hosts.command("pgrep", "-af", "raylet|gcs_server|ray::", at=hosts[name])
    return subprocess.run(listing, capture_output=True, text=True).stdout
