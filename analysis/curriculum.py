"""Class orders: the Curriculum Designer's score of an order beside the F-score that was measured with it.

Singh et al., *Learning to Learn: How to Continuously Teach Humans and Machines* (ICCV 2023), as coded in
github.com/ZhangLab-DeepNeuroCogLab/Learning2Learn at 299241f. The score of an order follows from the distances between
the classes alone, before anything is learned. It is high where the first class is an average one, each next class is
unlike the one before, and the last classes are like the first ones. The F-score of a run is the harmonic mean of its
final accuracy and the reciprocal of what the first task has lost.

A sweep declares the distances (``curriculum``), one matrix for each way in which features were had.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clray.analysis.formatting import number

if TYPE_CHECKING:
    from clray.analysis.comparison import ComparedTable

Floats = NDArray[np.float64]
FIFTHS = 5
"""The parts into which a ranking is divided to compare it with another."""
TOPS = (10, 20, 50)
"""The numbers of best orders by F of which those in the best quarter by score are counted."""
_RANDOM_ORDERS = 1000


# --------------------------------------------------------------------------------------------------------------
# Pure functions


def scores(between: Floats, orders: Sequence[Sequence[int]], ranks: bool = False) -> Floats:
    """The Curriculum Designer's score of each order; higher is expected to be better.

    Args:
        between: the distances [K, K] between classes.
        orders: the classes in the order of learning.
        ranks: the form of the code that counts places in rankings in place of distances.
    """
    rows = between / between.sum(1, keepdims=True)
    spread = rows.var(1)  # over the whole row, a class's zero distance to itself included, as in the code
    spread = spread / spread.sum()
    count = len(between)
    if ranks:
        first, rows = 1.0 + _places(-spread), np.array([_places(row) for row in between])
        same = float(count)
    else:
        first, same = 1 - spread, 1.0
    found = []
    for order in orders:
        score = first[order[0]]
        for i in range(len(order) // 2):
            # class i should be like the class that is as far from the end, and unlike the next one
            score += same - rows[order[i], order[-1 - i]] + rows[order[i], order[i + 1]]
        found.append(float(score))
    return np.array(found)


def _places(values: Floats) -> Floats:
    """The place of each value in rising order, from 0."""
    return np.argsort(np.argsort(values)).astype(float)


def f_score(final: float, lost: float) -> float:
    """F of two numbers: the mean accuracy at the end, and what the first task has lost since it was learned.

    It is above 1 where little is lost, as a reciprocal is averaged.
    """
    return 2 * final / (final * lost + 1)


def f_of(matrix: Floats) -> float:
    """F of a run's accuracy matrix [T, T], whose columns are the tasks in the order of learning."""
    return f_score(float(matrix[-1].mean()), float(matrix[0, 0] - matrix[-1, 0]))


def pearson(x: Floats, y: Floats) -> tuple[float, float, float]:
    """Pearson's correlation with its 95% interval (Fisher's transformation); NaN where there is none."""
    if len(x) < 4 or not np.ptp(x) or not np.ptp(y):
        return math.nan, math.nan, math.nan
    r = float(np.corrcoef(x, y)[0, 1])
    if abs(r) >= 1 - 1e-12:
        return r, r, r
    low, high = (math.tanh(math.atanh(r) + side * 1.959964 / math.sqrt(len(x) - 3)) for side in (-1, 1))
    return r, low, high


def quarter_in_top(score: Floats, measured: Floats, top: int) -> int:
    """How many of the ``top`` best orders by F are in the best quarter by score. Of equals the earlier one is first."""
    quarter = np.argsort(-score, kind="stable")[: len(score) // 4]
    return len(set(quarter.tolist()) & set(np.argsort(-measured, kind="stable")[:top].tolist()))


def agreement(one: Floats, other: Floats) -> float:
    """The share of the orders that are in the same fifth of both rankings: 1 less the normalised Hamming distance."""
    return float(np.mean(_fifths(one) == _fifths(other)))


def _fifths(values: Floats) -> NDArray[np.int64]:
    return (np.argsort(np.argsort(values, kind="stable")) * FIFTHS) // len(values)


def chance_agreement(count: int) -> tuple[float, float]:
    """The agreement of so many orders with rankings drawn at random: its mean and its 97.5th percentile."""
    rng, ranking = np.random.default_rng(0), np.arange(float(count))
    drawn = [agreement(ranking, rng.permutation(ranking)) for _ in range(_RANDOM_ORDERS)]
    return float(np.mean(drawn)), float(np.quantile(drawn, 0.975))


# --------------------------------------------------------------------------------------------------------------
# Of a table


@dataclass(frozen=True)
class Study:
    """One variant's orders.

    Attributes:
        orders: those that have runs, as tasks of the benchmark in the order of learning.
        measured: the mean F over an order's runs, by order.
        scores: the orders' scores by the name of the features.
    """

    label: str
    orders: Sequence[tuple[int, ...]]
    measured: Floats
    scores: Mapping[str, Floats]


def studies(table: ComparedTable) -> list[Study]:
    """A study for each row that has runs of several orders; empty where the sweep declares no distances."""
    found = []
    for row in table.rows if table.curriculum else []:
        by_order: dict[tuple[int, ...], list[float]] = {}
        for run in row.runs.runs:
            order = tuple(range(len(run.matrix))) if run.order is None else run.order
            by_order.setdefault(order, []).append(f_of(run.matrix))
        if len(by_order) > 1:
            orders = sorted(by_order)
            of = {name: scores(np.array(between), orders) for name, between in table.curriculum.items()}
            found.append(Study(row.label, orders, np.array([np.mean(by_order[o]) for o in orders]), of))
    return found


SCORE_HEAD = ("method", "features", "orders", "F", "sd", "r", "its interval", *(f"top {n}" for n in TOPS))
SCORE_NOTES = (
    (
        "F",
        "2 α / (α β + 1) with α the final accuracy and β what the first task has lost; mean over an order's runs first",
    ),
    ("sd", "the standard deviation of F over orders"),
    ("r", "Pearson's correlation of F with the Curriculum Designer's score of the orders, and its 95% interval"),
    ("top N", "how many of the N best orders by F are in the best quarter by score; at random a quarter of N"),
)
AGREEMENT_HEAD = ("method", "with", "orders", "in the same fifth", "at random")
AGREEMENT_NOTES = (
    (
        "fifth",
        "the share of orders that are in the same fifth of both methods' rankings by F; beside it that of 1,000 "
        "rankings drawn at random: the mean, and the value that one in forty of them passes",
    ),
)


def score_lines(table: ComparedTable) -> list[list[str]]:
    body = []
    for study in studies(table):
        for name, score in study.scores.items():
            r, low, high = pearson(score, study.measured)
            body.append(
                [
                    study.label,
                    name,
                    str(len(study.orders)),
                    f"{study.measured.mean():.3f}",
                    f"{study.measured.std(ddof=1):.3f}",
                    *(["–", ""] if math.isnan(r) else [f"{r:+.2f}", f"{low:+.2f} … {high:+.2f}"]),
                    *(
                        str(quarter_in_top(score, study.measured, top)) if 2 * top <= len(score) else "–"
                        for top in TOPS
                    ),
                ]
            )
    return body


def agreement_lines(table: ComparedTable) -> list[list[str]]:
    body = []
    for one, other in itertools.combinations(studies(table), 2):
        if (both := _shared(one, other)) and len(both[0]) >= 2 * FIFTHS:
            mean, high = chance_agreement(len(both[0]))
            shares = (number(100 * agreement(*both)), f"{number(100 * mean)}, {number(100 * high)}")
            body.append([one.label, other.label, str(len(both[0])), *shares])
    return body


def _shared(one: Study, other: Study) -> tuple[Floats, Floats]:
    """F of both for the orders that both have."""
    places = {order: i for i, order in enumerate(other.orders)}
    both = [(i, places[order]) for i, order in enumerate(one.orders) if order in places]
    return one.measured[[i for i, _ in both]], other.measured[[j for _, j in both]]


def study_data(table: ComparedTable) -> list[dict[str, Any]]:
    """For programs: a dictionary for each order of each variant."""
    return [
        {
            "table": table.title,
            "label": study.label,
            "order": "-".join(map(str, order)),
            "F": float(study.measured[i]),
            **{f"score {name}": float(score[i]) for name, score in study.scores.items()},
        }
        for study in studies(table)
        for i, order in enumerate(study.orders)
    ]
