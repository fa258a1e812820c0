"""Generated text: the official filter, and the same text from one prompt at a time as from any batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from lamol_fixtures import reference

from clray.language.generation import draw, generate, generate_plainly, probabilities

OFFICIAL = reference("topk.json")
VOCABULARY, POSITIONS = 60, 48


def _gpt2() -> torch.nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCABULARY, n_positions=POSITIONS, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3)
    )


def _llama() -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=POSITIONS,
            initializer_range=0.3,
        )
    )


def _first_gpt() -> torch.nn.Module:
    """``openai-gpt``, which has no cache in ``transformers``."""
    from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

    return OpenAIGPTLMHeadModel(
        OpenAIGPTConfig(
            vocab_size=VOCABULARY, n_positions=POSITIONS, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3
        )
    )


def _made(kind: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind().eval()


@pytest.fixture(scope="module", params=[_gpt2, _llama, _first_gpt])
def model(request: pytest.FixtureRequest) -> torch.nn.Module:
    return _made(request.param)


def _prompts(count: int) -> list[list[int]]:
    rng = np.random.default_rng(3)
    return [rng.integers(VOCABULARY, size=rng.integers(1, 20)).tolist() for _ in range(count)]


def _uniforms(i: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng([5, i]).random(POSITIONS)


def _longest(prompts: list[list[int]]) -> list[int]:
    return [min(POSITIONS - len(prompt), 5 + i) for i, prompt in enumerate(prompts)]


# --------------------------------------------------------------------------------------------------------------
# One token


def test_the_tokens_that_can_be_drawn_are_the_official_ones() -> None:
    logits, expected = torch.tensor(OFFICIAL["logits"]), torch.tensor(OFFICIAL["softmax_after"])
    ids, chances = probabilities(logits, OFFICIAL["top_k"])
    found = torch.zeros(expected.shape, dtype=torch.float64).scatter_add(1, ids, chances)
    assert torch.equal(found > 0, expected > 0)
    assert torch.allclose(found, expected.double(), atol=1e-7)


def test_numbers_draw_tokens_as_often_as_the_official_probabilities_say() -> None:
    logits, expected = torch.tensor(OFFICIAL["logits"])[:1], np.array(OFFICIAL["softmax_after"][0])
    grid = (np.arange(10_000) + 0.5) / 10_000
    drawn = draw(logits.expand(len(grid), -1), grid, OFFICIAL["top_k"], 1.0).numpy()
    assert (np.diff(drawn) >= 0).all()  # in the order of the ids
    assert np.abs(np.bincount(drawn, minlength=30) / len(grid) - expected).max() < 1.1e-4


def test_the_extremes_of_the_numbers_draw_the_first_and_the_last_token() -> None:
    logits = torch.tensor(OFFICIAL["logits"])[:1]
    allowed = np.flatnonzero(OFFICIAL["softmax_after"][0])
    assert int(draw(logits, np.array([0.0]), 5, 1.0)) == allowed[0]
    assert int(draw(logits, np.array([np.nextafter(1, 0)]), 5, 1.0)) == allowed[-1]


def test_temperature_sharpens_and_flattens() -> None:
    logits = torch.tensor(OFFICIAL["logits"])
    for temperature in (0.5, 2.0):
        ids, chances = probabilities(logits, 5, temperature)
        expected = (logits.double().gather(1, ids) / temperature).masked_fill(chances == 0, -torch.inf).softmax(1)
        assert torch.allclose(chances, expected)
        assert ((chances > 0).sum(1) == 5).all()


def test_all_that_are_as_likely_as_the_last_can_be_drawn() -> None:
    logits = torch.zeros(2, 50)
    logits[0, 7] = 3.0
    logits[1, [4, 9, 30]] = 1.0
    ids, chances = probabilities(logits, 3)
    assert [int((row > 0).sum()) for row in chances] == [50, 3]
    assert sorted(ids[1][chances[1] > 0].tolist()) == [4, 9, 30]
    assert ids[1][:3].tolist() == [4, 9, 30]


def test_more_can_be_asked_for_than_there_are() -> None:
    ids, chances = probabilities(torch.tensor([[0.0, 1.0, 2.0]]), 20)
    assert ids.tolist() == [[0, 1, 2]]
    assert torch.allclose(chances[0], torch.tensor([0.0, 1.0, 2.0]).double().softmax(0))


def test_the_likeliest_among_equals_has_the_smallest_id() -> None:
    logits = torch.zeros(1, 500)
    logits[0, [31, 7, 400]] = 2.0
    assert int(draw(logits, np.array([0.9]), 1, 1.0)) == 7


# --------------------------------------------------------------------------------------------------------------
# Whole texts


@pytest.mark.parametrize("top_k", [1, 7])
def test_a_batch_writes_what_each_prompt_alone_would(model: torch.nn.Module, top_k: int) -> None:
    prompts = _prompts(24)
    longest = _longest(prompts)
    endless = generate_plainly(model, prompts, _uniforms, top_k, 1.3, -5, longest)
    stop = int(np.bincount([token for text in endless for token in text[1:]]).argmax())
    plain = generate_plainly(model, prompts, _uniforms, top_k, 1.3, stop, longest)
    assert generate(model, prompts, _uniforms, top_k, 1.3, stop, longest) == plain
    assert plain == [text[: text.index(stop)] if stop in text else text for text in endless]
    assert 0 < sum(stop in text for text in endless) < 24
    assert len({len(text) for text in plain}) > 5  # they end at different times


def test_what_is_written_does_not_depend_on_the_batch(model: torch.nn.Module) -> None:
    prompts = _prompts(24)
    longest = _longest(prompts)
    together = generate(model, prompts, _uniforms, 7, 1.0, 2, longest)
    order = np.random.default_rng(0).permutation(24).tolist()
    for size in (1, 5):
        for begin in range(0, 24, size):
            part = order[begin : begin + size]
            found = generate(
                model,
                [prompts[i] for i in part],
                lambda i, part=part: _uniforms(part[i]),  # type: ignore[misc]
                7, 1.0, 2,
                [longest[i] for i in part],
            )  # fmt: skip
            assert found == [together[i] for i in part]


def test_other_numbers_write_other_texts() -> None:
    model, prompts = _made(_gpt2), _prompts(8)
    longest = [20] * 8
    one, other = (
        generate(model, prompts, lambda i, s=s: np.random.default_rng([s, i]).random(20), 20, 1.0, 2, longest)  # type: ignore[misc]
        for s in (0, 1)
    )
    assert all(a != b for a, b in zip(one, other, strict=True))


def test_one_token_to_draw_from_draws_nothing() -> None:
    def refuse(i: int) -> np.ndarray[Any, Any]:
        raise AssertionError("numbers were asked for")

    model, prompts = _made(_gpt2), _prompts(3)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    found = generate(model, prompts, refuse, 1, 1.0, -5, [4, 4, 4])
    assert [len(text) for text in found] == [4, 4, 4]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_texts_reach_the_last_position_and_no_further() -> None:
    model, prompts = _made(_gpt2), [[1] * 40, [2] * 47, [3]]
    found = generate(model, prompts, _uniforms, 20, 1.0, -5, [8, 1, 47])
    assert [len(text) for text in found] == [8, 1, 47]


def test_prompts_that_may_write_nothing_write_nothing() -> None:
    model = _made(_gpt2)
    assert generate(model, [[1], [2]], _uniforms, 5, 1.0, 2, [0, 0]) == [[], []]
    found = generate(model, [[1], [2, 3]], _uniforms, 5, 1.0, -5, [0, 3])
    assert found == generate_plainly(model, [[1], [2, 3]], _uniforms, 5, 1.0, -5, [0, 3])
    assert generate(model, [], _uniforms, 5, 1.0, 2, []) == []


def test_the_logits_are_those_of_the_official_step() -> None:
    """A cached step on a padded batch gives the logits of the whole text, to rounding."""
    from clray.language.generation import _Reader

    model, prompts = _made(_gpt2), _prompts(6)
    reader = _Reader(model, prompts)
    with torch.inference_mode():
        for token in (5, 9):
            reader.read(torch.full((6,), token))
            prompts = [[*prompt, token] for prompt in prompts]
        whole = torch.cat([model(torch.tensor([prompt])).logits[:, -1] for prompt in prompts])
    assert torch.allclose(reader.logits, whole, atol=1e-5)


def test_bfloat16_writes_texts_too() -> None:
    model, prompts = _made(_gpt2), _prompts(4)
    with torch.autocast("cpu", torch.bfloat16):
        found = generate(model, prompts, _uniforms, 5, 1.0, -5, [6] * 4)
    assert [len(text) for text in found] == [6] * 4


@pytest.mark.parametrize("top_k", [1, 3])
@pytest.mark.parametrize("spoilt", [float("nan"), float("inf")])
def test_where_logits_are_not_finite_no_token_is_drawn(top_k: int, spoilt: float) -> None:
    logits = torch.arange(12.0).view(3, 4)
    wanted = draw(logits, np.full(3, 0.5), top_k, 1.0).tolist()
    logits[1, 2] = spoilt
    assert draw(logits, np.full(3, 0.5), top_k, 1.0).tolist() == [wanted[0], -1, wanted[2]]
    logits[1] = -torch.inf
    assert draw(logits, np.full(3, 0.5), top_k, 1.0).tolist() == [wanted[0], -1, wanted[2]]
