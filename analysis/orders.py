"""The sensitivity of a metric to the order in which the tasks are learned.

For any sweep with more than one task order: the mean of each order, the mean and the spread of these means, and the
names of the best and the worst order. Where a table declares ``orders``, also a column for each of them, with ours
beside the published number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clray.analysis import curriculum
from clray.analysis.comparison import ComparedCell, ComparedRow, ComparedTable
from clray.analysis.formatting import number, runs_names, undecided, verdict_text
from clray.analysis.runs import Order, Runs, order_name
from clray.metrics import METRICS


@dataclass(frozen=True)
class Sensitivity:
    """One metric of one variant by task order, in per cent.

    Attributes:
        means: the mean over the runs of each order that has runs, by the order's name, in the sweep's order.
        runs: the number of runs of each of these orders.
        expected: the number of orders that the sweep declares.
        within: the standard deviation over seeds within an order, pooled over orders; NaN where no order has two runs.
    """

    metric: str
    means: Mapping[str, float]
    runs: Mapping[str, int]
    expected: int
    within: float

    @property
    def mean(self) -> float:
        """The mean over the orders, each counted once."""
        return float(np.mean(list(self.means.values())))

    @property
    def sd(self) -> float:
        """The standard deviation over the orders' means (n - 1); NaN for a single order."""
        return float(np.std(list(self.means.values()), ddof=1)) if len(self.means) > 1 else math.nan

    @property
    def best(self) -> str:
        return self._extreme(METRICS[self.metric].sign)

    @property
    def worst(self) -> str:
        return self._extreme(-METRICS[self.metric].sign)

    def _extreme(self, sign: int) -> str:
        return max(self.means, key=lambda order: sign * self.means[order])


def sensitivity(runs: Runs, metric: str, titles: Mapping[Order, str]) -> Sensitivity | None:
    """The sensitivity of one variant; None where the sweep has one order, or no run measured the metric.

    Args:
        titles: the names of orders that have a name of their own.
    """
    if len(runs.orders) < 2:
        return None
    values = {
        titles.get(order) or order_name(order, runs.tasks): found
        for order in runs.orders
        if (found := list(runs.at(order).values(metric).values()))
    }
    if not values:
        return None
    several = [v for v in values.values() if len(v) > 1]
    squares, freedom = sum(np.var(v, ddof=1) * (len(v) - 1) for v in several), sum(len(v) - 1 for v in several)
    return Sensitivity(
        metric=metric,
        means={name: float(np.mean(v)) for name, v in values.items()},
        runs={name: len(v) for name, v in values.items()},
        expected=len(runs.orders),
        within=math.sqrt(squares / freedom) if freedom else math.nan,
    )


def sensitivities(table: ComparedTable) -> list[tuple[ComparedRow, Sensitivity]]:
    """The sensitivity of a table's first metric, for each row that has runs; empty for a sweep with one task order."""
    found = []
    for row in table.rows:
        titles = {cell.runs.orders[0]: cell.order for cell in row.orders.values() if cell.runs.expected}
        if (one := sensitivity(row.runs, table.metrics[0], titles)) is not None:
            found.append((row, one))
    return found


# --------------------------------------------------------------------------------------------------------------
# In words and numbers


@dataclass(frozen=True)
class Block:
    """A further table below a table, such as the one about task orders.

    Attributes:
        head, body: the lines.
        columns: how each is set, ``l`` or ``r``.
        notes: what a reader must know beside it, as pairs of a key and a sentence.
    """

    title: str
    head: Sequence[str]
    body: Sequence[Sequence[str]]
    columns: str
    notes: Sequence[tuple[str, str]] = ()


def blocks(table: ComparedTable) -> list[Block]:
    """The columns of the orders that the table declares, the sensitivity, and the orders' scores where the sweep
    declares distances between classes; empty for a sweep with one order."""
    return [block for block in (_columns(table), _sensitivities(table), *_curriculum(table)) if block]


def _curriculum(table: ComparedTable) -> list[Block]:
    """The orders' scores beside their F-scores, and how much the methods' rankings of orders agree."""
    scored, agreed = curriculum.score_lines(table), curriculum.agreement_lines(table)
    title, rankings = "Curriculum Designer's score and F-score", "Agreement of the rankings of orders, in per cent"
    return [
        *([Block(title, curriculum.SCORE_HEAD, scored, "llrrrrrrrr", curriculum.SCORE_NOTES)] if scored else []),
        *([Block(rankings, curriculum.AGREEMENT_HEAD, agreed, "llrrr", curriculum.AGREEMENT_NOTES)] if agreed else []),
    ]


def _columns(table: ComparedTable) -> Block | None:
    """A line with our means by order for each method, and a line with the published numbers where there are any.

    Where the table shows both, the reference runs have a line above ours. Further lines hold the differences, and the
    verdicts where an order has one. The last column is about all runs.
    """
    if not table.orders:
        return None
    body = []
    for row in table.rows:
        cells = [*row.orders.values(), row.cells[table.metrics[0]]]
        *beside, judged = runs_names(table)
        lines = [[name, *map(_reference, cells)] for name in beside]
        lines.append([judged, *map(_ours, cells)])
        if any(cell.claim for cell in cells):
            lines.append(["published", *map(_published, cells)])
        if any(cell.judgement.difference is not None for cell in cells):
            lines.append(["difference", *map(_difference, cells)])
        if any(cell.judgement.outcome != "not judged" for cell in cells[:-1]):
            lines.append(["verdict", *map(verdict_text, cells)])
        body += [[row.label if line is lines[0] else "", *line] for line in lines]
    head = ["method", "", *table.orders, "all orders"]
    text = "mean over the order's runs, ± their standard deviation (number of runs) where there are several"
    notes = [
        ("orders", text),
        *(("order", f"{k}: {v}") for k, v in declared_orders(table).items() if not _title_names_tasks(k, v)),
    ]
    return Block(f"{table.metrics[0]} by task order", head, body, "ll" + "r" * (len(head) - 2), notes + _reasons(table))


def declared_orders(table: ComparedTable) -> dict[str, str]:
    """The tasks of each order that has a column, as text."""
    runs = {cell.order: cell.runs for _, cell in table.by_order if cell.runs.expected}
    return {label: order_name(runs[label].orders[0], runs[label].tasks) for label in table.orders if label in runs}


def _title_names_tasks(label: str, order: str) -> bool:
    """True where a title names the order's tasks, as ``SST-WOZ`` does for ``sst → woz.en``."""
    parts, tasks = label.lower().split("-"), order.lower().split(" → ")
    return len(parts) == len(tasks) and all(map(str.startswith, tasks, parts))


def _reasons(table: ComparedTable) -> list[tuple[str, str]]:
    return [("why", f"{reason}: {where}") for reason, where in undecided(table.by_order, len(table.orders)).items()]


def _ours(cell: ComparedCell) -> str:
    """Our runs as ``53.41``, or as ``53.41 ± 1.20 (5)`` where there are several."""
    return _runs(cell.runs, cell.metric)


def _reference(cell: ComparedCell) -> str:
    """The reference runs beside ours, in the same form."""
    return _runs(cell.reference, cell.metric) if cell.reference else "–"


def _runs(runs: Runs, metric: str) -> str:
    if not runs.values(metric):
        return "–"
    ours = runs.sample(metric)
    mark = "‡" if runs.collapsed_runs else ""
    return number(ours.mean) + (f" ± {number(ours.sd)} ({ours.n})" if ours.n > 1 else "") + mark


def _published(cell: ComparedCell) -> str:
    if cell.claim is None:
        return "–"
    spread = "" if cell.claim.spread is None else f" ± {number(cell.claim.spread)} ({cell.claim.runs})"
    return number(cell.claim.mean) + spread + cell.dagger


def _difference(cell: ComparedCell) -> str:
    return "" if cell.judgement.difference is None else number(cell.judgement.difference, True)


def _sensitivities(table: ComparedTable) -> Block | None:
    found = sensitivities(table)
    if not found:
        return None
    body = [
        [
            row.label,
            str(len(one.means)) if len(one.means) == one.expected else f"{len(one.means)} of {one.expected}",
            number(one.mean),
            _or_dash(one.sd),
            _or_dash(one.within),
            *(f"{name} {number(one.means[name])}" if len(one.means) > 1 else "–" for name in (one.best, one.worst)),
        ]
        for row, one in found
    ]
    text = (
        "each order's runs are averaged first; the spreads are the standard deviation over the orders' means, and the "
        "one over seeds within an order, pooled; an order's mean still carries the spread over seeds, divided by the "
        "root of their number"
    )
    if any(math.isnan(one.within) for _, one in found):
        text += ": all of it where an order has one run"
    head = ["method", "orders", "mean", "sd over orders", "over seeds", "best order", "worst order"]
    return Block(f"{table.metrics[0]}: sensitivity to the task order", head, body, "lrrrrll", [("spread", text)])


def _or_dash(value: float) -> str:
    return "–" if math.isnan(value) else number(value)


# --------------------------------------------------------------------------------------------------------------
# Data for programs


def sensitivity_data(table: ComparedTable) -> list[dict[str, Any]]:
    """A dictionary for each variant; numbers are in per cent, and None stands for a missing value."""
    return [
        {
            "table": table.title,
            "sweep": table.sweep,
            "label": row.label,
            "variant": row.filled_by,
            "metric": one.metric,
            "orders": len(one.means),
            "expected_orders": one.expected,
            "mean_over_orders": one.mean,
            "sd_over_orders": _or_none(one.sd),
            "sd_over_seeds": _or_none(one.within),
            "best_order": one.best,
            "best_mean": one.means[one.best],
            "worst_order": one.worst,
            "worst_mean": one.means[one.worst],
            "comparable": not table.not_comparable_because,
        }
        for row, one in sensitivities(table)
    ]


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
