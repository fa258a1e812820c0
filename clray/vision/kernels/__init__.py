"""Compiled kernels, and the folder in which numba keeps them from one process to the next."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path


def kernel_cache() -> tuple[Path | None, bool]:
    """The folder in which compiled kernels are kept, and whether it is one of numba's own choice.

    Numba takes ``NUMBA_CACHE_DIR``, the folder of the source, or the user's cache folder, whichever can be written to
    first. Where none of these can, as in an installation of root's without a HOME, the kernels are kept below the
    temporary folder, and the second value is False. Where that cannot be written to either, there is no folder: then
    every process compiles the kernels anew, which takes it some twenty seconds. Numbers are the same in any case.

    Nothing is imported for it, and nothing but an empty folder is left behind.
    """
    for folder in _numbas_folders():
        if _can_be_written(folder):
            return folder, True
    return _private_folder(), False


def keep_kernels() -> bool:
    """Have numba keep compiled kernels in ``kernel_cache()``. Returns whether it can keep any.

    To be called before a kernel is decorated: that is when numba looks for a folder, and ends with an error if there is
    none.
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
    """A function of this folder for numba to look for a place for. It is never compiled."""


def _numbas_folders() -> list[Path]:
    """The folders that numba tries, in its order."""
    folders = [Path(named)] if (named := os.environ.get("NUMBA_CACHE_DIR")) else []
    folders.append(Path(__file__).resolve().parent / "__pycache__")
    home = Path(os.path.expanduser("~"))
    caches = home / "Library/Caches" if sys.platform == "darwin" else os.environ.get("XDG_CACHE_HOME", home / ".cache")
    if Path(caches).is_absolute():  # without HOME and an entry in the list of users, home is a folder "~" right here
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
    """A folder below the temporary one that only this user can write to: what lies in it is run."""
    try:
        folder = Path(tempfile.gettempdir()) / f"clray-kernels-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    private = not folder.is_symlink() and found.st_uid == os.getuid() and not found.st_mode & 0o022
    return folder if private and _can_be_written(folder) else None
