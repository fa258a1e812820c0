"""The page of a comparison: one HTML file that needs nothing else, neither a network nor a script."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clray.analysis import landscape, looks, plots, samples, words
from clray.analysis.aggregate import Run, known_metrics, order_name
from clray.analysis.comparison import ComparedCell, ComparedRow, ComparedSearches, ComparedTable, Comparison, tally
from clray.analysis.orders import Block, blocks, sensitivities
from clray.analysis.sources import other_sources
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
        "Neither could be shown, and no number of our runs would decide, because the published runs are too few for "
        "their spread. Our mean lies where a mean of as many runs, made like theirs, would lie with a chance of 95%; "
        "the page says how wide that interval is."
    ),
    "differs": "The two means differ significantly, and their equivalence could not be shown.",
    "inconclusive": (
        "Neither could be shown. The page says how many runs of ours in total would decide with a chance of 80%, if "
        "ours keep their mean and spread; or that none would, where our mean lies outside the published runs' interval."
    ),
    "not judged": (
        "There is nothing to test: no published number or spread, too few runs of ours, embedded or partial data "
        "instead of the paper's, or settings changed by a flag."
    ),
}


def write_report(comparison: Comparison, path: str | os.PathLike[str]) -> Path:
    """Write the comparison's page, whole or not at all, into a folder that there is.

    Raises:
        ClrayError: the file cannot be written.
    """
    return write_file(path, _encoded(render(comparison)))


def _encoded(page: str) -> bytes:
    # A name may hold half a letter, as a file's name that is no UTF-8 does.
    return page.encode("utf-8", "backslashreplace")


def write_into_store(comparison: Comparison, store: Store, name: str) -> str:
    """Write the comparison's page as ``reports/NAME.html`` of the store, on whichever file system. Returns where it is.

    Raises:
        ClrayError: the file cannot be written.
    """
    return store.write_report(f"{name}.html", _encoded(render(comparison)))


def render(comparison: Comparison) -> str:
    """The page as text; the same comparison gives the same bytes."""
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
        _section(i, table) | _kept(i, table, comparison.store, problems) for i, table in enumerate(comparison.tables)
    ]
    groups: list[ComparedTable | ComparedSearches] = [*comparison.tables, *comparison.searches]
    return environment.get_template("report.html.j2").render(
        comparison=comparison,
        problems=problems,
        paper_line=words.paper_line(comparison.paper) if comparison.paper else "",
        sections=sections,
        searches=[_searches(i, group) for i, group in enumerate(comparison.searches)],
        explained=EXPLAINED,
        which=_which,
        commits=_seen(run.commit for group in groups for run in group.gathered.runs),
        metrics=known_metrics(
            dict.fromkeys([m for t in comparison.tables for m in t.metrics] + [g.metric for g in comparison.searches])
        ),
    )


def _which(row: ComparedRow, run: Run) -> str:
    """Which of a variant's runs it is."""
    order = f", order {_order(row, run)}" if len(row.runs.orders) > 1 else ""
    return f"seed {run.seed}{order}"


def _order(row: ComparedRow, run: Run) -> str:
    return "own" if run.order is None and not row.runs.tasks else order_name(run.order, row.runs.tasks)


def _seen(values: Any) -> list[str]:
    return [value for value in dict.fromkeys(values) if value]


def _section(index: int, table: ComparedTable) -> dict[str, Any]:
    """All that the template shows of one table; figures are safe to set as they are."""
    from markupsafe import Markup

    shown = panels(table.metrics)
    has_runs = bool(table.gathered.runs)
    has_differences = any(cell.judgement.interval for _, cell in table.over_all)
    return {
        "id": f"table-{index + 1}",
        "table": table,
        "heading": words.heading(table),
        "summary": words.summary(cell for _, cell in table.cells),
        "counts": _counts(table),
        "titles": words.column_titles(table),
        "notes": words.notes(table),
        "stale": words.stale_text(table),
        "sources": [_block(block) for block in other_sources(table)],
        "rows": [_row(table, row) for row in table.rows],
        "spreads": Markup(plots.spreads(table, table.metrics, f"s{index}")) if has_runs else "",
        "curves": _curves(index, table, shown) if has_runs else [],
        "differences": Markup(plots.differences(table, f"d{index}")) if has_differences else "",
        "orders": [_block(block) for block in blocks(table)],
        "order_dots": Markup(plots.orders(table, f"o{index}")) if sensitivities(table) else "",
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
    """A table about task orders: its lines by method, each cell with its class where it is a verdict."""
    outcomes = {str(outcome): outcome.replace(" ", "-") for outcome in OUTCOMES}
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


def _kept(index: int, table: ComparedTable, store: Store | None, problems: list[Problem]) -> dict[str, Any]:
    """What the template shows of that which trials keep beside their records; ``problems`` takes what is unreadable."""
    from markupsafe import Markup

    attention, written = [], []
    for i, row in enumerate(table.rows if store else []):
        assert store is not None
        if found := looks.read(store, row.runs.runs, problems):
            run, seen = found
            attention.append((row, run, seen, Markup(looks.svg(seen, row.label, f"a{index}-{i}"))))
        if sampled := samples.read(store, row.runs.runs, problems):
            written.append((row, sampled))
    return {"attention": attention, "written": written}


def _searches(index: int, group: ComparedSearches) -> dict[str, Any]:
    head, body = words.search_lines(group)
    return {
        "id": f"search-{index + 1}",
        "heading": words.heading(group),
        "warning": group.warning,
        "head": head,
        "lines": body,
        "notes": words.search_notes(group),
    }


def _curves(index: int, table: ComparedTable, shown: Sequence[Panel]) -> list[tuple[Panel, str]]:
    from markupsafe import Markup

    drawn = [panel for panel in shown if panel.kind == "curve" and plots.has_curve(table, panel.value)]
    return [(panel, Markup(plots.curves(table, f"c{index}-{i}", panel.value))) for i, panel in enumerate(drawn)]


def _counts(table: ComparedTable) -> list[tuple[str, str, int]]:
    """Outcome, its dagger, how often; the numbers read in the paper before all others."""
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
    several = len(words.published_kinds(table)) > 1
    return {
        "metric": cell.metric,
        "ours": words.ours_text(cell),
        "ours_interval": f"95% interval {words.number(ends[0])} to {words.number(ends[1])}" if ends else "",
        "published": words.published_text(cell, several),
        "claim": cell.claim,
        "difference": words.difference_text(cell),
        "verdict": words.verdict_text(cell),
        "outcome": cell.judgement.outcome.replace(" ", "-"),
        "reason": cell.judgement.reason if cell.claim else "",
    }


def _trial(row: ComparedRow, run: Run, metrics: Sequence[str]) -> dict[str, Any]:
    return {
        "run": run,
        "order": _order(row, run),
        "values": [words.number(run.metrics[m]) if m in run.metrics else "–" for m in metrics],
        "seconds": "–" if run.seconds is None else f"{run.seconds:,.0f}",
        "data": str(run.data.get("source", "")),
    }
