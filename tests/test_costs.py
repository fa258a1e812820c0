"""The costs of a table, from records and without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from clray.costs import cost, markdown
from clray.loading import load_sweep
from clray.record import Record
from clray.selection import Selection


def test_measured_seconds_count_before_computed_ones(tiny: Path) -> None:
    whole = load_sweep(tiny, Selection(only=("online",), set=("resources.cpu=2", "resources.gpu=0.5")))
    trial = whole.cells[0].trial
    provenance = {"seconds": 3600.0, "machine": {"processor": "a core"}}
    record = Record(trial.id("print"), trial, {"fingerprint": "print"}, [], provenance)
    computed = cost("tiny", "Tiny", [whole], {})
    measured = cost("tiny", "Tiny", [whole, whole], {trial.declaration: record})
    assert (computed.trials, computed.measured, computed.measured_core_hours) == (2, 0, 0)
    assert computed.core_hours > 0
    assert computed.gpu_hours == pytest.approx(computed.core_hours / 4)
    assert (measured.trials, measured.measured, measured.processors) == (2, 1, ["a core"])
    assert measured.measured_core_hours == pytest.approx(2.0)  # an hour on two cores
    assert measured.core_hours == pytest.approx(2.0 + computed.core_hours / 2)
    assert measured.gpu_hours == pytest.approx(measured.core_hours / 4)


def test_the_table_says_what_was_measured(tiny: Path) -> None:
    sweep = load_sweep(tiny, Selection(only=("online",)))
    lines = markdown([cost("tiny", "Tiny", [sweep], {})]).splitlines()
    assert lines[0] == "| table | trials | core hours | of them measured | GPU hours |"
    assert lines[2].startswith("| `tiny`: Tiny | 2 | 0.")
    assert lines[2].endswith("| none: computed | none |")
