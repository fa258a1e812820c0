"""GEM's projection is that of the official code."""

from __future__ import annotations

import pytest
import torch
from lamol_fixtures import reference

from clray.language import projection
from clray.language.projection import project


@pytest.mark.parametrize("at_once", [1 << 20, 5])
@pytest.mark.parametrize("case", [0, 1])
def test_projected_gradients_are_the_official_ones(case: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "_AT_ONCE", at_once)
    given = reference("gem_projection.json")[case]
    assert given["eps"] == projection.RIDGE
    gradient, memories = torch.tensor(given["gradient"]), torch.tensor(given["memories_columns"])
    assert (memories @ gradient).tolist() == pytest.approx(given["dot_before"], rel=1e-6)
    projected = project(gradient, memories, given["margin"])
    assert projected is gradient
    assert projected.tolist() == pytest.approx(given["projected"], abs=2e-6)
    assert (memories @ projected).tolist() == pytest.approx(given["dot_after"], abs=2e-5)


def test_a_gradient_at_odds_with_no_memory_stays() -> None:
    gradient, memories = torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 0.0], [2.0, -1.0]])
    assert project(gradient.clone(), memories, 0.5).tolist() == [1.0, 2.0]


def test_one_memory_at_odds_is_enough() -> None:
    gradient, memories = torch.tensor([1.0, -2.0]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    projected = project(gradient.clone(), memories, 0.0)
    assert projected.tolist() == pytest.approx([1.0, 0.0], abs=3e-3)


def test_one_memory_is_projected_out_exactly() -> None:
    torch.manual_seed(0)
    memory, before = torch.randn(1, 300_000), torch.randn(300_000)
    before -= memory[0]
    projected = project(before.clone(), memory, 0.0).double()
    m, g = memory[0].double(), before.double()
    torch.testing.assert_close(projected, g - (m @ g) / (m @ m + 1e-3) * m, rtol=1e-6, atol=1e-6)
