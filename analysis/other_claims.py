"""Further published numbers for a table's cells, such as the authors' own re-runs: each has a line beside ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clray.analysis.comparison import ComparedCell, ComparedRow, ComparedTable, OtherClaim
from clray.analysis.formatting import SOURCES, claim_text, number
from clray.analysis.orders import Block


def other_claims(table: ComparedTable) -> list[Block]:
    """One block with a line for each further number; no block where there is none, or where none is judged."""
    found = list(_all(table))
    if not found or table.not_comparable_because:
        return []
    body, previous = [], ""
    for row, cell, source, other in found:
        label, previous = ("" if row.label == previous else row.label), row.label
        difference = other.judgement.difference
        gap = "" if difference is None else number(difference, sign=True)
        published = claim_text(other.claim) + other.dagger
        verdict = other.judgement.outcome + other.dagger
        body.append([label, cell.metric, source, published, gap, verdict])
    head = ["method", "metric", "source", "published (n)", "difference", "verdict"]
    notes = [("source", f"{name}: {where}") for name, where in _places(found).items()]
    text = (
        "each source is judged by itself, by the same tests, and none of these verdicts is counted in the table's sum"
    )
    notes.append(("verdicts", text))
    daggers = dict.fromkeys(other.claim.known for _, _, _, other in found if other.judgement.dagger)
    if words := " or ".join(SOURCES[known] for known in daggers if known in SOURCES):
        notes.append(("†", f"{words}: not read in the paper"))
    return [Block("Other published numbers for these cells", head, body, "lllrrl", notes)]


def _all(table: ComparedTable) -> Iterator[tuple[ComparedRow, ComparedCell, str, OtherClaim]]:
    for row, cell in table.over_all:
        for source, other in cell.others.items():
            yield row, cell, source, other


def _places(found: list[tuple[ComparedRow, ComparedCell, str, OtherClaim]]) -> dict[str, str]:
    """The place of each source, as its claims name it."""
    places: dict[str, dict[str, None]] = {}
    for _, _, source, other in found:
        places.setdefault(source, {})[other.claim.source or "unknown"] = None
    return {source: " and ".join(where) for source, where in places.items()}


def other_claim_data(table: ComparedTable) -> list[dict[str, Any]]:
    """A dictionary for each further number, in per cent; None stands for a missing value."""
    return [
        {
            "table": table.title,
            "sweep": table.sweep,
            "label": row.label,
            "variant": row.filled_by,
            "metric": cell.metric,
            "other_source": source,
            "published_mean": other.claim.mean,
            "published_spread": other.claim.spread,
            "published_kind": other.claim.kind,
            "published_runs": other.claim.runs,
            "published_known": other.claim.known,
            "published_source": other.claim.source,
            "difference": other.judgement.difference,
            "p_difference": other.judgement.p_difference,
            "p_equivalence": other.judgement.p_equivalence,
            "verdict": other.judgement.outcome,
            "reason": other.judgement.reason,
            "runs_that_decide": other.judgement.runs,
            "comparable": not table.not_comparable_because,
        }
        for row, cell, source, other in _all(table)
    ]
