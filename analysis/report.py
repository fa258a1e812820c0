"""The report of a comparison: one HTML file that needs no network and no script."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clray.analysis import attention, forest, formatting, landscape, plots, pseudo_samples
from clray.analysis.comparison import ComparedCell, ComparedRow, ComparedSearches, ComparedTable, Comparison, tally
from clray.analysis.curriculum import studies
from clray.analysis.lifelong_table import lifelong_blocks
from clray.analysis.orders import Block, blocks, sensitivities
from clray.analysis.other_claims import other_claims
from clray.analysis.protocols_text import protocol_blocks
from clray.analysis.runs import Run, order_name
from clray.analysis.verdict import OUTCOMES, interval
from clray.dashboards import Panel, panels
from clray.output import write_file
from clray.store import Problem, Store

EXPLAINED = {
    "reproduced": (
        "The two means lie within the margin of each other, shown by two one-sided tests. A difference that is "
        "significant but smaller than the margin is still reproduced."
    ),
    "consistent": (
        "Neither could be shown, and not even 1,000 runs of ours would decide: the published runs are few for their "
        "spread. Our mean is inside the 95% prediction interval for a mean of as many runs like theirs; the page "
        "gives the width of that interval."
    ),
    "differs": "The two means differ significantly, and their equivalence could not be shown.",
    "inconclusive": (
        "Neither could be shown. The page gives the total number of our runs that would decide with a chance of 80%, "
        "if ours keep their mean and spread; or it says that not even 1,000 would, where our mean is outside the "
        "interval."
    ),
    "not judged": (
        "There is nothing to test: no published number or spread, too few runs of ours, embedded or partial data "
        "instead of the paper's, or settings changed by a flag."
    ),
}


def write_report(comparison: Comparison, path: str | os.PathLike[str]) -> Path:
    """Write the report into an existing folder. The file is replaced as a whole, never in part.

    Raises:
        ClrayError: the file cannot be written.
    """
    return write_file(path, _encoded(render(comparison)))


def _encoded(page: str) -> bytes:
    # A name may hold a lone surrogate: Python's form of a file name that is no UTF-8.
    return page.encode("utf-8", "backslashreplace")


def write_into_store(comparison: Comparison, store: Store, name: str) -> str:
    """Write the report as ``reports/NAME.html`` of the store, on any file system, and return its path or URI.

    Raises:
        ClrayError: the file cannot be written.
    """
    return store.write_report(f"{name}.html", _encoded(render(comparison)))


def render(comparison: Comparison) -> str:
    """The report as text; the same comparison gives the same bytes."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    problems = list(comparison.problems)
    sections = [
        _section(i, table, comparison.against) | _artifacts(i, table, comparison.store, problems)
        for i, table in enumerate(comparison.tables)
    ]
    groups: list[ComparedTable | ComparedSearches] = [*comparison.tables, *comparison.searches]
    return environment.get_template("report.html.j2").render(
        comparison=comparison,
        problems=problems,
        paper_line=formatting.paper_line(comparison.paper) if comparison.paper else "",
        sections=sections,
        searches=[_searches(i, group) for i, group in enumerate(comparison.searches)],
        explained=EXPLAINED if any(table.judged for table in comparison.tables) else {},
        which=_which,
        commits=_seen(run.commit for group in groups for run in group.gathered.runs),
        metrics=formatting.metric_definitions(
            dict.fromkeys([m for t in comparison.tables for m in t.metrics] + [g.metric for g in comparison.searches])
        ),
    )


def _which(row: ComparedRow, run: Run) -> str:
    """Name a run among its variant's runs: by its seed, and by its task order where there are several."""
    order = f", order {_order(row, run)}" if len(row.runs.orders) > 1 else ""
    return f"seed {run.seed}{order}"


def _order(row: ComparedRow, run: Run) -> str:
    return "own" if run.order is None and not row.runs.tasks else order_name(run.order, row.runs.tasks)


def _seen(values: Any) -> list[str]:
    return [value for value in dict.fromkeys(values) if value]


def _section(index: int, table: ComparedTable, baseline: str) -> dict[str, Any]:
    """The template's values for one table. Figures are marked as safe HTML."""
    from markupsafe import Markup

    shown = panels(table.metrics)
    against = forest.of_table(table, baseline)
    has_runs = bool(table.gathered.runs)
    has_differences = any(cell.judgement.interval for _, cell in table.over_all)
    return {
        "id": f"table-{index + 1}",
        "table": table,
        "heading": formatting.heading(table),
        "summary": formatting.summary(cell for _, cell in table.cells),
        "counts": _counts(table),
        "titles": formatting.column_titles(table)[:-1],
        "runs_title": formatting.RUNS_TITLES[table.shown][-1],
        "runs_titles": formatting.RUNS_TITLES[table.shown],
        "notes": formatting.notes(table),
        "stale": formatting.stale_text(table),
        "other_claims": [_block(block) for block in other_claims(table)],
        "rows": [_row(table, row) for row in table.rows],
        "spreads": Markup(plots.spreads(table, table.metrics, f"s{index}")) if has_runs else "",
        "curves": _curves(index, table, shown) if has_runs else [],
        "differences": Markup(plots.differences(table, f"d{index}")) if has_differences else "",
        "forest": Markup(forest.plot(against, f"v{index}")) if against else "",
        "against": [_block(forest.block(against))] if against else [],
        "orders": [_block(block) for block in [*blocks(table), *protocol_blocks(table), *lifelong_blocks(table)]],
        "order_dots": Markup(plots.orders(table, f"o{index}")) if sensitivities(table) else "",
        "curriculum": Markup(plots.curriculum(table, f"c{index}")) if studies(table) else "",
        "landscape": Markup(
            landscape.svg({row.label: [run.measurements for run in row.runs.runs] for row in table.rows}, f"l{index}")
        ),
        "matrices": [
            (row, Markup(plots.heat_map(row.runs, row.label, f"m{index}-{i}")))
            for i, row in enumerate(table.rows)
            if row.runs.runs
        ],
    }


def _block(block: Block) -> dict[str, Any]:
    """A further table below a table: its lines by method; a cell that is a verdict has its CSS class."""
    outcomes = {str(outcome): outcome.replace(" ", "-") for outcome in OUTCOMES}
    outcomes |= {"better": "reproduced", "worse": "differs", "not decided": "inconclusive"}
    methods: list[tuple[str, list[Any]]] = []
    for label, *line in block.body:
        if label:
            methods.append((label, []))
        methods[-1][1].append([(text, outcomes.get(text.strip("()†"), "")) for text in line])
    return {
        "title": block.title,
        "head": block.head,
        "methods": methods,
        "columns": block.columns,
        "notes": block.notes,
    }


def _artifacts(index: int, table: ComparedTable, store: Store | None, problems: list[Problem]) -> dict[str, Any]:
    """The template's values for the artifacts that trials keep. Files that cannot be read are added to ``problems``."""
    from markupsafe import Markup

    examples, written = [], []
    for i, row in enumerate(table.rows if store else []):
        assert store is not None
        if found := attention.read(store, row.runs.runs, problems):
            run, example = found
            examples.append((row, run, example, Markup(attention.svg(example, row.label, f"a{index}-{i}"))))
        if sampled := pseudo_samples.read(store, row.runs.runs, problems):
            written.append((row, sampled))
    return {"attention": examples, "written": written}


def _searches(index: int, group: ComparedSearches) -> dict[str, Any]:
    head, body = formatting.search_lines(group)
    return {
        "id": f"search-{index + 1}",
        "heading": formatting.heading(group),
        "warning": group.warning,
        "head": head,
        "lines": body,
        "notes": formatting.search_notes(group),
    }


def _curves(index: int, table: ComparedTable, shown: Sequence[Panel]) -> list[tuple[Panel, str]]:
    from markupsafe import Markup

    drawn = [panel for panel in shown if panel.kind == "curve" and plots.has_curve(table, panel.value)]
    return [(panel, Markup(plots.curves(table, f"c{index}-{i}", panel.value))) for i, panel in enumerate(drawn)]


def _counts(table: ComparedTable) -> list[tuple[str, str, int]]:
    """(outcome, dagger, count) for each outcome; the numbers read in the paper come before all others."""
    groups = zip(tally(cell for _, cell in table.cells), ("", "†"), strict=True)
    return [(outcome, dagger, counts[outcome]) for counts, dagger in groups for outcome in OUTCOMES if counts[outcome]]


def _row(table: ComparedTable, row: ComparedRow) -> dict[str, Any]:
    return {
        "row": row,
        "cells": [_cell(table, row, row.cells[metric]) for metric in table.metrics],
        "trials": [_trial(row, run, table.metrics) for run in row.runs.runs],
    }


def _cell(table: ComparedTable, row: ComparedRow, cell: ComparedCell) -> dict[str, Any]:
    ends = interval(cell.ours) if cell.ours else None
    several = len(formatting.published_kinds(table)) > 1
    return {
        "metric": cell.metric,
        "ours": formatting.ours_text(cell),
        "reference": formatting.runs_text(cell.reference, cell.metric),
        "ours_interval": f"95% interval {formatting.number(ends[0])} to {formatting.number(ends[1])}" if ends else "",
        "published": formatting.published_text(cell, several),
        "claim": cell.claim,
        "difference": formatting.difference_text(cell),
        "verdict": formatting.verdict_text(cell),
        "outcome": cell.judgement.outcome.replace(" ", "-"),
        "reason": cell.judgement.reason if cell.claim else "",
    }


def _trial(row: ComparedRow, run: Run, metrics: Sequence[str]) -> dict[str, Any]:
    return {
        "run": run,
        "order": _order(row, run),
        "values": [formatting.number(run.metrics[m]) if m in run.metrics else "–" for m in metrics],
        "seconds": "–" if run.seconds is None else f"{run.seconds:,.0f}",
        "data": str(run.data.get("source", "")),
    }
