"""Trials whose last attempt failed, and why: a table lists them as failed, not only as missing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from clray.output import shown
from clray.store import Store

if TYPE_CHECKING:
    from clray.analysis.comparison import ComparedRow

_LONGEST = 200
"""Characters of a reason that a table shows."""


def failures(store: Store) -> dict[str, str]:
    """Why trials failed, each reason on one line: by the trial's id, and by its declaration where its note has one."""
    found = {}
    for id in sorted(store.failed()):
        note = store.failure(id)
        if isinstance(note, Mapping):
            found[id] = _on_one_line(note)
            if isinstance(declaration := note.get("declaration"), str):
                found[declaration] = found[id]
    return found


def _on_one_line(note: Mapping[str, object]) -> str:
    kind, said = str(note.get("kind") or ""), shown(" ".join(str(note.get("error") or "").split()))
    reason = f"{kind}: {said}" if kind and kind != said else said or "its note does not say why"
    return reason if len(reason) <= _LONGEST else reason[: _LONGEST - 1].rstrip() + "…"


def failed_notes(rows: Iterable[ComparedRow]) -> list[tuple[str, str]]:
    """A note for each reason, with the trials that failed for it, as pairs of a key and a sentence."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        seeds: dict[str, dict[int, None]] = defaultdict(dict)
        for (seed, _), reason in row.runs.failed.items():
            seeds[reason][seed] = None
        for reason, of in seeds.items():
            by_reason[reason].append(f"{row.label} seed{'s'[: len(of) > 1]} {', '.join(map(str, of))}")
    return [("failed", f"{'; '.join(trials)}: {reason}") for reason, trials in by_reason.items()]
