"""The variants of a sweep as a reader knows them: their labels in a reproduction's tables, and the first metric."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from clray.analysis.gather import Results
from clray.analysis.protocols import at_choices
from clray.reproduction import Reproduction, evaluations, filling, tuning_phases
from clray.sweep import Sweep


def labels_of(sweeps: Mapping[str, Sweep], reproduction: Reproduction | None) -> dict[str, dict[str, str]]:
    """By sweep, the label of each variant. Rows of a reproduction's tables come first, in their order.

    A variant without a row, or whose label another variant of the sweep has too, goes by its name. A variant whose
    setting a tuning phase chooses stands for the points of its grid (``at_their_choices``). Tuning phases are left out.
    """
    found = {}
    for name, sweep in evaluations(sweeps).items():
        tuned = {point for phase in tuning_phases(sweeps, name) for point, _ in phase.variant_settings()}
        found[name] = _labels(name, sweep, reproduction, set() if reproduction else tuned)
    return found


def at_their_choices(sweep: Sweep, labels: Mapping[str, str], results: Results) -> tuple[Sweep, list[str]]:
    """A sweep whose variants are those of ``labels``: each with a grid is at the point that the tuning phase chose.

    Args:
        results: of both phases.

    Returns:
        The sweep, and the variants that are not in it, because nothing is chosen for them yet.
    """
    every = [variant for variant, _ in sweep.variant_settings()]
    if all(variant in every for variant in labels):
        return sweep, []
    chosen, _ = at_choices(sweep, {variant: filling(variant, every) for variant in labels}, results)
    present = dict(chosen.variant_settings())
    return chosen, [variant for variant in labels if variant not in present]


def _labels(name: str, sweep: Sweep, reproduction: Reproduction | None, tuned: Collection[str]) -> dict[str, str]:
    """The labels of a sweep.

    Args:
        tuned: points among which a tuning phase chooses, and which no row of a reproduction names.
    """
    every = [variant for variant, _ in sweep.variant_settings()]
    rows = [row for table in (reproduction.tables if reproduction else ()) if table.sweep == name for row in table.rows]
    labels: dict[str, str] = {}
    filled: set[str] = set()
    for row in rows:
        if points := row.filling(every):
            labels.setdefault(row.variant, row.label)
            filled |= set(points)
    shared = Counter(labels.values())
    named = {variant: label if shared[label] == 1 else variant for variant, label in labels.items()}
    rest = (variant.split("@")[0] if variant in tuned else variant for variant in every if variant not in filled)
    return named | {variant: variant for variant in rest}


def first_metric(name: str, sweep: Sweep, reproduction: Reproduction | None) -> str:
    """The metric of a sweep that is shown where none is asked for: the first one that its table declares."""
    if reproduction:
        declared = [table.metrics[0] for table in reproduction.tables if table.sweep == name]
        declared += [group.metric for group in reproduction.searches if group.sweep == name]
        return declared[0]
    return sweep.metrics[0]
