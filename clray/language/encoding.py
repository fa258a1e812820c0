"""The token sequences of an example: the inputs and the targets of a language model, as in LAMOL.

The names are those of the official code (``utils.py``): c context, q question, a answer; X input, Y target. There is
nothing between context and question, unless ``use_sep`` puts ``__sep__`` there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from clray.errors import DataError
from clray.language.examples import Example
from clray.language.tokens import Vocabulary

FILL = -1
"""The value in Y where there is no target."""


class Encoded(NamedTuple):
    """The sequences of token ids of one example.

    Attributes:
        cq: c q ``__ans__``: the prompt for an answer.
        cqa: c q ``__ans__`` a.
        Y: the target at each token of ``cqa``: the answer and the end, ``FILL`` before.
        gen_X: the generation token, then ``cqa``.
        gen_Y: the target at each token of ``gen_X``: ``cqa`` and the end.
        id: the example's number, or -1.
    """

    cq: list[int]
    cqa: list[int]
    Y: list[int]
    gen_X: list[int]
    gen_Y: list[int]
    id: int = -1


def encode(
    example: Example,
    vocabulary: Vocabulary,
    gen: int,
    longest: int,
    use_sep: bool = False,
    test: bool = False,
    number: int = -1,
) -> Encoded:
    """The sequences of an example.

    Args:
        gen: the generation token's id.
        longest: the most tokens of a sequence; a context that is too long loses its end.
        use_sep: True to put ``__sep__``, which the vocabulary must have, between context and question.
        test: True to take all correct answers, with ``__pad__`` between them, and not only the first one. Answers that
            are too long are cut off: a test prompts with ``cq`` alone.

    Raises:
        DataError: question and answer alone are longer than ``longest`` (the official code also stops there).
    """
    answers = [vocabulary.encode(answer) for answer in (example.answers if test else example.answers[:1])]
    question = vocabulary.encode(example.question)
    if use_sep:
        assert vocabulary.sep is not None, "the vocabulary has no __sep__"
        question = [vocabulary.sep, *question]
    answer = [token for i, ids in enumerate(answers) for token in (ids if not i else [vocabulary.pad, *ids])]
    room = longest - len(question) - 2
    if test:
        answer = answer[: max(room, 0)]
    if len(answer) > room:
        raise DataError(
            f"example {example.id}: its question and answer have {len(question) + len(answer) + 2} tokens with those "
            f"around them, and the model reads at most {longest}; for name: scratch, raise model.positions"
        )
    return _sequences(vocabulary.encode(example.context), question, answer, vocabulary, gen, longest, number)


def parse_sample(ids: Sequence[int], vocabulary: Vocabulary, longest: int) -> Encoded | None:
    """The sequences of a pseudo-sample, the generation token first; None where it cannot be parsed.

    As in the official code, an example has exactly one ``__ans__``, and where the vocabulary has ``__sep__``, exactly
    one of it, before the answer. Anything else is accepted: an empty question or answer, ``__pad__``, an end inside the
    question.
    """
    gen, written = ids[0], list(ids[1:])
    if written.count(vocabulary.ans) != 1 or len(ids) > longest:
        return None
    middle = written.index(vocabulary.ans)
    before, answer = written[:middle], [token for token in written[middle + 1 :] if token != vocabulary.eos]
    context: list[int] = []
    if vocabulary.sep is not None:
        if written.count(vocabulary.sep) != 1 or vocabulary.sep not in before:
            return None
        start = before.index(vocabulary.sep)
        context, before = before[:start], before[start:]
    return _sequences(context, before, answer, vocabulary, gen, longest, -1)


def _sequences(
    context: list[int],
    question: list[int],
    answer: list[int],
    vocabulary: Vocabulary,
    gen: int,
    longest: int,
    number: int,
) -> Encoded:
    asked = [*question, vocabulary.ans]
    cq = context[: longest - 1 - len(asked)] + asked
    cqa = context[: longest - 1 - len(asked) - len(answer)] + asked + answer
    Y = [FILL] * (len(cqa) - len(answer) - 1) + answer + [vocabulary.eos]
    return Encoded(cq, cqa, Y, [gen, *cqa], [*cqa, vocabulary.eos], number)
