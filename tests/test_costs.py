"""The costs of a table, from records and without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clray.costs import cost, markdown
from clray.durations import Durations
from clray.loading import load_sweep
from clray.record import Record
from clray.selection import Selection
from clray.tracks import track
from clray.trial import Trial


def test_measured_seconds_count_before_computed_ones(tiny: Path) -> None:
    whole = load_sweep(tiny, Selection(only=("online",), set=("resources.cpu=2", "resources.gpu=0.5")))
    trial = whole.cells[0].trial
    provenance = {"seconds": 3600.0, "machine": {"processor": "a core"}}
    record = Record(trial.id("print"), trial, {"fingerprint": "print"}, [], provenance)
    computed = cost("tiny", "Tiny", [whole], Durations([]))
    measured = cost("tiny", "Tiny", [whole, whole], Durations([record]))
    assert (computed.trials, computed.measured, computed.measured_core_hours) == (2, 0, 0)
    assert computed.core_hours > 0
    assert computed.gpu_hours == pytest.approx(computed.core_hours / 4)
    assert (measured.trials, measured.measured, measured.processors) == (2, 1, ["a core"])
    assert measured.measured_core_hours == pytest.approx(2.0)  # an hour on two cores
    assert measured.core_hours == pytest.approx(4.0)  # the other seed is expected to take as long
    assert measured.gpu_hours == pytest.approx(measured.core_hours / 4)


def test_a_trial_without_a_record_is_expected_to_take_the_time_of_its_other_seeds(tiny: Path) -> None:
    cells = load_sweep(tiny, Selection(seeds=(0, 1, 2))).cells
    one, two, three = (cell.trial for cell in cells if cell.variant == "online")
    other = next(cell.trial for cell in cells if cell.variant == "er")

    def record(trial: Trial, seconds: float) -> Record:
        return Record(trial.id("print"), trial, {"fingerprint": "print"}, [], {"seconds": seconds})

    durations = Durations([record(one, 100.0), record(one, 200.0), record(two, 400.0)])
    assert (durations.of(one), durations.of(two), durations.of(three)) == (200.0, 400.0, 300.0)
    assert durations.of(other) == track("vision").estimate(other)


@pytest.mark.parametrize(("facts", "seconds"), [
    ({}, None),
    ({"seconds": 90.0}, 90.0),
    ({"seconds": 90.0, "cpu_seconds": 60.0}, 60.0),  # another program used its core for half a minute
    ({"seconds": 90.0, "cpu_seconds": 150.0}, 90.0),  # it used two cores
    ({"seconds": 90.0, "cpu_seconds": 60.0, "device": "cuda"}, 90.0),
])  # fmt: skip
def test_time_that_others_took_from_it_does_not_count(tiny: Path, facts: dict[str, Any], seconds: float | None) -> None:
    trial = load_sweep(tiny).cells[0].trial
    assert Record(trial.id("print"), trial, {"fingerprint": "print"}, [], facts).undisturbed_seconds == seconds


def test_the_table_says_what_was_measured(tiny: Path) -> None:
    sweep = load_sweep(tiny, Selection(only=("online",)))
    lines = markdown([cost("tiny", "Tiny", [sweep], Durations([]))]).splitlines()
    assert lines[0] == "| table | trials | core hours | of them measured | GPU hours |"
    assert lines[2].startswith("| `tiny`: Tiny | 2 | 0.")
    assert lines[2].endswith("| none: computed | none |")
