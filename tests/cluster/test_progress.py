"""The display of a running sweep, on a terminal and elsewhere, and its estimate of the time left."""

from __future__ import annotations

import dataclasses
import io
import os
from pathlib import Path

import pytest
from launching import SHORT, planned, printed, quiet
from rich.console import Console

from clray import progress as module
from clray.planning import Planned
from clray.progress import Progress
from clray.store import Store
from clray.work import TrialEnd


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def trials(tmp_path: Path) -> list[Planned]:
    """Four trials of 100 expected seconds."""
    file = tmp_path / "sweep.yaml"
    file.write_text(SHORT.replace("seeds: [0, 1]", "seeds: [0, 1, 2, 3]"))
    return [dataclasses.replace(t, seconds=100.0) for t in planned(file, Store(tmp_path)).trials]


END = TrialEnd("finished", metrics={"RA": 0.5, "LA": 0.75}, seconds=50.0)


def test_the_bars_of_a_terminal(trials: list[Planned], clock: Clock) -> None:
    console = Console(record=True, file=io.StringIO(), width=90, force_terminal=True)
    progress = Progress(trials, 2, 2, console)
    clock.now += 60
    progress.running(trials[0].id, 0.5)
    progress.running(trials[1].id, 0.0)
    progress.ended(trials[2].id, END)
    console.print(progress._render())
    summary, head, row = (line.rstrip() for line in console.export_text().splitlines()[:3])
    assert summary.startswith("3 of 6 trials, 1:00 gone, 1.0 a minute, about ")
    assert head.split() == ["variant", "done", "running", "failed"]
    assert row.split()[0] == "mer"
    assert row.split()[-2:] == ["1/4", "2"]


def test_a_name_is_shown_as_it_is(trials: list[Planned]) -> None:
    """On any console, one that reads markup included."""
    console = Console(record=True, file=io.StringIO(), width=90, force_terminal=True)
    odd = [dataclasses.replace(t, variant="a[/b] :x: \x1b[2J") for t in trials]
    progress = Progress(odd, 0, 2, console)
    console.print(progress._render())
    progress.say(progress._line(odd[0].id, END))
    text = console.export_text()
    assert text.count(r"a[/b] :x: \x1b[2J") == 2
    assert "\x1b" not in text


def test_a_line_that_cannot_be_written_is_lost_and_nothing_else(trials: list[Planned]) -> None:
    with open("/dev/full", "w") as full:
        with Progress(trials, 0, 2, Console(file=full)) as progress:
            progress.ended(trials[0].id, END)
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())


def test_a_failure_is_told_at_once_even_above_the_bars(trials: list[Planned]) -> None:
    console = Console(record=True, file=io.StringIO(), width=90, force_terminal=True)
    with Progress(trials, 0, 2, console) as progress:
        progress.ended(trials[0].id, TrialEnd.failed("DataError: torn [/]"))
    assert f"failed: mer seed 0 ({trials[0].id}): DataError: torn [/]" in console.export_text().replace("\n", "")


def test_lines_elsewhere(trials: list[Planned], clock: Clock) -> None:
    console = quiet()
    with Progress(trials, 1, 2, console) as progress:
        clock.now += 100
        progress.ended(trials[0].id, END)
        progress.ended(trials[0].id, END)  # a worker that was started again reports it once more
        progress.ended(trials[1].id, dataclasses.replace(END, resumed=0.43))
        progress.ended("0123456789abcdef", END)  # of another launch
    lines = printed(console).splitlines()
    assert lines[0] == "4 trials to run, 1 finished before"
    assert lines[1] == "[2/5] mer seed 0: RA 50.00  LA 75.00  (50 s; 1:40 gone, about 5:00 left)"
    assert lines[2].startswith("[3/5] mer seed 1 from 43% on: RA")
    assert len(lines) == 3


def test_the_time_left(trials: list[Planned], clock: Clock) -> None:
    progress = Progress(trials, 0, 2, quiet())
    assert progress.remaining() == 200, "400 expected seconds on two workers"
    clock.now += 100
    progress.running(trials[0].id, 0.5)
    progress.running(trials[1].id, 0.5)
    assert progress.remaining() == 300, "100 of 400 expected seconds took 100"
    progress.ended(trials[2].id, TrialEnd.failed("no work was done on it"))
    assert progress.remaining() == 200
    progress.ended(trials[1].id, END)
    progress.ended(trials[3].id, END)
    clock.now += 150
    assert progress.remaining() == pytest.approx(50), "the last one, at the pace of 250 s for 250 expected seconds"


def test_what_a_former_launch_did_is_not_credited_to_this_one(trials: list[Planned], clock: Clock) -> None:
    progress = Progress(trials[:1], 0, 1, quiet())
    clock.now += 100
    progress.running(trials[0].id, 0.9, 0.8)
    assert progress.remaining() == pytest.approx(100), "a tenth took 100 s, a tenth is left"


def test_what_others_run_is_shown_and_is_no_work_of_this_launch(trials: list[Planned], clock: Clock) -> None:
    console = Console(record=True, file=io.StringIO(), width=120, force_terminal=True)
    progress = Progress(trials, 0, 2, console)
    progress.elsewhere(trials[0].id)
    progress.elsewhere(trials[1].id)
    assert progress.remaining() == 100, "200 of 400 expected seconds, on two workers"
    progress.running(trials[0].id, 0.9, elsewhere=True)
    assert progress.remaining() == 100
    clock.now += 100
    progress.ended(trials[1].id, dataclasses.replace(END, owner="far, process 7"))
    progress.running(trials[2].id, 0.5)
    console.print(progress._render())
    summary = console.export_text().splitlines()[0]
    assert summary.startswith("1 of 4 trials, 1:40 gone")
    assert ", 1 run elsewhere, about 5:00 left" in summary, "50 of this launch's 200 expected seconds took 100"
    assert (
        progress._line(trials[1].id, dataclasses.replace(END, owner="far, process 7")).count(
            "(50 s by far, process 7; "
        )
        == 1
    )
    progress.running(trials[0].id, 0.9, 0.9)
    assert progress.remaining() > 0
    for trial in trials[2:]:
        progress.elsewhere(trial.id)
    progress.elsewhere(trials[0].id)
    assert progress.remaining() == 0, "nothing is left for this launch"
