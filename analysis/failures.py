"""Trials whose last attempt failed, with the reason: a table lists them as failed, not only as missing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from clray.output import shown
from clray.store import Store

if TYPE_CHECKING:
    from clray.analysis.comparison import ComparedRow

_LONGEST = 200
"""The most characters of a reason that a table shows."""


def failures(store: Store) -> dict[str, str]:
    """The reasons why trials failed, each on one line: by the trial's id, and by its declaration where it is known."""
    found = {}
    for trial_id in sorted(store.failed()):
        note = store.failure(trial_id)
        if isinstance(note, Mapping):
            found[trial_id] = _on_one_line(note)
            if isinstance(declaration := note.get("declaration"), str):
                found[declaration] = found[trial_id]
    return found


def _on_one_line(note: Mapping[str, object]) -> str:
    kind, said = str(note.get("kind") or ""), shown(" ".join(str(note.get("error") or "").split()))
    reason = f"{kind}: {said}" if kind and kind != said else said or "its note does not say why"
    return reason if len(reason) <= _LONGEST else reason[: _LONGEST - 1].rstrip() + "…"


def failed_notes(rows: Iterable[ComparedRow]) -> list[tuple[str, str]]:
    """The notes about failed trials, as pairs of a key and a sentence: one note for each reason, with its trials."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        seeds: dict[str, dict[int, None]] = defaultdict(dict)
        for (seed, _), reason in row.runs.failed.items():
            seeds[reason][seed] = None
        for reason, failed in seeds.items():
            by_reason[reason].append(f"{row.label} seed{'s'[: len(failed) > 1]} {', '.join(map(str, failed))}")
    return [("failed", f"{'; '.join(trials)}: {reason}") for reason, trials in by_reason.items()]
