"""Writes a file whole or not at all: readers see the old file or the new one, whenever the writer dies."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

_LONGEST_NAME = 255
"""Bytes in a file's name, on the file systems of Linux and macOS."""


def temporary_name(name: str) -> str:
    """A hidden name for a file that is not finished: ``.NAME.RANDOM.tmp``, which no other writer has."""
    random = uuid.uuid4().hex[:8]
    long = f".{name}.{random}.tmp"
    return long if len(os.fsencode(long)) <= _LONGEST_NAME else f".{random}.tmp"


def write_atomically(
    path: str | os.PathLike[str],
    content: bytes | Callable[[IO[bytes]], None],
    flush: bool = True,
    before: Callable[[], None] | None = None,
) -> None:
    """Write a file under a temporary name beside ``path``, then rename it.

    A file that is replaced hands its permissions on; a new one has those that the process gives to all its files.
    Whatever goes wrong, ``path`` is as it was, and the temporary file is removed; only a killed process leaves it.

    Args:
        content: the bytes, or a function that writes them into a file, which it can also read.
        flush: wait until the disk has the bytes. Without it a power failure can lose the file.
        before: is called when everything is written, just before the rename.

    Raises:
        OSError: the file cannot be written, or its folder does not exist.
    """
    path = Path(path)
    temporary = path.with_name(temporary_name(path.name))
    try:
        with open(temporary, "x+b") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            with suppress(FileNotFoundError):
                permissions = stat.S_IMODE(path.stat().st_mode)
                if permissions != stat.S_IMODE(os.fstat(file.fileno()).st_mode):
                    os.fchmod(file.fileno(), permissions)
            file.flush()
            if flush:
                os.fsync(file.fileno())
        if before is not None:
            before()
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # the first error is the one to report
            temporary.unlink()
        raise
