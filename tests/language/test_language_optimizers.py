"""AdamW, its parameter groups and the schedule take the same steps as the official code."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from lamol_fixtures import reference
from lamol_models import gpt2, official_batch, official_model

from clray.language.losses import eager, fused, weights
from clray.language.optimizers import AdamW, Penalty, Schedule, parameter_groups


@pytest.mark.parametrize(("form", "plain"), [(eager, True), (fused, False)])
def test_three_updates_are_the_official_ones(form: Any, plain: bool) -> None:
    model, steps = official_model(), reference("train_step.json")["train_steps_dropout_off"]
    optimizer = AdamW(parameter_groups(model, 0.01), plain=plain)
    schedule = Schedule(optimizer, 6.25e-5, examples=400, epochs=2)
    for step in steps:
        assert optimizer.param_groups[0]["lr"] == pytest.approx(step["lr_used"], rel=1e-12)
        batch = official_batch(step["task_batch"])
        assert batch.count == step["n_inputs"]
        loss = sum(form(model, batch, weights(50261, 50257), 0.25))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        schedule.step(batch.count)
        assert loss.item() == pytest.approx(step["loss"], rel=1e-6)
        assert optimizer.param_groups[1]["lr"] == pytest.approx(step["lr_after"], rel=1e-12)
        body = model.transformer
        assert body.wte.weight.double().norm().item() == pytest.approx(step["wte_norm"], rel=1e-7)
        assert body.wte.weight.double().sum().item() == pytest.approx(step["wte_sum"], rel=1e-4)
        assert body.ln_f.weight.tolist() == pytest.approx(step["ln_f_weight"], rel=5e-7)
        attention = body.h[0].attn.c_attn.weight.double().norm().item()
        assert attention == pytest.approx(step["h0_attn_c_attn_norm"], rel=1e-7)


def test_norms_are_decayed_and_biases_are_not() -> None:
    model, expected = official_model(), reference("train_step.json")
    decayed, others = parameter_groups(model, 0.01)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.01, 0.0)
    assert {names[id(p)] for p in decayed["params"]} >= set(expected["decayed_layernorms"])
    assert {names[id(p)] for p in others["params"]} >= set(expected["no_decay_names"])
    assert len(decayed["params"]) + len(others["params"]) == len(names)


def test_frozen_parameters_are_in_no_group() -> None:
    model = gpt2(11, 8, 4, 1, 1)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.transformer.wte.weight.requires_grad_(True)
    groups = parameter_groups(model, 0.01)
    assert [len(group["params"]) for group in groups] == [1]


@pytest.mark.parametrize("case", [0, 1, 2])
def test_the_rate_is_the_official_one(case: int) -> None:
    table = reference("train_step.json")["scheduler"][case]
    schedule = Schedule(None, 6.25e-5, table["n_examples"], table["epochs"])
    assert schedule.rise == table["warmup_iter"]
    for seen, rate in table["lr_at"].items():
        assert schedule.lr(int(seen)) == pytest.approx(rate, rel=1e-12)
    assert schedule.lr(10 * schedule.end) == 0


def test_a_schedule_goes_on_from_its_state() -> None:
    optimizers = [AdamW([torch.nn.Parameter(torch.ones(2))]) for _ in range(2)]
    first, second = (Schedule(optimizer, 1e-3, 1000, 2) for optimizer in optimizers)
    assert optimizers[1].param_groups[0]["lr"] == 0
    first.step(700)
    second.load_state_dict(first.state_dict())
    assert optimizers[1].param_groups[0]["lr"] == optimizers[0].param_groups[0]["lr"] > 0


def parameters(seed: int) -> list[torch.nn.Parameter]:
    torch.manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape)) for shape in [(5, 3), (7,), (2, 2)]]


def give_gradients(params: list[torch.nn.Parameter], seed: int) -> None:
    torch.manual_seed(seed)
    for parameter in params:
        parameter.grad = torch.randn(parameter.shape)


def by_hand(params: list[torch.nn.Parameter], updates: int, decay: float, penalty: Any) -> list[torch.Tensor]:
    """The formulas, in float64."""
    weights = [p.detach().double() for p in params]
    m, v = [torch.zeros_like(w) for w in weights], [torch.zeros_like(w) for w in weights]
    for t in range(1, updates + 1):
        give_gradients(params, 100 + t)
        for i, parameter in enumerate(params):
            g = parameter.grad.double()  # type: ignore[union-attr]
            m[i], v[i] = 0.9 * m[i] + 0.1 * g, 0.999 * v[i] + 0.001 * g * g
            size = 0.01 * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t)
            weights[i] = weights[i] - size * m[i] / (v[i].sqrt() + 1e-4)
            if penalty is not None:
                omega, anchor = (x.double() for x in penalty.terms[parameter])
                weights[i] = weights[i] - 2 * 0.01 * penalty.strength * omega * (weights[i] - anchor)
            weights[i] = weights[i] - 0.01 * decay * weights[i]
    return weights


@pytest.mark.parametrize(
    ("plain", "decay", "pulled"), list(itertools.product([True, False], [0.0, 0.3], [True, False]))
)
def test_updates_are_those_of_the_formulas(plain: bool, decay: float, pulled: bool) -> None:
    params = parameters(0)
    penalty = Penalty(0.7, {p: (torch.rand_like(p), torch.randn_like(p)) for p in params}) if pulled else None
    expected = by_hand(params, 6, decay, penalty)
    optimizer = AdamW(params, lr=0.01, weight_decay=decay, penalty=penalty, plain=plain)
    for t in range(1, 7):
        give_gradients(params, 100 + t)
        optimizer.step()
    for parameter, right in zip(params, expected, strict=True):
        torch.testing.assert_close(parameter.detach().double(), right, rtol=1e-5, atol=1e-6)


def test_a_parameter_that_is_not_pulled_moves_freely() -> None:
    params, free = parameters(1), parameters(1)
    penalty = Penalty(5.0, {params[0]: (torch.ones_like(params[0]), torch.zeros_like(params[0]))})
    for optimizer in (AdamW(params, penalty=penalty), AdamW(free)):
        give_gradients(optimizer.param_groups[0]["params"], 2)
        optimizer.param_groups[0]["lr"] = 0.01
        optimizer.step()
    assert not torch.allclose(params[0], free[0])
    torch.testing.assert_close(params[1:], free[1:])


def test_an_optimizer_goes_on_from_its_state() -> None:
    whole, broken = parameters(3), parameters(3)
    first, second = AdamW(whole, lr=0.01), AdamW(broken, lr=0.01)
    for t in range(4):
        give_gradients(whole, t)
        first.step()
        if t == 2:
            state = copy.deepcopy(second.state_dict())
            second = AdamW(broken, lr=0.5)
            second.load_state_dict(state)
        give_gradients(broken, t)
        second.step()
    assert all(torch.equal(a, b) for a, b in zip(whole, broken, strict=True))


def test_parameters_without_gradients_stay() -> None:
    params = parameters(4)
    before = [p.detach().clone() for p in params]
    params[1].grad = torch.ones(7)
    AdamW(params, lr=0.01, weight_decay=0.5).step()
    assert torch.equal(params[0], before[0])
    assert not torch.equal(params[1], before[1])


def test_a_closure_is_refused() -> None:
    with pytest.raises(ValueError, match="closure"):
        AdamW(parameters(5)).step(lambda: 0.0)
