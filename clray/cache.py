"""The cache folder: downloads, notes about files that were checked, and decoded data sets.

Everything is written whole or not at all, and two processes that write the same thing at once leave one of two equal
results.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from clray.atomic import write_atomically
from clray.errors import DataError
from clray.folders import can_be_written, private_folder

_UNFINISHED_DAYS = 2


def cache_folder() -> Path:
    """The folder for downloads and decoded data sets: ``CLRAY_CACHE``, or the user's cache folder.

    A user without a home, or with one that cannot be written and has no such folder yet, has it below the temporary
    folder.
    """
    import pooch

    if named := os.environ.get("CLRAY_CACHE"):
        return Path(named)
    try:
        usual = Path(pooch.os_cache("clray")).expanduser()
        if usual.is_absolute() and (usual.is_dir() or can_be_written(usual)):
            return usual
    except (OSError, RuntimeError):
        pass
    return private_folder("cache") or Path(os.devnull)  # a folder that nothing can be read from or written to


# --------------------------------------------------------------------------------------------------------------
# Notes: a file that was checked once is not read again while its size and time stay the same


_unwritten: dict[Path, dict[str, Any]] = {}  # the notes of this process where the cache cannot be written


def noted(folder: Path, files: Iterable[str], about: Any = None) -> dict[str, Any] | None:
    """The facts noted about these files in this folder; None if there are none, or a file has changed since.

    Args:
        about: the other things that the note depends on, as plain data.
    """
    files = list(files)
    path = _note_path(folder, files, about)
    note = read_json(path) or _unwritten.get(path, {})
    return note.get("facts") if note.get("files") == _state(folder, files) else None


def take_note(folder: Path, files: Iterable[str], facts: dict[str, Any], about: Any = None) -> None:
    """Remember facts about files that were read."""
    files = list(files)
    path, note = _note_path(folder, files, about), {"files": _state(folder, files), "facts": facts}
    write_json(path, note)
    if not read_json(path):
        _unwritten[path] = note


def forget_checked(folder: Path, files: Iterable[str], about: Any = None) -> None:
    """Delete the note about these files, so that they are read again."""
    path = _note_path(folder, list(files), about)
    _unwritten.pop(path, None)
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _note_path(folder: Path, files: list[str], about: Any) -> Path:
    key = json.dumps([str(folder.resolve()), files, about], sort_keys=True)
    return cache_folder() / "notes" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def _state(folder: Path, files: list[str]) -> dict[str, list[int]]:
    state = {}
    for name in files:
        with contextlib.suppress(OSError):
            stat = (folder / name).stat()
            state[name] = [stat.st_size, stat.st_mtime_ns]
    return state


# --------------------------------------------------------------------------------------------------------------
# Decoded data sets: one folder for each content, which every process reads


def read_decoded(folder: Path, thoroughly: bool = False) -> dict[str, Any] | None:
    """The note of ``write_decoded``, if every file of the folder is as it was written; None if any is torn or changed.

    Args:
        thoroughly: hash the files even if their sizes and times are as they were.
    """
    note = read_json(folder / "note.json")
    try:
        for name, known in note["files"].items():
            stat = (folder / name).stat()
            if stat.st_size != known["size"]:
                return None
            if (thoroughly or stat.st_mtime_ns != known["mtime"]) and sha256(folder / name) != known["sha256"]:
                return None
    except (OSError, KeyError, TypeError, AttributeError):
        return None
    return note


def write_decoded(
    folder: Path, files: Mapping[str, Callable[[Path], None]], facts: dict[str, Any] | None = None
) -> None:
    """Write a folder's files, each by its function, and a note of their sizes and hashes; all of it or nothing.

    Args:
        facts: goes into the note beside the files.

    Raises:
        OSError: a full disk or a read-only cache.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder.parent)
    unfinished = Path(tempfile.mkdtemp(prefix=f"{folder.name}.tmp-", dir=folder.parent))
    try:
        known = {}
        for name, write in files.items():
            path = unfinished / name
            write(path)
            with path.open("rb") as file:
                os.fsync(file.fileno())
            stat = path.stat()
            known[name] = {"size": stat.st_size, "mtime": stat.st_mtime_ns, "sha256": sha256(path)}
        write_json(unfinished / "note.json", {"files": known, **(facts or {})})
        unfinished.chmod(0o755)
        _move_into_place(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    """Remove unfinished folders that are two days old: no living process still writes them."""
    for left in (*folder.glob("*.tmp-*"), *folder.glob("*.old-*")):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _UNFINISHED_DAYS * 86_400:
                shutil.rmtree(left, ignore_errors=True)


def unused(days: float) -> list[tuple[Path, int]]:
    """Decoded data sets that nobody needs, with their sizes in bytes: unfinished ones that are two days old, and those
    that were not read for some days. Where the disk does not note when a file is read, the time of writing counts.
    """
    found = []
    for folder in _folders(cache_folder() / "decoded"):
        unfinished = ".tmp-" in folder.name or ".old-" in folder.name
        if not unfinished and not isinstance(read_json(folder / "note.json").get("files"), dict):
            continue  # clray did not write it
        with contextlib.suppress(OSError):
            states = {path: path.stat() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}
            data = [state for path, state in states.items() if path.name != "note.json"]  # which this function reads
            last = max(max(state.st_atime, state.st_mtime) for state in data or [folder.stat()])
            if time.time() - last > (_UNFINISHED_DAYS if unfinished else days) * 86_400:
                found.append((folder, sum(state.st_size for state in states.values())))
    return sorted(found)


def _folders(parent: Path) -> list[Path]:
    try:
        return [path for path in parent.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []


def _move_into_place(new: Path, folder: Path) -> None:
    """Rename a finished folder into place. A torn folder of that name is removed."""
    try:
        new.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        old = Path(tempfile.mkdtemp(prefix=f"{folder.name}.old-", dir=folder.parent))
        try:
            with contextlib.suppress(FileNotFoundError):
                folder.rename(old / "old")
            with contextlib.suppress(OSError):  # another process was faster: its files are the same
                new.rename(folder)
        finally:
            shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Let one process of this machine decode a data set while the others wait. Where locks do not work, all decode."""
    try:
        import fcntl

        folder = cache_folder() / "decoded"
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / f"{name}.lock").open("w")
    except (ImportError, OSError):
        yield
        return
    with file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


# --------------------------------------------------------------------------------------------------------------
# Downloads


def download(name: str, file: str, addresses: Iterable[str], checksum: str, folder: Path) -> Path:
    """Download one file of a data set from the first address that serves it, checked before it is kept.

    Args:
        name: of the data set, for the message.
        file: what it is called in the folder.
        checksum: ``md5:…`` or ``sha256:…``.

    Raises:
        DataError: no address gave the file.
    """
    import pooch
    from requests.exceptions import RequestException

    pooch.get_logger().setLevel("ERROR")
    reasons = []
    for address in addresses:
        try:
            downloader = pooch.HTTPDownloader(timeout=20)
            return Path(pooch.retrieve(address, checksum, fname=file, path=folder, downloader=downloader))
        except (RequestException, ValueError, OSError) as error:
            reasons.append(f"{address}: {_briefly(error)}")
    raise DataError(f"{name}: {file} could not be downloaded:\n  " + "\n  ".join(reasons))


def _briefly(error: Exception) -> str:
    """The reason why a download failed, in a few words instead of the long message of ``requests``."""
    from requests.exceptions import ConnectionError as NoConnection
    from requests.exceptions import HTTPError, Timeout

    if isinstance(error, Timeout):
        return "no answer"
    if isinstance(error, HTTPError) and error.response is not None:
        return f"{error.response.status_code} {error.response.reason}"
    if isinstance(error, NoConnection):
        return "no connection"
    return str(error).splitlines()[0]


# --------------------------------------------------------------------------------------------------------------
# Small files


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; an empty one if there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write an object if possible. Without such a note the next process only needs more time."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(value).encode())
