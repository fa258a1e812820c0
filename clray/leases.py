"""Who runs which trial: leases in the store, through which launches that share a store share its work.

A lease saves work, and nothing hangs on it but work: records and checkpoints are written whole, and two runs of a trial
write the same numbers. Where a file system cannot keep two launches apart, the worst is a trial that is run twice.

Whoever runs a trial holds its lease, ``claims/ID.json``, and renews it every ten seconds. A lease is dead, and may be
taken over, when

- it is of the same launch: Ray starts a trial again only once it has lost the process that ran it;
- its process ran on this machine, and is gone;
- nobody has renewed it for 45 seconds, by the clock of the store, which stamps every file itself, or by the reader's
  own stopwatch. No clock of one machine is ever compared with another's, and a stamp from the future is no evidence;
- it is nothing that clray wrote.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import socket
import threading
import time
import uuid
import weakref
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from clray import stored
from clray.errors import ClrayError, StoreError
from clray.store import Store, StoredLease

HEARTBEAT_SECONDS = 10.0
SILENCE_SECONDS = 45.0
"""A lease that was not renewed for so long is dead. Several heartbeats: a step may hold the interpreter for a while."""
_ATTEMPTS = 5


class RunsElsewhere(ClrayError):
    """Somebody else is running the trial.

    Attributes:
        lease: of who does.
    """

    def __init__(self, lease: Lease) -> None:
        super().__init__(f"trial {lease.trial} is being run by {lease.owner}: wait for it, or stop it there")
        self.lease = lease


@dataclass(frozen=True)
class Lease:
    """Who runs a trial.

    Attributes:
        trial: its id.
        launch: the launch that runs it; one driver's trials share one.
        host: the machine's name.
        pid: the process on it.
        processes: within which process ids are unique: one boot of one machine, one container.
        born: when the process was started, in the kernel's ticks since boot: a process id may be given again.
        taken: when the lease was, in seconds since 1970 by the holder's clock; for the eye only.
        token: this lease's own; no two are alike.
        notes: what the holder tells: ``variant``, ``seed``, ``progress``, ``executions`` …
        foreign: why the file is no lease of clray's; empty where it is one, or is torn.
    """

    trial: str
    launch: str = ""
    host: str = ""
    pid: int = 0
    processes: str = ""
    born: int | None = None
    taken: float = 0.0
    token: str = ""
    notes: dict[str, Any] = field(default_factory=dict)
    foreign: str = ""

    @property
    def owner(self) -> str:
        return f"{self.host}, process {self.pid}" if self.pid else "another launch"

    def to_bytes(self) -> bytes:
        return json.dumps({name: value for name, value in asdict(self).items() if name != "foreign"}).encode()

    @classmethod
    def from_bytes(cls, trial: str, content: bytes) -> Lease:
        """Read a trial's lease. One that is torn, or still being written, is a lease of somebody unknown.

        Notes that are not what clray tells are left out; what else there is of a later clray's is not looked at.
        """
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            return cls(trial)
        reason = stored.problem(stored.LEASE, found)
        if not reason and found.get("trial") != trial:
            reason = "it is of another trial"
        if reason:
            return cls(trial, foreign=reason)
        notes = found.get("notes")
        if not isinstance(notes, dict):
            notes = {}
        wrong = stored.problems(stored.NOTES, notes)
        known = {name: found[name] for name in _FIELDS if name in found}
        return cls(**known, notes={name: note for name, note in notes.items() if name not in wrong})

    @classmethod
    def of_this_process(cls, trial: str, launch: str, notes: dict[str, Any]) -> Lease:
        pid, token = os.getpid(), uuid.uuid4().hex
        return cls(trial, launch, socket.gethostname(), pid, _processes(), _start_ticks(pid), time.time(), token, notes)

    def process_is_gone(self) -> bool:
        """Whether its process ran where this one can see it, and is there no more."""
        if not self.processes or self.processes != _processes():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass  # another user's, or a number that no process can have
        born = _start_ticks(self.pid)
        return born is not None and born != self.born


_FIELDS = ("trial", "launch", "host", "pid", "processes", "born", "taken", "token")
"""What of a lease's file is read as it stands."""


@functools.cache
def _processes() -> str:
    """Names the set of processes whose ids can be compared with those that this process sees.

    Where there is no /proc (macOS), the machine by its name and network address: then a lease of before a restart of
    the machine may have to fall silent first.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode():012x}"


def _start_ticks(pid: int) -> int | None:
    """When a process was started, -1 for one that is dead but not buried; None where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return -1 if fields[0] in "ZX" else int(fields[19])


def solo_launch_id() -> str:
    """The launch of a process that is part of none: one by itself."""
    return f"{socket.gethostname()} {_processes()} {os.getpid()} {_start_ticks(os.getpid())}"


class LeaseMonitor:
    """Tells live leases from dead ones; to be kept by whoever looks again and again.

    Args:
        launch: of the one who looks: its own leases are dead to it.
    """

    def __init__(self, store: Store, launch: str = "") -> None:
        self._store, self._launch = store, launch
        self._seen: dict[str, tuple[StoredLease, float]] = {}

    def live(self, trial: str) -> Lease | None:
        """The trial's lease if it has a live one.

        Raises:
            StoreError: the store cannot be read.
        """
        found = self._store.read_lease(trial)
        if found is None:
            return None
        lease = Lease.from_bytes(trial, found.content)
        return None if self.is_dead(lease, found) else lease

    def is_dead(self, lease: Lease, found: StoredLease, now: float | None = None) -> bool:
        """Whether nobody holds a lease any more that was found so.

        Args:
            now: by the store's clock, where the caller knows it.
        """
        if lease.foreign or (self._launch and lease.launch == self._launch) or lease.process_is_gone():
            return True
        moment = time.monotonic()
        former, since = self._seen.get(lease.trial, (found, moment))
        if found != former:
            since = moment
        self._seen[lease.trial] = (found, since)
        if moment - since > SILENCE_SECONDS:
            return True
        if found.mtime is None:
            return False
        return (self._store.clock() if now is None else now) - found.mtime > SILENCE_SECONDS

    def last_seen(self, trial: str) -> str:
        """Names the trial's lease as it was found last, for ``acquire``; empty where it had none."""
        return _name(self._seen[trial][0]) if trial in self._seen else ""


def _name(found: StoredLease) -> str:
    """Tells a lease from all others, and from itself when it was renewed."""
    return hashlib.sha256(f"{found.mtime} ".encode() + found.content).hexdigest()


def acquire(store: Store, trial: str, launch: str = "", dead: str = "", **notes: Any) -> LeaseHolder:
    """Lease a trial for this process.

    Exactly one of several that try at once succeeds, on file systems that create a file exclusively (local ones, NFS),
    and on object stores where a listing shows what was written before (S3, GCS, Azure).

    Args:
        trial: its id.
        launch: the launch that this process is part of; by default the process is one by itself.
        dead: the name of a lease on this trial that the launch has watched until it was dead
            (``LeaseMonitor.last_seen``). Whoever only looks once may not see that, where the store stamped it in the
            future.
        notes: what the lease should tell.

    Raises:
        RunsElsewhere: somebody else holds a live lease.
        StoreError: the store cannot be read or written.
    """
    lease = Lease.of_this_process(trial, launch or solo_launch_id(), notes)
    monitor = LeaseMonitor(store, lease.launch)
    rival, earlier = Lease(trial), list[dict[str, Any]]()
    for _ in range(_ATTEMPTS):
        with store.exclusive(trial, SILENCE_SECONDS) as ours:
            if not ours:
                continue  # somebody is just about to lease it
            found = store.read_lease(trial)
            if found is None:
                if store.create_lease(trial, lease.to_bytes()):
                    return LeaseHolder(store, lease, earlier)
                continue
            rival = Lease.from_bytes(trial, found.content)
            if not monitor.is_dead(rival, found) and _name(found) != dead:
                if rival.token:
                    break
                time.sleep(0.1)  # the file is there, and what it says is still being written
                continue
            if store.delete_lease(trial, found.content):
                earlier = rival.notes.get("executions", [])
            if store.create_lease(trial, lease.to_bytes()):
                return LeaseHolder(store, lease, earlier)
    raise RunsElsewhere(rival)


class LeaseHolder:
    """This process's hold on a trial: renewed by a thread of its own until ``release``.

    A hold that is forgotten is renewed no more, so that its lease dies.

    Attributes:
        lease: as it was taken.
        earlier: the executions that a dead lease told of which this one took over.
        lost: somebody else took the lease over, because this process was out of reach for long.
    """

    def __init__(self, store: Store, lease: Lease, earlier: list[dict[str, Any]]) -> None:
        self.lease, self.earlier, self.lost = lease, earlier, False
        self._store = store
        self._over, self._lock = threading.Event(), threading.Lock()
        threading.Thread(target=_beat, args=(weakref.ref(self), self._over), daemon=True).start()

    def note(self, **notes: Any) -> None:
        """Tell something; it stands in the store after the next heartbeat."""
        self.lease = replace(self.lease, notes={**self.lease.notes, **notes})

    def renew(self) -> None:
        """Show that this process is alive, or learn that the trial is not its own any more."""
        with self._lock:
            if self._over.is_set():
                return
            found = self._store.read_lease(self.lease.trial, stamped=False)
            content = self.lease.to_bytes()
            if found is None:
                self.lost = not self._store.create_lease(self.lease.trial, content)
            elif Lease.from_bytes(self.lease.trial, found.content).token in (self.lease.token, ""):  # torn or foreign
                self._store.replace_lease(self.lease.trial, content)
            else:
                self.lost = True

    def release(self) -> None:
        """Let the trial go. What was noted last is lost with it."""
        with self._lock:
            if self._over.is_set():
                return
            self._over.set()
            # A lease that cannot be removed dies by itself.
            with contextlib.suppress(StoreError):
                found = self._store.read_lease(self.lease.trial, stamped=False)
                if found and Lease.from_bytes(self.lease.trial, found.content).token == self.lease.token:
                    self._store.delete_lease(self.lease.trial, found.content)


def _beat(hold: weakref.ref[LeaseHolder], over: threading.Event) -> None:
    while not over.wait(HEARTBEAT_SECONDS):
        held = hold()
        if held is None:
            return
        with contextlib.suppress(StoreError):  # the trial will run into it by itself, and say so
            held.renew()
        del held
