"""Overlap of n-grams: BLEU for translations, ROUGE for summaries.

LAMOL's code has flags for both and computes neither; these follow decaNLP, which the tasks come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from clray.language.examples import Example


def bleu(predictions: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """``bleu``: corpus BLEU in per cent, by sacrebleu, case ignored, tokens by its default ``13a`` (Post 2018)."""
    from sacrebleu import corpus_bleu

    # A list for each reference; None where an example has fewer references than another.
    references = list(map(list, zip_longest(*(example.answers for example in examples))))
    return {"bleu": corpus_bleu(list(predictions), references, lowercase=True).score}


def rouge(predictions: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """``rouge1``, ``rouge2``, ``rougeL`` and their mean ``rouge``: mean F1 in per cent, by rouge-score (Lin 2004).

    It uses Porter's stemmer, and splits texts into sentences at every full stop for ROUGE-L, which is equivalent to the
    option ``-m`` and the input of decaNLP's ROUGE-1.5.5. Of several correct answers the best counts, for each score.
    """
    from rouge_score.rouge_scorer import RougeScorer

    names = {"rouge1": "rouge1", "rouge2": "rouge2", "rougeL": "rougeLsum"}
    scorer = RougeScorer(list(names.values()), use_stemmer=True)
    sums = dict.fromkeys(names, 0.0)
    for prediction, example in zip(predictions, examples, strict=True):
        found = scorer.score_multi([_sentences(answer) for answer in example.answers], _sentences(prediction))
        for name, theirs in names.items():
            sums[name] += found[theirs].fmeasure
    scores = {name: total / len(examples) * 100 for name, total in sums.items()}
    return scores | {"rouge": sum(scores.values()) / len(scores)}


def _sentences(text: str) -> str:
    """The sentences, one on each line, as rouge-score needs them."""
    return "\n".join(text.replace("\n", " ").split("."))
