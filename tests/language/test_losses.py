"""The losses are those of the official code, and the fast form equals the plain one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lamol_fixtures import reference
from lamol_models import drawn_batch, gpt2, official_batch, official_model

from clray.language import losses
from clray.language.losses import Batch, Lengths, answer_logits, eager, fused, weights

LENGTHS = (9, 17, 9, 24, 13)
VOCABULARY = 61
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 40,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 2,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": SMALL | {"tie_word_embeddings": True},
    "mistral": SMALL | {"sliding_window": None},
    "mistral, windows": SMALL | {"sliding_window": 5},
    "qwen2": SMALL,
    "qwen3": SMALL,
    "gpt_neox": SMALL,
    "cohere": SMALL | {"logit_scale": 0.3},
    "granite": SMALL | {"logits_scaling": 3.0},
    "gemma2": SMALL | {"final_logit_softcapping": 0.01, "sliding_window": 6},
    "openai-gpt": {
        "vocab_size": VOCABULARY,
        "n_positions": 40,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 4,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    },
}


def made(name: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    if name == "gpt2":
        return gpt2(VOCABULARY, 40, 16, 2, 4).train()
    config = AutoConfig.for_model(name.partition(",")[0], **ARCHITECTURES[name])
    return AutoModelForCausalLM.from_config(config).train()


def computed(form: Any, model: Any, batch: Batch, lm_lambda: float | None) -> tuple[Any, dict[str, torch.Tensor]]:
    """The losses, and the gradients of their sum from anew."""
    model.zero_grad()
    found = form(model, batch, weights(VOCABULARY, 3), lm_lambda)
    sum(found).backward()
    return [loss.item() for loss in found], {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_same(model: Any, batch: Batch, lm_lambda: float | None = 0.25) -> None:
    plain, plain_gradients = computed(eager, model, batch, lm_lambda)
    fast, fast_gradients = computed(fused, model, batch, lm_lambda)
    assert fast == pytest.approx(plain, rel=1e-5)
    for name, gradient in plain_gradients.items():
        torch.testing.assert_close(
            fast_gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("task", ["sst", "srl", "woz.en"])
@pytest.mark.parametrize("form", [eager, fused])
def test_losses_are_the_official_ones(form: Any, task: str) -> None:
    expected = reference("train_step.json")["losses_eval_mode"][task]
    with torch.no_grad():
        qa, lm = form(official_model(), official_batch(task), weights(50261, 50257), expected["lm_lambda"])
    assert qa.item() == pytest.approx(expected["qa_loss"], rel=1e-6)
    assert lm.item() == pytest.approx(expected["lm_loss_times_lambda"], rel=1e-6)


def test_an_answer_token_weighs_more_in_both_sums() -> None:
    model, batch = made("gpt2"), drawn_batch(0, VOCABULARY, LENGTHS)
    with torch.no_grad():
        for form in (eager, fused):
            light = form(model, batch, weights(VOCABULARY, 3, 1.0), 1.0)
            heavy = form(model, batch, weights(VOCABULARY, 3, 1e6), 1.0)
            # No answer holds __ans__; of whole texts next to nothing but it is left.
            assert heavy[0].item() == pytest.approx(light[0].item())
            places = [(row, row.index(3)) for row in batch.cqa]
            chances = [
                model(torch.tensor([[1, *row[:place]]])).logits[0, -1].log_softmax(0)[3].item() for row, place in places
            ]
            assert heavy[1].item() == pytest.approx(-sum(chances) / len(chances), rel=1e-4)


def test_several_tokens_can_weigh_more() -> None:
    assert weights(5, [1, 3], 2.0).tolist() == [1, 2, 1, 2, 1]


@pytest.mark.parametrize("lm_lambda", [None, 0.25])
@pytest.mark.parametrize("name", ["gpt2", *ARCHITECTURES])
def test_fused_equals_eager(name: str, lm_lambda: float | None) -> None:
    batch = drawn_batch(1, VOCABULARY, LENGTHS)
    batch.cqa[0][2] = batch.gen_X[0][3] = 2  # the padding token may stand in a text
    assert_same(made(name), batch, lm_lambda)


@pytest.mark.parametrize("lengths", [(12,), (8, 8, 8), (5, 30)])
def test_fused_equals_eager_for_rows_of_any_lengths(lengths: tuple[int, ...]) -> None:
    for lm_lambda in (None, 0.25):
        assert_same(made("gpt2"), drawn_batch(2, VOCABULARY, lengths), lm_lambda)


def test_fused_equals_eager_where_rows_are_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_packs", lambda *_: False)
    assert_same(made("gpt2"), drawn_batch(3, VOCABULARY, LENGTHS))


def test_fused_equals_eager_with_activations_recomputed() -> None:
    model = made("gpt2")
    model.gradient_checkpointing_enable()
    assert_same(model, drawn_batch(3, VOCABULARY, LENGTHS))


def test_fused_equals_eager_for_untied_embeddings() -> None:
    torch.manual_seed(0)
    assert_same(gpt2(VOCABULARY, 40, 16, 2, 4, tie_word_embeddings=False), drawn_batch(3, VOCABULARY, LENGTHS))


def test_gradients_of_several_minibatches_add_up() -> None:
    model, batches = made("gpt2"), [drawn_batch(seed, VOCABULARY, LENGTHS) for seed in (4, 5)]
    sums = {}
    for form in (eager, fused):
        model.zero_grad()
        for batch in batches:
            sum(form(model, batch, weights(VOCABULARY, 3), 0.25)).backward()
        sums[form] = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(sums[fused], sums[eager], rtol=1e-4, atol=1e-6)


def test_gradients_have_the_same_bits_whether_there_were_none_or_zeros() -> None:
    # As after a resumption, and without one.
    model, batch = made("gpt2"), drawn_batch(4, VOCABULARY, LENGTHS)
    _, first = computed(fused, model, batch, 0.25)
    model.zero_grad(set_to_none=False)
    sum(fused(model, batch, weights(VOCABULARY, 3), 0.25)).backward()
    assert all(torch.equal(p.grad, first[name]) for name, p in model.named_parameters())


def test_frozen_embeddings_get_no_gradient() -> None:
    model, batch = made("gpt2"), drawn_batch(4, VOCABULARY, LENGTHS)
    model.transformer.wte.weight.requires_grad_(False)
    sum(fused(model, batch, weights(VOCABULARY, 3), 0.25)).backward()
    assert model.transformer.wte.weight.grad is None
    assert model.transformer.h[0].attn.c_attn.weight.grad is not None


def test_fused_equals_eager_in_bfloat16() -> None:
    model, batch, found = made("gpt2"), drawn_batch(6, VOCABULARY, LENGTHS), {}
    for form in (eager, fused):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = sum(form(model, batch, weights(VOCABULARY, 3), 0.25))
        loss.backward()
        found[form] = (loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert found[fused][0] == pytest.approx(found[eager][0], rel=1e-3)
    cosine = torch.nn.functional.cosine_similarity(found[fused][1], found[eager][1], dim=0)
    assert cosine > 0.999


def test_the_model_has_its_own_attention_back() -> None:
    model, batch = made("gpt2"), drawn_batch(7, VOCABULARY, LENGTHS)
    fused(model, batch, weights(VOCABULARY, 3), 0.25)
    assert model.config._attn_implementation == "sdpa"
    too_long = drawn_batch(7, VOCABULARY, (9, 70))  # of 40 positions
    with pytest.raises(IndexError):
        fused(model, too_long, weights(VOCABULARY, 3), None)
    assert model.config._attn_implementation == "sdpa"


def test_unequal_rows_are_not_padded() -> None:
    model, seen = made("gpt2"), []
    model.transformer.ln_f.register_forward_hook(lambda _module, inputs, _out: seen.append(inputs[0].shape[:2].numel()))
    batch = drawn_batch(8, VOCABULARY, LENGTHS)
    fused(model, batch, weights(VOCABULARY, 3), 0.25)
    eager(model, batch, weights(VOCABULARY, 3), 0.25)
    rows = [len(row) for row in batch.cqa]
    assert seen[0] == sum(rows) + sum(rows) + len(rows)
    assert sum(seen[1:]) == len(rows) * max(rows) + len(rows) * (max(rows) + 1)


def test_both_ways_of_attention_within_rows_are_the_same() -> None:
    lengths = Lengths([3, 7, 1, 5], torch.device("cpu"))
    torch.manual_seed(0)
    whole = [torch.randn(1, 4, 16, 8, requires_grad=True) for _ in range(3)]
    options = {"dropout_p": 0.0, "is_causal": True, "scale": None, "enable_gqa": False}
    found, gradients, into = [], [], torch.randn(1, 16, 4, 8)
    for way in (losses._by_row, losses._on_grid):
        out = way(*whole, lengths, options)
        found.append(out)
        gradients.append(torch.autograd.grad((out * into).sum(), whole))
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(gradients[0], gradients[1])
    first = torch.nn.functional.scaled_dot_product_attention(*(x[:, :, 3:10] for x in whole), is_causal=True)
    torch.testing.assert_close(found[0][:, 3:10], first.transpose(1, 2))


def test_answer_logits_are_those_after_the_question() -> None:
    model, batch = made("gpt2").eval(), drawn_batch(9, VOCABULARY, LENGTHS)
    with torch.no_grad():
        found = answer_logits(model, batch)
        for row, logits in zip(batch.cqa, found, strict=True):
            torch.testing.assert_close(logits, model(torch.tensor([row[: row.index(3) + 1]])).logits[0, -1])


def test_logits_are_of_32_bits_in_bfloat16() -> None:
    """A pretrained GPT-2's lie around -100, where bfloat16 would make many of them one."""
    model = made("gpt2")
    hidden = torch.randn(2, model.config.n_embd)
    with torch.autocast("cpu", torch.bfloat16):
        found = losses.logits(model, hidden)
    assert found.dtype == torch.float32
    assert torch.equal(found, hidden @ model.lm_head.weight.t())
