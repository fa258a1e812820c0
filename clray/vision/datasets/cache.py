"""The cache folder: downloads, notes of what was checked, and decoded arrays.

Everything is written under a temporary name, flushed, then renamed: a reader sees all of it or nothing, and two
processes that write the same thing at once leave one of two equal results.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from clray.vision.datasets.published import ARRAYS, Form, ImageSet


def cache_folder() -> Path:
    """Where downloads and decoded arrays are kept: ``CLRAY_CACHE``, or the user's cache folder."""
    import pooch

    return Path(os.environ.get("CLRAY_CACHE") or pooch.os_cache("clray"))


# --------------------------------------------------------------------------------------------------------------
# Notes: a file that was checked once is not read again while its size and time stay the same


_unwritten: dict[Path, dict[str, Any]] = {}  # where the cache cannot be written, this process remembers


def noted_fingerprint(folder: Path, form: Form) -> str | None:
    """The fingerprint that the form's files in this folder had when they were last checked; None if any changed."""
    path = _note_path(folder, form)
    note = _read_json(path) or _unwritten.get(path, {})
    return note.get("fingerprint") if note.get("files") == _state(folder, form) else None


def note_fingerprint(folder: Path, form: Form, fingerprint: str) -> None:
    """Remember that the form's files in this folder were checked, and what they hold."""
    path, note = _note_path(folder, form), {"files": _state(folder, form), "fingerprint": fingerprint}
    _write_json(path, note)
    if not path.exists():
        _unwritten[path] = note


def forget(folder: Path, form: Form) -> None:
    """Have the form's files in this folder checked anew."""
    path = _note_path(folder, form)
    _unwritten.pop(path, None)
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _note_path(folder: Path, form: Form) -> Path:
    about = json.dumps([str(folder.resolve()), form.files, form.fingerprint], sort_keys=True)
    return cache_folder() / "notes" / f"{hashlib.sha256(about.encode()).hexdigest()[:24]}.json"


def _state(folder: Path, form: Form) -> dict[str, list[int]]:
    state = {}
    for name in form.files:
        with contextlib.suppress(OSError):
            stat = (folder / name).stat()
            state[name] = [stat.st_size, stat.st_mtime_ns]
    return state


# --------------------------------------------------------------------------------------------------------------
# Decoded arrays: one folder a content, mapped into memory by every process that reads them


def decoded(name: str, fingerprint: str, thoroughly: bool = False) -> ImageSet | None:
    """The decoded arrays of this content, mapped read-only; None where they are not here, torn or changed.

    Args:
        thoroughly: hash the arrays even if their sizes and times are as they were.
    """
    folder = _decoded_folder(name, fingerprint)
    note = _read_json(folder / "note.json")
    try:
        for array in ARRAYS:
            path, known = folder / f"{array}.npy", note[array]
            stat = path.stat()
            if stat.st_size != known["size"]:
                return None
            if (thoroughly or stat.st_mtime_ns != known["mtime"]) and _sha256(path) != known["sha256"]:
                return None
        return ImageSet(*(np.asarray(np.load(folder / f"{array}.npy", mmap_mode="r")) for array in ARRAYS))
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def keep_decoded(name: str, fingerprint: str, images: ImageSet) -> ImageSet:
    """Keep decoded arrays; returns them as mapped from there, or as they are if they cannot be written."""
    folder = _decoded_folder(name, fingerprint)
    unfinished = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep_up(folder.parent)
        unfinished = Path(tempfile.mkdtemp(prefix=f"{folder.name}.tmp-", dir=folder.parent))
        note = {}
        for array in ARRAYS:
            path = unfinished / f"{array}.npy"
            with path.open("wb") as file:
                np.save(file, getattr(images, array), allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            stat = path.stat()
            note[array] = {"size": stat.st_size, "mtime": stat.st_mtime_ns, "sha256": _sha256(path)}
        _write_json(unfinished / "note.json", note)
        unfinished.chmod(0o755)
        _put(unfinished, folder)
    except OSError:  # a full disk or a read-only cache: the arrays in memory serve as well
        return images
    finally:
        if unfinished is not None:
            shutil.rmtree(unfinished, ignore_errors=True)
    return decoded(name, fingerprint) or images


def _sweep_up(folder: Path) -> None:
    """Remove what killed processes left half-written: days ago, so that no living one still writes it."""
    for left in (*folder.glob("*.tmp-*"), *folder.glob("*.old-*")):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 2 * 86_400:
                shutil.rmtree(left, ignore_errors=True)


def _put(new: Path, folder: Path) -> None:
    """Rename a finished folder into place; what is there and torn makes way."""
    try:
        new.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        old = Path(tempfile.mkdtemp(prefix=f"{folder.name}.old-", dir=folder.parent))
        try:
            with contextlib.suppress(FileNotFoundError):
                folder.rename(old / "old")
            with contextlib.suppress(OSError):  # another process was faster: its arrays are the same
                new.rename(folder)
        finally:
            shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """One process of this machine decodes a data set, the others wait for it. Where locks do not work, all decode."""
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


def _decoded_folder(name: str, fingerprint: str) -> Path:
    return cache_folder() / "decoded" / f"{name}-{fingerprint}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write_json(path: Path, value: dict[str, Any]) -> None:
    """Best effort: a note that cannot be kept only costs the next process its time."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, unfinished = tempfile.mkstemp(prefix=path.name, dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(value, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except OSError:
            Path(unfinished).unlink(missing_ok=True)
            raise
