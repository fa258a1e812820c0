"""The figure of Stable SGD (Mirzadeh 2020), Fig. 3: the curvature of each task's loss, and the task's accuracy.

A column for each variant. Its panels show, from top to bottom: the accuracy of each task during learning, the largest
eigenvalues of the Hessian on each task right after it was learned, and the distance of the weights from those after the
first task. Records hold these as measurements: ``eigenvalue_1`` … ``eigenvalue_k``, ``displacement`` and
``relative_displacement``, each on the task that was just learned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clray.analysis import plots
from clray.metrics import Matrix, Measurement, accuracy_matrix
from clray.output import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DISPLACEMENTS = {
    "displacement": "distance from the\nfirst task's weights",
    "relative_displacement": "the same, as a share\nof their norm",
}
_LOGARITHMIC_FROM = 20  # the largest eigenvalue over the smallest


@dataclass(frozen=True)
class Landscape:
    """The measurements of one variant's runs as arrays; NaN where nothing was measured.

    Attributes:
        accuracy: [runs, T, T], fractions; row i was measured after task i.
        eigenvalues: [runs, T, k], the eigenvalues of each task right after it was learned, the largest first.
        displacements: [runs, T] for each displacement that was measured, by its name.
    """

    accuracy: Matrix
    eigenvalues: Matrix
    displacements: Mapping[str, Matrix]

    @property
    def runs(self) -> int:
        return len(self.accuracy)

    @property
    def tasks(self) -> int:
        return self.accuracy.shape[1]


def landscape(runs: Iterable[Iterable[Measurement]]) -> Landscape | None:
    """The arrays of one variant, over its runs that have eigenvalues; None where no run has any."""
    accuracies, eigenvalues, displacements = [], [], []
    for measurements in map(list, runs):
        names = {m.metric for m in measurements}
        count = 0
        while f"eigenvalue_{count + 1}" in names:
            count += 1
        if not count:
            continue
        accuracy, _ = accuracy_matrix(measurements)
        tasks = len(accuracy)
        accuracies.append(accuracy)
        eigenvalues.append(
            np.stack([_just_learned(measurements, f"eigenvalue_{i + 1}", tasks) for i in range(count)], axis=1)
        )
        displacements.append([_just_learned(measurements, name, tasks) for name in DISPLACEMENTS])
    if not accuracies:
        return None
    moved = np.moveaxis(_stack(displacements), 1, 0)
    known = {name: values for name, values in zip(DISPLACEMENTS, moved, strict=True) if np.isfinite(values).any()}
    return Landscape(_stack(accuracies), _stack(eigenvalues), known)


def _just_learned(measurements: Iterable[Measurement], metric: str, tasks: int) -> Matrix:
    """The last value for each task while it was the one being learned: [T]."""
    values = np.full(tasks, np.nan)
    for m in sorted((m for m in measurements if m.metric == metric), key=lambda m: m.step):
        if m.trained_tasks == m.eval_task + 1 <= tasks:
            values[m.eval_task] = m.value
    return values


def _stack(arrays: Sequence[Matrix | list[Matrix]]) -> Matrix:
    """Stack arrays of equal rank; shorter ones are padded with NaN."""
    filled = [np.asarray(array) for array in arrays]
    stacked = np.full((len(filled), *np.max([array.shape for array in filled], axis=0)), np.nan)
    for place, array in zip(stacked, filled, strict=True):
        place[tuple(slice(n) for n in array.shape)] = array
    return stacked


@plots.drawing()
def figure(variants: Mapping[str, Iterable[Iterable[Measurement]]]) -> Figure | None:
    """Draw the figure: a column for each variant that has eigenvalues; None where no variant has any.

    Lines are means over the runs. A variant with more than one run has bands of one standard deviation. All columns
    share their scales. Eigenvalues are drawn on a logarithmic scale where they are positive and spread widely.

    Args:
        variants: the measurements of each run of a variant, by the variant's label.
    """
    return _figure(_landscapes(variants))


@plots.drawing()
def svg(variants: Mapping[str, Iterable[Iterable[Measurement]]], key: str = "landscape") -> str:
    """The figure as an ``svg`` element; empty where there is nothing to draw.

    Args:
        key: a prefix of the figure's ids, different for each figure of a page.
    """
    found = _landscapes(variants)
    drawn = _figure(found)
    return plots.svg(drawn, key, _alt(found)) if drawn else ""


def _landscapes(variants: Mapping[str, Iterable[Iterable[Measurement]]]) -> dict[str, Landscape]:
    return {label: found for label, runs in variants.items() if (found := landscape(runs)) is not None}


def _figure(landscapes: Mapping[str, Landscape]) -> Figure | None:
    from matplotlib.figure import Figure

    if not landscapes:
        return None
    moved = [name for name in DISPLACEMENTS if any(name in one.displacements for one in landscapes.values())]
    rows, columns = 2 + len(moved), len(landscapes)
    drawn = Figure(figsize=(1.2 + 2.6 * columns, 0.9 + 1.7 * rows), layout="constrained")
    panels = drawn.subplots(rows, columns, sharey="row", squeeze=False)
    for column, (label, one) in zip(panels.T, landscapes.items(), strict=True):
        column[0].set_title(visible(label), fontsize=9.5, color=plots.INK)
        _draw_accuracy(column[0], one)
        _draw_eigenvalues(column[1], one)
        for axes, name in zip(column[2:], moved, strict=True):
            _draw_displacement(axes, one, name)
    for row, title in zip(panels, ("accuracy (%)", "eigenvalue", *map(DISPLACEMENTS.get, moved)), strict=True):
        row[0].set_ylabel(title)
    if _spread(landscapes.values()) > _LOGARITHMIC_FROM:
        _logarithmic(panels[1])
    else:
        panels[1, 0].set_ylim(bottom=min(0, panels[1, 0].get_ylim()[0]))
    for axes in panels.flat:
        plots.ink(axes)
        axes.grid(alpha=0.15, color=plots.INK)
        axes.xaxis.get_major_locator().set_params(integer=True)
    widest = max(range(columns), key=lambda i: list(landscapes.values())[i].tasks)
    lines = [line for line in panels[0, widest].get_lines() if not str(line.get_label()).startswith("_")]
    plots.legend(drawn, lines, [str(line.get_label()) for line in lines], min(len(lines), 2 + 3 * columns))
    return drawn


def _logarithmic(row: Iterable[Axes]) -> None:
    """Make the scales logarithmic, with plain numbers at the ticks instead of powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    for axes in row:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def _spread(landscapes: Iterable[Landscape]) -> float:
    """The largest eigenvalue over the smallest, of the means that are drawn; 0 where not all are positive."""
    means = np.concatenate([_mean(one.eigenvalues).reshape(-1) for one in landscapes])
    means = means[np.isfinite(means)]
    return float(means.max() / means.min()) if len(means) and means.min() > 0 else 0.0


def _draw_accuracy(axes: Axes, one: Landscape) -> None:
    for task in range(one.tasks):
        _line(axes, np.arange(task, one.tasks) + 1, 100 * one.accuracy[:, task:, task], task, f"task {task + 1}")
    axes.set_xlabel("tasks learned")


def _draw_eigenvalues(axes: Axes, one: Landscape) -> None:
    for task in range(one.tasks):
        _line(axes, np.arange(one.eigenvalues.shape[2]) + 1, one.eigenvalues[:, task], task, f"task {task + 1}")
    axes.set_xlabel("eigenvalue, the largest first")


def _draw_displacement(axes: Axes, one: Landscape, name: str) -> None:
    if name in one.displacements:
        values = one.displacements[name]
        axes.plot(np.arange(one.tasks) + 1, _mean(values), color=plots.INK, linewidth=1.2, alpha=0.6)
        for task in range(one.tasks):
            _line(axes, np.array([task + 1]), values[:, task : task + 1], task, f"task {task + 1}")
    axes.set_xlabel("tasks learned")


def _line(axes: Axes, x: NDArray[np.int_], values: Matrix, task: int, label: str) -> None:
    """Draw the mean of ``values`` [runs, n] over ``x`` [n] in the task's colour, with a band of one sd."""
    colour = plots.SERIES[task % len(plots.SERIES)]
    dashes = plots.DASHES[task // len(plots.SERIES) % len(plots.DASHES)]
    mean = _mean(values)
    axes.plot(x, mean, color=colour, linestyle=dashes, linewidth=1.6, marker="o", markersize=3, label=label)
    if len(values) > 1:
        sd = np.std(values, axis=0, ddof=1)
        if len(x) > 1:
            axes.fill_between(x, mean - sd, mean + sd, color=colour, alpha=0.15, linewidth=0)
        else:
            axes.errorbar(x, mean, sd, color=colour, linewidth=1.2)


def _mean(values: Matrix) -> Matrix:
    """The mean over the runs; NaN wherever one of them has no measurement."""
    return np.asarray(np.mean(values, axis=0))


def _alt(landscapes: Mapping[str, Landscape]) -> str:
    """The figure as text."""
    said = []
    for label, one in landscapes.items():
        first = _mean(one.eigenvalues)[:, 0]
        words = f"{label}: the largest eigenvalue {first[0]:.3g} after the first task, {first[-1]:.3g} after the last"
        for name, title in (("displacement", "displacement"), ("relative_displacement", "relative displacement")):
            if name in one.displacements:
                words += f", {title} {_mean(one.displacements[name])[-1]:.3g}"
        said.append(f"{words} ({one.runs} run{'s'[: one.runs > 1]})")
    return "Accuracy of each task, largest eigenvalues of the Hessian and displacement; " + "; ".join(said)
