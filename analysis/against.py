"""Variants of a sweep against each other: better, worse, or not decided.

Each comparison is of two variants in one metric. All comparisons that are printed together are one family of tests,
those of variants without runs included, so that none is judged more mildly because others are missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from clray.analysis.benchmark_settings import benchmark_of, differing
from clray.analysis.comparison import ComparedRow, ComparedTable
from clray.analysis.two_variants import (
    Gap,
    Values,
    further_seeds,
    gap,
    improvement_interval,
    probability_of_improvement,
    strata,
    unit,
)
from clray.analysis.verdict import ALPHA, Family
from clray.documents import one_of, shorter
from clray.errors import DeclarationError
from clray.metrics import METRICS
from clray.selection import named_by
from clray.sweep import Sweep

MOST_OF_ALL_PAIRS = 200
"""The most variants of which all pairs are compared."""
Decision = Literal["better", "worse", "not decided"]


@dataclass(frozen=True)
class Contrast:
    """One variant against another in one metric. Numbers are in per cent points where the metric is a rate.

    Attributes:
        gap: the difference, the variant's mean minus that of ``against``; None where either has too few runs.
        p: of 'the means are equal', corrected for the family; None without a test.
        decision: in the direction of the metric: a lower forgetting is better.
        probability: that a run of the variant is better than one of ``against``; None where either has no run.
        probability_interval: its 95% bootstrap interval; None where either has fewer than two runs.
        further: the further seeds of both that would decide; None where none is needed or no number would do.
        unit: what these are: ``seeds`` or ``task orders``.
        reason: the reason why there is no test; empty where there is one.
    """

    metric: str
    row: ComparedRow
    against: ComparedRow
    gap: Gap | None
    p: float | None = None
    decision: Decision = "not decided"
    probability: float | None = None
    probability_interval: tuple[float, float] | None = None
    further: int | None = None
    unit: str = "seeds"
    reason: str = ""


Pair = tuple[str, ComparedRow, ComparedRow]
"""A metric, a variant, and the variant that it is compared with."""


def contrasts(pairs: Sequence[Pair], alpha: float = ALPHA) -> list[Contrast]:
    """Compare pairs of variants; all of them are one family, corrected by Holm's method."""
    made = [_contrast(*pair) for pair in pairs]
    family = Family({i: c.gap.p for i, c in enumerate(made) if c.gap}, len(made), alpha)
    return [_decided(c, family.p.get(i), family.next_level, alpha) for i, c in enumerate(made)]


def _contrast(metric: str, row: ComparedRow, against: ComparedRow) -> Contrast:
    a, b = row.runs.values(metric), against.runs.values(metric)
    made = Contrast(metric, row, against, gap(a, b), reason=_reason(metric, row, a) or _reason(metric, against, b))
    if not a or not b:
        return made
    better, worse = strata(a, b)
    if METRICS[metric].lower_is_better:
        better, worse = worse, better
    ends = improvement_interval(better, worse) if min(len(a), len(b)) > 1 else None
    return replace(made, probability=probability_of_improvement(better, worse), probability_interval=ends, unit=unit(a))


def _reason(metric: str, row: ComparedRow, values: Values) -> str:
    if not values:
        return f"{metric} is not measured in {row.label}" if row.runs.runs else f"no run of {row.label}"
    return f"one run of {row.label} has no spread" if len(values) == 1 else ""


def _decided(contrast: Contrast, p: float | None, level: float, alpha: float) -> Contrast:
    if contrast.gap is None or p is None:
        return contrast
    gap, contrast = contrast.gap, replace(contrast, p=p, reason="")
    if p < alpha:
        is_better = (gap.difference.value > 0) != METRICS[contrast.metric].lower_is_better
        return replace(contrast, decision="better" if is_better else "worse")
    if not gap.certain:
        return replace(contrast, reason="no spread between the runs")
    a, b = (row.runs.values(contrast.metric) for row in (contrast.row, contrast.against))
    return replace(contrast, further=further_seeds(a, b, level))


# --------------------------------------------------------------------------------------------------------------
# Which variants, and against which


@dataclass(frozen=True)
class Compared:
    """The comparisons of one sweep's variants.

    Attributes:
        table: the compared variants with their runs.
        contrasts: metric by metric.
        baseline: the variant that the others are compared with; None where all pairs are.
        notes: what a reader must know beside the notes of the table.
    """

    table: ComparedTable
    contrasts: Sequence[Contrast]
    baseline: ComparedRow | None
    notes: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Chosen:
    """The variants of a sweep to compare, the baseline first where there is one."""

    variants: Sequence[str]
    baseline: str | None


def choose(
    name: str, sweeps: Mapping[str, Mapping[str, str]], names: Sequence[str], against: str | None, all_pairs: bool
) -> dict[str, Chosen]:
    """The variants to compare in each sweep; sweeps without two of them are left out.

    Args:
        name: what the user asked for, for messages.
        sweeps: by sweep, the label of each variant, in the order of the table.
        names: the variants as typed: a name or a label, ``er_ace`` also for ``er-ace``, or a pattern; none for all.
        against: the baseline as typed; by default the first of ``names``, else the sweep's first variant.

    Raises:
        DeclarationError: a name is of no variant, or there are no two variants to compare.
    """
    if all_pairs and against is not None:
        raise DeclarationError(f"--against {shorter(against)}: with --all-pairs there is no baseline; leave one out")
    asked = [*names, *([against] if against is not None else [])]
    every = dict.fromkeys(variant for labels in sweeps.values() for variant in labels)
    for typed in asked:
        if not any(variants_of(typed, labels) for labels in sweeps.values()):
            raise DeclarationError(f"{shorter(typed) or repr(typed)}: no variant of {name}; {one_of(typed, every)}")
    chosen = {}
    for sweep, labels in sweeps.items():
        found = [variant for typed in names for variant in variants_of(typed, labels)] if names else list(labels)
        first = variant_of(against, labels) if against is not None else next(iter(found), None)
        variants = list(dict.fromkeys([first, *found] if first else found))
        if first and len(variants) > 1:
            chosen[sweep] = Chosen(variants, None if all_pairs else first)
    most = max((len(choice.variants) for choice in chosen.values()), default=0)
    if all_pairs and most > MOST_OF_ALL_PAIRS:
        raise DeclarationError(
            f"--all-pairs: {most} variants of {name}; allowed: at most {MOST_OF_ALL_PAIRS}; name some"
        )
    if not chosen:
        why = f"no sweep of {name} has two of these variants" if len(sweeps) > 1 else "it needs two different variants"
        raise DeclarationError(f"{' '.join(map(shorter, asked)) or name}: nothing to compare: {why}")
    return chosen


def variants_of(typed: str, labels: Mapping[str, str]) -> list[str]:
    """The variant that a user means, or those whose names fit a pattern such as ``er*``."""
    one = variant_of(typed, labels)
    return named_by(typed, labels) if one is None else [one]


def variant_of(typed: str, labels: Mapping[str, str]) -> str | None:
    """The variant that a user means: by its name, its label, or either without regard to case, ``-``, ``_`` and blanks.

    Raises:
        DeclarationError: several variants are so called.
    """
    if typed in labels:
        return typed
    for alike in (lambda text: text == typed, lambda text: _letters(text) == _letters(typed)):
        found = [variant for variant, label in labels.items() if alike(variant) or alike(label)]
        if len(found) > 1:
            raise DeclarationError(f"{shorter(typed)}: several variants are called so; allowed: {', '.join(found)}")
        if found:
            return found[0]
    return None


def _letters(text: str) -> str:
    return re.sub(r"[\s_-]+", "", text).casefold()


def with_runs(table: ComparedTable, baseline: str) -> tuple[ComparedTable, str, list[tuple[str, str]]]:
    """A baseline that nobody named, replaced by the first variant with two runs where it has none itself.

    Returns:
        The table with the baseline first, its variant, and a note where it was replaced.
    """
    metric = table.metrics[0]
    named = next(row for row in table.rows if row.variant == baseline)
    found = next((row for row in table.rows if len(row.runs.values(metric)) > 1), named)
    if named.runs.runs or found is named:
        return table, baseline, []
    rows = [found, *(row for row in table.rows if row is not found)]
    note = f"{named.label} has no run yet, so that {found.label} takes its place; --against names another one"
    return replace(table, rows=rows), found.variant, [("baseline", note)]


def pairs_of(table: ComparedTable, baseline: ComparedRow | None) -> list[Pair]:
    """The pairs to compare, metric by metric: each variant with the baseline, or with all variants above it."""
    if baseline is not None:
        rows = [(row, baseline) for row in table.rows if row is not baseline]
    else:
        rows = [(row, above) for i, row in enumerate(table.rows) for above in table.rows[:i]]
    return [(metric, *pair) for metric in table.metrics for pair in rows]


def compare_all(tables: Iterable[tuple[ComparedTable, str | None, Sequence[tuple[str, str]]]]) -> list[Compared]:
    """The comparisons of several sweeps as one family.

    Args:
        tables: for each sweep the table of its variants, the baseline among them, and notes.
    """
    tables = list(tables)
    baselines = [next((row for row in table.rows if row.variant == name), None) for table, name, _ in tables]
    pairs = [pairs_of(table, baseline) for (table, _, _), baseline in zip(tables, baselines, strict=True)]
    made = iter(contrasts([pair for of_table in pairs for pair in of_table]))
    return [
        Compared(table, [next(made) for _ in of_table], baseline, notes)
        for (table, _, notes), of_table, baseline in zip(tables, pairs, baselines, strict=True)
    ]


def other_benchmarks(sweep: Sweep, table: ComparedTable) -> list[tuple[str, str]]:
    """The variants that do not learn the benchmark of the first one, each with what differs."""
    first = table.rows[0]
    here = benchmark_of(sweep, first.variant)
    found = {row.label: differing(benchmark_of(sweep, row.variant), here, first.label) for row in table.rows[1:]}
    return [("benchmark", f"{label} has another one: {'; '.join(what)}") for label, what in found.items() if what]
