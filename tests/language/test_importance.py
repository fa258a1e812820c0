"""Importance for EWC and MAS: as in the official code, and corrected."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lamol_fixtures import reference
from lamol_models import drawn_batch, gpt2

from clray.errors import CheckpointError
from clray.language import importance
from clray.language.importance import Importance, ewc, ewc_by_example, mas, mas_by_example
from clray.language.losses import Batch, eager, fused, weights
from clray.language.optimizers import AdamW

LENGTHS = (9, 12, 7)


def small(state: dict[str, Any] | None = None) -> Any:
    torch.manual_seed(0)
    model = gpt2(64, 32, 8, 1, 2).eval()
    if state is not None:
        given = {name: torch.tensor(value) for name, value in state.items()}
        assert model.load_state_dict(given, strict=False).unexpected_keys == []
    return model


def official_batches() -> list[Batch]:
    rows = reference("ewc_mas.json")["batches"]
    unread: list[list[int]] = [[0]]
    return [
        Batch([row["cqa"] for row in batch], [row["Y"] for row in batch], unread * len(batch), unread * len(batch))
        for batch in rows
    ]


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("name", ["ewc", "mas"])
def test_two_tasks_are_the_official_ones(name: str, plain: bool) -> None:
    given = reference("ewc_mas.json")
    expected, heavy, batches = given[name], weights(64, 57), official_batches()
    model = small(given["init_state"])
    found = Importance(model, getattr(importance, name), refreshed=False)
    assert found.penalty(model, 1.0) is None

    for batch in batches:
        found.add(model, batch, heavy)
    assert found.examples == expected["data_count"]
    found.end(model)
    for key, omega in expected["omega_after_task_A"].items():
        torch.testing.assert_close(found.omega[key], torch.tensor(omega), rtol=1e-3, atol=1e-9)

    model.load_state_dict({key: torch.tensor(w) for key, w in expected["weights_before_step"].items()}, strict=False)
    # One group: here, unlike in training, biases were decayed too.
    options = {name: expected[name] for name in ("lr", "eps", "weight_decay")}
    penalty = found.penalty(model, expected["reg_lambda"])
    optimizer = AdamW(model.parameters(), penalty=penalty, plain=plain, **options)
    qa, _ = (eager if plain else fused)(model, batches[0], heavy, None)
    qa.backward()
    assert qa.item() == pytest.approx(expected["loss_task_B_batch0"], rel=1e-6)
    torch.nn.utils.clip_grad_norm_(model.parameters(), expected["clip"])
    optimizer.step()
    for key, weight in expected["weights_after_step"].items():
        torch.testing.assert_close(model.state_dict()[key], torch.tensor(weight), rtol=1e-5, atol=1e-6)

    for batch in batches:
        found.add(model, batch, heavy)
    found.end(model)
    for key, total in expected["omega_sums_after_task_B"].items():
        assert found.omega[key].double().sum().item() == pytest.approx(total, rel=1e-3)
    # As coded the anchor never moves.
    for key, weight in given["init_state"].items():
        assert torch.equal(found.anchor[key], torch.tensor(weight))


def gradient(model: Any, value: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(value, list(model.parameters())))


@pytest.mark.parametrize("measure", [ewc_by_example, mas_by_example])
def test_corrected_importance_is_that_of_single_examples(measure: Any) -> None:
    model, heavy, batch = small(), weights(64, 3), drawn_batch(0, 64, LENGTHS, ans=3)
    found = Importance(model, measure, refreshed=True)
    found.add(model, batch, heavy)
    found.end(model)
    expected = [torch.zeros_like(p) for p in model.parameters()]
    for cqa, targets in zip(batch.cqa, batch.Y, strict=True):
        logits = model(torch.tensor([cqa])).logits[0]
        begin = cqa.index(3)
        if measure is ewc_by_example:
            chances = logits[begin:].log_softmax(1)
            log_likelihood = chances[torch.arange(len(chances)), torch.tensor(targets[begin:])].sum()
            parts = [g.square() for g in gradient(model, log_likelihood)]
        else:
            parts = [g.abs() for g in gradient(model, logits[begin].softmax(0).square().sum())]
        expected = [total + part / len(LENGTHS) for total, part in zip(expected, parts, strict=True)]
    for (name, _), right in zip(model.named_parameters(), expected, strict=True):
        torch.testing.assert_close(found.omega[name], right, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("measure", [ewc, mas])
def test_as_coded_importance_is_that_of_minibatches(measure: Any) -> None:
    model, heavy, batch = small(), weights(64, 3), drawn_batch(0, 64, LENGTHS, ans=3)
    by_example = {ewc: ewc_by_example, mas: mas_by_example}[measure]
    sums = [{name: torch.zeros_like(p) for name, p in model.named_parameters()} for _ in range(2)]
    measure(model, batch, heavy, sums[0])
    by_example(model, batch, heavy, sums[1])
    name = "transformer.wte.weight"
    assert not torch.allclose(sums[0][name], sums[1][name], rtol=0.5)
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_the_corrected_anchor_is_where_the_last_task_ended() -> None:
    model, heavy, batch = small(), weights(64, 3), drawn_batch(0, 64, LENGTHS, ans=3)
    found = {refreshed: Importance(model, ewc, refreshed) for refreshed in (True, False)}
    before = model.transformer.wte.weight.detach().clone()
    with torch.no_grad():
        model.transformer.wte.weight += 1
    for one in found.values():
        one.add(model, batch, heavy)
        one.end(model)
    weight = model.transformer.wte.weight
    anchors = {refreshed: one.penalty(model, 1.0).terms[weight][1] for refreshed, one in found.items()}  # type: ignore[union-attr]
    assert torch.equal(anchors[False], before)
    assert torch.equal(anchors[True], weight)


def test_importance_follows_a_growing_vocabulary() -> None:
    model, batch = small(), drawn_batch(0, 64, LENGTHS, ans=3)
    found = Importance(model, ewc, refreshed=True)
    found.add(model, batch, weights(64, 3))
    found.end(model)
    known = found.omega["transformer.wte.weight"].clone()
    model.zero_grad()
    model.resize_token_embeddings(66, mean_resizing=False)
    weight = model.transformer.wte.weight
    penalty = found.penalty(model, 1.0)
    assert penalty is not None
    omega, anchor = penalty.terms[weight]
    assert torch.equal(omega[:64], known)
    assert not omega[64:].any()
    assert torch.equal(anchor[64:], weight[64:])
    found.add(model, batch, weights(66, 3))
    found.end(model)
    assert found.omega["transformer.wte.weight"].shape == weight.shape


def test_importance_goes_on_from_its_state() -> None:
    model, heavy = small(), weights(64, 3)
    batches = [drawn_batch(seed, 64, LENGTHS, ans=3) for seed in range(3)]
    whole = Importance(model, ewc, refreshed=False)
    for batch in batches:
        whole.add(model, batch, heavy)
        if batch is batches[1]:
            state = {name: dict(v) if isinstance(v, dict) else v for name, v in whole.state_dict().items()}
            state["sums"] = {name: total.clone() for name, total in whole.sums.items()}
    whole.end(model)
    resumed = Importance(model, ewc, refreshed=False)
    resumed.load_state_dict(state)
    resumed.add(model, batches[2], heavy)
    resumed.end(model)
    assert all(torch.equal(whole.omega[name], resumed.omega[name]) for name in whole.omega)


def test_a_checkpoint_of_another_model_is_refused() -> None:
    state = Importance(small(), ewc, refreshed=False).state_dict()
    state["anchor"] = {"another": torch.ones(1)}
    with pytest.raises(CheckpointError, match="anchor"):
        Importance(small(), ewc, refreshed=False).load_state_dict(state)
