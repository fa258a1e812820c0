"""Pseudo-samples: what a language model wrote of its earlier tasks to rehearse them, and what of it was of no use.

Trials of the language track keep them as ``samples.json``: a list of objects with ``before``, ``of``, ``text``,
``question``, ``answer`` and ``dropped``; nothing of that track is needed to show them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, TypeAdapter

from clray.analysis.aggregate import Run
from clray.analysis.artifacts import first_kept
from clray.store import Problem, Store

NAME = "samples.json"
_SHOWN = 6
_LONGEST = 400
"""Characters of a text that are shown."""


class Sample(BaseModel):
    """One pseudo-sample.

    Attributes:
        before: the task that was about to be learned when it was written, after the tasks before it.
        of: the task that it was to be an example of.
        text: all that the model wrote.
        question, answer: what it was read as; None where it could not be read.
        dropped: why it was not learned from; None or empty where it was.
    """

    before: str | int | None = None
    of: str | int | None = None
    text: str
    question: str | None = None
    answer: str | None = None
    dropped: str | None = None


_FORM = TypeAdapter(list[Sample])


@dataclass(frozen=True)
class Written:
    """What one run wrote.

    Attributes:
        counts: by (before, of) in the order of writing, how many were written and how many kept.
        reasons: why the others were dropped, the most frequent reason first.
        shown: a handful of those kept, taken in turn from each (before, of), texts cut to a readable length.
        dropped: one of those dropped for each reason.
    """

    run: Run
    counts: dict[tuple[str, str], tuple[int, int]]
    reasons: list[tuple[str, int]]
    shown: list[Sample]
    dropped: list[Sample]

    @property
    def made(self) -> int:
        return sum(made for made, _ in self.counts.values())

    @property
    def kept(self) -> int:
        return sum(kept for _, kept in self.counts.values())


def read(store: Store, runs: Sequence[Run], problems: list[Problem]) -> Written | None:
    """What the first of a variant's runs that has kept its pseudo-samples wrote; None where none has any."""
    found = first_kept(store, runs, NAME, _FORM, problems)
    return written(*found) if found and found[1] else None


def written(run: Run, samples: Sequence[Sample]) -> Written:
    """The samples of a run, counted and a handful of them chosen."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((_name(sample.before), _name(sample.of)), []).append(sample)
    kept = {group: [s for s in members if not s.dropped] for group, members in groups.items()}
    turns = [(group, turn) for turn in range(_SHOWN) for group in kept if turn < len(kept[group])][:_SHOWN]
    first_of = {s.dropped: s for s in reversed(samples) if s.dropped}
    reasons = Counter(s.dropped for s in samples if s.dropped).most_common()
    return Written(
        run=run,
        counts={group: (len(members), len(kept[group])) for group, members in groups.items()},
        reasons=reasons,
        shown=[_cut(kept[group][turn]) for group in groups for of_group, turn in turns if of_group == group],
        dropped=[_cut(first_of[reason]) for reason, _ in reasons],
    )


def _name(task: str | int | None) -> str:
    return "–" if task is None else str(task)


def _cut(sample: Sample) -> Sample:
    def brief(text: str | None) -> str | None:
        return text if text is None or len(text) <= _LONGEST else text[: _LONGEST - 1].rstrip() + "…"

    return sample.model_copy(update={key: brief(getattr(sample, key)) for key in ("text", "question", "answer")})
