"""The comparison of answers as texts: exact match, and F1 of the words, as for SQuAD (Rajpurkar et al. 2016)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from clray.language.examples import Example

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:an?|the)\b")


def measure(predictions: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """In per cent: ``em``, exact match with a correct answer; ``nem``, that of normalized texts; ``nf1``, their F1."""
    right = [example.answers for example in examples]
    plain, plain_right = [normalized(p) for p in predictions], [[normalized(a) for a in answers] for answers in right]
    return {
        "em": _mean(str.__eq__, predictions, right),
        "nf1": _mean(word_f1, plain, plain_right),
        "nem": _mean(str.__eq__, plain, plain_right),
    }


def normalized(text: str) -> str:
    """A text in lower case, without ASCII punctuation and articles, with single spaces between words."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def word_f1(prediction: str, right: str) -> float:
    """The F1 of two texts as bags of words, 0 to 1; it is 0 without a common word, also for two empty texts."""
    written, wanted = prediction.split(), right.split()
    common = (Counter(written) & Counter(wanted)).total()
    if not common:
        return 0.0
    precision, recall = common / len(written), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def _mean(likeness: Callable[[str, str], float], predictions: Sequence[str], right: Sequence[Sequence[str]]) -> float:
    """In per cent: the mean over the examples of the similarity to the most similar correct answer."""
    best = [max(likeness(p, answer) for answer in answers) for p, answers in zip(predictions, right, strict=True)]
    return sum(best) / len(best) * 100
