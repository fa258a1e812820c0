"""What a running sweep shows: a bar for each variant on a terminal, a line for each ended trial elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from clray.gpu import words
from clray.output import OutputLost, shown
from clray.planning import Planned

_COLUMNS = {"variant": "left", "": "left", "done": "right", "running": "right", "failed": "right"}


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
        self._begun: dict[str, float] = {}
        """How far a trial had come before this launch, of those that it took up."""
        self._ended: dict[str, dict[str, Any]] = {}
        self._told: set[tuple[str, str]] = set()
        self._elsewhere: set[str] = set()
        """What others run: no work of this launch."""
        self._workers = max(1.0, workers)
        self._started = time.monotonic()
        # A terminal that cannot move its cursor, such as that of `ray exec`, gets lines.
        self._live_view = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Progress:
        if self._live_view:
            self._live.start()
        else:
            self.say(f"{len(self._trials)} trials to run, {self._before} finished before")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the terminal back."""
        if self._live_view:
            self._live.stop()

    def say(self, line: str) -> None:
        """Print a line, above the bars where there are any; one that cannot be written is lost, and nothing else."""
        with contextlib.suppress(OSError, OutputLost):
            self._console.print(Text(shown(line)), soft_wrap=True)

    def running(self, id: str, progress: float, resumed: float = 0.0, elsewhere: bool = False) -> None:
        """A trial has come this far, 0 to 1, and had come as far as ``resumed`` when it was taken up."""
        if id in self._trials and id not in self._ended:
            if not elsewhere:
                self._elsewhere.discard(id)
                self._begun.setdefault(id, resumed)
            self._done[id] = progress

    def told(self, id: str, lines: Sequence[str]) -> None:
        """Print what is to be known about a trial, each sentence once, such as a checkpoint that was passed over."""
        for line in lines:
            if id in self._trials and (id, line) not in self._told:
                self._told.add((id, line))
                self.say(f"{self._trials[id].name} ({id}): {line}")

    def elsewhere(self, id: str) -> None:
        """Somebody else runs the trial."""
        if id in self._trials and id not in self._ended:
            self._elsewhere.add(id)
            self._begun.pop(id, None)

    def ended(self, id: str, how: dict[str, Any]) -> None:
        """A trial is over: ``how`` holds its ``metrics``, ``seconds`` and where it ``resumed``, or its ``error``.

        ``diverged`` says where one ended early because its numbers were not finite any more."""
        if id in self._ended or id not in self._trials:
            return
        self._ended[id] = how
        self._elsewhere.discard(id)
        # What a failed trial did not do, or others did, says nothing of how fast this launch is.
        ours = "error" not in how and "elsewhere" not in how
        self._begun[id] = min(how["resumed"], self._begun.get(id, 1.0)) if ours else 1.0
        self._done[id] = 1.0
        if not self._live_view or "error" in how or "diverged" in how:
            self.say(self._line(id, how))

    def _line(self, id: str, how: dict[str, Any]) -> str:
        trial = self._trials[id]
        name = trial.name
        if "error" in how:
            return f"failed: {name} ({id}): {how['error']}"
        values = "  ".join(f"{m} {100 * how['metrics'][m]:.2f}" for m in trial.metrics if m in how["metrics"])
        if "diverged" in how:
            values = divergence(how["diverged"])
        resumed = f" from {100 * how['resumed']:.0f}% on" if how["resumed"] else ""
        left = self.remaining()
        memory = f"; {words(how['gpu_memory'])}" if how.get("gpu_memory") else ""
        where = f" by {how['elsewhere']}" if "elsewhere" in how else ""
        return (
            f"[{self._before + len(self._ended)}/{self._before + len(self._trials)}] {name}{resumed}: {values}  "
            f"({how['seconds']:.0f} s{where}{memory}; {_clock(time.monotonic() - self._started)} gone, "
            f"about {_clock(left)} left)"
        )

    def remaining(self) -> float:
        """Seconds until the launch is over, from the trials' expected seconds and how fast they proved to be."""
        ours = {id: t for id, t in self._trials.items() if id not in self._elsewhere}
        if not ours:
            return 0.0
        left = {id: t.seconds * (1 - self._done[id]) for id, t in ours.items()}
        done = sum(self._trials[id].seconds * (self._done[id] - begun) for id, begun in self._begun.items())
        running = len(self._begun.keys() - self._ended.keys())
        elapsed = time.monotonic() - self._started
        if done <= 0 or elapsed < 5:
            return max(sum(left.values()) / self._workers, max(left.values()))
        # All together, but never sooner than the longest trial takes at the pace of one worker.
        return max(sum(left.values()), max(left.values()) * max(1, running)) * elapsed / done

    def _render(self) -> Group:
        table = Table(box=None, padding=(0, 1), header_style="dim", expand=False)
        for heading, justify in _COLUMNS.items():
            table.add_column(heading, justify=justify)  # type: ignore[arg-type]
        for variant in dict.fromkeys(t.cell.variant for t in self._trials.values()):
            ids = [id for id, t in self._trials.items() if t.cell.variant == variant]
            failed = sum("error" in self._ended.get(id, {}) for id in ids)
            table.add_row(
                Text(shown(variant)),
                ProgressBar(total=len(ids), completed=sum(self._done[id] for id in ids), width=30),
                f"{sum(id in self._ended for id in ids) - failed}/{len(ids)}",
                str(sum(id in self._begun and id not in self._ended for id in ids) or ""),
                Text(str(failed or ""), style="red"),
            )
        elapsed, ended = time.monotonic() - self._started, len(self._ended)
        summary = (
            f"{self._before + ended} of {self._before + len(self._trials)} trials, {_clock(elapsed)} gone"
            + (f", {60 * ended / elapsed:.1f} a minute" if ended and elapsed > 1 else "")
            + (f", {len(self._elsewhere)} run elsewhere" if self._elsewhere else "")
            + (f", about {_clock(self.remaining())} left" if ended < len(self._trials) else "")
        )
        # The summary first: where the screen is too low for all variants, it is the last rows that are cut.
        return Group(Text(summary, style="bold"), table)


def divergence(where: dict[str, Any]) -> str:
    """Say where a trial diverged, as ``diverged in task 4 after 3,512 examples: weights not finite``."""
    return f"diverged in task {where['task'] + 1} after {where['step']:,} examples: {where['what']} not finite"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
