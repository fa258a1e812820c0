"""How right a task's answers are: decaNLP's metrics as LAMOL's official code computes them, in per cent.

Texts are compared as they are, white space included. The official code decodes both what was written and what is
right, and a text decoded with GPT-2's vocabulary begins with a space: ``as_compared`` gives an example that form. What
is right in WOZ and WikiSQL comes from ``Example.gold`` and was never decoded, which is why their ``em`` is 0 even for a
model without a fault; their official metrics do not mind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from clray.documents import one_of
from clray.errors import DataError, DeclarationError
from clray.language.records import Example
from clray.language.scoring import corpus, dialogue, logical_forms, overlap, text
from clray.language.tasks import TASKS

Scores = dict[str, float]
Measure = Callable[[Sequence[str], Sequence[Example]], Scores]

METRICS: dict[str, Measure] = {
    "em": text.measure,
    "nf1": text.measure,
    "nem": text.measure,
    "joint_goal_em": dialogue.measure,
    "turn_request_em": dialogue.measure,
    "turn_goal_em": dialogue.measure,
    "avg_dialogue": dialogue.measure,
    "lfem": logical_forms.measure,
    "corpus_f1": corpus.measure,
    "precision": corpus.measure,
    "recall": corpus.measure,
    "bleu": overlap.bleu,
    "rouge1": overlap.rouge,
    "rouge2": overlap.rouge,
    "rougeL": overlap.rouge,
    "rouge": overlap.rouge,
}
"""By its name, what measures a metric: all metrics of its kind at once, from predictions and their examples."""


class Codec(Protocol):
    """The part of ``clray.language.tokens.Vocabulary`` that is needed here."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: list[int]) -> str: ...


def official(task: str) -> str:
    """The name of the metric by which a task is judged.

    Raises:
        DeclarationError: there is no such task.
    """
    if task not in TASKS:
        raise DeclarationError(f"{task}: no such task; {one_of(task, TASKS)}")
    return TASKS[task].metric


def as_compared(example: Example, vocabulary: Codec) -> Example:
    """The example with its answers as the vocabulary would write them, which is how ``score`` wants them."""
    return example._replace(answers=tuple(vocabulary.decode(vocabulary.encode(answer)) for answer in example.answers))


def score(task: str, predictions: Sequence[str], examples: Sequence[Example]) -> Scores:
    """All metrics of a task, in per cent: ``em``, ``nf1`` and ``nem``, and those of its official metric's kind.

    Args:
        predictions: one an example, as decoded.
        examples: in any order; of a dialogue's turns, all that come before one must be among them.

    Raises:
        DataError: no examples, or one that lacks what its task is scored by.
        DeclarationError: there is no such task.
    """
    special = METRICS[official(task)]
    if not examples:
        raise DataError(f"{task}: there are no examples to score")
    if len(predictions) != len(examples):
        raise ValueError(f"{task}: {len(predictions)} predictions for {len(examples)} examples")
    if special is text.measure:
        return text.measure(predictions, examples)
    compared = examples
    if special in _GOLD_TEXTS:
        compared = [example._replace(answers=(_GOLD_TEXTS[special](example),)) for example in examples]
    return text.measure(predictions, compared) | special(predictions, examples)


def _turn_text(example: Example) -> str:
    """The official code also takes a turn's id for a right answer, which nobody ever writes; not so here."""
    if not isinstance(example.gold, str):
        raise DataError(f"example {example.id}: gold must be a turn, 'inform; request'; it is {example.gold!r:.80}")
    return example.gold


def _query_text(example: Example) -> str:
    if not isinstance(example.gold, dict) or not {"sql", "header", "answer"} <= example.gold.keys():
        raise DataError(f"example {example.id}: gold must hold sql, header and answer; it is {example.gold!r:.80}")
    return example.gold["answer"].lower()


_GOLD_TEXTS: dict[Measure, Callable[[Example], str]] = {
    dialogue.measure: _turn_text,
    logical_forms.measure: _query_text,
}
"""What texts are compared with, where a task has a form of its own for what is right."""
