"""The results store: one Parquet record a trial, checkpoints and notes of failure beside them, on any file system.

Layout below the store's URI::

    records/ID.parquet       a finished trial: its measurements, and all that is known of it as metadata
    superseded/ID.CODE.parquet   its record of before it was run again; CODE is the digest of the code that made it
    running/ID.parquet       the same as a record for a trial in progress, replaced with each checkpoint
    checkpoints/ID.ckpt      what a trial in progress needs to continue; `.previous` is the one before
    artifacts/ID.NAME        a file that a finished trial left beside its record
    failures/ID.json         why a trial's last attempt failed
    claims/ID.json           the lease of who runs the trial (clray.leases)

ID is a trial's id, 16 of the letters 0-9 and a-f; files of other names are nobody's trial. On a file system every file
is written to a temporary name, flushed, and renamed; an object store shows an object only when it is whole. So a reader
sees the old file, the new one or none. The store is the only truth about what is finished, half-done or to do.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import posixpath
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from clray import stored
from clray.errors import DeclarationError, StoreError
from clray.metrics import Measurement
from clray.record import Record

_READERS = 16
"""Records that are read at once: on an object store nearly all of the time is waiting."""
_CLOCK_SECONDS = 600.0
"""So long the store's clock is told by this machine's stopwatch before the store is asked again."""
_OBJECT_STORES = ("s3", "gcs", "abfs")
_FOLDERS = ("records", "superseded", "running", "checkpoints", "failures", "claims", "artifacts")
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Problem:
    """A file in the store that is not what it should be."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: skipped: {self.reason}"


@dataclass(frozen=True)
class StoredLease:
    """A lease as the store holds it: its bytes, and the time when the store's clock stamped them, where it has one."""

    content: bytes
    mtime: float | None


class Store:
    """A results store at a local path or any URI that ``pyarrow.fs`` opens (``s3://…``, ``gs://…``, ``hdfs://…``)."""

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        """Opens the store; nothing is created before the first write.

        Raises:
            StoreError: no file system serves this URI.
        """
        import pyarrow as pa
        from pyarrow import fs

        text = os.fspath(uri)
        try:
            if "://" in text:
                self._fs, self._root = _file_system(text)
                self.uri = text
            else:
                self._root = str(Path(text).expanduser().resolve())
                self._fs, self.uri = fs.LocalFileSystem(), self._root
        except (pa.ArrowException, OSError, ValueError, RuntimeError) as error:
            raise StoreError(f"{text}: cannot be opened as a results store: {error}") from None
        self._local = isinstance(self._fs, fs.LocalFileSystem)
        self._objects = self._fs.type_name in _OBJECT_STORES
        """There an object appears under its name when it is whole, and folders need not be made."""
        self._root = self._root.rstrip("/")
        self._clock: tuple[float, float] | None = None
        """What the store's clock showed, and this machine's stopwatch at that time."""

    def path(self, *parts: str) -> str:
        """Where a file of the store lies, for a message or a link."""
        return posixpath.join(self._root, *parts)

    # -- bytes -------------------------------------------------------------------------------------------------

    def _of(self, folder: str, id: str, ending: str) -> str:
        """The place of a trial's file, below the store's root.

        Raises:
            DeclarationError: ``id`` is no trial's id.
        """
        if not _ID.fullmatch(id):
            raise DeclarationError(f"{id[:50]!r}: not the id of a trial: an id is 16 of the letters 0-9 and a-f")
        return f"{folder}/{id}{ending}"

    def _write(
        self,
        relative: str,
        content: bytes | Callable[[IO[bytes]], None],
        flush: bool = True,
        before: Callable[[], None] = lambda: None,
    ) -> str:
        """Write a file whole or not at all.

        Args:
            content: its bytes, or what writes them into a file that can be read too, piece by piece.
            flush: unless flushed, the file may be gone after a power failure.
            before: is called when all is written, before the file gets its name.
        """
        path = self.path(relative)
        try:
            if self._local:
                self._write_here(path, content, flush, before)
            else:
                whole: Any = content
                if callable(content):
                    buffer = io.BytesIO()
                    content(buffer)
                    whole = buffer.getbuffer()  # the same memory, not a copy
                before()
                self._write_there(path, whole)
        except OSError as error:
            raise StoreError(f"{path}: cannot be written: {error}") from error
        return path

    @contextmanager
    def _aside(self, path: str) -> Iterator[str]:
        """A temporary name beside ``path`` for a file that is renamed within; it is gone where something went wrong."""
        folder, name = posixpath.split(path)
        temporary = posixpath.join(folder, f".{name}.{uuid.uuid4().hex[:8]}.tmp")
        self._fs.create_dir(folder, recursive=True)
        try:
            yield temporary
        except BaseException:
            with suppress(StoreError):  # what went wrong first is what has to be told
                self._delete(temporary)
            raise

    def _write_here(
        self, path: str, content: bytes | Callable[[IO[bytes]], None], flush: bool, before: Callable[[], None]
    ) -> None:
        with self._aside(path) as temporary:
            with open(temporary, "w+b") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content)
                file.flush()
                if flush:
                    os.fsync(file.fileno())
            before()
            os.replace(temporary, path)

    def _write_there(self, path: str, content: Any) -> None:
        if self._objects:
            self._stream(path, content)
            return
        with self._aside(path) as temporary:
            self._stream(temporary, content)
            self._fs.move(temporary, path)

    def _stream(self, path: str, content: Any) -> None:
        with self._fs.open_output_stream(path) as stream:
            stream.write(content)

    def _read(self, relative: str) -> bytes | None:
        path = self.path(relative)
        try:
            with self._fs.open_input_stream(path) as stream:
                return stream.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error}") from error

    def _delete(self, path: str) -> None:
        try:
            self._fs.delete_file(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            # What is left over is found and removed the next time the trial finishes; it is never read as a result.
            if not isinstance(error, PermissionError):
                raise StoreError(f"{path}: cannot be removed: {error}") from error

    def _listed(self, folder: str) -> list[str]:
        """The names of the files in a folder, in their order; none where there is no such folder."""
        from pyarrow import fs

        try:
            entries = self._fs.get_file_info(fs.FileSelector(self.path(folder), allow_not_found=True))
        except OSError as error:
            raise StoreError(f"{self.path(folder)}: cannot be listed: {error}") from error
        return sorted(e.base_name for e in entries if e.type == fs.FileType.File and not e.base_name.startswith("."))

    def _ids(self, folder: str, *endings: str) -> set[str]:
        """The ids of the trials that have a file in a folder with one of these endings."""
        names = self._listed(folder)
        found = {name[: -len(ending)] for ending in endings for name in names if name.endswith(ending)}
        return {id for id in found if _ID.fullmatch(id)}

    # -- records -----------------------------------------------------------------------------------------------

    def write(self, record: Record) -> str:
        """Write a record, and for a trial that is over remove what only its continuation needed. Returns the path.

        Where the store has a record of the trial already that other code made, that one is kept as superseded.
        """
        import pyarrow.parquet as pq

        buffer = io.BytesIO()
        pq.write_table(record.to_table(), buffer, compression="zstd")
        if record.status == "running":
            return self._write(self._of("running", record.id, ".parquet"), buffer.getvalue())
        self._supersede(record)
        path = self._write(self._of("records", record.id, ".parquet"), buffer.getvalue())
        self.remove_leftovers(record.id)
        self._sweep(record.id)
        return path

    def _supersede(self, record: Record) -> None:
        """Keep the record that this one is about to replace, where other code made it."""
        try:
            former = self.read(record.id, measurements=False)
        except StoreError:
            return  # what keeps it from being read is told by the write that follows, if it still does
        if not isinstance(former, Record):
            return
        code, content = str(former.provenance.get("code")), self._read(self._of("records", record.id, ".parquet"))
        if code != record.provenance.get("code") and content is not None:
            label = code if re.fullmatch(r"\w{1,64}", code) else hashlib.sha256(content).hexdigest()[:16]
            self._write(self._of("superseded", record.id, f".{label}.parquet"), content)

    def superseded(self, id: str) -> list[str]:
        """Where a trial's records lie that were made before it was run again."""
        return [self.path("superseded", name) for name in self._listed("superseded") if name.startswith(f"{id}.")]

    def remove_leftovers(self, id: str) -> None:
        """Remove what a trial in progress had, once it is over."""
        self.delete_checkpoint(id)
        self._delete(self.path(self._of("failures", id, ".json")))

    def _sweep(self, id: str, folders: Sequence[str] = _FOLDERS) -> None:
        """Remove what processes that were killed in the middle of a write have left of a trial."""
        if self._local:
            for folder in folders:
                for temporary in Path(self.path(folder)).glob(f".{id}.*.tmp"):
                    self._delete(str(temporary))

    def read(self, id: str, folder: str = "records", measurements: bool = True) -> Record | Problem | None:
        """The record of a trial: None where there is none, a Problem where the file is torn or foreign.

        Args:
            folder: ``records``, or ``running`` for a trial in progress.
            measurements: whether they are wanted, or only what is known of the trial.

        Raises:
            StoreError: the store cannot be read.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        relative = self._of(folder, id, ".parquet")
        try:
            content = self._read(relative)
        except StoreError as error:
            if isinstance(error.__cause__, PermissionError):
                return Problem(self.path(relative), f"not a readable record: {error.__cause__}")
            raise
        if content is None:
            return None
        try:
            # One thread each: several records are read at once.
            table = pq.ParquetFile(pa.BufferReader(content)).read(Measurement._fields, use_threads=False)
            return Record.from_table(table, id, measurements)
        except (
            pa.ArrowException,
            OSError,
            ValueError,
            LookupError,
            TypeError,
            ArithmeticError,
            RecursionError,
        ) as error:
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            return Problem(self.path(relative), f"not a readable record: {reason}")

    def finished(self) -> set[str]:
        """The ids that have a record, readable or not."""
        return self._ids("records", ".parquet")

    def running(self) -> set[str]:
        """The ids of trials that were begun and left notes of their progress."""
        return self._ids("running", ".parquet")

    def records(self, folder: str = "records", measurements: bool = True) -> tuple[list[Record], list[Problem]]:
        """Every readable record, and every file that is none.

        Args:
            folder: ``records``, or ``running`` for those of trials in progress.
            measurements: whether they are wanted, or only what is known of the trials; they are checked in any case.
        """
        found: list[Record] = []
        problems: list[Problem] = []
        names = [name for name in self._listed(folder) if name.endswith(".parquet")]

        def look(name: str) -> Record | Problem | None:
            id = name.removesuffix(".parquet")
            if not _ID.fullmatch(id):
                return Problem(self.path(folder, name), "not a record: its name is not the id of a trial")
            return self.read(id, folder, measurements)

        with ThreadPoolExecutor(_READERS) as readers:
            for match in readers.map(look, names):
                if isinstance(match, Record):
                    found.append(match)
                elif match is not None:
                    problems.append(match)
        return found, problems

    # -- checkpoints: clray.checkpoints reads and writes them ----------------------------------------------------

    def checkpointed(self) -> set[str]:
        """The ids of trials that have a checkpoint; whether it is intact is found out when the trial is taken up."""
        return self._ids("checkpoints", ".ckpt", ".ckpt.previous")

    def delete_checkpoint(self, trial_id: str) -> None:
        """Delete the trial's checkpoints, and the record of its progress."""
        newest = self._of("checkpoints", trial_id, ".ckpt")
        for relative in (newest, f"{newest}.previous", self._of("running", trial_id, ".parquet")):
            self._delete(self.path(relative))

    # -- artifacts ---------------------------------------------------------------------------------------------

    def write_artifact(self, id: str, name: str, content: bytes) -> None:
        """Keep a file that a trial made beside its record, such as the weights of its network."""
        self._write(self._of("artifacts", id, f".{name}"), content)

    def artifacts(self, id: str) -> list[str]:
        """The names of what is kept of a trial beside its record."""
        start = self._of("artifacts", id, ".").removeprefix("artifacts/")
        return [name.removeprefix(start) for name in self._listed("artifacts") if name.startswith(start)]

    def read_artifact(self, id: str, name: str) -> bytes | None:
        return self._read(self._of("artifacts", id, f".{name}"))

    # -- failures ----------------------------------------------------------------------------------------------

    def write_failure(self, id: str, failure: dict[str, Any]) -> None:
        """Keep why the trial's last attempt failed."""
        self._write(self._of("failures", id, ".json"), json.dumps(failure, indent=1).encode())

    def failed(self) -> set[str]:
        """The ids of trials whose last attempt failed."""
        return self._ids("failures", ".json")

    def failure(self, id: str) -> dict[str, Any] | None:
        """Why the trial's last attempt failed, or None. It has an ``error``, and what else is there has its type."""
        relative = self._of("failures", id, ".json")
        raw = self._read(relative)
        if raw is None:
            return None
        try:
            failure = json.loads(raw)
        except (ValueError, RecursionError):
            return {"error": f"{self.path(relative)}: torn"}
        if reason := stored.problem(stored.FAILURE, failure):
            return {"error": f"{self.path(relative)}: not what clray writes: {reason}"}
        return {"error": "it does not say why", **failure}

    # -- leases ------------------------------------------------------------------------------------------------

    def leased(self) -> set[str]:
        """The ids of trials that somebody runs, or ran and died."""
        return self._ids("claims", ".json")

    def read_lease(self, id: str, stamped: bool = True) -> StoredLease | None:
        """A trial's lease, or None.

        Args:
            stamped: whether to ask when it was renewed, which is another request on an object store.
        """
        relative = self._of("claims", id, ".json")
        path = self.path(relative)
        try:
            if self._local:
                # NFS asks its server anew when a file is opened, not when it is only looked at.
                with open(path, "rb") as file:
                    return StoredLease(file.read(), os.fstat(file.fileno()).st_mtime)
            content = self._read(relative)
            stamp = self._fs.get_file_info(path).mtime_ns if stamped and content is not None else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error}") from error
        return None if content is None else StoredLease(content, stamp / 1e9 if stamp else None)

    def create_lease(self, id: str, content: bytes) -> bool:
        """Write a trial's lease where there is none. Returns whether there was none.

        On a local file system and NFS one of several that try at once succeeds; elsewhere only within ``exclusive``.
        """
        path = self.path(self._of("claims", id, ".json"))
        if not self._local:
            if self.read_lease(id, stamped=False) is not None:
                return False
            self.replace_lease(id, content)
            return True
        try:
            self._fs.create_dir(posixpath.dirname(path), recursive=True)
            try:
                file = open(path, "xb")  # noqa: SIM115
            except FileExistsError:
                return False
            try:
                with file:
                    file.write(content)
            except BaseException:
                with suppress(StoreError):
                    self._delete(path)
                raise
        except OSError as error:
            raise StoreError(f"{path}: cannot be written: {error}") from error
        return True

    def replace_lease(self, id: str, content: bytes) -> None:
        """Replace a trial's lease, whosoever it is."""
        relative = self._of("claims", id, ".json")
        if self._local:
            self._write(relative, content, flush=False)
        else:
            self._put(relative, content)

    def delete_lease(self, id: str, content: bytes) -> bool:
        """Remove a trial's lease if it still says ``content``. Returns whether this call removed it."""
        path = self.path(self._of("claims", id, ".json"))
        if not self._local:
            found = self.read_lease(id, stamped=False)
            if found is None or found.content != content:
                return False
            self._delete(path)
            return True
        # Only one of several can move the file away; who got hold of another one than was meant puts it back.
        aside = self.path(f"claims/.{id}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            os.rename(path, aside)
            meant = Path(aside).read_bytes() == content
            if not meant:
                with suppress(OSError):  # its holder writes it again
                    os.link(aside, path)
            os.unlink(aside)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StoreError(f"{path}: cannot be removed: {error}") from error
        return meant

    @contextmanager
    def exclusive(self, id: str, patience: float) -> Iterator[bool]:
        """Within, nobody else reads a trial's lease in order to write it; False where somebody else is at it.

        Local file systems need none. An object store has no way to create an object exclusively that all of them know:
        there everyone puts up a flag and then looks around. Of two who do so, one at least sees the other's flag; who
        sees one takes his own down, and waits for a random while. Where a listing may lack what was just written, two
        may go on at once. A flag of somebody who died counts for ``patience`` seconds, by the store's clock.
        """
        if self._local:
            yield True
            return
        flag = f"claims/.{id}.{uuid.uuid4().hex[:8]}.flag"
        self._put(flag, b"")
        try:
            alone = not self._flags(id, posixpath.basename(flag), patience)
            if not alone:
                time.sleep(random.uniform(0.1, 1.0))
            yield alone
        finally:
            self._delete(self.path(flag))

    def _flags(self, id: str, own: str, patience: float) -> list[str]:
        from pyarrow import fs

        try:
            entries = self._fs.get_file_info(fs.FileSelector(self.path("claims")))
        except OSError as error:
            raise StoreError(f"{self.path('claims')}: cannot be listed: {error}") from error
        up = {e.base_name: e for e in entries if e.base_name.startswith(f".{id}.") and e.base_name.endswith(".flag")}
        now = up[own].mtime_ns if own in up else None
        return [
            name
            for name, entry in up.items()
            if name != own and (not now or not entry.mtime_ns or now - entry.mtime_ns < patience * 1e9)
        ]

    def _put(self, relative: str, content: bytes) -> None:
        """Write a small file under its own name at once: object stores show an object only when it is whole."""
        path = self.path(relative)
        try:
            if not self._objects:
                self._fs.create_dir(posixpath.dirname(path), recursive=True)
            self._stream(path, content)
        except OSError as error:
            raise StoreError(f"{path}: cannot be written: {error}") from error

    def require_writable(self) -> None:
        """Write a file of a few kilobytes, and remove it.

        Raises:
            StoreError: the store cannot be written.
        """
        probe = f"claims/.probe.{uuid.uuid4().hex[:8]}"
        try:
            self._put(probe, bytes(4096))
        finally:
            with suppress(StoreError):
                self._delete(self.path(probe))

    def clock(self) -> float:
        """What time it is by the clock that stamps this store's files; where nothing can be written, by our own.

        The store is asked once in ten minutes; between, this machine's stopwatch counts on.
        """
        stopwatch = time.monotonic()
        if self._clock is None or not 0 <= stopwatch - self._clock[1] < _CLOCK_SECONDS:
            probe = f"claims/.clock.{uuid.uuid4().hex[:8]}"
            try:
                self._put(probe, b"")
                stamp = self._fs.get_file_info(self.path(probe)).mtime_ns
                self._delete(self.path(probe))
            except (OSError, StoreError):
                return time.time()
            if not stamp:
                return time.time()
            self._clock = (stamp / 1e9, stopwatch)
        shown, then = self._clock
        return shown + stopwatch - then


def _file_system(uri: str) -> tuple[Any, str]:
    """The file system that serves a URI, and the path within it."""
    from pyarrow import fs

    if uri.startswith("s3://") and "allow_delayed_open" not in uri:
        # A small object is put by one request instead of the three of an upload in parts.
        with suppress(ValueError, OSError):
            return fs.FileSystem.from_uri(f"{uri}{'&' if '?' in uri else '?'}allow_delayed_open=true")
    return fs.FileSystem.from_uri(uri)
