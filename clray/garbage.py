"""Finds and deletes the files that a results store does not need any more, and unused files of the cache.

Nothing is deleted that a launch from this checkout would read: finished records, the checkpoints from which a half-done
trial continues, what a live lease holds. Files that clray did not write are left alone.
"""

from __future__ import annotations

import re
import shutil
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from clray import cache
from clray.checkpoints import Checkpoints
from clray.equal_code import is_equal
from clray.errors import ClrayError, StoreError
from clray.leases import Lease, LeaseMonitor, RunsElsewhere, acquire
from clray.provenance import code_digest, is_fresh
from clray.record import Record
from clray.storage import StoredFile
from clray.store import Store
from clray.trial import Trial

KINDS = {
    "checkpoints": "checkpoints, progress and failures of trials that are finished",
    "stale": "checkpoints that other code than this made: a launch from here would begin these trials anew",
    "temporary": "unfinished files that killed processes left, untouched for an hour",
    "superseded": "the earlier records of trials that were run again",
    "leases": "leases whose process is gone",
    "cache": "decoded data sets in this machine's cache that were not read for a long time; they are decoded again",
}
"""The kinds of garbage."""
UNUSED_DAYS = 90
"""A decoded data set in the cache that was not read for so many days counts as unused."""
_ABANDONED_SECONDS = 3600.0
_OF_TRIALS = ("checkpoints", "stale", "leases")
"""The kinds that are deleted under a lease on their trial."""
_FOLDERS = ("records", "superseded", "running", "checkpoints", "failures", "claims", "artifacts", "reports")
_TEMPORARY = re.compile(r"\.((?P<name>.+)\.)?[0-9a-f]{8}\.tmp")
_PROBE = re.compile(r"\.probe\.[0-9a-f]{8}")
_OF_TRIAL = re.compile(r"(?P<id>[0-9a-f]{16})\..+")


@dataclass(frozen=True)
class Garbage:
    """A file that is not needed any more; of the cache, a folder.

    Attributes:
        kind: a key of ``KINDS``.
        path: its full path.
        size: in bytes.
        relative: its path below the store's root; empty for a folder of the cache.
        trial: the id of its trial; empty where it belongs to none.
    """

    kind: str
    path: str
    size: int
    relative: str = ""
    trial: str = ""


@dataclass(frozen=True)
class Found:
    """The garbage of a store.

    Attributes:
        garbage: in the order of ``KINDS``.
        held: the live leases on trials that were passed over.
    """

    garbage: list[Garbage]
    held: list[Lease]


@dataclass
class Deleted:
    """The result of a deletion; ``passed_over`` holds the reasons by trial why files of it were not deleted."""

    garbage: list[Garbage] = field(default_factory=list)
    passed_over: dict[str, str] = field(default_factory=dict)


def find(store: Store, kinds: Collection[str] = tuple(KINDS), unused_days: float = UNUSED_DAYS) -> Found:
    """Look for garbage of some kinds. Nothing is deleted.

    Args:
        unused_days: see ``UNUSED_DAYS``.

    Raises:
        StoreError: the store cannot be read.
    """
    look = _Look(store)
    found: list[Garbage] = []
    if not set(_OF_TRIALS).isdisjoint(kinds):
        found += [garbage for trial in look.trials() for garbage in look.of_trial(trial)]
    if "temporary" in kinds:
        found += look.temporaries()
    if "superseded" in kinds:
        found += look.superseded()
    if "cache" in kinds:
        found += [Garbage("cache", str(path), size) for path, size in cache.unused(unused_days)]
    order = list(KINDS)
    wanted = sorted((one for one in found if one.kind in kinds), key=lambda one: (order.index(one.kind), one.path))
    return Found(wanted, sorted(look.held.values(), key=lambda lease: lease.trial))


class _Look:
    """One look at a store: the listings of its folders, and its live leases."""

    def __init__(self, store: Store) -> None:
        self._store, self._monitor = store, LeaseMonitor(store)
        self._files: dict[str, dict[str, StoredFile]] = {}
        self.held: dict[str, Lease] = {}
        """The live leases found so far, by trial."""
        self._free: set[str] = set()

    def files(self, folder: str) -> dict[str, StoredFile]:
        """The files of a folder by their names."""
        if folder not in self._files:
            self._files[folder] = {file.name: file for file in self._store.files(folder)}
        return self._files[folder]

    def trials(self) -> list[str]:
        """The trials that have a checkpoint, a record of their progress, a failure or a lease."""
        endings = {
            "checkpoints": (".ckpt", ".ckpt.previous"), "running": (".parquet",), "failures": (".json",),
            "claims": (".json",),
        }  # fmt: skip
        names = (name.removesuffix(end) for f, ends in endings.items() for name in self.files(f) for end in ends
                 if name.endswith(end))  # fmt: skip
        return sorted({name for name in names if re.fullmatch(r"[0-9a-f]{16}", name)})

    def is_free(self, trial: str) -> bool:
        """True where no live process holds a lease on a trial, and no file of a stranger is in the lease's place."""
        if trial in self.held:
            return False
        if trial not in self._free and f"{trial}.json" in self.files("claims"):
            found = self._store.read_lease(trial)
            if found is not None:
                lease = Lease.from_bytes(trial, found.content)
                if lease.foreign:
                    return False
                if not self._monitor.is_dead(lease, found):
                    self.held[trial] = lease
                    return False
        self._free.add(trial)
        return True

    def of_trial(self, trial: str) -> Iterator[Garbage]:
        """The garbage of a trial that no process runs; none where one does."""
        if not self.is_free(trial):
            return
        yield from self.progress_of(trial)
        yield from self._garbage("leases", trial, f"claims/{trial}.json")

    def progress_of(self, trial: str) -> Iterator[Garbage]:
        """The checkpoints, the progress and the failure of a trial, where no launch from here would read them."""
        record = self._store.read(trial, measurements=False)
        progress = [f"checkpoints/{trial}.ckpt", f"checkpoints/{trial}.ckpt.previous", f"running/{trial}.parquet"]
        if isinstance(record, Record):
            failure = self._store.failure(trial) if f"{trial}.json" in self.files("failures") else None
            if failure and failure.get("time", float("inf")) <= record.provenance.get("saved", 0.0):
                yield from self._garbage("checkpoints", trial, f"failures/{trial}.json")
        elif record is not None:
            return  # a record that cannot be read: whatever else there is of the trial may be all that is left of it
        kind = self._kind_of_progress(trial, record)
        if kind:
            yield from self._garbage(kind, trial, *progress)

    def _kind_of_progress(self, trial: str, record: Record | None) -> str:
        """The kind of garbage that a trial's checkpoints are; empty where a launch may read them.

        Args:
            record: the trial's, where it is finished.
        """
        begun = self._store.read(trial, "running", measurements=False)
        code = begun.provenance.get("code") if isinstance(begun, Record) else None
        if record is not None:
            if isinstance(begun, Record) and begun.provenance.get("again"):
                return ""  # it was being run again for the files that its sweep asks for
            made_by = record.provenance.get("code")
            kind = "checkpoints" if code is None or is_equal(code, made_by) else "stale"
            if is_fresh(record) or self._of_other_code(trial, record.trial):
                return kind
            # Code that made the record does not run the trial again, and other code passes over these.
            by = {code, *Checkpoints(self._store, trial).codes()}
            return "checkpoints" if by == {made_by} else ""
        if not isinstance(begun, Record):
            return ""  # without it nobody can tell which code would continue the trial
        return "stale" if self._of_other_code(trial, begun.trial, code) else ""

    def _of_other_code(self, trial: str, declared: Trial, code: str | None = None) -> bool:
        """True where no checkpoint of a trial is one from which the code here would continue.

        Args:
            code: the code that its progress names; where this is the code here, no checkpoint has to be read.
        """
        try:
            here = code_digest(declared)
        except (ClrayError, KeyError, TypeError, OSError):
            return False  # such as a method of another checkout, which can continue it
        return code != here and not {here, None} & set(Checkpoints(self._store, trial).codes())

    def temporaries(self) -> Iterator[Garbage]:
        """Files that a writer has begun and never finished."""
        for folder in _FOLDERS:
            for file in self.files(folder).values():
                trial = _trial_of_temporary(folder, file.name)
                if trial is None or file.mtime is None:
                    continue
                if self._store.clock() - file.mtime > _ABANDONED_SECONDS and (not trial or self.is_free(trial)):
                    yield from self._garbage("temporary", trial, f"{folder}/{file.name}")

    def superseded(self) -> Iterator[Garbage]:
        """The earlier records of trials that have a present one, and the files that were kept beside them."""
        by_trial: dict[str, list[str]] = defaultdict(list)
        for name in self.files("superseded"):
            if match := _OF_TRIAL.fullmatch(name):
                by_trial[match["id"]].append(name)
        for trial, names in sorted(by_trial.items()):
            if not isinstance(self._store.read(trial, measurements=False), Record) or not self.is_free(trial):
                continue
            for earlier in self._store.superseded(trial, names):
                if isinstance(earlier.record, Record):
                    stem = earlier.relative.removesuffix("parquet")
                    yield from self._garbage("superseded", trial, earlier.relative, *(stem + n for n in earlier.files))

    def _garbage(self, kind: str, trial: str, *relatives: str) -> Iterator[Garbage]:
        """Those of some files that exist."""
        for relative in relatives:
            folder, _, name = relative.partition("/")
            file = self.files(folder).get(name)
            if file is not None:
                yield Garbage(kind, self._store.path(relative), file.size, relative, trial)


def _trial_of_temporary(folder: str, name: str) -> str | None:
    """The id of the trial of an unfinished file, empty where it does not tell; None for any other file.

    A name that clray would not have given to an unfinished file in this folder belongs to somebody else.
    """
    if folder == "claims" and _PROBE.fullmatch(name):
        return ""
    match = _TEMPORARY.fullmatch(name)
    if match is None:
        return None
    whole = match["name"]
    if whole is None or folder == "reports":
        return ""
    of_trial = _OF_TRIAL.fullmatch(whole)
    return of_trial["id"] if of_trial else None


def delete(store: Store, garbage: Sequence[Garbage]) -> Deleted:
    """Delete garbage that ``find`` has found, as far as it still is garbage.

    What belongs to the progress of a trial is deleted while this process holds the lease on the trial, after another
    look at it: so no process can take the trial up in the meantime.

    Raises:
        StoreError: something could not be deleted.
    """
    done = Deleted()
    by_trial: dict[str, list[Garbage]] = defaultdict(list)
    others = [one for one in garbage if one.relative and one.kind not in _OF_TRIALS]
    for one in garbage:
        if one.kind in _OF_TRIALS:
            by_trial[one.trial].append(one)
    for trial, of_trial in by_trial.items():
        _delete_of_trial(store, trial, of_trial, done)
    _delete_files(store, others, done)
    for one in garbage:
        if not one.relative:
            _delete_folder(one, done)
    return done


def _delete_of_trial(store: Store, trial: str, garbage: Sequence[Garbage], done: Deleted) -> None:
    try:
        holder = acquire(store, trial, f"clray gc {uuid.uuid4().hex}")
    except RunsElsewhere as elsewhere:
        done.passed_over[trial] = f"{elsewhere.lease.owner} has taken it up meanwhile"
        return
    try:
        still = {one.relative: one.kind for one in _Look(store).progress_of(trial)}
        _delete_files(store, [one for one in garbage if still.get(one.relative) == one.kind], done)
    finally:
        holder.release()
    done.garbage += [one for one in garbage if one.kind == "leases"]  # it was taken over, and released


def _delete_files(store: Store, garbage: Sequence[Garbage], done: Deleted) -> None:
    """Delete files, and check that they are gone: a storage passes over files that may not be deleted.

    Raises:
        StoreError: some of them are still there.
    """
    if not garbage:
        return
    store.delete_files([one.relative for one in garbage])
    folders = {one.relative.partition("/")[0] for one in garbage}
    there = {f"{folder}/{file.name}" for folder in folders for file in store.files(folder)}
    left = [one for one in garbage if one.relative in there]
    done.garbage += [one for one in garbage if one.relative not in there]
    if left:
        more = f", and {len(left) - 1} more" if len(left) > 1 else ""
        raise StoreError(f"{left[0].path}: cannot be deleted{more}: this user may not delete there")


def _delete_folder(one: Garbage, done: Deleted) -> None:
    try:
        with suppress(FileNotFoundError):
            shutil.rmtree(one.path)
    except OSError as error:
        raise StoreError(f"{one.path}: cannot be deleted: {error.strerror or error}") from None
    done.garbage.append(one)


def total(garbage: Iterable[Garbage]) -> int:
    """The bytes of some garbage."""
    return sum(one.size for one in garbage)
