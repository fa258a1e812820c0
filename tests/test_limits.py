"""A run of the tests ends, and names the test, whatever a test does to its process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

CONFTEST = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
pytest_plugins = ["limits"]
"""

FINE = """
import pytest

@pytest.mark.parametrize("n", range(5))
def test_fine(n):
    pass
"""

DIES = """
import os

def test_before():
    pass

def test_dies():
    os.abort()

def test_after():
    pass
"""

# A regular expression that backtracks for ever, in C, with the GIL held: no thread of Python's gets a turn.
HANGS = """
import re
import pytest

def test_before():
    pass

@pytest.mark.timeout(2)
def test_hangs():
    re.match(r"(a+)+b", "a" * 100)
"""

HANGS_AFTER_A_FAILURE = """
import pytest, time

@pytest.fixture
def opened():
    yield
    time.sleep(1000)

@pytest.mark.timeout(2)
def test_fails_first(opened):
    assert False
"""


def ended(folder: Path, files: dict[str, str], *options: str) -> tuple[int, str]:
    """The exit code and all output of a run with the settings of this project's."""
    (folder / "conftest.py").write_text(CONFTEST)
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-c", str(TESTS.parent / "pyproject.toml"), f"--rootdir={folder}"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", *options, str(folder)],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_a_worker_that_dies_ends_the_run_with_the_name_of_its_test(tmp_path: Path) -> None:
    files = {"dies": DIES, **{f"fine_{n}": FINE for n in range(6)}}
    code, output = ended(tmp_path, files, "-n", "2", "--dist", "loadfile")
    assert code == 1, output
    assert len(re.findall(r"FAILED .*test_dies.py::test_dies", output)) == 1, output
    assert "crashed while running" in output
    assert not re.search(r"FAILED .*test_(before|after|fine)", output)


def test_one_that_hangs_in_c_code_is_ended_and_named(tmp_path: Path) -> None:
    files = {"hangs": HANGS, "dies": DIES}
    code, output = ended(tmp_path, files, "-n", "2", "--dist", "loadfile")
    assert code != 0, output
    assert re.search(r"crashed while running .*test_hangs.py::test_hangs", output), output
    assert re.search(r"crashed while running .*test_dies.py::test_dies", output), output
    assert re.search(r"test_hangs.py\W+line \d+ in test_hangs", output), "where it hung is told"


@pytest.mark.parametrize(
    ("text", "name"), [(HANGS, "test_hangs"), (HANGS_AFTER_A_FAILURE, "opened")], ids=["a test", "what comes after it"]
)
def test_so_it_is_without_workers(text: str, name: str, tmp_path: Path) -> None:
    code, output = ended(tmp_path, {"hangs": text})
    assert code != 0, output
    assert re.search(rf"test_hangs.py\W+line \d+ in {name}\n", output), output


def test_a_file_that_hangs_when_it_is_imported(tmp_path: Path) -> None:
    files = {"hangs": "import time\ntime.sleep(1000)\n"}
    code, output = ended(tmp_path, files, "-o", "timeout=2")
    assert code != 0, output
    assert re.search(r"test_hangs.py\W+line 2 in <module>", output), output
