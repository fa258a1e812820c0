"""Variants of a table against its first one, for a report: the comparisons, their table, and a forest plot."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from clray.analysis.against import Compared, Contrast, Decision, compare_all
from clray.analysis.against_forms import HEAD, direction, line_of, statistics_notes
from clray.analysis.comparison import ComparedTable
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
_MARKERS: dict[Decision, str] = {"better": "o", "worse": "D", "not decided": "s"}


def of_table(table: ComparedTable) -> Compared | None:
    """The variants of a table against the first of them that has runs, in the table's first metric.

    Variants with fewer than two runs take no part. None where there are no two variants to compare.
    """
    metric = table.metrics[0]
    rows = [row for row in table.rows if len(row.runs.values(metric)) > 1]
    if len(rows) < 2:
        return None
    (found,) = compare_all([(replace(table, rows=rows, metrics=[metric]), rows[0].variant, ())])
    return found


def block(compared: Compared) -> Block:
    """The comparisons as a table below the plot."""
    assert compared.baseline is not None
    made = compared.contrasts
    title = f"{direction(made[0].metric)}: against {compared.baseline.label}"
    return Block(title, list(HEAD), [line_of(c) for c in made], "lrrrrll", statistics_notes(made))


@drawing()
def plot(compared: Compared, key: str = "forest") -> str:
    """Draw each variant's difference from the baseline with its 95% interval; the line at zero is the baseline.

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
    for place, contrast in enumerate(made):
        _draw(axes, len(made) - 1 - place, contrast)
    axes.set_ylim(-0.6, len(made) - 0.4)
    axes.margins(x=0.05)
    axes.set_yticks(range(len(made)), [visible(c.row.label) for c in reversed(made)])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.15, color=INK)
    better = "left" if METRICS[metric].lower_is_better else "right"
    axes.set_xlabel(visible(f"{metric} minus that of {baseline.label}, points; better is to the {better}"))
    return svg(figure, key, plot_alt(compared))


def _draw(axes: Axes, height: float, contrast: Contrast) -> None:
    if contrast.gap is None:
        return
    colour, ends = _COLOURS[contrast.decision], contrast.gap.interval()
    if ends is not None:
        axes.plot(list(ends), [height, height], color=colour, linewidth=1.8, solid_capstyle="butt")
    axes.plot(contrast.gap.difference.value, height, _MARKERS[contrast.decision], color=colour, markersize=4.5)


def plot_alt(compared: Compared) -> str:
    """The plot as text."""
    assert compared.baseline is not None
    said = [
        f"{c.row.label} {number(c.gap.difference.value, sign=True)}, {c.decision}" for c in compared.contrasts if c.gap
    ]
    metric = compared.contrasts[0].metric
    return f"{metric}: differences from {compared.baseline.label} with 95% intervals, in points: " + "; ".join(said)
