"""Compiled kernels, and the folder in which numba stores them between processes."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path


def kernel_cache() -> tuple[Path | None, bool]:
    """The folder for compiled kernels, and True where it is one that numba chooses itself.

    Numba takes ``NUMBA_CACHE_DIR``, the folder of the source, or the user's cache folder, whichever can be written to
    first. Where none of them can be written to, as in an installation owned by root and used without a HOME, the
    kernels are stored below the temporary folder, and the second value is False. Where that cannot be written to
    either, there is no folder: then every process compiles the kernels anew, which takes some twenty seconds. Numbers
    are the same in any case.

    The function does not import numba, and creates nothing but an empty folder.
    """
    for folder in _numbas_folders():
        if _can_be_written(folder):
            return folder, True
    return _private_folder(), False


def keep_kernels() -> bool:
    """Make numba store compiled kernels in ``kernel_cache()``. Returns False where it cannot store any.

    Call it before a kernel is decorated: numba looks for a folder at that moment, and raises an error if there is none.
    """
    import numba

    folder, numbas = kernel_cache()
    if folder is not None and not numbas:
        os.environ["NUMBA_CACHE_DIR"] = numba.config.CACHE_DIR = str(folder)
    try:
        numba.njit(cache=True)(_probe)
    except RuntimeError:
        return False
    return folder is not None


def _probe() -> None:
    """A function with which numba's search for a folder is tested. It is never compiled."""


def _numbas_folders() -> list[Path]:
    """The folders that numba tries, in its order."""
    folders = [Path(named)] if (named := os.environ.get("NUMBA_CACHE_DIR")) else []
    folders.append(Path(__file__).resolve().parent / "__pycache__")
    home = Path(os.path.expanduser("~"))
    caches = home / "Library/Caches" if sys.platform == "darwin" else os.environ.get("XDG_CACHE_HOME", home / ".cache")
    if Path(caches).is_absolute():  # without HOME and an entry in the list of users, home is "~", a relative path
        folders.append(Path(caches) / "numba")
    return folders


def _can_be_written(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _private_folder() -> Path | None:
    """A folder below the temporary folder that only this user can write to, since the code stored in it is run."""
    try:
        folder = Path(tempfile.gettempdir()) / f"clray-kernels-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    private = not folder.is_symlink() and found.st_uid == os.getuid() and not found.st_mode & 0o022
    return folder if private and _can_be_written(folder) else None
