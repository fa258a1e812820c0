"""The scores of a task's answers: decaNLP's metrics as in LAMOL's official code, in per cent.

Texts are compared with their white space. The official code decodes both the model's answer and the correct one, and
a text decoded with GPT-2's vocabulary begins with a space: ``as_compared`` gives an example this form. The correct
answers of WOZ and WikiSQL come from ``Example.gold`` and were never decoded, so their ``em`` is 0 even for a perfect
model; their official metrics are not affected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from clray.documents import one_of
from clray.errors import DataError, DeclarationError
from clray.language.examples import Example
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
"""The function that measures a metric, by the metric's name: it computes all metrics of its kind at once."""


class Codec(Protocol):
    """The part of ``clray.language.tokens.Vocabulary`` that scoring needs."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: list[int]) -> str: ...


def official(task: str) -> str:
    """The name of a task's official metric.

    Raises:
        DeclarationError: there is no such task.
    """
    if task not in TASKS:
        raise DeclarationError(f"{task}: no such task; {one_of(task, TASKS)}")
    return TASKS[task].metric


def as_compared(example: Example, vocabulary: Codec) -> Example:
    """The example with its answers encoded and decoded by the vocabulary, as ``score`` needs them."""
    return example._replace(answers=tuple(vocabulary.decode(vocabulary.encode(answer)) for answer in example.answers))


def score(task: str, predictions: Sequence[str], examples: Sequence[Example]) -> Scores:
    """All metrics of a task, in per cent: ``em``, ``nf1`` and ``nem``, and those of its official metric's kind.

    Args:
        predictions: the decoded answer to each example.
        examples: the examples in any order; with a dialogue's turn, all earlier turns must be among them.

    Raises:
        DataError: there are no examples, or one lacks the data that its task's metric needs.
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
    """The text of a turn's answer. The official code also accepts the turn's id as a correct answer; this does not."""
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
"""The text with which answers are compared, for tasks whose correct answers have another form."""
