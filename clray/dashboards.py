"""The panels of a page about a reproduction, declared once: W&B's page and the HTML report draw the same panels.

Pure functions from declarations (a reproduction, its sweeps) to plain data. ``clray.tracking.pages`` lets W&B draw
the panels from published runs; ``clray.analysis.report`` draws them from the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from clray.grid import point_of, setting_text
from clray.metrics import METRICS
from clray.reproduction import Reproduction, Row
from clray.selection import Selection
from clray.sweep import Sweep

PanelKind = Literal["verdicts", "spread", "curve", "matrices", "runs"]


@dataclass(frozen=True)
class Panel:
    """One picture or table of a section.

    Attributes:
        kind: ``verdicts``, measured and published numbers as text; ``spread``, a metric by variant and the spread
            over its runs; ``curve``, a value over the tasks learned, by variant; ``matrices``, the accuracy on each
            task after each task; ``runs``, each run with its metrics.
        title: the heading.
        caption: a sentence about the panel's content.
        value: the drawn value: a metric's name for ``spread``, a column of a run's history for ``curve``; else empty.
    """

    kind: PanelKind
    title: str
    caption: str
    value: str = ""


@dataclass(frozen=True)
class Section:
    """The part of a page about one table: a published one, or a sweep's own.

    Attributes:
        title: the heading.
        source: the table's place in the paper; empty for a sweep's own table.
        sweep: the name under which the sweep's runs are published: ``paper/name``, with the suffix of a changed sweep.
        variants: the label of each row, by the row's variant.
        metrics: the columns.
        data: the fingerprints of its runs' data; empty where they are not known. There are several where several models
            read the same texts.
    """

    title: str
    source: str
    sweep: str
    variants: Mapping[str, str]
    metrics: Sequence[str]
    data: Sequence[str] = ()

    @property
    def heading(self) -> str:
        return f"{self.title} ({self.source})" if self.source else self.title

    @property
    def panels(self) -> list[Panel]:
        return panels(self.metrics)


@dataclass(frozen=True)
class Dashboard:
    """The page of a reproduction, or of a sweep without one.

    Attributes:
        name: the reproduction or sweep, with the suffix of a selection.
        title: the page's title, unique in a project: publishing again finds the page by it.
        text: the tables with their verdicts, as Markdown; empty before there are any.
        command: the command that makes the page again.
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
    """The name under which a sweep's runs are published: ``paper/name`` and the suffix of ``--quick`` or ``--set``."""
    return sweep.name + Selection(quick=sweep.selection.quick, set=sweep.selection.set).suffix


def panels(metrics: Sequence[str]) -> list[Panel]:
    """The panels of a table with these metrics, in order."""
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
    data: Mapping[str, Sequence[str]] | None = None,
    command: str = "",
) -> Dashboard:
    """The page of a reproduction, or of sweeps without one.

    Args:
        name: the reproduction or the sweep that the user asked for.
        sweeps: the sweeps by the names that the reproduction's tables use, as ``Reproduction.sweeps`` gives them.
        text: the tables with their verdicts, as Markdown.
        data: the fingerprints of the data that fill a table, by the table's title.
        command: the shell command that makes the page again.
    """
    first = next(iter(sweeps.values()))
    title = reproduction.title if reproduction else first.title or name
    name += first.selection.suffix
    sections = _tables(reproduction, sweeps) if reproduction else [_whole(sweep) for sweep in sweeps.values()]
    sections = [replace(section, data=(data or {}).get(section.title, ())) for section in sections]
    return Dashboard(name, f"{title}, clray {name}", sections, text, command)


def _whole(sweep: Sweep) -> Section:
    variants = {variant: variant for variant, _ in sweep.variant_settings()}
    return Section(sweep.title or sweep.name, "", published_name(sweep), variants, tuple(sweep.metrics))


def _tables(reproduction: Reproduction, sweeps: Mapping[str, Sweep]) -> list[Section]:
    """A section for each table, with the rows that the selection left in it; none for a table without rows."""
    sections = []
    for table in reproduction.tables:
        if table.sweep not in sweeps:
            continue
        sweep = sweeps[table.sweep]
        rows = dict(entry for row in table.rows for entry in _variants(row, dict(sweep.variant_settings())))
        if rows:
            sections.append(Section(table.title, table.source, published_name(sweep), rows, tuple(table.metrics)))
    return sections


def _variants(row: Row, present: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """The variants of a sweep that fill a row, with their labels. Where a tuning phase chooses among the points of a
    grid, the page shows all of them, because it is made before the choice."""
    for variant in row.filling(present):
        point = setting_text(point_of(variant, present[variant]))
        yield variant, f"{row.label}, {point}" if variant != row.variant else row.label
