"""The results store: one Parquet record a trial, checkpoints and notes of failure beside them, on any file system.

Layout below the store's URI::

    records/ID.parquet       a finished trial: its measurements, and all that is known of it as metadata
    superseded/ID.CODE.parquet   its record of before it was run again; CODE is the digest of the code that made it
    running/ID.parquet       the same as a record for a trial in progress, replaced with each checkpoint
    checkpoints/ID.ckpt      what a trial in progress needs to continue; `.previous` is the one before
    artifacts/ID.NAME        a file that a finished trial left beside its record
    failures/ID.json         why a trial's last attempt failed
    claims/ID.json           who is running the trial; what it means is clray.claims's

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
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from clray import stored
from clray.errors import CheckpointError, DeclarationError, StateError, StoreError
from clray.metrics import Measurement, summarize
from clray.tracks import TRACKS
from clray.trial import Trial

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
_METADATA = b"clray"
_CHECKPOINT_MAGIC = b"clray checkpoint 1\n"
_CHECKPOINT_HEAD = len(_CHECKPOINT_MAGIC) + hashlib.sha256().digest_size
_PIECE = 2**20
"""Bytes that are read at once where a file is only gone through."""
_READERS = 16
"""Records that are read at once: on an object store nearly all of the time is waiting."""
_CLOCK_SECONDS = 600.0
"""So long the store's clock is told by this machine's stopwatch before the store is asked again."""
_OBJECT_STORES = ("s3", "gcs", "abfs")
_FOLDERS = ("records", "superseded", "running", "checkpoints", "failures", "claims", "artifacts")
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass
class Record:
    """A trial's measurements and all that is known about how they came to be.

    Attributes:
        id: the trial's id, ``trial.id(data["fingerprint"])``.
        trial: what was run.
        data: the data set it read: ``name``, ``source`` and ``fingerprint``.
        measurements: the long table that every published number is computed from.
        provenance: code, versions, machine and seconds (``clray.provenance``).
        status: ``finished``, ``running`` or ``diverged``: its loss or weights were not finite any more, so that it
            ended there; ``provenance["diverged"]`` holds the ``step``, the ``task`` (from 0) and ``what`` was not
            finite.
        variant: the name of its variant in the sweep that ran it first. A label: never part of the id.
        sweep: the name of that sweep. A label too.
    """

    id: str
    trial: Trial
    data: dict[str, Any]
    measurements: list[Measurement]
    provenance: dict[str, Any] = field(default_factory=dict)
    status: str = "finished"
    variant: str = ""
    sweep: str = ""

    @property
    def metrics(self) -> dict[str, float]:
        """The published metrics, as fractions; none of a trial that diverged, which has not learned all its tasks."""
        return {} if self.status == "diverged" else summarize(self.measurements)

    def to_table(self) -> pa.Table:
        import pyarrow as pa

        n = len(self.measurements)
        columns: list[Any] = list(zip(*self.measurements, strict=True)) or [()] * len(Measurement._fields)
        metadata = {
            "format": FORMAT,
            "id": self.id,
            "status": self.status,
            "sweep": self.sweep,
            "variant": self.variant,
            "trial": self.trial.model_dump(mode="json"),
            "data": self.data,
            "provenance": self.provenance,
        }
        repeated = pa.dictionary(pa.int32(), pa.string())
        return pa.table(
            {
                # The first three repeat in every row, so that a folder of records reads as one data set.
                "trial": pa.array([self.id] * n, repeated),
                "method": pa.array([self.trial.method] * n, repeated),
                "seed": pa.array([self.trial.seed] * n, pa.int64()),
                "step": pa.array(columns[0], pa.int64()),
                "trained_tasks": pa.array(columns[1], pa.int32()),
                "eval_task": pa.array(columns[2], pa.int32()),
                "metric": pa.array(columns[3], repeated),
                "value": pa.array(columns[4], pa.float64()),
            }
        ).replace_schema_metadata({_METADATA: json.dumps(metadata).encode()})

    @classmethod
    def from_table(cls, table: pa.Table, expected_id: str, measurements: bool = True) -> Record:
        """Read a record, and check all of it.

        Args:
            expected_id: the trial whose record it should be.
            measurements: whether to return them; they are checked in any case.

        Raises:
            ValueError, KeyError, TypeError, RecursionError: the table is no record of that trial.
        """
        raw = (table.schema.metadata or {}).get(_METADATA)
        if raw is None:
            raise ValueError("it carries no clray metadata")
        metadata = json.loads(raw)
        if metadata["format"] != FORMAT:
            raise ValueError(f"its format is {metadata['format']!s:.50}, this clray reads {FORMAT}")
        if metadata["id"] != expected_id:
            raise ValueError(f"it holds the trial {metadata['id']!s:.50}")
        if reason := stored.problem(stored.METADATA, metadata):
            raise ValueError(reason)
        trial = Trial(**metadata["trial"])
        if trial.track not in TRACKS:
            raise ValueError(f"trial.track: {trial.track!r:.50} is no track")
        fingerprint = metadata["data"].get("fingerprint")
        if fingerprint is None:
            raise ValueError("it does not say which data it read")
        if trial.id(fingerprint) != expected_id:
            raise ValueError("its id is not that of its declaration and data")
        finished, tasks = metadata["status"] == "finished", stored.task_count(trial.benchmark)
        if reason := stored.measurement_problem(table, tasks, finished):
            raise ValueError(reason)
        # Through NumPy: ten times as fast as Arrow's own lists, with the same values.
        columns = [table.column(name).to_numpy().tolist() for name in Measurement._fields] if measurements else []
        return cls(
            id=expected_id,
            trial=trial,
            data=metadata["data"],
            measurements=[Measurement(*row) for row in zip(*columns, strict=True)],
            provenance=metadata["provenance"],
            status=metadata["status"],
            variant=metadata["variant"],
            sweep=metadata["sweep"],
        )

    def check(self) -> None:
        """See that a reader will take this for a record.

        Raises:
            StateError: it will not: its trial came to what no trial may come to.
        """
        try:
            Record.from_table(self.to_table(), self.id)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise StateError(f"trial {self.id} came to what no record may hold: {error}") from error


@dataclass(frozen=True)
class Problem:
    """A file in the store that is not what it should be."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: skipped: {self.reason}"


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint as the store holds it.

    Attributes:
        path: where it lies.
        content: what was written, to be read before the next one is asked for; None where the file is torn.
    """

    path: str
    content: IO[bytes] | None


@dataclass(frozen=True)
class Claimed:
    """A claim as the store holds it: its bytes, and when they were written by the store's clock, where it has one."""

    content: bytes
    renewed: float | None


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
        self._intact: dict[str, Any] = {}
        """The stamps of checkpoints that this process has written or gone through, by their paths."""
        self._swept: set[str] = set()
        """The checkpoints beside which a dead process's unfinished ones were looked for."""
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

    # -- checkpoints -------------------------------------------------------------------------------------------

    def write_checkpoint(
        self, id: str, fill: Callable[[IO[bytes]], None], replace: bool = False,
        check: Callable[[IO[bytes]], None] | None = None,
    ) -> None:  # fmt: skip
        """Keep what ``fill`` writes as the trial's checkpoint, and the one before it in case this one is torn later.

        A local file is written piece by piece, so that a large state is not in memory twice. A torn checkpoint never
        takes the place of the intact one before it: at any moment one of the two is whole.

        Args:
            fill: writes the checkpoint.
            replace: the newest checkpoint is of no use to anybody, so that the one before is kept instead of it.
            check: looks at what was written before it counts, and raises where it is not to be kept.
        """
        relative = self._of("checkpoints", id, ".ckpt")
        path = self.path(relative)
        if path not in self._swept:
            self._swept.add(path)
            self._sweep(id, ("checkpoints",))  # one process at a time writes a trial's checkpoints

        def content(file: IO[bytes]) -> None:
            file.write(bytes(_CHECKPOINT_HEAD))
            hashed = _Hashed(file)
            fill(hashed)  # type: ignore[arg-type]
            if hashed.error is not None:
                raise hashed.error
            file.seek(0)
            file.write(_CHECKPOINT_MAGIC + hashed.digest.digest())
            if check is not None:
                check(io.BufferedReader(_Part(file)))

        self._write(relative, content, before=(lambda: None) if replace else (lambda: self._keep_former(path)))
        with suppress(OSError):  # without, it is gone through before it becomes the one before
            self._intact[path] = self._stamp(path)

    def _keep_former(self, path: str) -> None:
        """Make the newest checkpoint the one before, if it is intact."""
        stamp = self._stamp(path)
        if stamp is None:
            return
        if stamp != self._intact.get(path):
            with self._opened(path) as found:
                if found is None or found.content is None:
                    return
        if self._local:
            os.replace(path, f"{path}.previous")
        else:
            # Done by the store itself. Where it cannot (S3: objects over 5 GB) the net below is missing, no more.
            with suppress(OSError):
                self._fs.copy_file(path, f"{path}.previous")

    def _stamp(self, path: str) -> Any:
        """What changes when a file does; None where there is none."""
        info = self._fs.get_file_info(path)
        return (info.mtime_ns, info.size) if info.is_file else None

    @contextmanager
    def _opened(self, path: str) -> Iterator[StoredCheckpoint | None]:
        """A checkpoint, gone through once to see whether it is whole; None where there is none."""
        import pyarrow as pa

        try:
            source: Any
            if self._local:
                source = open(path, "rb")  # noqa: SIM115 - closed below
            else:
                with self._fs.open_input_stream(path) as stream:
                    source = pa.BufferReader(stream.read())
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error}") from error
        with source:
            try:
                whole = _is_whole(source)
                if whole:
                    self._intact[path] = self._stamp(path)
            except OSError as error:
                raise StoreError(f"{path}: cannot be read: {error}") from error
            yield StoredCheckpoint(path, io.BufferedReader(_Part(source)) if whole else None)

    def checkpoints(self, id: str) -> Iterator[StoredCheckpoint]:
        """The trial's checkpoints, the newest first, torn ones included."""
        path = self.path(self._of("checkpoints", id, ".ckpt"))
        for place in (path, f"{path}.previous"):
            with self._opened(place) as found:
                if found is not None:
                    yield found

    def checkpointed(self) -> set[str]:
        """The ids of trials that have a checkpoint; whether it is intact is found out when the trial is taken up."""
        return self._ids("checkpoints", ".ckpt", ".ckpt.previous")

    def delete_checkpoint(self, id: str) -> None:
        """Forget how far a trial came."""
        newest = self._of("checkpoints", id, ".ckpt")
        self._intact.pop(self.path(newest), None)
        for relative in (newest, f"{newest}.previous", self._of("running", id, ".parquet")):
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

    # -- claims ------------------------------------------------------------------------------------------------

    def claimed(self) -> set[str]:
        """The ids of trials that somebody claims, or claimed and died."""
        return self._ids("claims", ".json")

    def read_claim(self, id: str, stamped: bool = True) -> Claimed | None:
        """A trial's claim, or None.

        Args:
            stamped: whether to ask when it was renewed, which is another request on an object store.
        """
        relative = self._of("claims", id, ".json")
        path = self.path(relative)
        try:
            if self._local:
                # NFS asks its server anew when a file is opened, not when it is only looked at.
                with open(path, "rb") as file:
                    return Claimed(file.read(), os.fstat(file.fileno()).st_mtime)
            content = self._read(relative)
            stamp = self._fs.get_file_info(path).mtime_ns if stamped and content is not None else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error}") from error
        return None if content is None else Claimed(content, stamp / 1e9 if stamp else None)

    def add_claim(self, id: str, content: bytes) -> bool:
        """Write a trial's claim where there is none. Returns whether there was none.

        On a local file system and NFS one of several that try at once succeeds; elsewhere only within ``turn``.
        """
        path = self.path(self._of("claims", id, ".json"))
        if not self._local:
            if self.read_claim(id, stamped=False) is not None:
                return False
            self.renew_claim(id, content)
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

    def renew_claim(self, id: str, content: bytes) -> None:
        """Replace a trial's claim, whosoever it is."""
        relative = self._of("claims", id, ".json")
        if self._local:
            self._write(relative, content, flush=False)
        else:
            self._put(relative, content)

    def remove_claim(self, id: str, content: bytes) -> bool:
        """Remove a trial's claim if it still says ``content``. Returns whether this call removed it."""
        path = self.path(self._of("claims", id, ".json"))
        if not self._local:
            found = self.read_claim(id, stamped=False)
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
    def turn(self, id: str, patience: float) -> Iterator[bool]:
        """Within, nobody else reads a trial's claim in order to write it; False where somebody else is at it.

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


class _Hashed:
    """Takes what is written to a file, and its hash on the way.

    An error is kept and the rest dropped: torch cannot stop in the middle of a file, and would hide it.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, piece: Any) -> int:
        if self.error is None:
            try:
                self.file.write(piece)
                self.digest.update(piece)
            except OSError as error:
                self.error = error
        return memoryview(piece).nbytes

    def flush(self) -> None:
        pass


class _Part(io.RawIOBase):
    """A checkpoint's file from behind its head on."""

    def __init__(self, file: Any) -> None:
        self._file = file
        file.seek(_CHECKPOINT_HEAD)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset + _CHECKPOINT_HEAD if whence == 0 else offset, whence) - _CHECKPOINT_HEAD

    def tell(self) -> int:
        return self._file.tell() - _CHECKPOINT_HEAD


def _is_whole(file: Any) -> bool:
    """Whether a checkpoint's file is as it was written, by the hash in its head."""
    head, digest = file.read(_CHECKPOINT_HEAD), hashlib.sha256()
    while piece := file.read(_PIECE):
        digest.update(piece)
    return head == _CHECKPOINT_MAGIC + digest.digest()


_PLAIN = frozenset({bool, int, float, complex, str, bytes, type(None)})
_MAPPINGS = (dict, OrderedDict)
_NUMPY = "clray.numpy"
"""The key of what stands for a NumPy scalar or array, which torch does not read back by itself."""


def _without_numpy(value: Any, place: str) -> Any:
    """A state in which NumPy's scalars and arrays are described by what torch reads back.

    Raises:
        StateError: something in it cannot be read back; the error names its key.
    """
    import numpy as np
    import torch

    if isinstance(value, np.generic | np.ndarray):
        if value.dtype.kind not in "biufc":
            raise StateError(f"{place}: a NumPy {value.dtype} cannot be kept in a checkpoint")
        # As bytes where torch lacks the type, such as of most unsigned numbers; a scalar keeps its type: with a Python
        # number in its place a trial would go on with other bits.
        kept = np.ascontiguousarray(value)
        return {_NUMPY: value.dtype.str, "shape": list(value.shape), "scalar": isinstance(value, np.generic),
                "bytes": torch.from_numpy(kept.reshape(-1).view(np.uint8))}  # fmt: skip
    if type(value) in _MAPPINGS:
        for key in value:
            if isinstance(key, np.generic):
                raise StateError(f"{place}: its key {key!r} is a NumPy number: only Python's can be read back as keys")
        return _mapped(value, lambda key, item: _without_numpy(item, f"{place}.{key}"))
    if type(value) in (list, tuple):
        return _listed(value, lambda i, item: _without_numpy(item, f"{place}.{i}"))
    return value


def _with_numpy(value: Any) -> Any:
    """The inverse of ``_without_numpy``."""
    import numpy as np

    if type(value) in _MAPPINGS:
        if _NUMPY in value:
            array = value["bytes"].numpy().view(np.dtype(value[_NUMPY])).reshape(value["shape"])
            return array[()] if value["scalar"] else array
        return _mapped(value, lambda _, item: _with_numpy(item))
    if type(value) in (list, tuple):
        return _listed(value, lambda _, item: _with_numpy(item))
    return value


def _mapped(value: Any, change: Callable[[Any, Any], Any]) -> Any:
    """A mapping with changed items; itself where none changes, for torch's carry attributes besides their items."""
    items = [(key, item if type(item) in _PLAIN else change(key, item)) for key, item in value.items()]
    return type(value)(items) if any(item is not value[key] for key, item in items) else value


def _listed(value: Any, change: Callable[[int, Any], Any]) -> Any:
    """The same for a list or tuple, which may hold millions of numbers."""
    return type(value)([item if type(item) in _PLAIN else change(i, item) for i, item in enumerate(value)])


def write_state(id: str, state: dict[str, Any], file: IO[bytes]) -> None:
    """Write a trial's state into a file, the trial's id with it.

    Raises:
        StateError: something in it cannot be read back; the error names its key.
    """
    import torch

    torch.save({"id": id, "state": _without_numpy(state, "state")}, file)


def check_state(id: str, file: IO[bytes]) -> None:
    """Read back what ``write_state`` wrote, all but the numbers in its tensors.

    Raises:
        StateError: a continuation could not read it.
    """
    try:
        _loaded(id, file, "meta")
    except CheckpointError as error:
        raise StateError(
            f"{error}; a method's state may hold numbers, texts, NumPy arrays, tensors, and lists and mappings of these"
        ) from None


def read_state(id: str, file: IO[bytes]) -> dict[str, Any]:
    """The inverse of ``write_state``.

    Raises:
        CheckpointError: the file is no checkpoint, or one of another trial.
    """
    # To the CPU: whoever goes on may be on another device, and on the same there is no room for it twice.
    try:
        return _with_numpy(_loaded(id, file, "cpu"))
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"the checkpoint of trial {id} cannot be read: {error}") from None


def _loaded(id: str, file: IO[bytes], device: str) -> dict[str, Any]:
    import pickle
    import struct

    import torch

    try:
        loaded = torch.load(file, weights_only=True, map_location=device)
        owner, state = loaded["id"], loaded["state"]
    except (RuntimeError, EOFError, LookupError, TypeError, ValueError, struct.error, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"the checkpoint of trial {id} cannot be read: {reason}") from None
    if owner != id:
        raise CheckpointError(f"this is a checkpoint of trial {owner!s:.50}, not of {id}")
    return state
