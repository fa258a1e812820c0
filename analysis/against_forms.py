"""Comparisons of variants as text for the terminal and the page, and as data for programs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clray.analysis.against import Compared, Contrast
from clray.analysis.comparison import ComparedRow, ComparedTable
from clray.analysis.formatting import heading, notes, number, origin, ours_text
from clray.analysis.terminal import notes_grid, problem_lines
from clray.analysis.verdict import ALPHA, MOST_RUNS, POWER
from clray.metrics import METRICS
from clray.store import Problem

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

HEAD = ("", "mean ± sd (n)", "difference [95%]", "P(better) [95%]", "p", "verdict", "to decide")
STYLES = {"better": "bold green", "worse": "bold red", "not decided": "yellow"}


# --------------------------------------------------------------------------------------------------------------
# Cells as text


def mean_text(row: ComparedRow, metric: str) -> str:
    """The mean of a variant's runs as ``88.76 ± 1.35 (5)``."""
    return ours_text(row.cells[metric])


def difference_text(contrast: Contrast) -> str:
    """The difference and its interval as ``+1.30 [−0.42, +3.02]``; without an interval where no spread is seen.

    Where runs have no partner, the number of pairs follows: the difference is then not that of the printed means.
    """
    gap = contrast.gap
    if gap is None:
        return "–"
    ends = gap.interval()
    text = number(gap.difference.value, sign=True)
    text += f" [{number(ends[0], sign=True)}, {number(ends[1], sign=True)}]" if ends else ""
    return f"{text} of {gap.pairs} pairs" if gap.left_out else text


def probability_text(contrast: Contrast) -> str:
    """The probability of improvement as ``0.76 [0.44, 1.00]``."""
    if contrast.probability is None:
        return "–"
    ends = contrast.probability_interval
    return f"{contrast.probability:.2f}" + (f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else "")


def p_text(p: float | None) -> str:
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def advice_text(contrast: Contrast) -> str:
    """Say what would decide, as ``12 more seeds``; the reason where there is no test; empty where it is decided."""
    if contrast.decision != "not decided" or contrast.reason:
        return contrast.reason
    if contrast.further is not None:
        return f"{contrast.further} more {contrast.unit if contrast.further > 1 else contrast.unit.removesuffix('s')}"
    assert contrast.gap is not None
    if contrast.gap.difference.value == 0:
        return "no difference seen"
    return f"not even {MOST_RUNS} more {contrast.unit}"


def line_of(contrast: Contrast) -> list[str]:
    """The cells of a comparison, one for each of ``HEAD``."""
    return [
        contrast.row.label,
        mean_text(contrast.row, contrast.metric),
        difference_text(contrast),
        probability_text(contrast),
        p_text(contrast.p),
        contrast.decision,
        advice_text(contrast),
    ]


def direction(metric: str) -> str:
    """A metric with the direction that is better: ``ACC (average accuracy), higher is better``."""
    way = "lower" if METRICS[metric].lower_is_better else "higher"
    return f"{metric} ({METRICS[metric].title}), {way} is better"


# --------------------------------------------------------------------------------------------------------------
# Notes


def statistics_notes(made: Sequence[Contrast]) -> list[tuple[str, str]]:
    """The meaning of the columns, and the tests behind them."""
    tested = [c.gap for c in made if c.gap]
    paired = sum(gap.test == "paired" for gap in tested)
    kinds = [f"{paired} paired by seed and task order (Student's t on differences)"] if paired else []
    kinds += [f"{len(tested) - paired} unpaired (Welch's t)"] if paired < len(tested) else []
    if not tested:
        return []
    lines = [("difference", "in points: the variant's mean minus the other's, over pairs where they are paired")]
    family = f"{len(made)} comparison{'s'[: len(made) != 1]}"
    text = f"{' and '.join(kinds)}; p corrected by Holm's method for {family}, at level {ALPHA:g}; the 95% intervals"
    lines.append(("tests", f"{text} are not corrected"))
    if left := _left_out(made):
        lines.append(("tests", f"runs without a partner take no part in the difference: {left}"))
    if any(gap.difference.df < math.inf and _crossed(c) for c in made if (gap := c.gap)):
        text = "several seeds of several task orders are not independent: the test allows for both (min F')"
        lines.append(("tests", text))
    lines.append(
        (
            "P(better)",
            "the chance that a run of the variant is better than one of the other (Agarwal et al. 2021), with its "
            "bootstrap interval, which is too narrow for few runs; it decides nothing here",
        )
    )
    if any(c.further for c in made):
        lines.append(("to decide", f"further seeds of both give a chance of {POWER:.0%}, {ASSUMED}"))
    return lines


ASSUMED = (
    "if the difference and the spread that these runs show are the true ones. To add them and to test again is a "
    "second test of the same numbers: by simulation the chance of a wrong verdict then grows from 5% to about 10%"
)


def _left_out(made: Iterable[Contrast]) -> str:
    found = [f"{c.row.label} and {c.against.label} {c.gap.left_out}" for c in made if c.gap and c.gap.left_out]
    return "; ".join(dict.fromkeys(found))


def _crossed(contrast: Contrast) -> bool:
    return contrast.row.runs.pooled


def source_note(table: ComparedTable) -> list[tuple[str, str]]:
    """How many of the runs are the user's own, and how many ship with clray."""
    runs = {run.id: run for row in table.rows for run in row.runs.runs}.values()
    shipped = [run for run in runs if run.shipped]
    if not shipped:
        return []
    own = len(runs) - len(shipped)
    text = f"{len(shipped)} of {len(runs)} runs ship with clray, {origin(shipped)}"
    return [("sources", text + (f"; the other {own} are of the store" if own else ""))]


def all_notes(compared: Compared) -> list[tuple[str, str]]:
    """The notes about the runs of one sweep's variants."""
    return [*notes(compared.table), *source_note(compared.table), *compared.notes]


# --------------------------------------------------------------------------------------------------------------
# The terminal


def to_terminal(found: Sequence[Compared], problems: Sequence[Problem] = ()) -> RenderableType:
    """The comparisons as a ``rich`` renderable, with a layout for the console's width; 80 columns are enough."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    for compared in found:
        table = compared.table
        parts += [Text(heading(table), style="bold"), Text(f"{len(table.rows)} variants of {table.sweep}", style="dim")]
        parts += [Text(table.warning, style="bold red reverse")] if table.warning else []
        for metric in table.metrics if any(_is_shown(compared, c) for c in compared.contrasts) else ():
            parts += [Text(""), Text(direction(metric), style="bold"), _Lines(compared, metric)]
        parts += [Text(""), notes_grid(all_notes(compared)), Text("")]
    parts.append(notes_grid(statistics_notes([c for compared in found for c in compared.contrasts])))
    return Group(*parts, *problem_lines(problems))


def _is_shown(compared: Compared, contrast: Contrast) -> bool:
    """False for variants without runs, which the notes name; a baseline without runs is shown as such."""
    against = compared.baseline is not None or contrast.against.runs.runs
    return bool(contrast.row.runs.runs and against)


class _Lines:
    """The comparisons in one metric: a table where it fits into the console's width, else two lines a comparison."""

    def __init__(self, compared: Compared, metric: str) -> None:
        self.compared, self.metric = compared, metric

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.measure import Measurement

        wide = self._wide()
        needed = Measurement.get(console, options.update(max_width=10_000), wide).maximum
        yield wide if needed <= options.max_width else self._narrow()

    def _blocks(self) -> Iterator[tuple[ComparedRow, list[Contrast]]]:
        """Each variant that others are compared with, and the comparisons."""
        made = [c for c in self.compared.contrasts if c.metric == self.metric]
        if self.compared.baseline is not None:
            yield self.compared.baseline, made
            return
        for row in self.compared.table.rows[1:]:
            yield row, [c for c in made if c.row is row]

    def _lines(self) -> Iterator[tuple[str, list[str]]]:
        """A style and the cells of each line; a line without a verdict is about the variant of the block."""
        for row, made in self._blocks():
            yield "bold", [row.label, mean_text(row, self.metric), "", "", "", "", ""]
            for contrast in (c for c in made if _is_shown(self.compared, c)):
                cells = line_of(contrast)
                if self.compared.baseline is None:
                    cells[0], cells[1] = f"  vs {contrast.against.label}", mean_text(contrast.against, self.metric)
                yield "", cells

    @property
    def _about(self) -> str:
        """What the verdicts below a variant say: how the others are against it, or how it is against each of them."""
        return "it is:" if self.compared.baseline is None else "against it:"

    def _wide(self) -> RenderableType:
        from rich.table import Table as Grid
        from rich.text import Text

        grid = Grid(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
        for title, side in zip(HEAD, "lrrrrll", strict=True):
            grid.add_column(title, justify="right" if side == "r" else "left", no_wrap=True)
        for style, cells in self._lines():
            about = self._about if style else cells[5]
            texts = [Text(cells[0], style=style), *map(Text, cells[1:5])]
            grid.add_row(*texts, Text(about, style=STYLES.get(about, "dim")), Text(cells[6], style="dim"))
        return grid

    def _narrow(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        lines = []
        for style, cells in self._lines():
            if style:
                lines.append(Text.assemble((cells[0], style), f"  {cells[1]}", (f"  {self._about}", "dim")))
                continue
            first = Text.assemble(f"{cells[0]}  {cells[1]}  ", (cells[5], STYLES[cells[5]]))
            details = [f"p {cells[4]}", cells[6]]
            second = Text(f"    {cells[2]}, P(better) {cells[3]}, " + ", ".join(filter(None, details)), style="dim")
            lines += [first, second]
        return Group(*lines)


# --------------------------------------------------------------------------------------------------------------
# Data for programs


def to_data(name: str, found: Sequence[Compared], problems: Sequence[Problem] = ()) -> dict[str, Any]:
    """All comparisons with the runs behind them; None stands for a missing value, and numbers are in per cent."""
    made = [c for compared in found for c in compared.contrasts]
    return {
        "name": name,
        "metrics": metric_data(dict.fromkeys(metric for compared in found for metric in compared.table.metrics)),
        "family": len(made),
        "correction": "holm",
        "alpha": ALPHA,
        "power": POWER,
        "comparisons": [contrast_data(compared.table.sweep, c) for compared in found for c in compared.contrasts],
        "variants": [variant_data(compared.table, row) for compared in found for row in compared.table.rows],
        "notes": [
            *(
                {"sweep": compared.table.sweep, "about": key, "text": text}
                for compared in found
                for key, text in all_notes(compared)
            ),
            *({"sweep": None, "about": key, "text": text} for key, text in statistics_notes(made)),
        ],
        "problems": [str(problem) for problem in problems],
    }


def metric_data(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "title": METRICS[name].title,
            "definition": METRICS[name].definition,
            "better": "lower" if METRICS[name].lower_is_better else "higher",
        }
        for name in names
    }


def contrast_data(sweep: str, contrast: Contrast) -> dict[str, Any]:
    gap = contrast.gap
    return {
        "sweep": sweep,
        "metric": contrast.metric,
        "variant": contrast.row.variant,
        "label": contrast.row.label,
        "against": contrast.against.variant,
        "against_label": contrast.against.label,
        "difference": gap.difference.value if gap else None,
        "interval": _list(gap.interval() if gap else None),
        "standard_error": gap.difference.error if gap and gap.certain else None,
        "degrees_of_freedom": gap.difference.df if gap and gap.certain else None,
        "test": gap.test if gap else None,
        "pairs": gap.pairs if gap else None,
        "runs_without_partner": gap.left_out if gap else None,
        "p": gap.p if gap else None,
        "p_corrected": contrast.p,
        "probability_of_improvement": contrast.probability,
        "probability_interval": _list(contrast.probability_interval),
        "verdict": contrast.decision,
        "further": contrast.further,
        "further_unit": contrast.unit,
        "reason": contrast.reason,
    }


def variant_data(table: ComparedTable, row: ComparedRow) -> dict[str, Any]:
    """A variant with its runs: the values of each, and an account of those that are not finished."""
    runs = row.runs
    return {
        "sweep": table.sweep,
        "variant": row.variant,
        "label": row.label,
        "expected_runs": runs.expected,
        "finished_runs": len(runs.runs),
        "half_done_runs": runs.half_done,
        "own_runs": sum(not run.shipped for run in runs.runs),
        "reference_runs": sum(run.shipped for run in runs.runs),
        "stale_runs": sum(run.stale for run in runs.runs),
        "missing": [_place(seed, order) for seed, order in runs.missing],
        "diverged": [_place(run.seed, run.order) for run in runs.diverged],
        "collapsed": [_place(run.seed, run.order) for run in runs.collapsed_runs],
        "means": {metric: _sample_data(row, metric) for metric in table.metrics},
        "runs": [
            {
                **_place(run.seed, run.order),
                "trial": run.id,
                "source": "reference" if run.shipped else "own",
                "data": run.data.get("fingerprint"),
                "values": {metric: run.metrics.get(metric) for metric in table.metrics},
            }
            for run in runs.runs
        ],
    }


def _sample_data(row: ComparedRow, metric: str) -> dict[str, Any]:
    found = row.cells[metric].ours
    if found is None:
        return {"mean": None, "sd": None, "runs": 0}
    return {"mean": found.mean, "sd": None if math.isnan(found.sd) else found.sd, "runs": found.n}


def _place(seed: int, order: Sequence[int] | None) -> Mapping[str, Any]:
    return {"seed": seed, "task_order": None if order is None else list(order)}


def _list(ends: tuple[float, float] | None) -> list[float] | None:
    return None if ends is None else list(ends)
