"""The checkpoints of a trial: the newest and the one before it, each with a checksum around a state that torch wrote.

``checkpoints/ID.ckpt`` is the newest, ``checkpoints/ID.ckpt.previous`` the one before it.
"""

from __future__ import annotations

import hashlib
import io
import numbers
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

from clray.errors import CheckpointError, StateError
from clray.store import Store

_CHECKPOINT_MAGIC = b"clray checkpoint 1\n"
_CHECKPOINT_HEAD = len(_CHECKPOINT_MAGIC) + hashlib.sha256().digest_size
_PIECE = 2**20
"""Bytes that are read at once while a file is checked."""


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint as the store holds it.

    Attributes:
        path: its full path in the store.
        content: a file with the state, open until the next checkpoint is read; None where the checkpoint is torn.
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
        self._relative = store.place("checkpoints", trial_id, ".ckpt")
        self._trial_id, self._storage = trial_id, store.storage
        self._intact: Any = None
        """The version of the newest checkpoint that this process has written, or has found intact."""
        self._temporaries_removed = False
        """True after the unfinished files of dead processes were removed."""

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
            replace: overwrite the newest checkpoint, because it cannot be used, and keep the one before it.
            check: reads the state that was written, before readers can see it, and raises if it cannot be used.
        """
        if not self._temporaries_removed:
            self._temporaries_removed = True
            self._store.remove_temporaries(self._trial_id, ("checkpoints",))

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

        self._store.write_file(self._relative, content, before=None if replace else self._keep_former)
        with suppress(OSError):  # without it, the file is checked before it becomes the one before
            self._intact = self._storage.version(self._relative)

    def _keep_former(self) -> None:
        """Make the newest checkpoint the one before, if it is intact."""
        version = self._storage.version(self._relative)
        if version is None:
            return
        if version != self._intact:
            with self._opened(self._relative) as found:
                if found is None or found.content is None:
                    return
        self._storage.move(self._relative, f"{self._relative}.previous")

    @contextmanager
    def _opened(self, relative: str) -> Iterator[StoredCheckpoint | None]:
        """A checkpoint after a check of its hash; None where there is none."""
        with self._store.problems(relative, "read"):
            source = self._storage.open(relative)
        if source is None:
            yield None
            return
        with source:
            with self._store.problems(relative, "read"):
                whole = _is_whole(source)
                if whole and relative == self._relative:
                    self._intact = self._storage.version(relative)
            yield StoredCheckpoint(self._store.path(relative), io.BufferedReader(_Part(source)) if whole else None)

    def read(self) -> Iterator[StoredCheckpoint]:
        """The trial's checkpoints, the newest first, torn ones included."""
        for relative in (self._relative, f"{self._relative}.previous"):
            with self._opened(relative) as found:
                if found is not None:
                    yield found

    def codes(self) -> Iterator[str | None]:
        """The digests of the code that made the trial's checkpoints, the newest first; None where one is not readable.

        The numbers in them are not read, and their checksums are not compared.
        """
        for relative in (self._relative, f"{self._relative}.previous"):
            with self._store.problems(relative, "read"):
                source = self._storage.open(relative)
            if source is None:
                continue
            with source:
                try:
                    state = _loaded(self._trial_id, io.BufferedReader(_Part(source)), "meta")
                except CheckpointError:
                    yield None
                    continue
                code = state.get("code") if isinstance(state, dict) else None
            yield code if isinstance(code, str) else None


class _Hashed:
    """Writes to a file and hashes the bytes on the way.

    After an error it stores the error and drops the rest: torch cannot stop in the middle of a file, and would hide it.
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
    """The part of a checkpoint's file that follows the head."""

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
    """True if the hash in a checkpoint's head is that of the rest."""
    head, digest = file.read(_CHECKPOINT_HEAD), hashlib.sha256()
    while piece := file.read(_PIECE):
        digest.update(piece)
    return head == _CHECKPOINT_MAGIC + digest.digest()


_PLAIN = frozenset({bool, int, float, complex, str, bytes, type(None)})
_MAPPINGS = (dict, OrderedDict)
_NUMPY = "clray.numpy"
"""The key of a mapping that describes a NumPy scalar or array, which torch does not read back by itself."""


def _without_numpy(value: Any, place: str) -> Any:
    """Describe a state's NumPy scalars and arrays by values that torch reads back.

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
    """Change a mapping's items. Returns the same mapping where none changes: torch's have more than their items."""
    items = [(key, item if type(item) in _PLAIN else change(key, item)) for key, item in value.items()]
    return type(value)(items) if any(item is not value[key] for key, item in items) else value


def _listed(value: Any, change: Callable[[int, Any], Any]) -> Any:
    """Change the items of a list or tuple, which may hold millions of numbers."""
    return type(value)([item if type(item) in _PLAIN else change(i, item) for i, item in enumerate(value)])


_MAY_HOLD = "a method's state may hold numbers, texts, NumPy arrays, tensors, and lists and mappings of these"


def write_state(trial_id: str, state: dict[str, Any], file: IO[bytes]) -> None:
    """Write a trial's state and its id into a file.

    Raises:
        StateError: something in it cannot be written, or not be read back; the error names its key where it is known.
    """
    import torch

    plain = {"id": trial_id, "state": _without_numpy(state, "state")}
    try:
        torch.save(plain, file)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise StateError(f"the trial's state cannot be written: {error}; {_MAY_HOLD}") from error


def check_state(trial_id: str, file: IO[bytes]) -> None:
    """Read the output of ``write_state`` back, except the numbers in its tensors.

    Raises:
        StateError: a continuation could not read it.
    """
    try:
        _loaded(trial_id, file, "meta")
    except CheckpointError as error:
        raise StateError(f"{error}; {_MAY_HOLD}") from None


def read_state(trial_id: str, file: IO[bytes]) -> dict[str, Any]:
    """The inverse of ``write_state``.

    Raises:
        CheckpointError: the file is no checkpoint, or one of another trial.
    """
    # To the CPU: the continuation may use another device, and on the same one there is no room for the state twice.
    try:
        return _with_numpy(_loaded(trial_id, file, "cpu"))
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"the checkpoint of trial {trial_id} cannot be read: {error}") from None


def _loaded(trial_id: str, file: IO[bytes], device: str) -> dict[str, Any]:
    import pickle
    import struct

    import torch

    try:
        loaded = torch.load(file, weights_only=True, map_location=device)
        owner, state = loaded["id"], loaded["state"]
    except (RuntimeError, EOFError, LookupError, TypeError, ValueError, struct.error, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"the checkpoint of trial {trial_id} cannot be read: {reason}") from None
    if owner != trial_id:
        raise CheckpointError(f"this is a checkpoint of trial {owner!s:.50}, not of {trial_id}")
    return state


def outline(state: Any) -> Any:
    """The types within a state: of a mapping by key, of a list or tuple in order."""
    if isinstance(state, dict):
        return {key: outline(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [outline(value) for value in state]
    return type(state)


def differs(outline: Any, state: Any, place: str) -> str:
    """Say where a state differs in type from the state of a new trial; empty where it can be a later state of it.

    A value that is empty or None in the new trial may be anything later, and a number may become a fraction.
    """
    if isinstance(outline, dict):
        if not isinstance(state, dict):
            return f"{place}: expected a mapping, not {type(state).__name__}"
        pairs = [(key, outline[key], state[key]) for key in outline if key in state]
    elif isinstance(outline, list):
        if not isinstance(state, list | tuple):
            return f"{place}: expected a list, not {type(state).__name__}"
        pairs = [(i, one, other) for i, (one, other) in enumerate(zip(outline, state, strict=False))]
    elif outline is type(None) or _kind(outline) == _kind(type(state)):
        return ""
    else:
        return f"{place}: expected {outline.__name__}, not {type(state).__name__}"
    return next(filter(None, (differs(one, other, f"{place}.{key}") for key, one, other in pairs)), "")


def _kind(of: type) -> Any:
    """A type, for comparison: numbers are alike, and so are the forms of an array."""
    if issubclass(of, bool):
        return bool
    if issubclass(of, numbers.Number):
        return numbers.Number
    return "array" if of.__name__ in ("Tensor", "Parameter", "ndarray") else of
