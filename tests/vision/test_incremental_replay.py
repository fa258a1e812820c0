"""ER, ER-ACE, DER and DER++ against the recorded steps of the official codes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from official_steps import FOLDER, play

from clray.vision.memory import Reservoir


class TestEr:
    @pytest.mark.parametrize("name", ["er", "er_bn"])
    def test_the_surveys_code(self, name):
        play(name, "ocl_er", {})

    @pytest.mark.parametrize("name", ["mammoth_er", "mammoth_er_bn"])
    def test_mammoth(self, name):
        play(name, "ocl_er", {"passes": "joint", "reservoir": "exact"})

    def test_the_code_of_er_ace(self):
        play("aml_er", "ocl_er", {"reservoir": "batch_before"})

    @pytest.mark.parametrize(("name", "passes"), [("er", "joint"), ("mammoth_er", "separate")])
    def test_the_two_forms_differ(self, name, passes):
        law = "exact" if name == "mammoth_er" else "batch"
        with pytest.raises(AssertionError, match="step"):
            play(name, "ocl_er", {"passes": passes, "reservoir": law})


class TestErAce:
    def test_mammoth(self):
        play("mammoth_er_ace", "er_ace", {"begins": "second_task", "reservoir": "exact"})

    def test_mammoths_cosine_head(self):
        settings = {"begins": "second_task", "reservoir": "exact", "head": "cosine"}
        play("mammoth_er_ace_cosine", "er_ace", settings)

    def test_mammoths_task_free_form(self):
        play("mammoth_er_ace_taskfree_rawlabels", "er_ace", {"reservoir": "exact"}, hidden=True)

    def test_the_authors_code(self):
        play("aml_er_ace", "er_ace", {"reservoir": "batch_before"}, hidden=True)


class TestDer:
    def test_der(self):
        play("mammoth_der", "der", {"alpha": 0.3})

    @pytest.mark.parametrize("name", ["mammoth_derpp", "mammoth_derpp_bn"])
    def test_derpp(self, name):
        play(name, "derpp", {"alpha": 0.1, "beta": 0.5})


class Fractions:
    """Draws that are recorded fractions of the range."""

    def __init__(self, fractions: list[float]) -> None:
        self.fractions, self.item = np.array(fractions, np.float32), 0

    def below(self, highest, count):
        return self.below_each(np.full(count, highest))

    def below_each(self, highest):
        used = self.fractions[self.item - len(highest) : self.item]
        return np.floor(used * highest.astype(np.float32)).astype(np.int64)


@pytest.mark.parametrize("capacity", [6, 25])
@pytest.mark.parametrize(
    ("code", "law"),
    [("raptor", "batch"), ("onpro", "batch"), ("pcr", "batch"), ("aml", "batch_before"), ("mammoth_exact", "exact")],
)
def test_reservoirs(code, law, capacity):
    """Contents after each batch, and that values kept beside the examples stay beside them."""
    recorded = json.loads((FOLDER / "reservoirs.json").read_text(encoding="utf-8"))
    draws = Fractions(recorded["q"])
    memory = Reservoir(capacity, draws, law, {"twice": ()})  # type: ignore[arg-type]
    for step in recorded[code][f"cap{capacity}"]:
        batch = np.array(step["batch"])
        draws.item = batch[-1] + 1
        memory.add_batch(batch, twice=torch.from_numpy(2.0 * batch).float())
        assert memory.numbers.tolist() == step["memory"]
        assert memory.seen == step["n_seen"]
        assert memory.fields["twice"][: len(memory)].tolist() == [2.0 * number for number in memory.numbers]
