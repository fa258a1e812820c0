"""A pytest plugin: no run of the tests hangs, and a run in which a process dies ends with the name of its test.

Every test has a time limit (``timeout`` in pyproject.toml, ``pytest.mark.timeout``), and so has the collection.
faulthandler keeps the limit: it needs no Python thread, so it also ends a process that hangs in C code while it holds
the GIL. It prints the stack of every thread, and ends the process. The limits only prevent hanging: they are many times
longer than a test takes.

With ``-n`` such a process is a worker of pytest-xdist, which then reports the test as failed. xdist would start another
worker, which can wait for ever under ``--dist loadfile`` (pytest-xdist#1323, #1327). Therefore pyproject.toml has
``--max-worker-restart=0``. xdist would also give the dead worker's file to the other worker, beginning with the test
that killed the first.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Iterator
from typing import Any

import pytest

LONGEST = (
    "test_survival.py",
    "test_launch.py",
    "test_official.py",
    "test_bad_stores.py",
    "test_tracking.py",
    "test_survival_of_tracks.py",
    "test_ray_up.py",
    "test_soak.py",
    "test_lost_workers.py",
    "test_malformed.py",
    "test_execution.py",
    "test_head_loss.py",
    "test_multinode.py",
    "test_environment.py",
    "test_report.py",
    "test_package.py",
    "test_language_trial.py",
    "test_cli.py",
    "test_api.py",
    "test_every_command.py",
    "test_kernel_cache.py",
    "test_resume.py",
    "test_trial.py",
    "test_artifacts.py",
)
"""The files that take longest, by and large in that order."""

_STDERR = pytest.StashKey[int]()
_LIMIT = pytest.StashKey[float]()


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        config.stash[_STDERR] = os.dup(2)


def _watch(config: pytest.Config, seconds: float) -> None:
    faulthandler.dump_traceback_later(seconds, file=config.stash[_STDERR], exit=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow tests have twice the time. The longest files come first, so that the last worker is not alone for long."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(2 * float(config.getini("timeout"))))
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    if not session.config.getoption("numprocesses", None):  # xdist's own process collects nothing
        _watch(session.config, float(session.config.getini("timeout")))
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool:
    """In the place of pytest-timeout's own."""
    item.stash[_LIMIT] = settings.timeout
    _watch(item.config, settings.timeout)
    return True


def pytest_timeout_cancel_timer(item: pytest.Item) -> bool:
    faulthandler.cancel_dump_traceback_later()
    return True


@pytest.hookimpl(trylast=True)
def pytest_exception_interact(node: pytest.Item | pytest.Collector) -> None:
    """pytest stops the watch where a debugger may begin. Where none does, what a failed test leaves may hang, too."""
    if isinstance(node, pytest.Item) and not node.config.getoption("usepdb"):
        _watch(node.config, node.stash[_LIMIT])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False  # the files with the most tests are not the longest

    class Files(LoadFileScheduling):
        def remove_node(self, node: Any) -> str | None:
            """The test that a worker died in. What it had left is given to nobody."""
            left = [test for unit in self.assigned_work.pop(node).values() for test, done in unit.items() if not done]
            return left[0] if left else None

    return Files(config, log)
