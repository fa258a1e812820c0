"""Checks and reads files of data sets, so that any problem with a file is one error that names the file."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from clray.errors import ClrayError, DataError


def given_folder() -> Path | None:
    """The folder that ``CLRAY_DATA`` names; None where the variable is not set or is empty.

    Raises:
        DataError: there is no such folder, or this user may not enter it.
    """
    given = os.environ.get("CLRAY_DATA")
    if not given:
        return None
    if not is_folder(Path(given)):
        raise DataError(f"CLRAY_DATA={given}: no such folder")
    return Path(given)


def is_file(path: Path) -> bool:
    """True if there is such a file.

    Raises:
        DataError: this user may not enter a folder above the file, so that nobody can tell. (``Path.is_file`` raises
            ``PermissionError``.)
    """
    try:
        return path.is_file()
    except OSError as error:
        return _refused(path, error)


def is_folder(path: Path) -> bool:
    """True if there is such a folder.

    Raises:
        DataError: this user may not enter it, or a folder above it.
    """
    try:
        found = path.is_dir()
    except OSError as error:
        return _refused(path, error)
    if found and not os.access(path, os.X_OK):
        raise DataError(f"{path}: cannot be read: Permission denied")
    return found


def is_file_if_allowed(path: Path) -> bool:
    """True if there is such a file below a cache folder. A folder that this user may not enter holds no such file."""
    try:
        return path.is_file()
    except OSError:
        return False


def others(folder: Path) -> str:
    """Text for a message: what else a folder holds that has no form of a data set; empty where it holds nothing.

    Of more than three names the first three are given. Hidden ones are left out.
    """
    try:
        found = sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)
    except OSError:
        return ""
    folders = [path for path in found if _is_folder_if_allowed(path)]
    kinds = ["files"] * (len(folders) < len(found)) + ["folders"] * bool(folders)
    names = [f"{path.name}/" if path in folders else path.name for path in found[:3]]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"{folder} holds other {' and '.join(kinds)}: {', '.join(names)}{more}" if found else ""


def _is_folder_if_allowed(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def line_ends(content: bytes, sha256: str) -> str:
    """Text for the message about a wrong checksum, if the file is the published one with CRLF line ends; else empty."""
    if hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest() != sha256:
        return ""
    return "the file has CRLF line ends, the published one LF (dos2unix restores it): "


def _refused(path: Path, error: OSError) -> bool:
    if not isinstance(error, PermissionError):
        return False  # such as a name that is too long, or a disk that was removed
    closed = next((folder for folder in reversed(path.parents) if not os.access(folder, os.X_OK)), path)
    raise DataError(f"{closed}: cannot be read: {error.strerror}") from None


@contextlib.contextmanager
def reading(path: Path | str, remedy: str = "remove it, or put the published file there") -> Iterator[None]:
    """Turn any error of reading a damaged or wrong file into one error that names the file.

    Readers of pickles, images and archives raise nearly any type: ``struct.error``, ``OverflowError``,
    ``DecompressionBombError``, ``RecursionError``. So all types are caught.

    Args:
        path: the file, or the file and a place in it.
        remedy: the advice at the end of the message.

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
        if isinstance(error, OSError) and error.strerror:  # an error of the operating system
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        raise DataError(f"{path}: torn or foreign: {_said(error)}; {remedy}") from None


def _said(error: Exception) -> str:
    """The first line of an error's message, after the error's type where the line says too little (``KeyError``)."""
    first = next(iter(str(error).strip().splitlines()), "")
    terse = isinstance(error, LookupError | AttributeError | TypeError | RecursionError)
    return ": ".join(filter(None, ([type(error).__name__] if terse or not first else []) + [first]))
