"""Folders that a process takes for granted, and that are missing somewhere: HOME, and one for temporary files."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from clray.errors import DeclarationError


def home_folder() -> Path | None:
    """The user's home, or None where neither HOME nor the list of users names one."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def ensure_home() -> None:
    """Give a process without a home one below the temporary folder: Ray, torch and W&B insist on having one.

    It is named after the user, so that all of the user's processes share it.
    """
    if home_folder() is None and (private := private_folder("home")) is not None:
        os.environ["HOME"] = str(private)
    if "USER" not in os.environ and "LOGNAME" not in os.environ and not _is_listed():
        os.environ["USER"] = f"user{os.getuid()}"  # torch and W&B ask for a name, and raise without one


def _is_listed() -> bool:
    import pwd

    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True


def private_folder(name: str) -> Path | None:
    """A folder of this user's below the temporary one, made if need be; None where there can be none.

    It is the same one for all processes of the user. Nobody else can write to it: a folder that another user has put
    there before is not taken.
    """
    try:
        folder = private_path(name)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        state = folder.lstat()
        ours = state.st_uid == os.getuid() and not state.st_mode & 0o022 and folder.is_dir() and not folder.is_symlink()
    except OSError:
        return None
    return folder if ours else None


def private_path(name: str) -> Path:
    """The path of ``private_folder``. Raises OSError where there is no folder for temporary files."""
    return Path(tempfile.gettempdir()) / f"clray-{os.getuid()}-{name}"


def is_file(path: Path) -> bool:
    """True where there is a file of this name; False for a name that no file can have.

    Raises:
        DeclarationError: a folder on the way may not be entered.
    """
    try:
        return path.is_file()
    except PermissionError as error:
        raise DeclarationError(f"{path}: cannot be read: {error.strerror}") from None
    except OSError:
        return False


def nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that is there and that this process can see."""
    for folder in (path, *path.parents):
        with contextlib.suppress(OSError):
            if folder.exists():
                return folder
    return Path("/")


def can_be_written(path: Path) -> bool:
    """True where files can be made in a folder, or the folder itself if it is missing. Leaves nothing behind."""
    try:
        tempfile.TemporaryFile(dir=nearest(path)).close()
    except OSError:
        return False
    return True
