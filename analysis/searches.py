"""Hyper-parameter searches: the point of a grid that our runs select, beside the paper's choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clray.analysis.gather import Gathered, Results, gather, not_comparable_because, not_comparable_warning
from clray.analysis.runs import Runs
from clray.grid import point_of
from clray.metrics import METRICS
from clray.reproduction import Searches, SearchRow
from clray.sweep import Sweep


@dataclass(frozen=True)
class ComparedSearch:
    """One hyper-parameter search: the point that it selects, and the point that the paper chose.

    Attributes:
        points: the runs of each point of the grid, in grid order.
        settings: the axes and values of each point.
        selected: the point with the best mean so far; None while no point is complete.
        published: the paper's choice, by axis.
        published_runs: our runs of the paper's choice, which may lie outside the grid; None where no variant has it.
        published_in_grid: True where the paper's choice is a point of the grid.
    """

    label: str
    variant: str
    note: str
    metric: str
    points: Mapping[str, Runs]
    settings: Mapping[str, Mapping[str, Any]]
    selected: str | None
    published: Mapping[str, Any]
    published_runs: Runs | None
    published_in_grid: bool

    @property
    def complete(self) -> int:
        """The number of points that have all their runs."""
        return sum(runs.complete for runs in self.points.values())

    @property
    def agrees(self) -> bool | None:
        """True where the whole grid selects the paper's choice; None while points are missing."""
        if self.selected is None or self.complete < len(self.points):
            return None
        return dict(self.settings[self.selected]) == dict(self.published)


@dataclass(frozen=True)
class ComparedSearches:
    """The searches of one sweep.

    Attributes:
        source: the place in the paper.
        sweep: the name of the sweep that holds the grids.
        metric: the metric that selects.
        validation: True where it was measured on data held out of the training data, not on the test data.
        left_out: the labels of searches that the selection did not ask for.
        not_comparable_because: see ``ComparedTable``.
    """

    title: str
    source: str
    sweep: str
    metric: str
    rows: Sequence[ComparedSearch]
    gathered: Gathered
    validation: bool
    left_out: Sequence[str] = ()
    not_comparable_because: Sequence[str] = ()

    @property
    def warning(self) -> str:
        """The label of searches that must not be compared with the paper; empty where they may be."""
        return not_comparable_warning(self.not_comparable_because)


def compare_searches(group: Searches, sweep: Sweep, results: Results) -> ComparedSearches:
    """Put what our runs select beside the paper's choices, for the searches of one sweep."""
    variants = dict(sweep.variant_settings())
    gathered = gather(sweep, list(variants), results)
    asked = [row for row in group.rows if row.points(variants)]
    return ComparedSearches(
        title=group.title,
        source=group.source,
        sweep=sweep.name,
        metric=group.metric,
        rows=[_compare_search(row, group.metric, variants, gathered) for row in asked],
        gathered=gathered,
        validation=all(cell.trial.benchmark.get("validation") for cell in sweep.cells),
        left_out=[row.label for row in group.rows if row not in asked],
        not_comparable_because=not_comparable_because(sweep, gathered),
    )


def _compare_search(
    row: SearchRow, metric: str, variants: Mapping[str, dict[str, Any]], gathered: Gathered
) -> ComparedSearch:
    points = {name: gathered.variants[name] for name in row.points(variants)}
    published = row.published_point(variants)
    return ComparedSearch(
        label=row.label,
        variant=row.variant,
        note=row.note,
        metric=metric,
        points=points,
        settings={name: point_of(name, variants[name]) for name in points},
        selected=select_point(points, metric),
        published=row.published,
        published_runs=gathered.variants[published] if published else None,
        published_in_grid=published in points,
    )


def select_point(points: Mapping[str, Runs], metric: str) -> str | None:
    """The point of a grid with the best mean of a metric; None where no point is complete.

    The metric's declaration says if more or less of it is better. As in official search loops, points are taken in grid
    order, and a later one must be strictly better. A point that lacks runs, or of which a run diverged
    or has no such metric, takes no part, because a mean of fewer runs is more likely to be good by chance.
    """
    return best_of({name: runs.all_values(metric) for name, runs in points.items()}, metric)


def best_of(values: Mapping[str, Sequence[float]], metric: str) -> str | None:
    """The name with the best mean; the first of several that are equally good. Names without values take no part."""
    sign = METRICS[metric].sign
    best, selected = -np.inf, None
    for name, of_point in values.items():
        if len(of_point) and (mean := sign * float(np.mean(of_point))) > best:
            best, selected = mean, name
    return selected
