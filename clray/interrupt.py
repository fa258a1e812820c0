"""Defers SIGINT and SIGTERM until the current step of a trial has ended: within a step its state cannot be kept."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

TOGETHER_SECONDS = 10.0
"""SIGTERMs within this time are one. Queues send the signal to every process of a job, and a batch script, which gets
it too, passes it on; a user who wants an end at once presses Ctrl-C."""


class Interrupt:
    """A context manager in which the first SIGINT (Ctrl-C) or SIGTERM only sets ``requested``.

    The second one raises KeyboardInterrupt. Outside the main thread the context manager changes nothing.

    Attributes:
        since: the time of the first signal, by ``time.monotonic``.
    """

    def __init__(self) -> None:
        self.requested, self.since = False, 0.0
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._former = {s: signal.signal(s, self._received) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _received(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self.requested, self.since = True, time.monotonic()
        elif number != signal.SIGTERM or time.monotonic() - self.since > TOGETHER_SECONDS:
            raise KeyboardInterrupt
