"""The results store: one Parquet record for each trial, with checkpoints and failures beside it, on any file system.

Layout below the store's URI::

    records/ID.parquet       a finished trial: its measurements, and all that is known of it as metadata
    superseded/ID.CODE.HASH.parquet   an earlier record of a trial that was run again: CODE is the digest of its code,
                             HASH is of the file's content; ID.CODE.HASH.NAME are the files that its sweep asked for
    running/ID.parquet       the record of a trial in progress, replaced with each checkpoint
    checkpoints/ID.ckpt      the state from which a trial in progress continues; `.previous` is the one before
    artifacts/ID.NAME        a file that a finished trial left beside its record
    failures/ID.json         the reason why a trial's last attempt failed
    claims/ID.json           the lease of the process that runs the trial (clray.leases)

    reports/NAME.html        a page about a sweep or a reproduction

ID is a trial's id, 16 of the letters 0-9 and a-f; a file of another name belongs to no trial. Leases lie in ``claims/``
because existing stores have them there. Every file is written whole or not at all (``clray.storage``), so that a
reader sees the old file, the new one or none. The store alone decides which trials are finished, begun or still to run.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

from clray import stored
from clray.errors import DeclarationError, StoreError
from clray.metrics import Measurement
from clray.record import Record, bits
from clray.storage import StoredFile, StoredLease, open_storage
from clray.track_interface import KEPT_FILES

_READERS = 16
"""The number of records that are read at once: on an object store, most of the time for reading is waiting."""
_CLOCK_SECONDS = 600.0
"""The time until the store's clock is read again. In between, this machine's monotonic clock measures the time."""
_FOLDERS = ("records", "superseded", "running", "checkpoints", "failures", "claims", "artifacts")
_ID = re.compile(r"[0-9a-f]{16}")
_KEPT = frozenset(name for names in KEPT_FILES.values() for name in names)
"""The names of files that a sweep asks for with ``keep``."""


@dataclass(frozen=True)
class Problem:
    """A file in the store that is not what it should be."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: skipped: {self.reason}"


@dataclass(frozen=True)
class Superseded:
    """An earlier record of a trial that was run again.

    Attributes:
        path: its full path in the store.
        relative: its path below the store's root.
        record: the record, or what is wrong with the file.
        files: the names of the files that its sweep asked for (``keep``), and that lie beside it.
    """

    path: str
    relative: str
    record: Record | Problem
    files: tuple[str, ...] = ()

    @property
    def saved(self) -> float:
        """When it was saved, in seconds since 1970; 0 where it does not say."""
        return self.record.provenance.get("saved", 0.0) if isinstance(self.record, Record) else 0.0


def _say_the_same(former: Record, record: Record) -> bool:
    """True where the code that one of two records names made the other one too, with the same bits."""
    code = former.provenance.get("code")
    same_code = code is not None and code == record.provenance.get("code")
    same_end = former.status == record.status and bits(former.measurements) == bits(record.measurements)
    return same_code and same_end


class Store:
    """A results store at a local path or a URI: ``s3://…``, ``gs://…``, ``az://…``, ``hdfs://…``."""

    def __init__(self, uri: str | os.PathLike[str]) -> None:
        """Opens the store; nothing is created before the first write.

        Raises:
            StoreError: no file system can be opened for this URI.
        """
        text = os.fspath(uri)
        try:
            self.storage, self.uri = open_storage(text)
        except (OSError, ValueError, RuntimeError) as error:  # errors of pyarrow are among them
            raise StoreError(f"{text}: cannot be opened as a results store: {error}") from None
        self._clock: tuple[float, float] | None = None
        """The time that the store's clock showed, and this machine's monotonic clock at that moment."""

    def path(self, *parts: str) -> str:
        """The full path of a file of the store, for a message or a link."""
        return self.storage.path(*parts)

    # -- bytes -------------------------------------------------------------------------------------------------

    def place(self, folder: str, trial_id: str, ending: str) -> str:
        """The path of a trial's file, relative to the store's root.

        Raises:
            DeclarationError: ``trial_id`` is no trial's id.
        """
        if not _ID.fullmatch(trial_id):
            raise DeclarationError(f"{trial_id[:50]!r}: not the id of a trial: an id is 16 of the letters 0-9 and a-f")
        return f"{folder}/{trial_id}{ending}"

    @contextmanager
    def problems(self, relative: str, action: str) -> Iterator[None]:
        """Raise a StoreError, which names the file, for an OSError: ``PATH: cannot be ACTION: REASON``."""
        try:
            yield
        except OSError as error:
            raise StoreError(f"{self.path(relative)}: cannot be {action}: {error}") from error

    def write_file(
        self,
        relative: str,
        content: bytes | Callable[[IO[bytes]], None],
        before: Callable[[], None] | None = None,
    ) -> str:
        """Write a file whole or not at all, see ``Storage.write``. Returns its full path.

        Raises:
            StoreError: it cannot be written.
        """
        with self.problems(relative, "written"):
            self.storage.write(relative, content, before=before)
        return self.path(relative)

    def read_file(self, relative: str) -> bytes | None:
        """A file's content; None where there is none.

        Raises:
            StoreError: it cannot be read.
        """
        return self._read(relative)

    def _read(self, relative: str) -> bytes | None:
        with self.problems(relative, "read"):
            return self.storage.read(relative)

    def _delete(self, *relatives: str) -> None:
        # A file that cannot be deleted is tried again when the trial next finishes; it is never read as a result.
        with self.problems(relatives[0], "removed"):
            self.storage.delete(relatives)

    def _names(self, folder: str) -> list[str]:
        """The names of the files in a folder, sorted; none where there is no such folder."""
        with self.problems(folder, "listed"):
            return sorted(name for name in self.storage.names(folder) if not name.startswith("."))

    def files(self, folder: str) -> list[StoredFile]:
        """The files in a folder, hidden ones included, with their sizes and times.

        Raises:
            StoreError: the folder cannot be listed.
        """
        with self.problems(folder, "listed"):
            return sorted(self.storage.files(folder), key=lambda file: file.name)

    def delete_files(self, relatives: Sequence[str]) -> None:
        """Delete files of the store; those that are not there, or that may not be deleted, are passed over.

        Raises:
            StoreError: the store cannot be written.
        """
        self._delete(*relatives)

    def _ids(self, folder: str, *endings: str) -> set[str]:
        """The ids of the trials that have a file in a folder with one of these endings."""
        names = self._names(folder)
        found = {name[: -len(ending)] for ending in endings for name in names if name.endswith(ending)}
        return {trial_id for trial_id in found if _ID.fullmatch(trial_id)}

    # -- records -----------------------------------------------------------------------------------------------

    def write(self, record: Record) -> str:
        """Write a record. For a finished trial, delete the files that only its continuation needs. Returns the path.

        If the store already has a record of the trial that other code made, or that has other measurements, that record
        is kept in ``superseded/``.
        """
        import pyarrow.parquet as pq

        buffer = io.BytesIO()
        pq.write_table(record.to_table(), buffer, compression="zstd")
        if record.status == "running":
            return self.write_file(self.place("running", record.id, ".parquet"), buffer.getvalue())
        self._supersede(record)
        path = self.write_file(self.place("records", record.id, ".parquet"), buffer.getvalue())
        self.remove_leftovers(record.id)
        self.remove_temporaries(record.id)
        return path

    def _supersede(self, record: Record) -> None:
        """Copy the record that this one is about to replace into ``superseded/``, unless both say the same.

        They do where the same code came to the same bits. Files that a sweep asked for with ``keep`` belong to the
        earlier record, and move along with it.
        """
        try:
            content = self._read(self.place("records", record.id, ".parquet"))
        except StoreError:
            return  # the write that follows fails for the same reason, and reports it
        former = None if content is None else self._record(content, record.id, "records", measurements=True)
        if content is None or not isinstance(former, Record) or _say_the_same(former, record):
            return
        code = str(former.provenance.get("code", "unknown"))
        label = code if re.fullmatch(r"\w{1,64}", code) else "other"
        # The hash tells apart two records of one code, or of none: a name with the code alone would lose one of them.
        start = f".{label}.{hashlib.sha256(content).hexdigest()[:12]}"
        self.write_file(self.place("superseded", record.id, f"{start}.parquet"), content)
        for name in set(self.artifacts(record.id)) & _KEPT:
            kept = self.read_artifact(record.id, name)
            if kept is not None:
                self.write_file(self.place("superseded", record.id, f"{start}.{name}"), kept)
                self._delete(self.place("artifacts", record.id, f".{name}"))

    def superseded(self, trial_id: str, names: Collection[str] | None = None) -> list[Superseded]:
        """The records that a trial had before it was run again, in the order in which they were saved.

        Args:
            names: the names in the folder ``superseded``, where the caller has listed it.
        """
        start = self.place("superseded", trial_id, ".").removeprefix("superseded/")
        names = [name for name in (self._names("superseded") if names is None else names) if name.startswith(start)]
        found = []
        for name in names:
            if not name.endswith(".parquet"):
                continue
            content = self._read(f"superseded/{name}")
            if content is None:
                continue
            record = self._record(content, trial_id, "superseded", measurements=True, name=name)
            further = name.removesuffix("parquet")
            files = tuple(one.removeprefix(further) for one in names if one.startswith(further) and one != name)
            found.append(Superseded(self.path("superseded", name), f"superseded/{name}", record, files))
        return sorted(found, key=lambda one: one.saved)

    def remove_leftovers(self, trial_id: str) -> None:
        """Delete the files that only a trial in progress needs, once the trial is over."""
        self._delete(*self._progress_of(trial_id), self.place("failures", trial_id, ".json"))

    def remove_temporaries(self, trial_id: str, folders: Sequence[str] = _FOLDERS) -> None:
        """Delete the unfinished files that killed processes left of a trial."""
        for folder in folders:
            with self.problems(folder, "cleared"):
                self.storage.remove_temporaries(folder, trial_id)

    def read(self, trial_id: str, folder: str = "records", measurements: bool = True) -> Record | Problem | None:
        """The record of a trial: None where there is none, a Problem where the file is not a readable record.

        Args:
            folder: ``records``, or ``running`` for a trial in progress.
            measurements: return them as well; they are checked in any case.

        Raises:
            StoreError: the store cannot be read.
        """
        relative = self.place(folder, trial_id, ".parquet")
        try:
            content = self._read(relative)
        except StoreError as error:
            if isinstance(error.__cause__, PermissionError):
                return Problem(self.path(relative), f"not a readable record: {error.__cause__}")
            raise
        return None if content is None else self._record(content, trial_id, folder, measurements)

    def _record(
        self, content: bytes, trial_id: str, folder: str, measurements: bool, name: str = ""
    ) -> Record | Problem:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            # One thread for each record, because several records are read at once.
            table = pq.ParquetFile(pa.BufferReader(content)).read(Measurement._fields, use_threads=False)
            return Record.from_table(table, trial_id, measurements)
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
            return Problem(self.path(folder, name or f"{trial_id}.parquet"), f"not a readable record: {reason}")

    def finished(self) -> set[str]:
        """The ids of the trials that have a record, readable or not."""
        return self._ids("records", ".parquet")

    def running(self) -> set[str]:
        """The ids of trials that were begun and have a record of their progress."""
        return self._ids("running", ".parquet")

    def records(self, folder: str = "records", measurements: bool = True) -> tuple[list[Record], list[Problem]]:
        """All readable records, and a Problem for each file that is not one.

        Args:
            folder: ``records``, or ``running`` for the records of trials in progress.
            measurements: return them as well; they are checked in any case.
        """
        found: list[Record] = []
        problems: list[Problem] = []
        names = [name for name in self._names(folder) if name.endswith(".parquet")]

        def look(name: str) -> Record | Problem | None:
            trial_id = name.removesuffix(".parquet")
            if not _ID.fullmatch(trial_id):
                return Problem(self.path(folder, name), "not a record: its name is not the id of a trial")
            return self.read(trial_id, folder, measurements)

        with ThreadPoolExecutor(_READERS) as readers:
            for match in readers.map(look, names):
                if isinstance(match, Record):
                    found.append(match)
                elif match is not None:
                    problems.append(match)
        return found, problems

    # -- checkpoints: clray.checkpoints reads and writes them ----------------------------------------------------

    def checkpointed(self) -> set[str]:
        """The ids of trials that have a checkpoint; whether it is intact is checked when the trial continues."""
        return self._ids("checkpoints", ".ckpt", ".ckpt.previous")

    def delete_checkpoint(self, trial_id: str) -> None:
        """Delete the trial's checkpoints, and the record of its progress."""
        self._delete(*self._progress_of(trial_id))

    def _progress_of(self, trial_id: str) -> list[str]:
        newest = self.place("checkpoints", trial_id, ".ckpt")
        return [newest, f"{newest}.previous", self.place("running", trial_id, ".parquet")]

    # -- artifacts ---------------------------------------------------------------------------------------------

    def write_artifact(self, trial_id: str, name: str, content: bytes) -> None:
        """Write a file that a trial made beside its record, such as the weights of its network."""
        self.write_file(self.place("artifacts", trial_id, f".{name}"), content)

    def artifacts(self, trial_id: str) -> list[str]:
        """The names of the files that lie beside a trial's record."""
        start = self.place("artifacts", trial_id, ".").removeprefix("artifacts/")
        return [name.removeprefix(start) for name in self._names("artifacts") if name.startswith(start)]

    def all_artifacts(self) -> dict[str, set[str]]:
        """The names of the files that lie beside records, by trial."""
        found: dict[str, set[str]] = {}
        for name in self._names("artifacts"):
            trial, _, own = name.partition(".")
            if _ID.fullmatch(trial) and own:
                found.setdefault(trial, set()).add(own)
        return found

    def read_artifact(self, trial_id: str, name: str) -> bytes | None:
        return self._read(self.place("artifacts", trial_id, f".{name}"))

    # -- failures ----------------------------------------------------------------------------------------------

    def write_failure(self, trial_id: str, failure: dict[str, Any]) -> None:
        """Write the reason why the trial's last attempt failed."""
        self.write_file(self.place("failures", trial_id, ".json"), json.dumps(failure, indent=1).encode())

    def failed(self) -> set[str]:
        """The ids of trials whose last attempt failed."""
        return self._ids("failures", ".json")

    def failure(self, trial_id: str) -> dict[str, Any] | None:
        """The reason why the trial's last attempt failed, or None. It has an ``error``; its other keys are checked."""
        relative = self.place("failures", trial_id, ".json")
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

    # -- reports -----------------------------------------------------------------------------------------------

    def write_report(self, name: str, content: bytes) -> str:
        """Write a page into the store's folder of reports. Returns its path or URI.

        Raises:
            StoreError: it cannot be written.
        """
        path = self.write_file(f"reports/{name}", content)
        scheme, separator, _ = self.uri.partition("://")
        return path if scheme == "file" or not separator else f"{scheme}://{path}"

    # -- leases: clray.leases gives them their meaning ----------------------------------------------------------

    def leased(self) -> set[str]:
        """The ids of trials that have a lease: a process runs them, or died while it ran them."""
        return self._ids("claims", ".json")

    def read_lease(self, trial_id: str) -> StoredLease | None:
        """A trial's lease, or None."""
        relative = self.place("claims", trial_id, ".json")
        with self.problems(relative, "read"):
            return self.storage.read_lease(relative)

    def create_lease(self, trial_id: str, content: bytes) -> StoredLease | None:
        """Write a trial's lease where there is none. Returns None where there is one.

        One of several that try at once succeeds, on local disks, NFS and object stores.
        """
        relative = self.place("claims", trial_id, ".json")
        with self.problems(relative, "written"):
            return self.storage.create(relative, content)

    def renew_lease(self, trial_id: str, content: bytes, former: StoredLease) -> StoredLease | None:
        """Replace the lease that this process holds. Returns None where it is not ``former`` any more."""
        relative = self.place("claims", trial_id, ".json")
        with self.problems(relative, "written"):
            return self.storage.renew(relative, content, former)

    def take_over_lease(self, trial_id: str, content: bytes, former: StoredLease) -> StoredLease | None:
        """Replace the lease of a dead holder. Returns None where it is not ``former`` any more.

        One of several that try at once succeeds, on local disks, NFS and object stores.
        """
        relative = self.place("claims", trial_id, ".json")
        with self.problems(relative, "written"):
            return self.storage.take_over(relative, content, former)

    def delete_lease(self, trial_id: str, former: StoredLease) -> bool:
        """Delete a trial's lease. Returns False where it is not ``former`` any more."""
        relative = self.place("claims", trial_id, ".json")
        with self.problems(relative, "removed"):
            return self.storage.remove(relative, former)

    def require_writable(self) -> None:
        """Write a file of a few kilobytes, and remove it.

        Raises:
            StoreError: the store cannot be written.
        """
        probe = f"claims/.probe.{uuid.uuid4().hex[:8]}"
        self.write_file(probe, bytes(4096))
        with suppress(StoreError):
            self._delete(probe)

    def clock(self) -> float:
        """The time by the clock that sets the modification times of the store's files.

        The store's clock is read once in ten minutes; in between, this machine's monotonic clock measures the time.
        Where the store cannot be written, the result is this machine's time.
        """
        stopwatch = time.monotonic()
        if self._clock is None or not 0 <= stopwatch - self._clock[1] < _CLOCK_SECONDS:
            try:
                stamp = self.storage.stamp("claims/.clock")
            except OSError:
                stamp = None
            if stamp is None:
                return time.time()
            self._clock = (stamp, stopwatch)
        shown, then = self._clock
        return shown + stopwatch - then
