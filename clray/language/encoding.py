"""What a language model reads of an example, and what it should write: LAMOL's token sequences.

The names are those of the official code (``utils.py``): c a context, q a question, a an answer; X read, Y to be
written. There is nothing between context and question, unless ``use_sep`` puts ``__sep__`` there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from clray.errors import DataError
from clray.language.records import Example
from clray.language.tokens import Vocabulary

FILL = -1
"""In Y: nothing is to be written here."""


class Encoded(NamedTuple):
    """One example's sequences of token ids.

    Attributes:
        cq: c q ``__ans__``: what an answer is asked by.
        cqa: c q ``__ans__`` a.
        Y: what follows each token of ``cqa``: the answer and the end, ``FILL`` before.
        gen_X: the generation token and ``cqa``.
        gen_Y: ``cqa`` and the end: what follows each token of ``gen_X``.
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
    id: int = -1,
) -> Encoded:
    """The sequences of an example.

    Args:
        gen: the generation token's id.
        longest: the most tokens of a sequence; a context that is too long loses its end.
        use_sep: whether ``__sep__``, which the vocabulary then has, stands between context and question.
        test: whether all answers that count as right are taken, with ``__pad__`` between them, and not only the first.
            What of them is too long is cut off: a test asks with ``cq`` alone.

    Raises:
        DataError: question and answer alone are longer than ``longest`` (the official code breaks off there too).
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
    return _sequences(vocabulary.encode(example.context), question, answer, vocabulary, gen, longest, id)


def parse_sample(ids: Sequence[int], vocabulary: Vocabulary, longest: int) -> Encoded | None:
    """The sequences of an example that a model has written, generation token first; None where it is none.

    As in the official code, an example has exactly one ``__ans__``; where the vocabulary has ``__sep__`` exactly one of
    it too, before the answer. All else passes: an empty question or answer, ``__pad__``, an end within the question.
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
    return _sequences(context, before, answer, vocabulary, gen, longest, id=-1)


def _sequences(
    context: list[int], question: list[int], answer: list[int], vocabulary: Vocabulary, gen: int, longest: int, id: int
) -> Encoded:
    asked = [*question, vocabulary.ans]
    cq = context[: longest - 1 - len(asked)] + asked
    cqa = context[: longest - 1 - len(asked) - len(answer)] + asked + answer
    Y = [FILL] * (len(cqa) - len(answer) - 1) + answer + [vocabulary.eos]
    return Encoded(cq, cqa, Y, [gen, *cqa], [*cqa, vocabulary.eos], id)
