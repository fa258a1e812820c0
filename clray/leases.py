"""Leases on trials. Launches that share a store share its work, because only the holder of a trial's lease runs it.

Leases only avoid duplicate work. Correctness never depends on them: records and checkpoints are written whole or not at
all, and two runs of a trial write the same numbers.

A process that runs a trial writes the lease ``claims/ID.json`` and renews it every ten seconds (the heartbeat). A lease
is dead, and another process may take it over, when

- it belongs to the same launch: Ray starts a trial again only after it has lost the process that ran it;
- its process ran on this machine and does not exist any more;
- it was not renewed for 45 seconds, by the clock of the store, which gives every file its time of modification, or by
  the reader's monotonic clock. The clocks of two machines are never compared. A time of modification that lies in the
  future proves nothing;
- clray did not write it.

On object stores a lease is created and replaced under a condition that the store checks: it must not exist, or must
still have the etag that was read. On disks a lease is created exclusively, and taken over by a rename.
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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from clray import stored
from clray.errors import ClrayError, StoreError
from clray.store import Store, StoredLease

HEARTBEAT_SECONDS = 10.0
SILENCE_SECONDS = 45.0
"""A lease that was not renewed for this time is dead. It is several heartbeats, as a step may block the interpreter."""
_ATTEMPTS = 5


class RunsElsewhere(ClrayError):
    """Another process is running the trial.

    Attributes:
        lease: the lease of that process.
    """

    def __init__(self, lease: Lease) -> None:
        super().__init__(f"trial {lease.trial} is being run by {lease.owner}: wait for it, or stop it there")
        self.lease = lease


@dataclass(frozen=True)
class Lease:
    """The right of one process to run a trial.

    Attributes:
        trial: the trial's id.
        launch: the launch that runs the trial; all trials of one driver share one.
        host: the machine's name.
        pid: the process on that machine.
        processes: names the set of processes within which process ids are unique: a boot of a machine, or a container.
        start_ticks: when the process was started, in the kernel's ticks since boot, because process ids are reused.
        acquired: when the lease was acquired, in seconds since 1970 by the holder's clock. Only shown, never compared.
        token: identifies this lease; no two are alike.
        renewals: the number of times that it was renewed.
        notes: facts that commands show to the user: ``variant``, ``seed``, ``progress``, ``executions`` …
        foreign: the reason why the file is no lease that clray wrote; empty where it is one, or where it is torn.
    """

    trial: str
    launch: str = ""
    host: str = ""
    pid: int = 0
    processes: str = ""
    start_ticks: int | None = None
    acquired: float = 0.0
    token: str = ""
    renewals: int = 0
    notes: dict[str, Any] = field(default_factory=dict)
    foreign: str = ""

    @property
    def owner(self) -> str:
        return f"{self.host}, process {self.pid}" if self.pid else "another launch"

    def to_bytes(self) -> bytes:
        return json.dumps({key: getattr(self, name) for name, key in _KEYS.items()} | {"notes": self.notes}).encode()

    @classmethod
    def from_bytes(cls, trial: str, content: bytes) -> Lease:
        """Read a trial's lease. A torn one, or one that is still being written, has no owner and no token.

        Notes that clray does not write are left out. Unknown keys, which a later clray may write, are ignored.
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
        known = {name: found[key] for name, key in _KEYS.items() if key in found}
        return cls(**known, notes={name: note for name, note in notes.items() if name not in wrong})

    @classmethod
    def of_this_process(cls, trial: str, launch: str, notes: dict[str, Any]) -> Lease:
        pid, token = os.getpid(), uuid.uuid4().hex
        started, now = _start_ticks(pid), time.time()
        return cls(trial, launch, socket.gethostname(), pid, _processes(), started, now, token, notes=notes)

    def process_is_gone(self) -> bool:
        """True if its process was visible to this one (same machine, same container) and does not exist any more."""
        if not self.processes or self.processes != _processes():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass  # the process of another user, or a number that no process can have
        start_ticks = _start_ticks(self.pid)
        return start_ticks is not None and start_ticks != self.start_ticks


_KEYS = {name: name for name in ("trial", "launch", "host", "pid", "processes")}
_KEYS |= {"start_ticks": "born", "acquired": "taken", "token": "token", "renewals": "renewals"}
"""The attributes of a lease and their keys in its file, which older versions of clray read too."""


@functools.cache
def _processes() -> str:
    """A name for the set of processes whose ids can be compared with those that this process sees.

    Without /proc (macOS) it is the machine's name and network address. Then a lease from before a restart of the
    machine may count as live until it has not been renewed for ``SILENCE_SECONDS``.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode():012x}"


def _start_ticks(pid: int) -> int | None:
    """The start time of a process in the kernel's ticks since boot, -1 for a zombie; None where it is unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return -1 if fields[0] in "ZX" else int(fields[19])


def solo_launch_id() -> str:
    """The launch id of a process that belongs to no launch, and so counts as a launch of its own."""
    return f"{socket.gethostname()} {_processes()} {os.getpid()} {_start_ticks(os.getpid())}"


class LeaseMonitor:
    """Tells live leases from dead ones. A caller that looks repeatedly keeps one monitor: it remembers earlier looks.

    Args:
        launch: the launch of the caller; its own leases count as dead.
    """

    def __init__(self, store: Store, launch: str = "") -> None:
        self._store, self._launch = store, launch
        self._seen: dict[str, tuple[StoredLease, float]] = {}

    def live(self, trial: str) -> Lease | None:
        """The trial's lease, if it is alive.

        Raises:
            StoreError: the store cannot be read.
        """
        found = self._store.read_lease(trial)
        if found is None:
            return None
        lease = Lease.from_bytes(trial, found.content)
        return None if self.is_dead(lease, found) else lease

    def is_dead(self, lease: Lease, found: StoredLease, now: float | None = None) -> bool:
        """True if nobody holds the lease any more.

        Args:
            found: the lease as it was read.
            now: the time by the store's clock, if the caller knows it.
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
        """The fingerprint of the trial's lease as it was read last, for ``acquire``; empty where there was none."""
        return _fingerprint(self._seen[trial][0]) if trial in self._seen else ""


def _fingerprint(found: StoredLease) -> str:
    """A hash that differs between any two leases, and after each renewal of one."""
    return hashlib.sha256(f"{found.mtime} ".encode() + found.content).hexdigest()


def acquire(store: Store, trial: str, launch: str = "", dead: str = "", **notes: Any) -> LeaseHolder:
    """Get the lease on a trial for this process.

    One of several processes that try at once succeeds, on local disks, NFS and object stores. On HDFS two may succeed;
    then one of them learns within a heartbeat that it has lost the lease.

    Args:
        trial: its id.
        launch: the launch that this process is part of; by default the process is a launch of its own.
        dead: the fingerprint of a lease on this trial that the launch has watched until it was dead
            (``LeaseMonitor.last_seen``). One look may not show this, if the time of modification lies in the future.
        notes: facts that commands show to the user, written into the lease.

    Raises:
        RunsElsewhere: another process holds a live lease.
        StoreError: the store cannot be read or written.
    """
    lease = Lease.of_this_process(trial, launch or solo_launch_id(), notes)
    monitor, content = LeaseMonitor(store, lease.launch), lease.to_bytes()
    rival = Lease(trial)
    for _ in range(_ATTEMPTS):
        if written := store.create_lease(trial, content):
            return LeaseHolder(store, lease, written, [])
        found = store.read_lease(trial)
        if found is None:
            continue
        rival = Lease.from_bytes(trial, found.content)
        if rival.token == lease.token:  # it was created, and the answer to the first request was lost
            return LeaseHolder(store, lease, found, [])
        if monitor.is_dead(rival, found) or _fingerprint(found) == dead:
            if written := store.take_over_lease(trial, content, found):
                return LeaseHolder(store, lease, written, rival.notes.get("executions", []))
        elif rival.token:
            break
        else:
            time.sleep(0.1)  # the file exists, and its content is still being written
    raise RunsElsewhere(rival)


class LeaseHolder:
    """This process's lease on a trial. A thread renews it until ``release`` is called.

    When nothing refers to the holder any more, the thread ends and the lease dies.

    Attributes:
        lease: the lease, with the notes as they are now.
        earlier: the executions that the lease of a dead process listed, if this process took that lease over.
        lost: True once another process has taken the lease over, because this one could not renew it for too long.
    """

    def __init__(self, store: Store, lease: Lease, written: StoredLease, earlier: list[dict[str, Any]]) -> None:
        self.lease, self.earlier, self.lost = lease, earlier, False
        self._store, self._written, self._renewals = store, written, 0
        self._over, self._lock = threading.Event(), threading.Lock()
        threading.Thread(target=_beat, args=(weakref.ref(self), self._over), daemon=True).start()

    def note(self, **notes: Any) -> None:
        """Add notes to the lease; the next heartbeat writes them into the store."""
        self.lease = replace(self.lease, notes={**self.lease.notes, **notes})

    def renew(self) -> None:
        """Write the lease again, which shows that this process is alive, or find out that the lease is lost."""
        with self._lock:
            if self._over.is_set() or self.lost:
                return
            # The count makes every renewal another version: S3's etag is a hash of the content.
            self._renewals += 1
            trial, content = self.lease.trial, replace(self.lease, renewals=self._renewals).to_bytes()
            written = self._store.renew_lease(trial, content, self._written)
            if written is None:
                found = self._store.read_lease(trial)
                if found is None:
                    written = self._store.create_lease(trial, content)
                    self.lost = written is None
                elif Lease.from_bytes(trial, found.content).token in (self.lease.token, ""):  # "": torn or foreign
                    written = self._store.renew_lease(trial, content, found)
                else:
                    self.lost = True
            self._written = written or self._written

    def release(self) -> None:
        """Delete the lease. Notes that no heartbeat has written are lost."""
        with self._lock:
            if self._over.is_set():
                return
            self._over.set()
            # A lease that cannot be deleted dies by itself.
            with contextlib.suppress(StoreError):
                trial = self.lease.trial
                if self._store.delete_lease(trial, self._written):
                    return
                found = self._store.read_lease(trial)
                if found and Lease.from_bytes(trial, found.content).token == self.lease.token:
                    self._store.delete_lease(trial, found)


def _beat(reference: weakref.ref[LeaseHolder], over: threading.Event) -> None:
    while not over.wait(HEARTBEAT_SECONDS):
        holder = reference()
        if holder is None:
            return
        with contextlib.suppress(StoreError):  # the trial's own writes fail for the same reason, and report it
            holder.renew()
        del holder
