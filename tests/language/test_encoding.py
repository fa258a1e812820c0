"""Token sequences are equal to the official code's, token by token."""

from __future__ import annotations

from typing import Any

import pytest
from lamol_fixtures import lamol_vocabulary, reference

from clray.errors import DataError
from clray.language.encoding import FILL, Encoded, encode, parse_sample
from clray.language.examples import Example
from clray.language.tokens import Vocabulary, stream_vocabulary

OFFICIAL = reference("encoding.json")
LONGEST = OFFICIAL["max_len"]


@pytest.fixture(scope="module")
def gpt2() -> Vocabulary:
    return lamol_vocabulary()


@pytest.fixture
def small() -> Vocabulary:
    return stream_vocabulary(["is it raining", "it is", "yes", "no"] * 2, 270)


def _as_official(encoded: Encoded) -> list[Any]:
    cq, cqa, Y, gen_X, gen_Y, id = encoded
    return [cq, len(cq), cqa, len(cqa), Y, gen_X, gen_Y, id]


def _examples(task: str) -> list[Example]:
    rows = OFFICIAL["tasks"][task]["rows"]
    return [Example(row["context"], row["question"], tuple(row["answers"]), str(i)) for i, row in enumerate(rows)]


@pytest.mark.parametrize("task", OFFICIAL["tasks"])
def test_examples_get_the_official_sequences(gpt2: Vocabulary, task: str) -> None:
    gen, expected = gpt2.add("__gen__"), OFFICIAL["tasks"][task]
    encoded = [encode(e, gpt2, gen, LONGEST, test=True, number=i) for i, e in enumerate(_examples(task))]
    assert [_as_official(row) for row in encoded] == expected["examples"]
    assert max(sum(token != FILL for token in row.Y) - 1 for row in encoded) == expected["max_a_len"]


def test_only_the_first_answer_is_learned(gpt2: Vocabulary) -> None:
    gen, example = gpt2.add("__gen__"), _examples("srl")[0]
    assert len(example.answers) == 4
    alone = example._replace(answers=example.answers[:1])
    learned = encode(example, gpt2, gen, LONGEST)
    assert learned == encode(alone, gpt2, gen, LONGEST, test=True)
    assert gpt2.pad not in learned.gen_Y


def test_task_tokens_stand_where_the_shared_one_stands(gpt2: Vocabulary) -> None:
    shared, own = gpt2.add("__gen__"), 50_300
    one, other = (encode(_examples("sst")[0], gpt2, gen, LONGEST) for gen in (shared, own))
    assert other == one._replace(gen_X=[own, *one.gen_X[1:]])


def test_a_long_context_loses_its_end(gpt2: Vocabulary) -> None:
    expected = OFFICIAL["truncation"]
    example = Example("word " * 2000, "Is this review negative or positive?", ("positive",), "0")
    encoded = encode(example, gpt2, gpt2.add("__gen__"), LONGEST, number=0)
    lengths = {field: len(sequence) for field, sequence in zip(Encoded._fields, encoded[:5], strict=False)}
    assert lengths | {"len_cq": lengths["cq"], "len_cqa": lengths["cqa"], "id": 0} == expected["lens"]
    assert encoded.cqa[-len(expected["cqa_tail"]) :] == expected["cqa_tail"]
    assert encoded.gen_Y[-len(expected["gen_Y_tail"]) :] == expected["gen_Y_tail"]


@pytest.mark.parametrize("case", [name for name in OFFICIAL["pseudo"] if name != "len_1024"])
def test_what_a_model_writes_is_read_as_by_the_official_code(gpt2: Vocabulary, case: str) -> None:
    tokens, expected = (OFFICIAL["pseudo"][case][key] for key in ("tokens", "parsed"))
    parsed = parse_sample(tokens, gpt2, LONGEST)
    assert (parsed if parsed is None else _as_official(parsed)[:7]) == expected


def test_the_longest_sample_is_not_cut(gpt2: Vocabulary) -> None:
    tokens = [gpt2.add("__gen__"), *[257] * 1021, gpt2.ans, 3967]
    parsed = parse_sample(tokens, gpt2, LONGEST)
    assert parsed is not None
    lengths = [value if isinstance(value, int) else len(value) for value in _as_official(parsed)[:7]]
    assert lengths == OFFICIAL["pseudo"]["len_1024"]["parsed"]["lens"]
    assert parse_sample([*tokens, 3967], gpt2, LONGEST) is None


def test_a_real_sample_is_read_as_it_was_encoded(gpt2: Vocabulary) -> None:
    for example in _examples("woz.en"):
        real = encode(example, gpt2, gpt2.add("__gen__"), LONGEST)
        assert parse_sample([*real.gen_X, gpt2.eos], gpt2, LONGEST) == real


def test_ids_that_only_look_like_the_answers_token_split_nothing(small: Vocabulary) -> None:
    """The official code splits a string of digits; with few ids that would split within a number."""
    gen = small.add("__gen__")
    parsed = parse_sample([gen, 2, small.ans, 7], small, 64)
    assert parsed == Encoded([2, small.ans], [2, small.ans, 7], [FILL, 7, small.eos], [gen, 2, small.ans, 7],
                             [2, small.ans, 7, small.eos])  # fmt: skip
    assert parse_sample([gen, int(f"1{small.ans}"), 7], small, 64) is None


def test_a_separator_stands_between_context_and_question(small: Vocabulary) -> None:
    small.add_separator()
    gen, example = small.add("__gen__"), Example("it is", "is it raining", ("yes",), "0")
    encoded = encode(example, small, gen, 64, use_sep=True)
    parts = [small.encode(text) for text in ("it is", "is it raining", "yes")]
    assert encoded.cqa == [*parts[0], small.sep, *parts[1], small.ans, *parts[2]]
    assert parse_sample([*encoded.gen_X, small.eos], small, 64) == encoded
    without = [token for token in encoded.gen_X if token != small.sep]
    assert parse_sample(without, small, 64) is None
    assert parse_sample([*without, small.sep], small, 64) is None


def test_a_separator_survives_a_context_that_is_cut(small: Vocabulary) -> None:
    small.add_separator()
    encoded = encode(Example("it is " * 30, "is it raining", ("no",), "0"), small, 0, 24, use_sep=True)
    assert (len(encoded.cqa), len(encoded.gen_X), encoded.cqa.count(small.sep)) == (23, 24, 1)  # type: ignore[arg-type]


def test_a_question_that_is_too_long_is_named(small: Vocabulary) -> None:
    example = Example("it is", "is it raining " * 10, ("yes",), "woz_3_1")
    with pytest.raises(DataError, match=r"woz_3_1.*at most 20.*positions"):
        encode(example, small, 0, 20)
    with pytest.raises(DataError, match="woz_3_1"):
        encode(example, small, 0, 20, test=True)


def test_in_a_test_the_answers_do_not_take_the_questions_room(small: Vocabulary) -> None:
    example = Example("it is", "is it", ("yes " * 30, "no"), "0")
    encoded = encode(example, small, 0, 20, test=True)
    assert encoded.cq == [*small.encode("it is"), *small.encode("is it"), small.ans]
    assert len(encoded.cqa) == 19
    with pytest.raises(DataError, match="question and answer"):
        encode(example, small, 0, 20)
