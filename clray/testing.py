"""For the tests of methods: trains a variant of a sweep in this process, without a store and without Ray.

The tests that ``clray init`` writes use it, and so do clray's own.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clray.checkpoints import read_state, write_state
from clray.errors import DeclarationError
from clray.loading import load_sweep
from clray.metrics import Measurement
from clray.selection import Selection
from clray.tracks import track
from clray.training import Training
from clray.trial import Trial

_SECONDS = 0.02
"""The time after which a trial with stops stops. A loop that looks at the clock before it learns needs some."""
_STOPS = 20
"""The number of times that a trial with stops is continued from its state, at least, where it has as many stops."""


def measurements(
    sweep: str | Path, variant: str, *changes: str, seed: int | None = None, stops: bool = False
) -> list[Measurement]:
    """Everything that a trial of a sweep's quick form measures.

    Args:
        sweep: a sweep file, or the name of a sweep that ships with clray.
        variant: the name of a variant that has no grid.
        changes: of the sweep, as ``--set`` takes them: ``benchmark.tasks=2``.
        seed: by default the first one of the quick form.
        stops: stop the trial again and again, and continue it each time from the state that a checkpoint would hold.

    Raises:
        DeclarationError: there is no such variant, or it has several trials.
    """
    quick = Selection(quick=True, only=(variant,), seeds=() if seed is None else (seed,), set=tuple(changes))
    trials = {cell.trial.seed: cell.trial for cell in reversed(load_sweep(str(sweep), quick).cells)}
    trial = next(reversed(trials.values()))
    if trial.task_order is not None:
        raise DeclarationError(f"{sweep}: task_orders: a test takes the benchmark's own order; leave the key out")
    data = track(trial.track).data(trial, False)
    training = _ready(trial, data)
    if not stops:
        return [measurement for part in _parts(training) for measurement in part]
    measured: list[Measurement] = []
    saved = 0.0
    with _stopping_often(training):
        while training.progress < 1:
            measured += training.advance()
            if 1 > training.progress >= saved + 1 / _STOPS:
                saved = training.progress
                continued = _ready(trial, data)
                continued.load_state_dict(_through_bytes(training.state_dict()))
                training = continued
    return measured


def _ready(trial: Trial, data: dict[str, Any]) -> Training:
    return track(trial.track).train(trial, data, "cpu")


def _parts(training: Training) -> Iterator[list[Measurement]]:
    while training.progress < 1:
        yield training.advance()


def _through_bytes(state: dict[str, Any]) -> dict[str, Any]:
    """A state as it is after it was written into a checkpoint and read from there."""
    file = io.BytesIO()
    write_state("test", state, file)
    file.seek(0)
    return read_state("test", file)


@contextmanager
def _stopping_often(training: Training) -> Iterator[None]:
    """Within, the loop of a trial's track stops many times a second."""
    loop: Any = sys.modules[type(training).__module__]
    before = loop._STOP_AFTER
    loop._STOP_AFTER = _SECONDS
    try:
        yield
    finally:
        loop._STOP_AFTER = before
