"""The checkpoints of a trial: a file with a checksum, the one before it, and the state within, which torch writes.

``checkpoints/ID.ckpt`` is the newest, ``checkpoints/ID.ckpt.previous`` the one before it.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

from clray.errors import CheckpointError, StateError, StoreError
from clray.store import Store

_CHECKPOINT_MAGIC = b"clray checkpoint 1\n"
_CHECKPOINT_HEAD = len(_CHECKPOINT_MAGIC) + hashlib.sha256().digest_size
_PIECE = 2**20
"""Bytes that are read at once while a file is checked."""


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint as the store holds it.

    Attributes:
        path: where it lies.
        content: what was written, to be read before the next one is asked for; None where the file is torn.
    """

    path: str
    content: IO[bytes] | None


class Checkpoints:
    """The checkpoints of one trial. One process at a time writes them."""

    def __init__(self, store: Store, trial_id: str) -> None:
        """Names the files; nothing is read or written yet.

        Raises:
            DeclarationError: ``trial_id`` is no trial's id.
        """
        self._store = store
        self._relative = store._of("checkpoints", trial_id, ".ckpt")
        self._trial_id, self._path = trial_id, store.path(self._relative)
        self._intact: Any = None
        """The stamp of the newest checkpoint, where this process has written or checked it."""
        self._swept = False
        """The files that a dead process left unfinished were removed."""

    def write(
        self,
        fill: Callable[[IO[bytes]], None],
        replace: bool = False,
        check: Callable[[IO[bytes]], None] | None = None,
    ) -> None:
        """Write the trial's newest checkpoint, and keep the one before it in case this one is torn later.

        A local file is written piece by piece, so that a large state is not in memory twice. A torn checkpoint never
        takes the place of the intact one before it: at any moment one of the two is whole.

        Args:
            fill: writes the checkpoint.
            replace: the newest checkpoint is of no use to anybody, so that the one before is kept instead of it.
            check: looks at what was written before it counts, and raises where it is not to be kept.
        """
        if not self._swept:
            self._swept = True
            self._store._sweep(self._trial_id, ("checkpoints",))

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

        self._store._write(self._relative, content, before=(lambda: None) if replace else self._keep_former)
        with suppress(OSError):  # without a stamp, it is checked before it becomes the one before
            self._intact = self._stamp()

    def _keep_former(self) -> None:
        """Make the newest checkpoint the one before, if it is intact."""
        stamp = self._stamp()
        if stamp is None:
            return
        if stamp != self._intact:
            with self._opened(self._path) as found:
                if found is None or found.content is None:
                    return
        if self._store._local:
            os.replace(self._path, f"{self._path}.previous")
        else:
            # The store copies it. Where it cannot (S3: objects over 5 GB) there is no checkpoint before the newest.
            with suppress(OSError):
                self._store._fs.copy_file(self._path, f"{self._path}.previous")

    def _stamp(self) -> Any:
        """The newest checkpoint's time and size, which change when it does; None where there is none."""
        info = self._store._fs.get_file_info(self._path)
        return (info.mtime_ns, info.size) if info.is_file else None

    @contextmanager
    def _opened(self, path: str) -> Iterator[StoredCheckpoint | None]:
        """A checkpoint, gone through once to see whether it is whole; None where there is none."""
        import pyarrow as pa

        try:
            source: Any
            if self._store._local:
                source = open(path, "rb")  # noqa: SIM115 - closed below
            else:
                with self._store._fs.open_input_stream(path) as stream:
                    source = pa.BufferReader(stream.read())
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error}") from error
        with source:
            try:
                whole = _is_whole(source)
                if whole and path == self._path:
                    self._intact = self._stamp()
            except OSError as error:
                raise StoreError(f"{path}: cannot be read: {error}") from error
            yield StoredCheckpoint(path, io.BufferedReader(_Part(source)) if whole else None)

    def read(self) -> Iterator[StoredCheckpoint]:
        """The trial's checkpoints, the newest first, torn ones included."""
        for path in (self._path, f"{self._path}.previous"):
            with self._opened(path) as found:
                if found is not None:
                    yield found


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
