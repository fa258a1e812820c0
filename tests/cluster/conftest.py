from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from held import Meeting


@pytest.fixture(scope="module")
def ray_tmpdir() -> Iterator[Path]:
    """A folder for Ray's sessions with a short path: their sockets' names may have 107 characters in all."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def meet(tmp_path: Path) -> Iterator[Meeting]:
    """A folder in which trials wait halfway. At the end of the test all of them continue."""
    meeting = Meeting(tmp_path / "meet")
    yield meeting
    meeting.go()
