"""A comparison for programs, as CSV and JSON. Numbers are in per cent."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from clray.analysis.comparison import ComparedCell, ComparedRow, ComparedSearches, ComparedTable, Comparison, tally
from clray.analysis.curriculum import study_data
from clray.analysis.formatting import metric_definitions, notes, search_notes
from clray.analysis.orders import declared_orders, sensitivities, sensitivity_data
from clray.analysis.other_claims import other_claim_data
from clray.analysis.protocols_text import as_data
from clray.analysis.verdict import interval
from clray.grid import setting_text


def cell_data(table: ComparedTable, row: ComparedRow, cell: ComparedCell) -> dict[str, Any]:
    """One cell as a dictionary; numbers are in per cent, and None stands for a missing value."""
    ours, claim, judged = cell.ours, cell.claim, cell.judgement
    low, high = (interval(ours) if ours else None) or (None, None)
    beside = cell.reference.sample(cell.metric) if cell.reference and cell.reference.values(cell.metric) else None
    return {
        "table": table.title,
        "sweep": table.sweep,
        "label": row.label,
        "variant": row.filled_by,
        "metric": cell.metric,
        "order": cell.order,
        "ours_mean": ours.mean if ours else None,
        "ours_sd": ours.sd if ours and ours.n > 1 else None,
        "ours_runs": ours.n if ours else 0,
        "expected_runs": cell.runs.expected,
        "ours_low": low,
        "ours_high": high,
        "ours_are": "reference runs" if table.shown == "reference" else "own runs",
        "reference_mean": beside.mean if beside else None,
        "reference_sd": beside.sd if beside and beside.n > 1 else None,
        "reference_runs": beside.n if beside else 0,
        "published_mean": claim.mean if claim else None,
        "published_spread": claim.spread if claim else None,
        "published_kind": claim.kind if claim else None,
        "published_runs": claim.runs if claim else None,
        "published_known": claim.known if claim else None,
        "published_source": claim.source if claim else None,
        "difference": judged.difference,
        "difference_low": judged.interval[0] if judged.interval else None,
        "difference_high": judged.interval[1] if judged.interval else None,
        "margin": cell.margin.points if cell.margin and claim else None,
        "p_difference": judged.p_difference,
        "p_equivalence": judged.p_equivalence,
        "verdict": judged.outcome,
        "reason": judged.reason,
        "runs_that_decide": judged.runs,
        "prediction_half_width": judged.prediction,
        "counted": cell.counted,
        "comparable": not table.not_comparable_because,
        "data": str(table.gathered.data) if table.gathered.data else None,
        "collapsed_seeds": [r.seed for r in cell.runs.collapsed_runs],
        "diverged_seeds": [r.seed for r in cell.runs.diverged],
        "stale_runs": sum(r.stale for r in cell.runs.runs),
        "trials": [r.id for r in cell.runs.runs if cell.metric in r.metrics],
    }


def search_data(group: ComparedSearches) -> list[dict[str, Any]]:
    """A dictionary for each point of each grid, and for a published choice outside it; numbers are in per cent."""
    lines = []
    for row in group.rows:
        shown = [(runs, row.settings[name], name) for name, runs in row.points.items()]
        if row.published_runs is not None and not row.published_in_grid:
            shown.append((row.published_runs, row.published, row.published_runs.variant))
        for runs, setting, name in shown:
            ours = runs.sample(group.metric)
            lines.append(
                {
                    "search": group.title,
                    "sweep": group.sweep,
                    "label": row.label,
                    "variant": name,
                    "setting": setting_text(setting),
                    "in_grid": name in row.points,
                    "selected": name == row.selected,
                    "published": dict(setting) == dict(row.published),
                    "metric": group.metric,
                    "validation": group.validation,
                    "ours_mean": ours.mean if ours.n else None,
                    "ours_sd": ours.sd if ours.n > 1 else None,
                    "ours_runs": ours.n,
                    "expected_runs": runs.expected,
                    "diverged_seeds": [r.seed for r in runs.diverged],
                    "comparable": not group.not_comparable_because,
                    "data": str(group.gathered.data) if group.gathered.data else None,
                    "trials": [r.id for r in runs.runs if group.metric in r.metrics],
                }
            )
    return lines


def to_csv(comparison: Comparison) -> str:
    """The comparison as CSV: a line for each cell; lists are separated by spaces, missing values are empty.

    A cell with an ``order`` is about the runs of that task order alone. Further parts have other columns and follow
    below an empty line: further published numbers, variants that were run in several task orders,
    the score and the F-score of each order, points of searches.
    """
    cells = [cell_data(table, row, cell) for table in comparison.tables for row, cell in table.cells]
    orders = [line for table in comparison.tables for line in sensitivity_data(table)]
    studied = [line for table in comparison.tables for line in study_data(table)]
    points = [line for group in comparison.searches for line in search_data(group)]
    others = [line for table in comparison.tables for line in other_claim_data(table)]
    return "\n".join(_csv(rows) for rows in (cells, others, orders, studied, points) if rows)


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for data in rows:
        writer.writerow({key: " ".join(map(str, v)) if isinstance(v, list) else v for key, v in data.items()})
    return out.getvalue()


def to_json(comparison: Comparison) -> str:
    """The whole comparison as JSON; numbers are in per cent, and ``null`` stands for a missing value."""
    paper = comparison.paper.model_dump() if comparison.paper else None
    content = {
        "name": comparison.name,
        "title": comparison.title,
        "paper": paper,
        "commands": comparison.commands,
        "differences": list(comparison.differences),
        "problems": [{"path": p.path, "reason": p.reason} for p in comparison.problems],
        "tables": [_table_data(table) for table in comparison.tables],
        "searches": [_searches_data(group) for group in comparison.searches],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _table_data(table: ComparedTable) -> dict[str, Any]:
    read_there, others = tally(cell for _, cell in table.cells)
    gathered = table.gathered
    return {
        "title": table.title,
        "source": table.source,
        "sweep": table.sweep,
        "comparable": not table.not_comparable_because,
        "not_comparable_because": list(table.not_comparable_because),
        "metrics": metric_definitions(table.metrics),
        "margins": {metric: margin.model_dump() for metric, margin in table.margins.items()},
        "claims_tested_together": dict(table.families),
        "benchmark_sd": table.streams.model_dump() if table.streams else None,
        "stale_runs": table.stale,
        "other_sources": other_claim_data(table),
        "outcomes": {"read in the paper": dict(read_there), "known otherwise": dict(others)},
        "data": str(gathered.data) if gathered.data else None,
        "data_left_aside": [{"data": str(d), "records": d.records} for d in gathered.other_data_sets],
        "mixed_code": list(gathered.mixed_code),
        "notes": [f"{key}: {sentence}" for key, sentence in notes(table)],
        "orders": declared_orders(table),
        "order_sensitivity": [
            line | {"means": dict(one.means), "runs_by_order": dict(one.runs)}
            for line, (_, one) in zip(sensitivity_data(table), sensitivities(table), strict=True)
        ],
        "curriculum": study_data(table),
        "protocols": as_data(table.protocols) if table.protocols else None,
        "cells": [
            cell_data(table, row, cell)
            | {"values": [{"seed": s, "task_order": o, "value": v} for (s, o), v in cell.values.items()]}
            for row, cell in table.cells
        ],
        "missing": {row.filled_by: _missing_data(row) for row in table.rows},
    }


def _missing_data(row: ComparedRow) -> list[dict[str, Any]]:
    """The missing runs; ``failed`` is the reason why the last attempt at a run failed."""
    return [
        {"seed": seed, "task_order": order, "failed": row.runs.failed.get((seed, order))}
        for seed, order in row.runs.missing
    ]


def _searches_data(group: ComparedSearches) -> dict[str, Any]:
    points = search_data(group)
    return {
        "title": group.title,
        "source": group.source,
        "sweep": group.sweep,
        "metric": group.metric,
        "validation": group.validation,
        "comparable": not group.not_comparable_because,
        "not_comparable_because": list(group.not_comparable_because),
        "data": str(group.gathered.data) if group.gathered.data else None,
        "notes": [f"{key}: {sentence}" for key, sentence in search_notes(group)],
        "rows": [
            {
                "label": row.label,
                "variant": row.variant,
                "selected": dict(row.settings[row.selected]) if row.selected else None,
                "published": dict(row.published),
                "published_in_grid": row.published_in_grid,
                "selects_the_published": row.agrees,
                "points": len(row.points),
                "complete": row.complete,
                "results": [line for line in points if line["label"] == row.label],
            }
            for row in group.rows
        ],
    }
