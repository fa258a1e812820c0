"""The atomic writer: a reader sees the old file or the new one, whenever the writer fails or dies."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

from clray import atomic
from clray.atomic import temporary_name, write_atomically


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    return path


def test_bytes_and_what_a_function_writes_arrive(file: Path) -> None:
    write_atomically(file, b"new")
    assert file.read_bytes() == b"new"

    def fill(target: IO[bytes]) -> None:
        target.write(b"12345")
        target.seek(0)
        assert target.read(2) == b"12"
        target.seek(0)
        target.write(b"x")

    write_atomically(str(file), fill, flush=False)
    assert file.read_bytes() == b"x2345"
    assert os.listdir(file.parent) == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace", "content", "before"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    file: Path, step: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    if step in ("fsync", "replace"):
        monkeypatch.setattr(atomic.os, step, fail)
    with pytest.raises(type(error)):
        write_atomically(file, fail if step == "content" else b"new", before=fail if step == "before" else None)
    monkeypatch.undo()
    assert file.read_bytes() == b"old"
    assert os.listdir(file.parent) == ["file"]


KILLED = """
import os, signal, sys
from clray import atomic
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] in ("fsync", "replace"):
    setattr(atomic.os, sys.argv[2], die)
def fill(file):
    file.write(b"half of it")
    file.flush()
    if sys.argv[2] == "content":
        die()
atomic.write_atomically(sys.argv[1], fill, before=die if sys.argv[2] == "before" else None)
"""


@pytest.mark.parametrize("step", ["content", "fsync", "before", "replace"])
def test_a_killed_process_leaves_the_old_file(file: Path, step: str) -> None:
    run = subprocess.run([sys.executable, "-c", KILLED, str(file), step], env={**os.environ}, check=False)
    assert run.returncode < 0
    assert file.read_bytes() == b"old"
    left = [name for name in os.listdir(file.parent) if name != "file"]
    assert [(name.startswith(".file."), name.endswith(".tmp")) for name in left] == [(True, True)]


def test_the_content_is_whole_before_the_file_has_its_name(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real_sync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(atomic.os, "fsync", lambda number: order.append("fsync") or real_sync(number))

    def replace(source: Path, target: Path) -> None:
        order.append("replace")
        assert (source.read_bytes(), target.read_bytes()) == (b"new", b"old")
        real_replace(source, target)

    monkeypatch.setattr(atomic.os, "replace", replace)
    write_atomically(file, b"new", before=lambda: order.append("before"))
    assert order == ["fsync", "before", "replace"]
    order.clear()
    monkeypatch.setattr(atomic.os, "replace", real_replace)
    write_atomically(file, b"newer", flush=False)
    assert order == []


def test_permissions(tmp_path: Path) -> None:
    """A new file has those of any new file, not the 0600 of a temporary one; a replaced file keeps its own."""
    new, plain, shared = tmp_path / "new", tmp_path / "plain", tmp_path / "shared"
    before = os.umask(0o027)
    try:
        plain.touch()
        write_atomically(new, b"1")
        shared.touch()
        shared.chmod(0o664)
        write_atomically(shared, b"2")
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (new, plain, shared)] == [0o640, 0o640, 0o664]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "no" / "file", b"")


@pytest.mark.parametrize("name", ["x" * 255, "ä" * 120])
def test_a_name_that_leaves_no_room_for_an_ending(tmp_path: Path, name: str) -> None:
    write_atomically(tmp_path / name, b"1")
    assert (tmp_path / name).read_bytes() == b"1"
    assert temporary_name("a").startswith(".a.")


def test_this_is_the_only_place_where_a_file_is_renamed_into_its_own() -> None:
    """Folders (clray/cache.py) and what only moves (the former checkpoint, a lease, a lock) are no files' writing."""
    package = Path(atomic.__file__).parent
    renaming = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if "os.replace(" in path.read_text(encoding="utf-8") or "mkstemp" in path.read_text(encoding="utf-8")
    }
    assert renaming <= {"atomic.py", "storage.py"}, "use clray.atomic.write_atomically"
