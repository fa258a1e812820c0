"""The limits of one trial: the hours that it may take, and the memory that its process may have. None changes a number.

Hours are those that the trial's record tells: training and measurements, over all of its executions. Memory is the
resident memory of the whole process: the interpreter and its libraries, the data and the trial. Both are looked at
between two steps of a trial, and twice a second within a step.

Between two steps a trial can be saved, so that it ends with a checkpoint of all its work. Within a step it cannot: what
exceeds the memory there is cut off at once, before the machine runs out of it, and a step that goes on for a minute
after the last hour is cut off too. Such a trial continues from the checkpoint before.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from clray.errors import ClrayError
from clray.machine import resident_bytes, return_free_memory

LOOK_SECONDS = 0.5
"""Seconds between two looks within a step."""
LATE_SECONDS = 60.0
"""A step that has not ended so long after the last hour is cut off."""
_UNITS = {f"{letter}{kind}": base**power for kind, base in (("iB", 1024), ("B", 1000)) for power, letter in
          enumerate("KMGT", 1)}  # fmt: skip
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z]+)", re.ASCII)
_T = TypeVar("_T")


def bytes_of(size: str) -> int:
    """The bytes of a size such as ``4GiB``, ``1.5 TB`` or ``512MiB``.

    Raises:
        ValueError: it is no such size.
    """
    found = _SIZE.fullmatch(size)
    if found is None or found[2] not in _UNITS:
        units = ", ".join(_UNITS)
        raise ValueError(f"expected a number with a unit, such as 4GiB (it is {size!r}); allowed units: {units}")
    return int(float(found[1]) * _UNITS[found[2]])


def size_words(size: float) -> str:
    """A number of bytes as text, such as ``512 MiB``."""
    return f"{size / 2**30:.3g} GiB" if size >= 2**30 else f"{size / 2**20:.3g} MiB"


def hours_words(hours: float) -> str:
    """A number of hours as text; less than a tenth of an hour is told in seconds."""
    return f"{hours:.3g} hour{'' if hours == 1 else 's'}" if hours >= 0.1 else f"{3600 * hours:.3g} seconds"


@dataclass(frozen=True)
class Limits:
    """The limits of a trial; None where there is none.

    Attributes:
        hours: the longest time that it may take.
        memory: the most bytes of resident memory that its process may have.
        hours_place: the place that declares the hours, for the message: a line of a sweep file and the key, or a flag.
        memory_place: the same of the memory.
    """

    hours: float | None = None
    memory: int | None = None
    hours_place: str = "resources.hours"
    memory_place: str = "resources.memory"


NO_LIMITS = Limits()


class LimitExceeded(ClrayError):
    """A trial needs more time or memory than it may have. Its checkpoint stays, and a higher limit continues it."""


class _CutOff(BaseException):
    """Raised by the watching thread in the middle of a step. No ``except Exception`` of a method catches it."""


class Watch:
    """Watches the limits of one execution of a trial, while the trial is in a step and between two steps."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock, self._over = threading.Lock(), threading.Event()
        self._working: tuple[int, float] | None = None
        """The thread that is in a step, and the time by ``time.monotonic`` at which the step is cut off."""
        self._cut_off = ""
        """The reason why a step was cut off."""
        if limits.memory is not None:
            return_free_memory()  # of the trials that this process ran before
        if limits.hours is not None or limits.memory is not None:
            threading.Thread(target=_look, args=(weakref.ref(self), self._over), daemon=True).start()

    def close(self) -> None:
        """End the watching thread."""
        self._over.set()

    def exceeded(self, seconds: float) -> LimitExceeded | None:
        """The limit that a trial exceeds between two steps, or exceeded within the last one, as an error; None without.

        Args:
            seconds: the time that the trial has taken.
        """
        limits = self._limits
        if self._cut_off:
            return LimitExceeded(self._cut_off)
        if limits.hours is not None and seconds > 3600 * limits.hours:
            return LimitExceeded(self._too_long(seconds))
        if limits.memory is not None and (resident_bytes() or 0) > limits.memory:
            return_free_memory()  # which the process keeps for its further use
            if (resident := resident_bytes() or 0) > limits.memory:
                return LimitExceeded(self._too_large(resident))
        return None

    def run(self, step: Callable[[], _T], seconds: float) -> _T:
        """Run a step of the trial, and cut it off where it exceeds a limit by far.

        Args:
            seconds: the time that the trial took before.

        Raises:
            LimitExceeded: the step was cut off. The trial is in no state that could be saved.
        """
        try:
            self._begin(seconds)
            try:
                return step()
            finally:
                self._end()
        except (_CutOff, Exception) as error:
            self._working = None
            if self._cut_off:  # where a library made another error of it, too
                raise LimitExceeded(self._cut_off) from None
            raise error

    def _begin(self, seconds: float) -> None:
        hours = self._limits.hours
        left = float("inf") if hours is None else 3600 * hours - seconds + LATE_SECONDS
        with self._lock:
            self._working = threading.get_ident(), time.monotonic() + left

    def _end(self) -> None:
        with self._lock:
            if self._working is not None and self._cut_off:
                _raise_in(self._working[0], None)  # one that was sent and has not arrived must not arrive later
            self._working = None

    def look(self) -> None:
        """Cut the present step off if it exceeds a limit; called twice a second by the watching thread."""
        with self._lock:
            if self._working is None or self._cut_off:
                return
            thread, deadline = self._working
            limits, late = self._limits, time.monotonic() - deadline
            resident = 0 if limits.memory is None else resident_bytes() or 0
            if late > 0:
                self._cut_off = self._too_long(3600 * (limits.hours or 0) + LATE_SECONDS + late)
            elif limits.memory is not None and resident > limits.memory:
                self._cut_off = self._too_large(resident)
            if self._cut_off:
                _raise_in(thread, _CutOff)

    def _too_long(self, seconds: float) -> str:
        limit = hours_words(self._limits.hours or 0)
        return _message(f"its limit is {limit}, and it has taken {hours_words(seconds / 3600)}",
                        self._limits.hours_place)  # fmt: skip

    def _too_large(self, resident: int) -> str:
        limit = size_words(self._limits.memory or 0)
        return _message(f"its process may have {limit} of memory, and has {size_words(resident)}",
                        self._limits.memory_place)  # fmt: skip


def _message(problem: str, place: str) -> str:
    """The text of the error. A trial that was cut off in its first step has no checkpoint."""
    return f"{problem}; a higher limit continues it, from its last checkpoint if there is one: {place}"


def _look(reference: weakref.ref[Watch], over: threading.Event) -> None:
    while not over.wait(LOOK_SECONDS):
        watch = reference()
        if watch is None:
            return
        watch.look()
        del watch


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Raise an exception in another thread once that runs Python's code. None withdraws one that is on its way.

    Withdraw none that was not sent: CPython then looks for it at every call and jump for as long as the thread lives,
    and never gets out of the next call under a profiler (3.11).
    """
    with contextlib.suppress(AttributeError):  # Pythons without this function of CPython's
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind) if kind else None)
