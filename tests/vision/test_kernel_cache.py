"""The folder of compiled kernels: numba's own folders, one below the temporary folder, or none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_perceptrons import SAME_BITS
from waiting import GUARD

from clray.vision.kernels import kernel_cache

ROOT = Path(__file__).resolve().parents[2]
SOMEBODY = 12345
"""A user's number that owns nothing here, and has no entry in the list of users."""
AS_SOMEBODY = [
    *("setpriv", f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),  # the interpreter may lie in root's home
]
TELL = """
from clray.vision.kernels import kernel_cache
print(*kernel_cache())
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A copy of the package that only root can write to, without anything compiled."""
    if os.getuid() != 0 or not shutil.which("setpriv") or subprocess.run([*AS_SOMEBODY, "true"]).returncode:
        pytest.skip("needs root, and setpriv, to run a process as a user who can read all and write nothing")
    leave = shutil.ignore_patterns("__pycache__", "analysis")
    shutil.copytree(ROOT / "clray", tmp_path / "installed" / "clray", ignore=leave)
    return tmp_path / "installed"


def as_somebody(code: str, installed: Path, temporary: Path, home: str = "/") -> str:
    """Run code as a user who can write to the temporary folder alone, and return its output."""
    environment = {"PATH": os.environ["PATH"], "HOME": home, "TMPDIR": str(temporary), "PYTHONPATH": str(installed)}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*AS_SOMEBODY, sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=GUARD, cwd=installed, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_below_the_temporary_folder_where_nothing_else_can_be_written(installed, tmp_path):
    """As in a container whose image is root's: numba ended with "no locator available"."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    temporary.chmod(0o777)
    folder = temporary / f"clray-kernels-{SOMEBODY}"
    assert as_somebody(TELL, installed, temporary) == f"{folder} False"
    cold = as_somebody(SAME_BITS, installed, temporary)
    kept = list(folder.rglob("*.nbc"))
    assert kept
    assert folder.stat().st_mode & 0o077 == 0
    before = {path: path.stat().st_mtime_ns for path in kept}
    assert as_somebody(SAME_BITS, installed, temporary) == cold
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.nbc")} == before, "it was compiled again"

    shutil.rmtree(folder)
    folder.mkdir()  # another user's, who could put code there
    folder.chmod(0o777)
    assert as_somebody(TELL, installed, temporary) == "None False"
    assert as_somebody(SAME_BITS, installed, temporary) == cold
    assert not list(folder.rglob("*"))


@pytest.mark.slow
def test_in_a_home_of_ones_own(installed, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, SOMEBODY, SOMEBODY)
    assert as_somebody(TELL, installed, tmp_path, str(home)) == f"{home / '.cache' / 'numba'} True"


def test_what_the_user_names_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "named"))
    assert kernel_cache() == (tmp_path / "named", True)


def test_an_ordinary_checkout_keeps_them_beside_their_source(monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    folder = ROOT / "clray" / "vision" / "kernels" / "__pycache__"
    if not os.access(folder.parent, os.W_OK):
        pytest.skip("this checkout cannot be written to")
    assert kernel_cache() == (folder, True)
