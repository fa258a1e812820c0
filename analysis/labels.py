"""The variants of a sweep as a reader knows them: their labels in a reproduction's tables, and the first metric."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from clray.reproduction import Reproduction
from clray.sweep import Sweep


def labels_of(sweeps: Mapping[str, Sweep], reproduction: Reproduction | None) -> dict[str, dict[str, str]]:
    """By sweep, the label of each variant. Rows of a reproduction's tables come first, in their order.

    A variant without a row, or whose label another variant of the sweep has too, goes by its name.
    """
    return {name: _labels(name, sweep, reproduction) for name, sweep in sweeps.items()}


def _labels(name: str, sweep: Sweep, reproduction: Reproduction | None) -> dict[str, str]:
    present = [variant for variant, _ in sweep.variant_settings()]
    rows = [row for table in (reproduction.tables if reproduction else ()) if table.sweep == name for row in table.rows]
    labels: dict[str, str] = {}
    for row in rows:
        if row.variant in present:
            labels.setdefault(row.variant, row.label)
    shared = Counter(labels.values())
    named = {variant: label if shared[label] == 1 else variant for variant, label in labels.items()}
    return named | {variant: variant for variant in present if variant not in named}


def first_metric(name: str, sweep: Sweep, reproduction: Reproduction | None) -> str:
    """The metric of a sweep that is shown where none is asked for: the first one that its table declares."""
    if reproduction:
        declared = [table.metrics[0] for table in reproduction.tables if table.sweep == name]
        declared += [group.metric for group in reproduction.searches if group.sweep == name]
        return declared[0] if declared else sweep.metrics[0]
    return sweep.metrics[0]
