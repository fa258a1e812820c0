"""Figures of a comparison as SVG text: small files, and the same bytes for the same numbers.

Lines and letters take the page's text colour (``currentColor``) and its CSS colours (``--series-0`` …, ``--reproduced``
…, with fallbacks), so a figure inside a page follows its light or dark theme. pyplot and its global state are not used.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clray.analysis.comparison import ComparedCell, ComparedTable
from clray.analysis.curriculum import score_lines, studies
from clray.analysis.formatting import number
from clray.analysis.orders import sensitivities
from clray.analysis.runs import Runs
from clray.analysis.verdict import Outcome
from clray.metrics import Matrix
from clray.output import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours of Okabe and Ito, which most colour-blind readers can distinguish. Later lines repeat them with dashes.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f6fc4", "#8c8c8c")
OUTCOME_COLOURS: Mapping[Outcome, str] = {
    "reproduced": "#1a7f4b",
    "consistent": "#1f6f8b",
    "differs": "#c0392b",
    "inconclusive": "#b7791f",
    "not judged": "#7a7a7a",
}
_MARKERS: Mapping[Outcome, str] = {
    "reproduced": "o",
    "consistent": "^",
    "differs": "D",
    "inconclusive": "s",
    "not judged": ".",
}
_NO_MATH = {"text.parse_math": False}  # a dollar sign in a label is printed as it is
INK = "#010203"  # replaced by the page's text colour when the SVG is written
DASHES = ("solid", "dashed", "dotted")
MOST_BESIDE = 3
"""The most panels of metrics in a line; the numbers of narrower ones touch."""


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """A context in which matplotlib uses its own defaults and prints nothing, whatever the user's settings are.

    A figure must be made and written inside the context. It ignores matplotlibrc, styles and MPLBACKEND: a mistake in
    them must not stop a report, and nothing is shown on a screen.
    """
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)  # no warnings about a cache folder it cannot write or a setting it does not know
    try:
        matplotlib = _matplotlib()
        with warnings.catch_warnings(), matplotlib.rc_context():
            warnings.simplefilter("ignore")  # such as missing letters in a font: the page uses other fonts
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_NO_MATH)
            yield
    finally:
        logger.setLevel(level)


def _matplotlib() -> Any:
    """Import matplotlib without MPLBACKEND in the environment: an unknown name there would stop the import."""
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    return matplotlib


CURVES = {
    # column of a run's history: (attribute of Runs, label of the axis, description of the figure)
    "accuracy/mean_seen": ("seen_curves", "mean accuracy on them (%)", "Mean accuracy over the tasks seen so far"),
    "accuracy/mean": ("overall_curves", "mean accuracy on all tasks (%)", "Mean accuracy over all tasks"),
}


@drawing()
def curves(table: ComparedTable, key: str = "curves", value: str = "accuracy/mean_seen") -> str:
    """Draw a mean accuracy after each task: a line for each variant, with a band of one sd over its runs.

    Args:
        key: a prefix of the figure's ids, different for each figure of a page.
        value: one of ``CURVES``, which says over which tasks the mean is taken.
    """
    attribute, axis, _ = CURVES[value]
    shown = [row for row in table.rows if row.runs.runs]
    columns = 2 if max((len(row.label) for row in shown), default=0) > 18 else 3
    rows_of_legend = -(-len(shown) // columns)
    figure, axes = _figure(5.6, 3.0 + 0.2 * rows_of_legend)
    for i, row in enumerate(shown):
        values = 100 * getattr(row.runs, attribute)
        tasks, mean = np.arange(1, values.shape[1] + 1), values.mean(axis=0)
        colour = SERIES[i % len(SERIES)]
        axes.plot(tasks, mean, color=colour, linestyle=DASHES[i // len(SERIES) % 3], linewidth=1.6)
        if len(values) > 1:
            sd = values.std(axis=0, ddof=1)
            low, high = np.clip([mean - sd, mean + sd], 0, 100)
            axes.fill_between(tasks, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xlabel("tasks learned")
    axes.set_ylabel(axis)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.15, color=INK)
    legend(figure, axes.get_lines(), [row.label for row in shown], columns)
    return svg(figure, key, curves_alt(table, value))


def has_curve(table: ComparedTable, value: str) -> bool:
    """Tell if there is a line to draw: it needs values after at least two tasks.

    Where only the tasks seen so far were evaluated, the mean over all tasks exists once, at the end.
    """
    measured = [getattr(row.runs, CURVES[value][0]) for row in table.rows if row.runs.runs]
    return any(np.isfinite(values).all(axis=0).sum() > 1 for values in measured)


def curves_alt(table: ComparedTable, value: str = "accuracy/mean_seen") -> str:
    """The curves as text."""
    attribute, _, words = CURVES[value]
    ends = [f"{r.label} {100 * getattr(r.runs, attribute)[:, -1].mean():.1f}" for r in table.rows if r.runs.runs]
    return f"{words}, after each task; at the end, in per cent: " + ", ".join(ends)


@drawing()
def spreads(table: ComparedTable, metrics: Sequence[str], key: str = "spreads") -> str:
    """Draw each run of each variant, their mean ± one sd, and the published number: a panel for each metric."""
    rows = [row for row in table.rows if row.runs.runs]
    figure, panels = _figure(7.2, 0.9 + 0.3 * len(rows), len(metrics), MOST_BESIDE)
    for axes, metric in zip(panels, metrics, strict=True):
        for place, row in enumerate(rows):
            _draw_spread(axes, len(rows) - 1 - place, row.cells[metric], SERIES[place % len(SERIES)])
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.margins(x=0.08)
        axes.set_title(metric, fontsize=9.5, color=INK)
        labels = [visible(row.label) for row in reversed(rows)] if axes.get_subplotspec().is_first_col() else []
        axes.set_yticks(range(len(rows)), labels)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", alpha=0.15, color=INK)
    figure.supxlabel("per cent", fontsize=9.5, color=INK)
    return svg(figure, key, spreads_alt(table, metrics))


def spreads_alt(table: ComparedTable, metrics: Sequence[str]) -> str:
    """The spreads as text."""
    said = [
        f"{row.label} {metric} {number(ours.mean)}" + (f" ± {number(ours.sd)}" if ours.n > 1 else "")
        for row in table.rows
        for metric in metrics
        if (ours := row.cells[metric].ours)
    ]
    return "Mean and standard deviation over runs, in per cent: " + "; ".join(said)


def _draw_spread(axes: Axes, height: float, cell: ComparedCell, colour: str) -> None:
    """Draw our runs on the row's line, and the published number a little below it."""
    if cell.ours:
        sd = cell.ours.sd if cell.ours.n > 1 else 0.0
        ends = [cell.ours.mean - sd, cell.ours.mean + sd]
        axes.plot(ends, [height, height], color=colour, linewidth=5, alpha=0.35, solid_capstyle="butt")
        values = list(cell.values.values())
        axes.plot(values, [height] * len(values), "o", color=colour, markersize=3, alpha=0.8, markeredgewidth=0)
        axes.plot([cell.ours.mean] * 2, [height - 0.26, height + 0.26], color=colour, linewidth=1.8)
    if cell.claim:
        below, spread = height - 0.36, cell.claim.spread or 0.0
        axes.plot([cell.claim.mean - spread, cell.claim.mean + spread], [below, below], color=INK, linewidth=0.9)
        axes.plot(cell.claim.mean, below, "D", color=INK, markersize=3.4)


@drawing()
def heat_map(runs: Runs, label: str, key: str = "matrix") -> str:
    """Draw the mean accuracy matrix over the runs: row i after learning task i, column j measured on task j.

    Where tasks share classes, column j is measured on class j.
    """
    matrix = runs.mean_matrix
    assert matrix is not None, "a heat map needs a run"
    figure, axes = _figure(3.9, 3.3)
    tasks, columns = matrix.shape
    extent = (0.5, columns + 0.5, tasks + 0.5, 0.5)
    by_class = runs.runs[0].by_class
    aspect = "auto" if by_class else "equal"
    axes.imshow(100 * matrix, vmin=0, vmax=100, cmap="viridis", interpolation="none", extent=extent, aspect=aspect)
    axes.set_xlabel("measured on class" if by_class else "measured on task")
    axes.set_ylabel("after learning task")
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True)
    if columns <= 10:
        write_values(axes, 100 * matrix, first=1)
    colour_scale(axes)
    return svg(figure, key, heat_map_alt(runs, label))


def heat_map_alt(runs: Runs, label: str) -> str:
    """The heat map as text."""
    matrix = runs.mean_matrix
    assert matrix is not None
    learned, kept = 100 * np.diag(matrix).mean(), 100 * matrix[-1].mean()
    by_class = runs.runs[0].by_class
    shown = np.isfinite(learned) and not by_class
    measured = f"{learned:.1f}% right after learning a task on average, " if shown else ""
    over = f"{len(matrix)} tasks" + (f" and {matrix.shape[1]} classes" if by_class else "")
    return (
        f"{label}: mean accuracy matrix of {len(runs.runs)} runs over {over}; {measured}{kept:.1f}% after the last task"
    )


def write_values(axes: Axes, matrix: Matrix, first: int = 0) -> None:
    """Write each value (per cent) of a matrix into its cell; the cells' centres are whole numbers from ``first`` on."""
    for (i, j), value in np.ndenumerate(matrix):
        if np.isfinite(value):
            colour = "#000000" if value > 60 else "#ffffff"
            axes.text(j + first, i + first, f"{value:.0f}", ha="center", va="center", fontsize=7.5, color=colour)


def colour_scale(axes: Axes, share: float = 0.05) -> None:
    """Draw the scale of a heat map, 0 to 100 per cent, beside it.

    Args:
        share: the scale's width, and its distance from the heat map, as a share of the heat map's width.
    """
    # It is drawn as an image: a colorbar would put a path for each of its 256 colours into the SVG.
    scale = axes.inset_axes((1 + share, 0.0, share, 1.0))
    scale.imshow(np.linspace(100, 0, 64)[:, None], cmap="viridis", aspect="auto", extent=(0, 1, 0, 100))
    scale.set_xticks([])
    scale.yaxis.tick_right()
    scale.set_title("%", fontsize=8.5, color=INK)
    ink(scale)


@drawing()
def differences(table: ComparedTable, key: str = "differences") -> str:
    """Draw our mean minus the published one, with its 95% interval: a panel for each metric; the band is the margin.

    A panel reaches at most six margins to each side. An interval beyond that ends in an arrow at the panel's edge.
    """
    metrics = [m for m in table.metrics if any(row.cells[m].judgement.interval for row in table.rows)]
    rows = [row for row in table.rows if any(row.cells[m].judgement.interval for m in metrics)]
    figure, panels = _figure(6.6, 0.9 + 0.28 * len(rows), len(metrics), MOST_BESIDE)
    for axes, metric in zip(panels, metrics, strict=True):
        cells = [row.cells[metric] for row in rows]
        margin = table.margins.get(metric)
        reach = _reach(cells, margin.points if margin else None)
        if margin:
            axes.axvspan(-margin.points, margin.points, color=INK, alpha=0.08, linewidth=0)
        axes.axvline(0, color=INK, linewidth=0.8, alpha=0.5)
        for place, cell in enumerate(cells):
            _draw_difference(axes, len(rows) - 1 - place, cell, reach)
        axes.set_xlim(-1.08 * reach, 1.08 * reach)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_title(metric, fontsize=9.5, color=INK)
        labels = [visible(row.label) for row in reversed(rows)] if axes.get_subplotspec().is_first_col() else []
        axes.set_yticks(range(len(rows)), labels)
        axes.tick_params(axis="y", length=0)
    figure.supxlabel("ours minus published, points", fontsize=9.5, color=INK)
    return svg(figure, key, differences_alt(table))


def differences_alt(table: ComparedTable) -> str:
    """The differences as text."""
    said = [
        f"{row.label} {cell.metric} {number(cell.judgement.difference, True)}, {cell.judgement.outcome}"
        for row, cell in table.over_all
        if cell.judgement.interval and cell.judgement.difference is not None
    ]
    return "Differences between ours and the published numbers, in points: " + "; ".join(said)


def _reach(cells: Sequence[ComparedCell], margin: float | None) -> float:
    ends = [abs(end) for cell in cells if cell.judgement.interval for end in cell.judgement.interval]
    widest = max(ends, default=1.0) or 1.0
    return widest if margin is None else min(max(widest, 1.5 * margin), 6 * margin)


def _draw_difference(axes: Axes, height: float, cell: ComparedCell, reach: float) -> None:
    judged = cell.judgement
    if judged.interval is None or judged.difference is None:
        return
    colour = OUTCOME_COLOURS[judged.outcome]
    low, high = (float(np.clip(end, -reach, reach)) for end in judged.interval)
    if low < high:
        axes.plot([low, high], [height, height], color=colour, linewidth=1.8, solid_capstyle="butt")
    for end in judged.interval:
        if abs(end) > reach:
            axes.plot(np.sign(end) * reach, height, marker=">" if end > 0 else "<", color=colour, markersize=5)
    if abs(judged.difference) <= reach:
        axes.plot(judged.difference, height, marker=_MARKERS[judged.outcome], color=colour, markersize=4.5)


_MOST_NAMED = 40
"""The most task orders that a legend names."""


@drawing()
def orders(table: ComparedTable, key: str = "orders") -> str:
    """Draw a dot for each task order of each variant: the mean over the order's runs.

    The line is the mean over orders, the bar one sd to each side. A published number of a single order is a small
    diamond in the order's colour, a little below.
    """
    found = sensitivities(table)
    names = list(dict.fromkeys(name for _, one in found for name in one.means))
    columns, lines = 2 if max(map(len, names)) > 20 else 3, len(names) if len(names) <= _MOST_NAMED else 0
    figure, axes = _figure(6.6, 1.1 + 0.34 * len(found) + 0.2 * -(-lines // columns))
    for place, (row, one) in enumerate(reversed(found)):
        if math.isfinite(one.sd):
            ends = [one.mean - one.sd, one.mean + one.sd]
            axes.plot(ends, [place, place], color=INK, linewidth=5, alpha=0.12, solid_capstyle="butt")
        axes.plot([one.mean] * 2, [place - 0.26, place + 0.26], color=INK, linewidth=1.2)
        for name, mean in one.means.items():
            colour, marker = _order_mark(names.index(name))
            axes.plot(mean, place, marker, color=colour, markersize=5, alpha=0.85, markeredgewidth=0)
            if name in row.orders and (claim := row.orders[name].claim):
                axes.plot(claim.mean, place - 0.36, "D", color=colour, markersize=2.8, markeredgewidth=0)
    marks: list[Any] = []
    for i in range(lines):
        colour, marker = _order_mark(i)
        marks += axes.plot([], [], marker, color=colour, markersize=5, markeredgewidth=0)
    axes.set_ylim(-0.7, len(found) - 0.3)
    axes.set_yticks(range(len(found)), [visible(row.label) for row, _ in reversed(found)])
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"{table.metrics[0]} (%)")
    axes.grid(axis="x", alpha=0.15, color=INK)
    if lines:
        legend(figure, marks, names, columns)
    return svg(figure, key, orders_alt(table))


@drawing()
def curriculum(table: ComparedTable, key: str = "curriculum") -> str:
    """Draw a plot for each variant, with a dot for each task order: its score, and the F-score that was measured.

    A colour is a kind of features that the score's distances are of. Each plot has its own scale, as methods differ by
    more than orders do.
    """
    found, names = studies(table), list(table.curriculum)
    figure, plots = _figure(0.8 + 2.5 * len(found), 3.0, panels=len(found))
    for axes, study in zip(plots, found, strict=True):
        for i, name in enumerate(names):
            colour, marker = _order_mark(i)
            axes.plot(study.scores[name], study.measured, marker, color=colour, markersize=3.5, alpha=0.7, mew=0)
        axes.set_title(visible(study.label), fontsize=9.5, color=INK)
        axes.set_xlabel("score")
        axes.grid(alpha=0.15, color=INK)
    plots[0].set_ylabel("F-score")
    marks: list[Any] = []
    for i in range(len(names)):
        colour, marker = _order_mark(i)
        marks += plots[0].plot([], [], marker, color=colour, markersize=5, markeredgewidth=0)
    legend(figure, marks, names, 3)
    return svg(figure, key, curriculum_alt(table))


def curriculum_alt(table: ComparedTable) -> str:
    """The dots as text."""
    said = [f"{line[0]}, {line[1]}: r {line[5]} ({line[6]})" for line in score_lines(table)]
    return "Score and F-score of each task order: " + "; ".join(said)


def _order_mark(place: int) -> tuple[str, str]:
    """The colour and the marker of a task order."""
    return SERIES[place % len(SERIES)], "os^vP*X"[place // len(SERIES) % 7]


def orders_alt(table: ComparedTable) -> str:
    """The dots as text."""
    said = [
        f"{row.label} {number(one.mean)}, best {one.best} {number(one.means[one.best])}, worst {one.worst} "
        f"{number(one.means[one.worst])}"
        for row, one in sensitivities(table)
    ]
    return f"{table.metrics[0]} by task order, mean over orders and extremes in per cent: " + "; ".join(said)


# --------------------------------------------------------------------------------------------------------------
# SVG


def _figure(width: float, height: float, panels: int = 0, beside: int = 0) -> tuple[Figure, Any]:
    """Make a figure with one plot, or with a list of ``panels``.

    Args:
        width, height: in inches; the height is that of one line of panels.
        beside: the most panels that stand side by side; more of them stand in several lines. 0: all.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    lines = -(-panels // beside) if beside and panels else 1
    apart = ConstrainedLayoutEngine(hspace=0.06)  # the default is too little for a title below numbers
    figure = Figure(figsize=(width, height * lines), layout=apart if lines > 1 else "constrained")
    axes = figure.subplots(lines, max(1, -(-panels // lines)), squeeze=False).ravel()
    for unused in axes[max(1, panels) :]:
        unused.remove()
    for one in axes[: max(1, panels)]:
        ink(one)
    return figure, list(axes[:panels]) if panels else axes[0]


def ink(axes: Axes) -> None:
    """Draw axes in the page's text colour, without a background."""
    axes.set_facecolor("none")
    axes.tick_params(colors=INK, labelsize=8.5, width=0.6)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)
        label.set_fontsize(9.5)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
        spine.set_linewidth(0.6)


def legend(figure: Figure, marks: Sequence[Any], labels: Sequence[str], columns: int) -> None:
    """Draw a legend below the plots: each mark with its label."""
    made = figure.legend(
        handles=list(marks),
        labels=[str(i) for i in range(len(marks))],
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=8.5,
        labelcolor=INK,
    )
    # The labels are set here because some releases of matplotlib leave out a label that begins with "_".
    for text, label in zip(made.get_texts(), labels, strict=True):
        text.set_text(visible(label))


def svg(figure: Figure, key: str, alt: str) -> str:
    """The figure as an ``svg`` element with its own ids; its colours are taken from the page's CSS."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "clray", "svg.fonttype": "none", "svg.image_inline": True}):
        empty = {"Date": None, "Creator": None, "Format": None, "Type": None}
        FigureCanvasSVG(figure).print_figure(buffer, format="svg", facecolor="none", metadata=empty)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\b(id="|xlink:href="#|url\(#)', rf"\g<1>{key}-", text)
    colours = [(INK, "currentColor")]
    colours += [(c, f"var(--series-{i}, {c})") for i, c in enumerate(SERIES)]
    colours += [(c, f"var(--{outcome.replace(' ', '-')}, {c})") for outcome, c in OUTCOME_COLOURS.items()]
    for colour, page in colours:
        text = text.replace(f": {colour}", f": {page}")
    text = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", text)
    head = f'<svg role="img" aria-label="{_attribute(alt)}"'
    return head + text[len("<svg") :].rstrip() + "\n"


def standalone(figure: str) -> str:
    """The text of ``svg`` as a file of its own: dark on white, whatever surrounds it."""
    text = re.sub(r"var\(--[a-z0-9-]+, (#[0-9a-f]+)\)", r"\1", figure.replace("currentColor", "#1f2328"))
    start = text.index(">") + 1
    return f'{text[:start]}\n <rect width="100%" height="100%" fill="#ffffff"/>{text[start:]}'


def _attribute(text: str) -> str:
    return visible(text).replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
