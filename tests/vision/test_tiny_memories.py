"""ER with tiny memories and MER with batches against plain forms of their steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from clray.vision.draws import ClrayDraws
from clray.vision.learners.module import ModuleLearner
from clray.vision.methods import METHODS
from clray.vision.networks.mlp import Mlp
from clray.vision.stream import Batch, Images, Stream, from_members

BATCH = 6


def small_stream() -> Stream:
    """Two tasks with three and two classes of their own, twelve images each."""
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (24, 1, 4, 4), np.uint8))
    labels = torch.tensor([0, 1, 2] * 4 + [3, 4] * 6)
    content, parts = Images(pixels, labels), [np.arange(12), np.arange(12, 24)]
    return from_members(
        content, content, parts, parts, [(0, 3), (3, 5)], [0, 0], outputs=5, scale=lambda p: p.float() / 255
    )


def made(name: str, seed: int = 0, **settings: Any) -> Any:
    learner = ModuleLearner(Mlp(name="mlp", hidden=[5]), small_stream(), ClrayDraws(seed))
    method: Any = METHODS[name]
    return method(method.Settings(lr=0.2, batch=BATCH, **settings), learner)


def learn(method: Any) -> None:
    for batch in batches(method.stream):
        method.observe(batch)


def batches(stream: Stream) -> list[Batch]:
    return [Batch(stream, np.arange(i, i + BATCH), i // 12) for i in range(0, 24, BATCH)]


def plain_loss(module: Any, stream: Stream, numbers: list[int]) -> torch.Tensor:
    """The mean over images of the cross-entropy among the classes of each image's task."""
    losses = []
    for number in numbers:
        begin, end = stream.experiences[number // 12].logits
        x, y = stream.examples(np.array([number]))
        losses.append(cross_entropy(module(x)[:, begin:end], y - begin))
    return torch.stack(losses).mean()


def seen_draws(method: Any) -> list[list[int]]:
    """The list that each draw of memories is noted in."""
    noted: list[list[int]] = []
    replayed = method.replayed

    def note() -> Any:
        drawn = replayed()
        noted.append(drawn.tolist())
        return drawn

    method.replayed = note
    return noted


@pytest.mark.parametrize("memory", ["reservoir", "ring"])
@pytest.mark.parametrize(("name", "settings"), [("er_tiny", {}), ("mer_batches", {"steps": 3, "gamma": 0.4})])
def test_the_steps(name, settings, memory):
    method = made(name, memories_per_class=1, memory=memory, **settings)
    noted, module = seen_draws(method), method.learner.module
    plain = made(name, memories_per_class=1).learner.module
    steps, gamma = settings.get("steps", 1), settings.get("gamma", 1.0)
    for batch in batches(method.stream):
        del noted[:]
        method.observe(batch)
        before = [p.detach().clone() for p in plain.parameters()]
        assert len(noted) == steps
        for drawn in noted:
            loss = plain_loss(plain, method.stream, [*batch.numbers.tolist(), *drawn])
            gradients = torch.autograd.grad(loss, list(plain.parameters()))
            with torch.no_grad():
                for p, g in zip(plain.parameters(), gradients, strict=True):
                    p -= 0.2 * g
        with torch.no_grad():
            for p, start in zip(plain.parameters(), before, strict=True):
                p.copy_(start + gamma * (p - start))
        for mine, expected in zip(module.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-6)


def test_the_first_batch_has_no_memories_and_the_next_one_does():
    method = made("er_tiny", memories_per_class=2)
    noted = seen_draws(method)
    learn(method)
    assert noted[0] == []
    assert sorted(noted[1]) == list(range(BATCH)), "the images of the batch before, of the same task"


def test_a_ring_keeps_the_last_images_of_each_class():
    method = made("er_tiny", memories_per_class=2, memory="ring")
    learn(method)
    kept = sorted(method.memory.of(list(range(6))).tolist())
    assert kept == [6, 7, 8, 9, 10, 11, 20, 21, 22, 23]


def test_a_reservoir_is_as_large_as_all_rings_together():
    method = made("er_tiny", memories_per_class=2)
    learn(method)
    assert len(method.memory) == 10
