"""Pseudo-samples: examples of earlier tasks that a language model wrote for its own replay.

Trials of the language track keep them as the artifact ``samples.json``: a list of objects with ``before``, ``of``,
``text``, ``question``, ``answer`` and ``dropped``. Showing them needs no code of that track.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, TypeAdapter

from clray.analysis.artifacts import first_artifact
from clray.analysis.runs import Run
from clray.store import Problem, Store

NAME = "samples.json"
_SHOWN = 6
"""The most samples that are shown."""
_LONGEST = 400
"""The most characters of a text that are shown."""


class PseudoSample(BaseModel):
    """One pseudo-sample.

    Attributes:
        before: the task that was learned next after the model wrote the sample.
        of: the task that the sample is an example of.
        text: the whole text that the model wrote.
        question, answer: the two parts of the text; None where it could not be parsed.
        dropped: the reason why it was not used for training; None or empty where it was.
    """

    before: str | int | None = None
    of: str | int | None = None
    text: str
    question: str | None = None
    answer: str | None = None
    dropped: str | None = None


_FORM = TypeAdapter(list[PseudoSample])


@dataclass(frozen=True)
class PseudoSamples:
    """The pseudo-samples of one run.

    Attributes:
        counts: the number of samples written and the number kept, by (before, of), in the order of writing.
        reasons: the reasons why samples were dropped, with their number, the most frequent reason first.
        shown: some of the samples kept, taken in turn from each (before, of), with long texts cut.
        dropped: one dropped sample for each reason.
    """

    run: Run
    counts: dict[tuple[str, str], tuple[int, int]]
    reasons: list[tuple[str, int]]
    shown: list[PseudoSample]
    dropped: list[PseudoSample]

    @property
    def made(self) -> int:
        return sum(made for made, _ in self.counts.values())

    @property
    def kept(self) -> int:
        return sum(kept for _, kept in self.counts.values())


def read(store: Store, runs: Sequence[Run], problems: list[Problem]) -> PseudoSamples | None:
    """The pseudo-samples of a variant's first run that has kept them; None where no run has any."""
    found = first_artifact(store, runs, NAME, _FORM, problems)
    return written(*found) if found and found[1] else None


def written(run: Run, samples: Sequence[PseudoSample]) -> PseudoSamples:
    """Count a run's pseudo-samples, and choose the ones to show."""
    groups: dict[tuple[str, str], list[PseudoSample]] = {}
    for sample in samples:
        groups.setdefault((_name(sample.before), _name(sample.of)), []).append(sample)
    kept = {group: [s for s in members if not s.dropped] for group, members in groups.items()}
    turns = [(group, turn) for turn in range(_SHOWN) for group in kept if turn < len(kept[group])][:_SHOWN]
    first_of = {s.dropped: s for s in reversed(samples) if s.dropped}
    reasons = Counter(s.dropped for s in samples if s.dropped).most_common()
    return PseudoSamples(
        run=run,
        counts={group: (len(members), len(kept[group])) for group, members in groups.items()},
        reasons=reasons,
        shown=[_cut(kept[group][turn]) for group in groups for of_group, turn in turns if of_group == group],
        dropped=[_cut(first_of[reason]) for reason, _ in reasons],
    )


def _name(task: str | int | None) -> str:
    return "–" if task is None else str(task)


def _cut(sample: PseudoSample) -> PseudoSample:
    def brief(text: str | None) -> str | None:
        return text if text is None or len(text) <= _LONGEST else text[: _LONGEST - 1].rstrip() + "…"

    return sample.model_copy(update={key: brief(getattr(sample, key)) for key in ("text", "question", "answer")})
