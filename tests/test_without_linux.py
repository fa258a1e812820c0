"""Trials run, and tables are made, where there is nothing of what only Linux has; in its place macOS has other things.

This is no test on macOS. It takes from a process what clray reads of Linux: /proc, /sys, /dev/shm and the functions of
``os`` that macOS lacks.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import GUARD

from clray import leases, machine, provenance

ROOT = Path(__file__).resolve().parents[1]

LINUX_ONLY = """
import os, sys

CLOSED = ("/proc", "/sys", "/dev/shm")

def closed(path):
    return isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(path).startswith(CLOSED)

def refuse(event, arguments):
    if event in ("open", "os.listdir", "os.scandir", "os.mkdir") and closed(arguments[0]):
        raise FileNotFoundError(2, "No such file or directory", arguments[0])

def refusing(function):
    def refused(path, *arguments, **named):
        if closed(path):
            raise FileNotFoundError(2, "No such file or directory", path)
        return function(path, *arguments, **named)
    return refused

sys.addaudithook(refuse)
for name in ("stat", "lstat", "readlink", "access"):
    setattr(os, name, refusing(getattr(os, name)))
for name in ("sched_getaffinity", "sched_setaffinity", "posix_fadvise", "posix_fallocate", "memfd_create", "eventfd",
             "copy_file_range", "splice", "getrandom", "pidfd_open", "fdatasync", "setresuid", "pipe2"):
    if hasattr(os, name):
        delattr(os, name)
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """An environment whose Pythons have nothing of Linux."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(LINUX_ONLY)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), str(ROOT)])}


def run(environment: dict[str, str], folder: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=GUARD
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_process_has_nothing_of_linux(elsewhere):
    """The test of the test: else the next one would say nothing."""
    code = "import os; print(os.path.exists('/proc'), hasattr(os, 'sched_getaffinity')); open('/proc/self/stat')"
    done = subprocess.run([sys.executable, "-c", code], env=elsewhere, capture_output=True, text=True, timeout=GUARD)
    assert done.stdout.split() == ["False", "False"]
    assert "FileNotFoundError" in done.stderr


@pytest.mark.slow
def test_it_runs_trials_and_makes_a_table(elsewhere, tmp_path, tiny, kernels):
    limits = tiny.read_text().replace("seeds: [0, 1]", "seeds: [0]\nresources: {hours: 1, memory: 64GiB}")
    tiny.write_text(limits)
    sweep = ["-m", "clray", "sweep", str(tiny), "--local", "--only", "online,er"]
    assert "2 of 2 finished" in run(elsewhere, tmp_path, *sweep)
    assert "left to run: 0 trials" in run(elsewhere, tmp_path, *sweep, "--dry-run")
    assert "2 finished" in " ".join(run(elsewhere, tmp_path, "-m", "clray", "status").split())
    run(elsewhere, tmp_path, "-m", "clray", "doctor")


def test_a_lease_without_proc_is_known_by_its_process(elsewhere, tmp_path):
    """A lease of a process that has ended is dead at once; that of a living one is alive."""
    code = """
import os, subprocess, sys
from clray.leases import Lease
lease = Lease.of_this_process("0" * 16, "launch", {})
assert lease.start_ticks is None
again = Lease.from_bytes("0" * 16, lease.to_bytes())
assert not again.foreign and not again.process_is_gone()
other = "from clray.leases import Lease; print(Lease.of_this_process('1' * 16, 'other', {}).to_bytes().decode())"
told = subprocess.run([sys.executable, "-c", other], capture_output=True, check=True).stdout
dead = Lease.from_bytes("1" * 16, told)
print(dead.process_is_gone())
"""
    assert run(elsewhere, tmp_path, "-c", code).strip() == "True"


def test_the_memory_is_told_by_ps(monkeypatch):
    def refused(*arguments, **named):
        raise FileNotFoundError

    here = machine.resident_bytes()
    monkeypatch.setattr("builtins.open", refused)
    told = machine.resident_bytes()
    assert here
    assert told
    assert 0.5 < told / here < 2


def test_the_processor_is_told_by_sysctl(monkeypatch):
    def refused(*arguments, **named):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", refused)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    answer = subprocess.CompletedProcess([], 0, stdout="Apple M2\n")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **named: answer)
    assert provenance._processor.__wrapped__() == "Apple M2"
    monkeypatch.setattr(subprocess, "run", refused)
    assert provenance._processor.__wrapped__() == "arm"


def test_the_processes_have_a_name_without_proc(monkeypatch):
    def refused(*arguments, **named):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", refused)
    assert platform.node().partition(".")[0] in leases._processes.__wrapped__()
