"""The results store: one Parquet record a trial, checkpoints and notes of failure beside them, on any file system.

Layout below the store's URI::

    records/ID.parquet       a finished trial: its measurements, and all that is known of it as metadata
    running/ID.parquet       the same for a trial in progress, replaced at each of its stops
    checkpoints/ID.ckpt      what a trial in progress needs to continue; `.previous` is the one before
    failures/ID.json         why a trial's last attempt failed
    claims/ID.json           who is running the trial; what it means is clray.claims's

Every file is written to a temporary name, flushed, and renamed: a reader sees the old file, the new one or none.
The store is the only truth about what is finished, half-done or to do.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import posixpath
import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clray.errors import CheckpointError, StoreError
from clray.metrics import Measurement, summarize
from clray.spec import Trial

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
_METADATA = b"clray"
_CHECKPOINT_MAGIC = b"clray checkpoint 1\n"


@dataclass
class Record:
    """A trial's measurements and all that is known about how they came to be.

    Attributes:
        id: the trial's id, ``trial.id(data["fingerprint"])``.
        trial: what was run.
        data: the data set it read: ``name``, ``source`` and ``fingerprint``.
        measurements: the long table that every published number is computed from.
        provenance: code, versions, machine and seconds (``clray.provenance``).
        status: ``finished`` or ``running``.
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
        """The published metrics, as fractions."""
        return summarize(self.measurements)

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
    def from_table(cls, table: pa.Table, expected_id: str) -> Record:
        """Raises ValueError, KeyError or TypeError where the table is no record of the trial ``expected_id``."""
        raw = (table.schema.metadata or {}).get(_METADATA)
        if raw is None:
            raise ValueError("it carries no clray metadata")
        metadata = json.loads(raw)
        if metadata["format"] != FORMAT:
            raise ValueError(f"its format is {metadata['format']}, this clray reads {FORMAT}")
        if metadata["id"] != expected_id:
            raise ValueError(f"it holds the trial {metadata['id']}")
        columns = [table.column(name).to_pylist() for name in Measurement._fields]
        return cls(
            id=metadata["id"],
            trial=Trial(**metadata["trial"]),
            data=metadata["data"],
            measurements=[Measurement(*row) for row in zip(*columns, strict=True)],
            provenance=metadata["provenance"],
            status=metadata["status"],
            variant=metadata["variant"],
            sweep=metadata["sweep"],
        )


@dataclass(frozen=True)
class Problem:
    """A file in the store that is not what it should be."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: skipped: {self.reason}"


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
                self._fs, self._root = fs.FileSystem.from_uri(text)
                self.uri = text
            else:
                self._root = str(Path(text).expanduser().resolve())
                self._fs, self.uri = fs.LocalFileSystem(), self._root
        except (pa.ArrowException, OSError, ValueError) as error:
            raise StoreError(f"{text}: cannot be opened as a results store: {error}") from None
        self._local = isinstance(self._fs, fs.LocalFileSystem)
        self._root = self._root.rstrip("/")

    def path(self, *parts: str) -> str:
        """Where a file of the store lies, for a message or a link."""
        return posixpath.join(self._root, *parts)

    # -- bytes -------------------------------------------------------------------------------------------------

    def _write(self, relative: str, content: bytes, flush: bool = True) -> str:
        """Write a file whole or not at all; unless flushed, it may be gone after a power failure."""
        path = self.path(relative)
        folder, name = posixpath.split(path)
        temporary = posixpath.join(folder, f".{name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            self._fs.create_dir(folder, recursive=True)
            try:
                if self._local:
                    with open(temporary, "wb") as file:
                        file.write(content)
                        file.flush()
                        if flush:
                            os.fsync(file.fileno())
                    os.replace(temporary, path)
                else:
                    with self._fs.open_output_stream(temporary) as stream:
                        stream.write(content)
                    self._fs.move(temporary, path)
            except BaseException:
                with suppress(StoreError):  # what went wrong first is what has to be told
                    self._delete(temporary)
                raise
        except OSError as error:
            raise StoreError(f"{path}: cannot be written: {error}") from error
        return path

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

    def _names(self, folder: str, ending: str) -> list[str]:
        from pyarrow import fs

        try:
            entries = self._fs.get_file_info(fs.FileSelector(self.path(folder), allow_not_found=True))
        except OSError as error:
            raise StoreError(f"{self.path(folder)}: cannot be listed: {error}") from error
        names = [e.base_name for e in entries if e.type == fs.FileType.File]
        return sorted(n.removesuffix(ending) for n in names if n.endswith(ending) and not n.startswith("."))

    # -- records -----------------------------------------------------------------------------------------------

    def write(self, record: Record) -> str:
        """Write a record, and for a finished trial remove what only its continuation needed. Returns the path."""
        import pyarrow.parquet as pq

        buffer = io.BytesIO()
        pq.write_table(record.to_table(), buffer, compression="zstd")
        if record.status != "finished":
            return self._write(f"running/{record.id}.parquet", buffer.getvalue())
        path = self._write(f"records/{record.id}.parquet", buffer.getvalue())
        for leftover in (
            f"running/{record.id}.parquet",
            f"checkpoints/{record.id}.ckpt",
            f"checkpoints/{record.id}.ckpt.previous",
            f"failures/{record.id}.json",
        ):
            self._delete(self.path(leftover))
        self._sweep(record.id)
        return path

    def _sweep(self, id: str) -> None:
        """Remove what processes that were killed in the middle of a write have left of a trial."""
        if self._local:
            for folder in ("records", "running", "checkpoints", "failures", "claims", "artifacts"):
                for temporary in Path(self.path(folder)).glob(f".{id}.*.tmp"):
                    self._delete(str(temporary))

    def read(self, id: str, folder: str = "records") -> Record | Problem | None:
        """The record of a trial: None where there is none, a Problem where the file is torn or foreign."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        relative = f"{folder}/{id}.parquet"
        content = self._read(relative)
        if content is None:
            return None
        try:
            return Record.from_table(pq.read_table(io.BytesIO(content)), id)
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            return Problem(self.path(relative), f"not a readable record: {reason}")

    def finished(self) -> set[str]:
        """The ids that have a record, readable or not."""
        return set(self._names("records", ".parquet"))

    def running(self) -> set[str]:
        """The ids of trials that were begun and left notes of their progress."""
        return set(self._names("running", ".parquet"))

    def records(self, folder: str = "records") -> tuple[list[Record], list[Problem]]:
        """Every readable record, and every file that is none."""
        found: list[Record] = []
        problems: list[Problem] = []
        for id in self._names(folder, ".parquet"):
            match self.read(id, folder):
                case Record() as record:
                    found.append(record)
                case Problem() as problem:
                    problems.append(problem)
        return found, problems

    # -- checkpoints -------------------------------------------------------------------------------------------

    def write_checkpoint(self, id: str, content: bytes) -> None:
        """Keep ``content`` as the trial's checkpoint, and the one before it in case this one turns out torn."""
        relative = f"checkpoints/{id}.ckpt"
        earlier = self._read(relative)
        if earlier is not None:
            self._write(f"{relative}.previous", earlier)
        self._write(relative, _CHECKPOINT_MAGIC + hashlib.sha256(content).digest() + content)

    def checkpoints(self, id: str) -> Iterator[bytes]:
        """The trial's intact checkpoints, the newest first."""
        for relative in (f"checkpoints/{id}.ckpt", f"checkpoints/{id}.ckpt.previous"):
            raw = self._read(relative)
            if raw is None:
                continue
            digest, content = raw[len(_CHECKPOINT_MAGIC) :][:32], raw[len(_CHECKPOINT_MAGIC) + 32 :]
            if raw.startswith(_CHECKPOINT_MAGIC) and hashlib.sha256(content).digest() == digest:
                yield content

    def has_checkpoint(self, id: str) -> bool:
        """Whether the trial can be continued."""
        return next(self.checkpoints(id), None) is not None

    def delete_checkpoint(self, id: str) -> None:
        """Forget how far a trial came."""
        for relative in (f"checkpoints/{id}.ckpt", f"checkpoints/{id}.ckpt.previous", f"running/{id}.parquet"):
            self._delete(self.path(relative))

    # -- artifacts ---------------------------------------------------------------------------------------------

    def write_artifact(self, id: str, name: str, content: bytes) -> None:
        """Keep a file that a trial made beside its record, such as the weights of its network."""
        self._write(f"artifacts/{id}.{name}", content)

    def artifacts(self, id: str) -> list[str]:
        """The names of what is kept of a trial beside its record."""
        return [name.removeprefix(f"{id}.") for name in self._names("artifacts", "") if name.startswith(f"{id}.")]

    def read_artifact(self, id: str, name: str) -> bytes | None:
        return self._read(f"artifacts/{id}.{name}")

    # -- failures ----------------------------------------------------------------------------------------------

    def write_failure(self, id: str, failure: dict[str, Any]) -> None:
        """Keep why the trial's last attempt failed."""
        self._write(f"failures/{id}.json", json.dumps(failure, indent=1).encode())

    def failed(self) -> set[str]:
        """The ids of trials whose last attempt failed."""
        return set(self._names("failures", ".json"))

    def failure(self, id: str) -> dict[str, Any] | None:
        """Why the trial's last attempt failed, or None."""
        raw = self._read(f"failures/{id}.json")
        if raw is None:
            return None
        try:
            return json.loads(raw)
        except ValueError:
            return {"error": f"{self.path(f'failures/{id}.json')}: torn"}

    # -- claims ------------------------------------------------------------------------------------------------

    def claimed(self) -> set[str]:
        """The ids of trials that somebody claims, or claimed and died."""
        return set(self._names("claims", ".json"))

    def read_claim(self, id: str) -> Claimed | None:
        """A trial's claim, or None."""
        path = self.path(f"claims/{id}.json")
        try:
            if self._local:
                # NFS asks its server anew when a file is opened, not when it is only looked at.
                with open(path, "rb") as file:
                    return Claimed(file.read(), os.fstat(file.fileno()).st_mtime)
            content = self._read(f"claims/{id}.json")
            stamp = self._fs.get_file_info(path).mtime_ns if content is not None else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error}") from error
        return None if content is None else Claimed(content, stamp / 1e9 if stamp else None)

    def add_claim(self, id: str, content: bytes) -> bool:
        """Write a trial's claim where there is none. Returns whether there was none.

        On a local file system and NFS one of several that try at once succeeds; elsewhere only within ``turn``.
        """
        path = self.path(f"claims/{id}.json")
        if not self._local:
            if self.read_claim(id) is not None:
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
        relative = f"claims/{id}.json"
        if self._local:
            self._write(relative, content, flush=False)
        else:
            self._put(relative, content)

    def remove_claim(self, id: str, content: bytes) -> bool:
        """Remove a trial's claim if it still says ``content``. Returns whether this call removed it."""
        path = self.path(f"claims/{id}.json")
        if not self._local:
            found = self.read_claim(id)
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
            self._fs.create_dir(posixpath.dirname(path), recursive=True)
            with self._fs.open_output_stream(path) as stream:
                stream.write(content)
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
        """What time it is by the clock that stamps this store's files; where nothing can be written, by our own."""
        probe = f"claims/.clock.{uuid.uuid4().hex[:8]}"
        try:
            self._put(probe, b"")
            stamp = self._fs.get_file_info(self.path(probe)).mtime_ns
            self._delete(self.path(probe))
        except (OSError, StoreError):
            return time.time()
        return stamp / 1e9 if stamp else time.time()


def checkpoint_bytes(id: str, state: dict[str, Any]) -> bytes:
    """A trial's state as bytes, the trial's id with it."""
    import torch

    buffer = io.BytesIO()
    torch.save({"id": id, "state": state}, buffer)
    return buffer.getvalue()


def checkpoint_state(id: str, content: bytes) -> dict[str, Any]:
    """The inverse of ``checkpoint_bytes``.

    Raises:
        CheckpointError: the bytes are no checkpoint, or one of another trial.
    """
    import pickle
    import struct

    import torch

    try:
        # To the CPU: whoever goes on may be on another device, and on the same there is no room for it twice.
        loaded = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        owner, state = loaded["id"], loaded["state"]
    except (RuntimeError, EOFError, LookupError, TypeError, ValueError, struct.error, pickle.UnpicklingError) as error:
        raise CheckpointError(f"the checkpoint of trial {id} cannot be read: {error}") from None
    if owner != id:
        raise CheckpointError(f"this is a checkpoint of trial {owner}, not of {id}")
    return state
