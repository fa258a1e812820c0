"""The folder of an embedded Ray: its sockets, logs and session. It is made for one launch, and removed at its end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from clray.errors import ClusterError

NAMED_BY = "RAY_TMPDIR or TMPDIR names another place"
_PREFIX = "ray-"
_LOCK = "clray.lock"
PLACES = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))
_PROBE_BYTES = 2**20
"""The bytes that are written as a test of the room. Ray's logs alone need as many: with fewer, Ray would die later."""
_SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
"""The system's limit for the path of an AF_UNIX socket, in bytes."""
_RAYS_PART = len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
LONGEST = _SOCKET_BYTES - _RAYS_PART - len(f"/{_PREFIX}12345678")
"""The longest path of a folder in which the folder of an embedded Ray can lie, in bytes."""


@contextlib.contextmanager
def ray_folder(say: Callable[[str], None]) -> Iterator[Path]:
    """Make a folder for an embedded Ray for the duration of a ``with`` block, and then remove it.

    It lies in the folder that RAY_TMPDIR or TMPDIR names. Where that path is too long for sockets, or nothing can be
    written there, it lies in /tmp or in another of the machine's places for temporary files. Folders that this user's
    killed drivers have left in a place are removed.

    Args:
        say: called with a line about a place that RAY_TMPDIR or TMPDIR names and that cannot be used.

    Raises:
        ClusterError: no place can be used.
    """
    asked = [f"{name}={os.environ[name]}" for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)]
    places = [Path(line.partition("=")[2]).absolute() for line in asked]
    faults = []
    for place in dict.fromkeys([*places, *PLACES]):
        try:
            folder = _made(place)
        except OSError as error:
            faults.append(f"{place}: {error.strerror or error}")
            continue
        break
    else:
        raise ClusterError(
            "an embedded Ray needs a folder for its sockets, and none of these can be used: "
            + "; ".join(faults)
            + f": let RAY_TMPDIR name one that can be written, with a path of at most {LONGEST} ASCII characters; "
            "or use --local, which runs without Ray"
        )
    if places and folder.parent != places[0]:
        say(f"Ray's temporary files are in {folder}: {faults[0]} ({asked[0].partition('=')[0]})")
    with _locked(folder):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def fault_of(place: Path) -> str:
    """The reason why an embedded Ray's folder cannot lie in a place; empty where it can."""
    try:
        shutil.rmtree(_made(place), ignore_errors=True)
    except OSError as error:
        return str(error.strerror or error)
    return ""


def _made(place: Path) -> Path:
    """A new folder in a place. Raises OSError where an embedded Ray could not use one."""
    if not str(place).isascii():
        raise OSError("Ray takes only ASCII characters in its path")
    if (length := len(str(place))) > LONGEST:
        raise OSError(
            f"its path has {length} characters; with more than {LONGEST} the paths of Ray's sockets are too long"
        )
    place.mkdir(parents=True, exist_ok=True)
    _remove_left(place)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
    try:
        probe = folder / "probe"
        with probe.open("wb") as file:
            file.write(bytes(_PROBE_BYTES))
        probe.unlink()
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Show other launches that the folder is in use, by a lock that the system releases if this process dies."""
    with (folder / f"{_LOCK}.new").open("w") as file:
        file.write(_boot())
        file.flush()
        with contextlib.suppress(OSError):  # a file system without locks: then no launch removes leftovers there
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(file.name, folder / _LOCK)
        yield


def _remove_left(place: Path) -> None:
    """Remove the folders that this user's dead launches have left in a place."""
    for folder in place.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid != os.getuid():
                continue
            with (folder / _LOCK).open("r") as file:  # no such file: not a folder of clray, or one that is being made
                if file.read() == _boot():  # another machine's locks may be invisible here (shared disk)
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)


def _boot() -> str:
    """A name for the present boot of this machine; without /proc, the name of the machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()
