"""What a page about a reproduction shows, declared once: W&B's page and the HTML report draw the same panels.

Pure functions from what is declared (a reproduction, its sweeps) to plain data. Who draws, and from which numbers, is
decided elsewhere: ``clray.tracking.dashboards`` lets W&B draw from the runs that were published,
``clray.analysis.report`` draws from the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from clray.metrics import METRICS
from clray.reproduction import Reproduction
from clray.selection import Selection
from clray.sweep import Sweep

Kind = Literal["verdicts", "spread", "curve", "matrices", "runs"]


@dataclass(frozen=True)
class Panel:
    """One picture or table of a section.

    Attributes:
        kind: ``verdicts``, ours beside the published numbers, in words; ``spread``, a metric by variant, with the
            spread over its runs; ``curve``, a value over the tasks learned, by variant; ``matrices``, accuracy on each
            task after each task; ``runs``, every run with its metrics.
        title: its heading.
        caption: what is to be seen.
        value: what is drawn: a metric's name for ``spread``, a column of a run's history for ``curve``; else empty.
    """

    kind: Kind
    title: str
    caption: str
    value: str = ""


@dataclass(frozen=True)
class Section:
    """A published table, or a sweep's own.

    Attributes:
        title: its heading.
        source: where the table stands in the paper; empty for a sweep's own.
        sweep: the sweep whose runs fill it, by the name they are published under: ``paper/name``, and for a changed
            sweep the change's suffix.
        variants: the label of each row by the variant behind it.
        metrics: the columns.
        data: the fingerprint of the one data set whose runs fill it; empty where that is not known.
    """

    title: str
    source: str
    sweep: str
    variants: Mapping[str, str]
    metrics: Sequence[str]
    data: str = ""

    @property
    def heading(self) -> str:
        return f"{self.title} ({self.source})" if self.source else self.title

    @property
    def panels(self) -> list[Panel]:
        return panels(self.metrics)


@dataclass(frozen=True)
class Dashboard:
    """A page: a reproduction's, or a sweep's own.

    Attributes:
        name: the reproduction or sweep, and the suffix of what was selected of it.
        title: the page's. One page of a project has it: publishing again finds the page by it.
        text: the tables with their verdicts, as Markdown; empty before there are any.
        command: what makes the page again.
    """

    name: str
    title: str
    sections: Sequence[Section]
    text: str = ""
    command: str = ""

    @classmethod
    def of_plain(cls, data: Mapping[str, Any]) -> Dashboard:
        """The inverse of ``dataclasses.asdict``."""
        return cls(**{**data, "sections": [Section(**section) for section in data["sections"]]})


def published_name(sweep: Sweep) -> str:
    """``paper/name``, and the suffix of what ``--quick`` or ``--set`` changed: what its runs are filed under."""
    return sweep.name + Selection(quick=sweep.selection.quick, set=sweep.selection.set).suffix


def panels(metrics: Sequence[str]) -> list[Panel]:
    """What is shown of a table with these metrics, in this order, wherever it is shown."""
    spreads = [
        Panel("spread", name, f"{METRICS[name].title}: mean over runs, and one standard deviation to each side.", name)
        for name in metrics
    ]
    return [
        Panel("verdicts", "Verdicts", "Ours beside the published numbers."),
        *spreads,
        Panel(
            "curve",
            "Accuracy on the tasks seen so far",
            "Mean accuracy over the tasks seen so far, after each task: mean over runs, and one standard deviation to "
            "each side.",
            "accuracy/mean_seen",
        ),
        Panel(
            "curve",
            "Accuracy on all tasks",
            "Mean accuracy over all tasks, those to come included, after each task: mean over runs, and one standard "
            "deviation to each side.",
            "accuracy/mean",
        ),
        Panel("matrices", "Accuracy matrices", "Accuracy on each task after learning each task."),
        Panel("runs", "Runs", "Every run behind the table."),
    ]


def dashboard(
    name: str,
    sweeps: Mapping[str, Sweep],
    reproduction: Reproduction | None = None,
    text: str = "",
    data: Mapping[str, str] | None = None,
    command: str = "",
) -> Dashboard:
    """The page of a reproduction, or of sweeps without one.

    Args:
        name: what the user asked for: a reproduction, or a sweep.
        sweeps: by the name under which the reproduction's tables know them, as ``Reproduction.sweeps`` gives them.
        text: the tables with their verdicts, as Markdown.
        data: by the title of a table, the fingerprint of the data set that fills it.
        command: what makes the page again, as a shell takes it.
    """
    first = next(iter(sweeps.values()))
    title = reproduction.title if reproduction else first.title or name
    name += first.selection.suffix
    sections = _tables(reproduction, sweeps) if reproduction else [_whole(sweep) for sweep in sweeps.values()]
    sections = [replace(section, data=(data or {}).get(section.title, "")) for section in sections]
    return Dashboard(name, f"{title}, clray {name}", sections, text, command)


def _whole(sweep: Sweep) -> Section:
    variants = {variant: variant for variant, _ in sweep.variant_settings()}
    return Section(sweep.title or sweep.name, "", published_name(sweep), variants, tuple(sweep.metrics))


def _tables(reproduction: Reproduction, sweeps: Mapping[str, Sweep]) -> list[Section]:
    """A section a table, with the rows that the selection left in it; none for a table without rows."""
    sections = []
    for table in reproduction.tables:
        if table.sweep not in sweeps:
            continue
        sweep = sweeps[table.sweep]
        present = {variant for variant, _ in sweep.variant_settings()}
        rows = {row.variant: row.label for row in table.rows if row.variant in present}
        if rows:
            sections.append(Section(table.title, table.source, published_name(sweep), rows, tuple(table.metrics)))
    return sections
