"""Notes about published runs. With them, publishing again sends only what has changed."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

from clray.atomic import write_atomically
from clray.tracking.publication import Publication

with contextlib.suppress(ImportError):  # only on Unix: elsewhere only one publisher at a time is safe
    import fcntl


class Notes:
    """The notes about one run, in one small file, with a lock so that only one process at a time sends the run."""

    def __init__(self, publication: Publication, name: str) -> None:
        self._target = publication.target
        self._path = Path(publication.folder) / "published" / f"{name}.json"
        self._lock: io.TextIOWrapper | None = None

    def acquire(self) -> bool:
        """Take the lock; False where another process has it. The system releases it when a process is killed."""
        path = self._path.parent / "locks" / self._path.stem
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(path, "a")  # noqa: SIM115 - held until release
        try:
            if "fcntl" in globals():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return False
        except OSError:
            pass  # the file system has no locks: then only one publisher at a time is safe
        self._lock = lock
        return True

    def release(self) -> None:
        """Release the lock, where this process has it."""
        if self._lock:
            self._lock.close()
            self._lock = None

    def _all(self) -> dict[str, dict[str, Any]]:
        try:
            notes = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}  # without its notes a run is compared with the server: no row is sent twice
        return notes if isinstance(notes, dict) else {}

    def read(self) -> dict[str, Any]:
        """The note of the last publication to this target; empty where there is none."""
        return self._all().get(self._target, {})

    def write(self, note: dict[str, Any]) -> None:
        """Write the note of a publication to this target."""
        write_atomically(self._path, json.dumps({**self._all(), self._target: note}, indent=1).encode())

    def folders_of_other_targets(self) -> set[str]:
        """The folders of offline runs that were published to other targets."""
        return {note.get("directory", "") for target, note in self._all().items() if target != self._target}
