"""The folder of an embedded Ray: its sockets, logs and session. It is made for one launch, and goes with it."""

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
"""Ray's logs alone need as much: where that does not fit it would start, and die in the middle."""
_SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
"""A socket's path may have so many bytes: the system's limit for AF_UNIX."""
_RAYS_PART = len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
LONGEST = _SOCKET_BYTES - _RAYS_PART - len(f"/{_PREFIX}12345678")
"""A folder may have a name of so many bytes for an embedded Ray's own to lie in it."""


@contextlib.contextmanager
def ray_folder(say: Callable[[str], None]) -> Iterator[Path]:
    """Within, a folder of its own for an embedded Ray; nothing of it is left.

    It lies where RAY_TMPDIR or TMPDIR say, unless sockets cannot have names there or nothing can be written there: then
    in /tmp, or another of the machine's places for temporary files. What drivers that were killed have left there of
    this user's is removed.

    Args:
        say: called with a line about a place that was asked for and does not do.

    Raises:
        ClusterError: no place does.
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
            "an embedded Ray needs a folder for its sockets, and none of these does: "
            + "; ".join(faults)
            + f": let RAY_TMPDIR name one that can be written, with a path of at most {LONGEST} ASCII characters; "
            "or use --local, which does without Ray"
        )
    if places and folder.parent != places[0]:
        say(f"Ray's temporary files are in {folder}: {faults[0]} ({asked[0].partition('=')[0]})")
    with _locked(folder):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def fault_of(place: Path) -> str:
    """Why an embedded Ray's folder cannot lie in a place; empty where it can."""
    try:
        shutil.rmtree(_made(place), ignore_errors=True)
    except OSError as error:
        return str(error.strerror or error)
    return ""


def _made(place: Path) -> Path:
    """A new folder in a place. Raises OSError where an embedded Ray could not use one."""
    if not str(place).isascii():
        raise OSError("Ray takes ASCII letters only in its path")
    if (length := len(str(place))) > LONGEST:
        raise OSError(f"its path has {length} characters; with more than {LONGEST} Ray's sockets have no names")
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
    """Within, other launches can see that somebody lives in the folder. A process that dies lets its locks go."""
    with (folder / f"{_LOCK}.new").open("w") as file:
        file.write(_boot())
        file.flush()
        with contextlib.suppress(OSError):  # a file system without locks: then nobody removes what is left there
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(file.name, folder / _LOCK)
        yield


def _remove_left(place: Path) -> None:
    """Remove the folders of this user's launches that are dead."""
    for folder in place.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid != os.getuid():
                continue
            with (folder / _LOCK).open("r") as file:  # not there: no folder of ours, or one that is just being made
                if file.read() == _boot():  # on a shared disk: another machine's locks may not be seen here
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)


def _boot() -> str:
    """Names this machine since it was started."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()
