"""Shows the progress of a launch: a bar for each variant on a terminal, a line for each ended trial elsewhere."""

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
from clray.output import OutputLost, counted, shown
from clray.planning import Planned
from clray.work import TrialEnd

_COLUMNS = {"variant": "left", "": "left", "done": "right", "running": "right", "failed": "right"}


class Progress:
    """Follows the trials of a launch and shows them; a context manager around the launch."""

    def __init__(self, trials: Sequence[Planned], finished_before: int, workers: float, console: Console) -> None:
        """
        Args:
            trials: the trials that this launch runs.
            finished_before: trials of the same plan that the store already had.
            workers: the number of trials that run at once, for the ETA.
            console: the console to print on.
        """
        self._console, self._before = console, finished_before
        self._trials = {t.id: t for t in trials}
        self._done: dict[str, float] = dict.fromkeys(self._trials, 0.0)
        self._begun: dict[str, float] = {}
        """The progress, 0 to 1, that each trial already had when this launch began to run it."""
        self._ended: dict[str, TrialEnd] = {}
        self._told: set[tuple[str, str]] = set()
        self._elsewhere: set[str] = set()
        """Trials that other launches run; they are no work of this one."""
        self._workers = max(1.0, workers)
        self._started = time.monotonic()
        # A terminal that cannot move its cursor, such as that of `ray exec`, gets lines.
        self._live_view = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Progress:
        if self._live_view:
            self._live.start()
        else:
            self.say(f"{counted(len(self._trials), 'trial')} to run, {self._before} finished before")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the live view on the terminal."""
        if self._live_view:
            self._live.stop()

    def say(self, line: str) -> None:
        """Print a line, above the bars where there are any. A line that cannot be written is lost."""
        with contextlib.suppress(OSError, OutputLost):
            self._console.print(Text(shown(line)), soft_wrap=True)

    def running(self, trial: str, progress: float, resumed: float = 0.0, elsewhere: bool = False) -> None:
        """Show a trial's progress, 0 to 1. ``resumed`` is its progress when this launch took it up."""
        if trial in self._trials and trial not in self._ended:
            if not elsewhere:
                self._elsewhere.discard(trial)
                self._begun.setdefault(trial, resumed)
            self._done[trial] = progress

    def told(self, trial: str, lines: Sequence[str]) -> None:
        """Print sentences about a trial, each once, such as the reason why a checkpoint was not used."""
        for line in lines:
            if trial in self._trials and (trial, line) not in self._told:
                self._told.add((trial, line))
                self.say(f"{self._trials[trial].name} ({trial}): {line}")

    def elsewhere(self, trial: str) -> None:
        """Note that another launch runs the trial."""
        if trial in self._trials and trial not in self._ended:
            self._elsewhere.add(trial)
            self._begun.pop(trial, None)

    def ended(self, trial: str, end: TrialEnd) -> None:
        """Show that a trial is over. A second report of the same trial is ignored.

        Args:
            trial: its id.
        """
        if trial in self._ended or trial not in self._trials:
            return
        self._ended[trial] = end
        self._elsewhere.discard(trial)
        # The estimated speed of this launch must not count work that a failed trial left out, or that others did.
        ours = end.state == "finished" and not end.owner
        self._begun[trial] = min(end.resumed, self._begun.get(trial, 1.0)) if ours else 1.0
        self._done[trial] = 1.0
        if not self._live_view or end.error or end.diverged:
            self.say(self._line(trial, end))

    def _line(self, trial_id: str, end: TrialEnd) -> str:
        trial = self._trials[trial_id]
        name = trial.name
        if end.state == "failed":
            return f"failed: {name} ({trial_id}): {end.error}"
        values = "  ".join(f"{m} {100 * end.metrics[m]:.2f}" for m in trial.metrics if m in end.metrics)
        if end.diverged:
            values = divergence(end.diverged)
        resumed = f" from {100 * end.resumed:.0f}% on" if end.resumed else ""
        left = self.remaining()
        memory = f"; {words(end.gpu_memory)}" if end.gpu_memory else ""
        where = f" by {end.owner}" if end.owner else ""
        return (
            f"[{self._before + len(self._ended)}/{self._before + len(self._trials)}] {name}{resumed}: {values}  "
            f"({end.seconds:.0f} s{where}{memory}; {_clock(time.monotonic() - self._started)} gone, "
            f"about {_clock(left)} left)"
        )

    def remaining(self) -> float:
        """Seconds until the launch is over, estimated from the trials' expected seconds and from their speed so far."""
        ours = {trial: t for trial, t in self._trials.items() if trial not in self._elsewhere}
        if not ours:
            return 0.0
        left = {trial: t.seconds * (1 - self._done[trial]) for trial, t in ours.items()}
        done = sum(self._trials[trial].seconds * (self._done[trial] - begun) for trial, begun in self._begun.items())
        running = len(self._begun.keys() - self._ended.keys())
        elapsed = time.monotonic() - self._started
        if done <= 0 or (elapsed < 5 and not self._ended):  # a trial that has ended tells its speed, others not so soon
            return max(sum(left.values()) / self._workers, max(left.values()))
        # All together, but never sooner than the longest trial takes at the pace of one worker.
        return max(sum(left.values()), max(left.values()) * max(1, running)) * elapsed / done

    def _render(self) -> Group:
        table = Table(box=None, padding=(0, 1), header_style="dim", expand=False)
        for heading, justify in _COLUMNS.items():
            table.add_column(heading, justify=justify)  # type: ignore[arg-type]
        for variant in dict.fromkeys(t.variant for t in self._trials.values()):
            ids = [trial for trial, t in self._trials.items() if t.variant == variant]
            failed = sum(self._ended[trial].state == "failed" for trial in ids if trial in self._ended)
            table.add_row(
                Text(shown(variant)),
                ProgressBar(total=len(ids), completed=sum(self._done[trial] for trial in ids), width=30),
                f"{sum(trial in self._ended for trial in ids) - failed}/{len(ids)}",
                str(sum(trial in self._begun and trial not in self._ended for trial in ids) or ""),
                Text(str(failed or ""), style="red"),
            )
        elapsed, ended = time.monotonic() - self._started, len(self._ended)
        summary = (
            f"{self._before + ended} of {counted(self._before + len(self._trials), 'trial')}, {_clock(elapsed)} gone"
            + (f", {60 * ended / elapsed:.1f} a minute" if ended and elapsed > 1 else "")
            + (f", {len(self._elsewhere)} run elsewhere" if self._elsewhere else "")
            + (f", about {_clock(self.remaining())} left" if ended < len(self._trials) else "")
        )
        # The summary comes first: where the screen is too low for all variants, the last rows are cut.
        return Group(Text(summary, style="bold"), table)


def divergence(where: dict[str, Any]) -> str:
    """Say where a trial diverged, as ``diverged in task 4 after 3,512 examples: weights not finite``."""
    return f"diverged in task {where['task'] + 1} after {where['step']:,} examples: {where['what']} not finite"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
