"""Vocabularies: the official code's, trained on a stream, and that of a pretrained model."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from lamol_fixtures import lamol_vocabulary, reference

from clray.errors import DataError
from clray.language.tokens import Vocabulary, gpt2_vocabulary, of_model, stream_vocabulary

TEXTS = [
    "is it raining?",
    "it is raining again",
    "rain again: again and again",
    "naïve café",
    "walk twice and look",
] * 3
OFFICIAL = reference("encoding.json")["tokenizer"]


@pytest.fixture(scope="module")
def gpt2() -> Vocabulary:
    return lamol_vocabulary()


@pytest.fixture
def small() -> Vocabulary:
    return stream_vocabulary(TEXTS, 300)


@pytest.mark.parametrize("text", OFFICIAL["probe"])
def test_text_gets_the_official_ids(gpt2: Vocabulary, text: str) -> None:
    assert gpt2.encode(text) == OFFICIAL["probe"][text]


@pytest.mark.parametrize("ids", OFFICIAL["decode_probe"])
def test_ids_get_the_official_text(gpt2: Vocabulary, ids: str) -> None:
    assert gpt2.decode(map(int, ids.split())) == OFFICIAL["decode_probe"][ids]


def test_special_tokens_have_the_official_ids(gpt2: Vocabulary) -> None:
    assert len(gpt2) == OFFICIAL["len"]
    assert gpt2.add("__gen__") == OFFICIAL["__gen__"]
    official = OFFICIAL["special_token_ids"]
    assert {"ans_token": gpt2.ans, "pad_token": gpt2.pad, "unk_token": gpt2.unk, "eos_token": gpt2.eos} == official


def test_task_tokens_follow_in_the_order_in_which_they_are_added(small: Vocabulary) -> None:
    before = len(small)
    assert [small.add(f"__{task}__") for task in ("sst", "srl", "sst", "woz.en")] == [
        before,
        before + 1,
        before,
        before + 2,
    ]
    assert len(small) == before + 3


def test_a_separator_is_heavy_and_comes_before_the_generation_token(small: Vocabulary) -> None:
    assert small.sep is None
    assert small.heavy == [small.ans]
    assert small.add_separator() == small.sep == small.unk + 1
    assert small.heavy == [small.ans, small.sep]
    assert small.add("__gen__") == small.sep + 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a__ans__b", ["a", "__ans__", "b"]),
        ("__ans__ __ans__ a", ["__ans__", "__ans__", "a"]),
        ("a __pad__ __ans__", ["a", "__pad__", "__ans__"]),
        ("a<|endoftext|>b", ["a", "<|endoftext|>", "b"]),
        ("__pad__ans__", ["__pad", "__ans__"]),  # __ans__ has the smaller id, and is looked for first
        (" \u3000\n a \x1c", ["a"]),
        ("<|endoftext|>", ["<|endoftext|>"]),
    ],
)
def test_text_is_split_at_added_tokens_and_stripped_around_them(
    small: Vocabulary, text: str, expected: list[str]
) -> None:
    assert small.encode(text) == [token for piece in expected for token in small.encode(piece)]
    singles = {"__ans__": small.ans, "__pad__": small.pad, "<|endoftext|>": small.eos}
    assert [small.encode(piece) == [singles[piece]] for piece in expected if piece in singles] == [True] * sum(
        piece in singles for piece in expected
    )


def test_pieces_can_be_put_one_behind_the_other(small: Vocabulary) -> None:
    assert small.encode("it is") + small.encode("raining again") == small.encode("it is raining again")


def test_every_text_survives_up_to_the_spaces_that_are_cleaned_away(small: Vocabulary) -> None:
    for text in ("naïve café", "日本語 と 😀", "a\tb\n c", "\\ \x00 \x7f", "word " * 50 + "end"):
        assert small.decode(small.encode(text)) == " " + text


def test_broken_characters_are_decoded_as_python_does(small: Vocabulary) -> None:
    rng = random.Random(0)
    spelt = {token: bytes_of for bytes_of, token in ((bytes([b]), small._base.token_to_id(c)) for b, c in _bytes())}
    for _ in range(300):
        ids = [rng.choice(list(spelt)) for _ in range(rng.randrange(1, 12))]
        expected = b"".join(spelt[token] for token in ids).decode("utf-8", errors="replace")
        assert small.decode(ids) == _cleaned(expected)


def test_a_vocabulary_of_the_stream_is_the_same_in_every_process(small: Vocabulary) -> None:
    program = "import json, sys; from clray.language.tokens import stream_vocabulary as made;"
    program += "print(made(json.load(sys.stdin), 300).fingerprint)"
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program], input=json.dumps(TEXTS), capture_output=True, text=True, check=True,
            env={"PYTHONHASHSEED": seed, "PATH": "", "PYTHONPATH": ":".join(sys.path)},
        )  # fmt: skip
        assert done.stdout.strip() == small.fingerprint


def test_a_vocabulary_of_the_stream_merges_what_is_frequent(small: Vocabulary) -> None:
    assert len(small.encode("raining")) == 1
    assert len(small.encode("zqxj")) == 5  # a byte each, the space included
    assert len(small) <= 300 + 3


def test_the_fingerprint_tells_vocabularies_apart(small: Vocabulary) -> None:
    others = [stream_vocabulary(TEXTS, 280), stream_vocabulary([*TEXTS, "walking walking walking"], 300)]
    grown = stream_vocabulary(TEXTS, 300)
    assert grown.fingerprint == small.fingerprint
    grown.add("__gen__")
    assert len({small.fingerprint, grown.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_a_grown_vocabulary_comes_back_from_its_state(small: Vocabulary) -> None:
    small.add_separator()
    small.add("__sst__")
    back = Vocabulary.from_state(json.loads(json.dumps(small.state())))
    assert (len(back), back.fingerprint, back.sep, back.eos) == (len(small), small.fingerprint, small.sep, small.eos)
    text = "rain __sst__ again __sep__ naïve<|endoftext|>"
    assert back.encode(text) == small.encode(text)
    assert back.decode(back.encode(text)) == small.decode(small.encode(text))
    assert back.add("__woz.en__") == small.add("__woz.en__")


def test_half_a_surrogate_pair_is_named(small: Vocabulary) -> None:
    with pytest.raises(DataError, match="surrogate"):
        small.encode("a \ud83d b")


# --------------------------------------------------------------------------------------------------------------
# Files


def test_a_vocabulary_that_is_not_here_is_named_with_its_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLRAY_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"vocab\.json is in none of .*openaipublic.*stream"):
        gpt2_vocabulary()


def test_a_foreign_vocabulary_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "lamol" / "gpt2_bpe"
    folder.mkdir(parents=True)
    (folder / "encoder.json").write_text("{}")
    monkeypatch.setenv("CLRAY_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"encoder\.json: not GPT-2's published"):
        gpt2_vocabulary()


def _saved_model(folder: Path, vocabulary: Vocabulary, tokenizer: object) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)  # type: ignore[attr-defined]


def test_the_vocabulary_of_a_saved_gpt2_is_gpt2s(gpt2: Vocabulary, tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=gpt2._base, eos_token="<|endoftext|>")
    _saved_model(tmp_path, gpt2, tokenizer)
    found = of_model(str(tmp_path))
    found.add("__gen__")
    assert {text: found.encode(text) for text in OFFICIAL["probe"]} == OFFICIAL["probe"]
    decoded = {ids: found.decode(map(int, ids.split())) for ids in OFFICIAL["decode_probe"]}
    assert decoded == OFFICIAL["decode_probe"]


def test_a_vocabulary_that_puts_its_own_spaces_gets_no_second_one(small: Vocabulary, tmp_path: Path) -> None:
    """As the tokenizers of Llama 2 do, which have no end of their own kind either."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "</s>", "▁", "▁it", "▁is", "▁raining", "▁walk", "it", "is", "n", "g", "r"]
    base = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    base.pre_tokenizer = pre_tokenizers.Metaspace()
    base.decoder = decoders.Metaspace()
    _saved_model(tmp_path, small, PreTrainedTokenizerFast(tokenizer_object=base, eos_token="</s>", unk_token="<unk>"))
    found = of_model(str(tmp_path))
    assert found.encode(" it is") == [words.index("▁it"), words.index("▁is")]
    assert found.encode("it</s>__ans__ walk") == [
        words.index("▁it"),
        words.index("</s>"),
        found.ans,
        words.index("▁walk"),
    ]
    assert found.eos == words.index("</s>")
    assert (found.ans, len(found)) == (len(words), len(words) + 3)


def test_a_vocabulary_without_an_end_gets_one(tmp_path: Path, small: Vocabulary) -> None:
    from transformers import PreTrainedTokenizerFast

    base = stream_vocabulary(TEXTS, 290)._base
    _saved_model(tmp_path, small, PreTrainedTokenizerFast(tokenizer_object=base))
    found = of_model(str(tmp_path))
    assert found.encode("a<|endoftext|>")[-1:] == [found.eos]


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(DataError, match="no tokenizer that transformers can load"):
        of_model(str(tmp_path))


def _bytes() -> list[tuple[int, str]]:
    """Every byte, and the character that byte-level vocabularies spell it with."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [(byte, chr(byte)) for byte in shown] + [(byte, chr(256 + i)) for i, byte in enumerate(hidden)]


def _cleaned(text: str) -> str:
    for spaced, cleaned in ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'")):
        text = text.replace(spaced, cleaned)
    return text
