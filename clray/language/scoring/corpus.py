"""Corpus F1, for a corpus in which many questions have no answer (QA-ZRE; Levy et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

from clray.language.examples import Example
from clray.language.scoring.text import normalized

_NONE = {"unanswerable"}


def measure(predictions: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """``precision``, ``recall`` and ``corpus_f1`` over all examples at once, in per cent.

    An answer counts as the set of its words. Where an example has several correct answers, the official code puts all
    their words into one set, so that no single answer is correct; this does the same.
    """
    right = written = wanted = 0
    for prediction, example in zip(predictions, examples, strict=True):
        said, meant = _words(prediction), set().union(*map(_words, example.answers))
        right += said == meant != _NONE
        written += said != _NONE
        wanted += meant != _NONE
    if not right:
        return {"corpus_f1": 0.0, "precision": 0.0, "recall": 0.0}
    precision, recall = right / written, right / wanted
    f1 = 2 * precision * recall / (precision + recall)
    return {"corpus_f1": f1 * 100, "precision": precision * 100, "recall": recall * 100}


def _words(text: str) -> set[str]:
    return set(normalized(text).split()) - {"and"}
