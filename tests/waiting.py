"""Functions with which tests wait for an event, not for a time. Their limits only prevent hanging."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

GUARD = 300.0
"""Seconds: many times what anything takes that a test waits for; below the time that a test has (pyproject.toml)."""


def wait_for(what: Callable[[], Any], seconds: float = GUARD) -> Any:
    """The first true value of ``what()``."""
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain"
        time.sleep(0.02)
    return value
