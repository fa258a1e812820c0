"""Files of data sets: asked for and read so that whatever is wrong with one is a single error that names it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from clray.errors import ClrayError, DataError


def given_folder() -> Path | None:
    """The folder that ``CLRAY_DATA`` names; None where it names none.

    Raises:
        DataError: there is no such folder, or it may not be entered.
    """
    given = os.environ.get("CLRAY_DATA")
    if not given:
        return None
    if not is_folder(Path(given)):
        raise DataError(f"CLRAY_DATA={given}: no such folder")
    return Path(given)


def is_file(path: Path) -> bool:
    """Whether there is such a file.

    Raises:
        DataError: a folder above it may not be entered: nobody can tell. (``Path.is_file`` raises ``PermissionError``.)
    """
    try:
        return path.is_file()
    except OSError as error:
        return _refused(path, error)


def is_folder(path: Path) -> bool:
    """Whether there is such a folder, and it may be entered.

    Raises:
        DataError: it, or a folder above it, may not be entered.
    """
    try:
        found = path.is_dir()
    except OSError as error:
        return _refused(path, error)
    if found and not os.access(path, os.X_OK):
        raise DataError(f"{path}: cannot be read: Permission denied")
    return found


def is_file_if_allowed(path: Path) -> bool:
    """Whether there is such a file, in a folder of caches: one that may not be entered holds nothing for this user."""
    try:
        return path.is_file()
    except OSError:
        return False


def others(folder: Path) -> str:
    """What lies in a folder in which no form of a data set was found, for a message; empty where nothing does."""
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{folder} holds other files: {', '.join(names[:3])}{more}" if names else ""


def line_ends(content: bytes, sha256: str) -> str:
    """For the message about a text file of another checksum: whether it is the published one with CRLF line ends."""
    if hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest() != sha256:
        return ""
    return "the file has CRLF line ends, the published one LF (dos2unix restores it): "


def _refused(path: Path, error: OSError) -> bool:
    if not isinstance(error, PermissionError):
        return False  # a name that is too long, a device that is gone
    closed = next((folder for folder in reversed(path.parents) if not os.access(folder, os.X_OK)), path)
    raise DataError(f"{closed}: cannot be read: {error.strerror}") from None


@contextlib.contextmanager
def reading(path: Path | str, remedy: str = "remove it, or put the published file there") -> Iterator[None]:
    """Whatever a torn or foreign file makes its reader raise becomes one error that names the file.

    Readers of pickles, images and archives raise nearly anything: ``struct.error``, ``OverflowError``,
    ``DecompressionBombError``, ``RecursionError``. So this is no list of types.

    Args:
        path: the file, or where in it.
        remedy: what to do.

    Raises:
        DataError: the file could not be read.
    """
    try:
        yield
    except ClrayError:
        raise
    except MemoryError:
        raise DataError(f"{path}: torn or foreign, or larger than this machine's memory; {remedy}") from None
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:  # the system's; those of formats have a text alone
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        raise DataError(f"{path}: torn or foreign: {_said(error)}; {remedy}") from None


def _said(error: Exception) -> str:
    """An error's first line, after its name where it says little without: the ``KeyError`` of a key is only the key."""
    first = next(iter(str(error).strip().splitlines()), "")
    terse = isinstance(error, LookupError | AttributeError | TypeError | RecursionError)
    return ": ".join(filter(None, ([type(error).__name__] if terse or not first else []) + [first]))
