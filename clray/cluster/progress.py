"""What a running sweep shows: a bar for each variant on a terminal, a line for each ended trial elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from clray.planning import Planned

_SHOWN_METRICS = ("RA", "LA", "BTI")


class Progress:
    """Follows the trials of a launch and shows them; a context manager around the launch."""

    def __init__(self, trials: Sequence[Planned], finished_before: int, workers: float, console: Console) -> None:
        """
        Args:
            trials: what this launch runs.
            finished_before: trials of the same plan that the store already had.
            workers: how many trials run at once, for the ETA.
            console: where to show it.
        """
        self._console, self._before = console, finished_before
        self._trials = {t.id: t for t in trials}
        self._done: dict[str, float] = dict.fromkeys(self._trials, 0.0)
        self._at_start: dict[str, float] = {}
        self._ended: dict[str, dict[str, Any]] = {}
        self._workers = max(1.0, workers)
        self._started = time.monotonic()
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live.start()
        else:
            self._console.print(f"{len(self._trials)} trials to run, {self._before} finished before", highlight=False)
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def running(self, id: str, progress: float) -> None:
        """A trial has come this far, 0 to 1."""
        if id in self._done:
            self._at_start.setdefault(id, progress)
            self._done[id] = progress

    def ended(self, id: str, how: dict[str, Any]) -> None:
        """A trial is over: ``how`` holds its ``metrics`` and ``seconds``, or its ``error``."""
        if id in self._ended or id not in self._trials:
            return
        self._ended[id] = how
        self._done[id] = 1.0
        if not self._console.is_terminal or "error" in how:
            self._console.print(self._line(id, how), highlight=False, soft_wrap=True)

    def _line(self, id: str, how: dict[str, Any]) -> str:
        trial = self._trials[id]
        name = f"{trial.cell.variant} seed {trial.cell.trial.seed}"
        if "error" in how:
            return f"failed: {name} ({id}): {how['error']}"
        values = "  ".join(f"{m} {100 * how['metrics'][m]:.2f}" for m in _SHOWN_METRICS if m in how["metrics"])
        left = self._remaining()
        return (
            f"[{self._before + len(self._ended)}/{self._before + len(self._trials)}] {name}: {values}  "
            f"({how['seconds']:.0f} s; {_clock(time.monotonic() - self._started)} gone, "
            f"{'about ' + _clock(left) if left is not None else 'unknown'} left)"
        )

    def _remaining(self) -> float | None:
        """Seconds until the launch is over, from the trials' expected seconds and how fast they proved to be."""
        expected = {id: t.seconds for id, t in self._trials.items()}
        work_done = sum(expected[id] * (p - self._at_start.get(id, 0.0)) for id, p in self._done.items())
        work_left = sum(expected[id] * (1 - p) for id, p in self._done.items())
        elapsed = time.monotonic() - self._started
        if work_done <= 0 or elapsed < 5:
            return work_left / self._workers if work_left else None
        return work_left * elapsed / work_done

    def _render(self) -> Group:
        table = Table(box=None, padding=(0, 1), header_style="dim", expand=False)
        for heading, justify in (
            ("variant", "left"),
            ("", "left"),
            ("done", "right"),
            ("running", "right"),
            ("failed", "right"),
        ):
            table.add_column(heading, justify=justify)  # type: ignore[arg-type]
        for variant in dict.fromkeys(t.cell.variant for t in self._trials.values()):
            ids = [id for id, t in self._trials.items() if t.cell.variant == variant]
            failed = sum("error" in self._ended.get(id, {}) for id in ids)
            running = sum(0 < self._done[id] < 1 for id in ids)
            table.add_row(
                variant,
                ProgressBar(total=len(ids), completed=sum(self._done[id] for id in ids), width=30),
                f"{sum(id in self._ended for id in ids) - failed}/{len(ids)}",
                str(running or ""),
                Text(str(failed or ""), style="red"),
            )
        elapsed = time.monotonic() - self._started
        left, ended = self._remaining(), len(self._ended)
        summary = (
            f"{self._before + ended} of {self._before + len(self._trials)} trials, {_clock(elapsed)} gone"
            + (f", {60 * ended / elapsed:.1f} a minute" if ended and elapsed > 1 else "")
            + (f", about {_clock(left)} left" if left else "")
        )
        return Group(table, Text(summary, style="bold"))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
