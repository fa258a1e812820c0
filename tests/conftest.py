"""Shared parts of all tests: one thread for each process, no downloads, and the data sets that are here."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tiny_sweep import TINY

from clray import own_code

# Before numpy and torch are loaded: with free threads small matrices take ten times as long on a busy machine.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_variable] = "1"
# Ray starts its workers with a niceness of 15: beside another test that computes they would hardly get on.
os.environ.update(RAY_worker_niceness="0")
# The user's own downloads are none of a test's business: real data is named by CLRAY_DATA or is not there.
os.environ["CLRAY_CACHE"] = tempfile.mkdtemp(prefix="clray-test-cache-")

pytest_plugins = ["limits"]

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def mnist() -> dict[str, Any]:
    """The published MNIST files as a trial is told of them; without them the test is skipped."""
    from clray.vision.data import locate, present

    if not os.environ.get("CLRAY_DATA") or present("mnist") is None:
        pytest.skip("needs the published MNIST files: set CLRAY_DATA to a folder that holds mnist/")
    return locate("mnist", "files")


@pytest.fixture(scope="session")
def embedded() -> dict[str, Any]:
    """The 5,000 embedded digits as a trial is told of them."""
    from clray.vision.data import locate

    return locate("mnist", "embedded")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A sweep file with every method, on embedded digits: a trial takes a second."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


WARM = """
from clray.machine import set_threads
set_threads(1)
import numpy as np
from clray.vision.learners.adaptive import adaptive
from clray.vision.learners.constraints import constraints
from clray.vision.learners.rows import Rows
from clray.vision.learners.perceptron_fused import FusedPerceptron, SparseRows
rng = np.random.default_rng(0)
images, labels = rng.integers(0, 2, (4, 784), np.uint8), np.arange(4)
rows = SparseRows.of(Rows(images, labels, images, labels, np.arange(784, dtype=np.int16)[None], 4))
sizes = [(16, 784), (16,), (16, 16), (16,), (10, 16), (10,)]
net = FusedPerceptron([rng.standard_normal(s).astype(np.float32) for s in sizes], rows, 0.1)
net.step([0, 1]), net.steps([0, 1]), net.interpolate(net.snapshot(), 0.5), net.correct(0)
net.step_each(np.array([[0], [1]])), net.reptile_each([np.array([[0, 1]])], 0.5, 0.5)
net.gradient([0]), net.pulled_step([0], net.theta * 0, net.theta * 0)
net.pulled_step_each(np.array([0]), net.theta * 0, net.theta * 0)
for name in ("adam", "rmsprop"):
    adaptive(net, name).step_each([np.array([0, 1])])
past = constraints(net, np.array([[0, 1]]))
past.steps(np.array([2])), past.program(), past.projected_step(2, np.ones(1))
"""


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every fused kernel is in numba's cache on disk, so that no test's process spends its time compiling one.

    One of pytest-xdist's workers sees to it. The others wait for that, as they would compile the same at the same time.
    """
    warm = partial(subprocess.run, [sys.executable, "-c", WARM], cwd=ROOT, check=True, timeout=300)
    if "PYTEST_XDIST_WORKER" not in os.environ:
        warm()
        return
    run = tmp_path_factory.getbasetemp().parent  # the folder that all workers of this run share, and nobody else
    with open(run / "kernels.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (run / "kernels.done").exists():
            warm()
            (run / "kernels.done").touch()


@pytest.fixture(autouse=True)
def no_own_code() -> Iterator[None]:
    """Folders with methods of the user's own that a test makes known are forgotten after it."""
    yield
    own_code.forget()
