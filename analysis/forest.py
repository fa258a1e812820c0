"""Variants of a table against its first one, for a report: the comparisons, their table, and a forest plot."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from clray.analysis.against import Compared, Contrast, Decision, compare_all
from clray.analysis.against_forms import HEAD, direction, line_of, statistics_notes
from clray.analysis.comparison import ComparedRow, ComparedTable
from clray.analysis.formatting import number
from clray.analysis.orders import Block
from clray.analysis.plots import INK, OUTCOME_COLOURS, drawing, ink, svg
from clray.metrics import METRICS
from clray.output import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS: dict[Decision, str] = {
    "better": OUTCOME_COLOURS["reproduced"],
    "worse": OUTCOME_COLOURS["differs"],
    "not decided": OUTCOME_COLOURS["inconclusive"],
}
FARTHEST = 5
_MARKERS: dict[Decision, str] = {"better": "o", "worse": "D", "not decided": "s"}


def of_table(table: ComparedTable, baseline: str = "") -> Compared | None:
    """The variants of a table against one of them, in the table's first metric.

    Variants with fewer than two runs take no part, nor do those that learn other classes or other numbers of tasks than
    the baseline. None where there are no two variants to compare.

    Args:
        baseline: a variant; where the table has no runs of it, the first one with runs takes its place.
    """
    metric = table.metrics[0]
    rows = [row for row in table.rows if len(row.runs.values(metric)) > 1]
    if len(rows) < 2:
        return None
    named = baseline if any(row.variant == baseline for row in rows) else rows[0].variant
    learnt = next(_learnt(row) for row in rows if row.variant == named)
    others = [row.label for row in rows if _learnt(row) != learnt]
    rows = [row for row in rows if row.label not in others]
    if len(rows) < 2:
        return None
    notes = [("left out", f"learn other classes or another number of tasks: {'; '.join(others)}")] if others else []
    (found,) = compare_all([(replace(table, rows=rows, metrics=[metric]), named, notes)])
    return found


def _learnt(row: ComparedRow) -> list[object]:
    """What the runs of a row learn, as far as it makes their results comparable."""
    trial = row.runs.runs[0].trial
    return [trial.benchmark.get(key) for key in ("dataset", "classes", "tasks")] if trial else []


def block(compared: Compared) -> Block:
    """The comparisons as a table below the plot."""
    assert compared.baseline is not None
    made = compared.contrasts
    title = f"{direction(made[0].metric)}: against {compared.baseline.label}"
    return Block(title, list(HEAD), [line_of(c) for c in made], "lrrrrll", [*statistics_notes(made), *compared.notes])


@drawing()
def plot(compared: Compared, key: str = "forest") -> str:
    """Draw each variant's difference from the baseline with its 95% interval; the line at zero is the baseline.

    The axis reaches at most ``FARTHEST`` times as far as the intervals of half the variants, so that one far variant
    does not hide the others' differences. What lies beyond ends in an arrow at the edge.

    Args:
        key: a prefix of the figure's ids, different for each figure of a page.
    """
    from matplotlib.figure import Figure

    made, baseline = compared.contrasts, compared.baseline
    assert baseline is not None
    metric = made[0].metric
    figure = Figure(figsize=(6.6, 1.0 + 0.28 * len(made)), layout="constrained")
    axes = figure.subplots()
    ink(axes)
    axes.axvline(0, color=INK, linewidth=0.8, alpha=0.5)
    low, high = edges(made)
    for place, contrast in enumerate(made):
        _draw(axes, len(made) - 1 - place, contrast, low, high)
    axes.set_ylim(-0.6, len(made) - 0.4)
    axes.set_xlim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    axes.set_yticks(range(len(made)), [visible(c.row.label) for c in reversed(made)])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.15, color=INK)
    better = "left" if METRICS[metric].lower_is_better else "right"
    axes.set_xlabel(visible(f"{metric} minus that of {baseline.label}, points; better is to the {better}"))
    return svg(figure, key, plot_alt(compared))


def _ends(contrast: Contrast) -> tuple[float, float] | None:
    """The interval of the difference, or the difference twice where it has none."""
    if contrast.gap is None:
        return None
    value = contrast.gap.difference.value
    return contrast.gap.interval() or (value, value)


def edges(made: Sequence[Contrast]) -> tuple[float, float]:
    """The ends of the axis, which zero lies between; 1 to each side where there is nothing to show."""
    found = [ends for contrast in made if (ends := _ends(contrast))]
    farthest = FARTHEST * statistics.median(max(map(abs, ends)) for ends in found) if found else 0.0
    low = max(min([0.0, *(ends[0] for ends in found)]), -farthest)
    high = min(max([0.0, *(ends[1] for ends in found)]), farthest)
    return (low, high) if low < high else (-1.0, 1.0)


def _draw(axes: Axes, height: float, contrast: Contrast, low: float, high: float) -> None:
    ends = _ends(contrast)
    if ends is None or contrast.gap is None:
        return
    colour, value = _COLOURS[contrast.decision], contrast.gap.difference.value
    inside = [min(max(end, low), high) for end in ends]
    if inside[0] < inside[1]:
        axes.plot(inside, [height, height], color=colour, linewidth=1.8, solid_capstyle="butt")
    if ends[0] < low:
        axes.plot(low, height, "<", color=colour, markersize=5)
    if ends[1] > high:
        axes.plot(high, height, ">", color=colour, markersize=5)
    if low <= value <= high:
        axes.plot(value, height, _MARKERS[contrast.decision], color=colour, markersize=4.5)


def plot_alt(compared: Compared) -> str:
    """The plot as text."""
    assert compared.baseline is not None
    said = [
        f"{c.row.label} {number(c.gap.difference.value, sign=True)}, {c.decision}" for c in compared.contrasts if c.gap
    ]
    metric = compared.contrasts[0].metric
    return f"{metric}: differences from {compared.baseline.label} with 95% intervals, in points: " + "; ".join(said)
