"""Shared parts of the tests of losses and updates: the model of the official code's reference steps, and batches."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from lamol_fixtures import reference

from clray.language.losses import FILL, Batch

OFFICIAL = "493d47588b7ccb58f23fe837cc693e64a897075cd900e82742745cbcc0bac30e"
"""SHA-256 of all its weights but the norms' and biases, which are ones and zeros."""


def gpt2(vocabulary: int, positions: int, width: int, layers: int, heads: int, **settings: Any) -> Any:
    """A GPT-2 without dropout, whose attention is PyTorch's."""
    from transformers import GPT2Config, GPT2LMHeadModel

    still = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(
        vocab_size=vocabulary, n_positions=positions, n_embd=width, n_layer=layers, n_head=heads, **(still | settings)
    )
    config._attn_implementation = "sdpa"
    return GPT2LMHeadModel(config)


def official_model() -> Any:
    """GPT-2 of width 16 with the weights that pytorch_transformers 1.2.0 draws after ``torch.manual_seed(0)``.

    They are drawn here in its order: each layer as it is made, then all again by the body and once more by the whole,
    and last the embeddings of four new tokens.
    """
    shapes = {"transformer.wte.weight": (50257, 16), "transformer.wpe.weight": (1024, 16)}
    for layer in range(2):
        name = f"transformer.h.{layer}."
        shapes |= {name + "attn.c_attn.weight": (16, 48), name + "attn.c_proj.weight": (16, 16)}
        shapes |= {name + "mlp.c_fc.weight": (16, 64), name + "mlp.c_proj.weight": (64, 16)}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        for _ in range(2):
            for shape in shapes.values():
                torch.empty(shape).normal_()
        torch.empty(50257, 16).uniform_()  # the output layer, before it is tied
        state = {name: torch.empty(shape).normal_(0, 0.02) for name, shape in shapes.items()}
        torch.empty(50257, 16).normal_()
        torch.empty(50261, 16).normal_()  # the embeddings grown by four tokens, before they are drawn
        grown = torch.empty(50261, 16).normal_(0, 0.02)
    state["transformer.wte.weight"] = torch.cat([state["transformer.wte.weight"], grown[50257:]])
    digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in state.values())).hexdigest()
    if digest != OFFICIAL:
        pytest.skip("torch draws other numbers from seed 0 here than those of the official model")
    model = gpt2(50261, 1024, 16, 2, 2).eval()
    rest = model.load_state_dict(state, strict=False).missing_keys  # biases are zero, norms' weights one
    assert all(name.endswith(("bias", "lm_head.weight")) or ".ln_" in name for name in rest)
    return model


def as_batch(examples: Sequence[dict[str, Any]]) -> Batch:
    return Batch(*([example[name] for example in examples] for name in Batch._fields))


def official_batch(task: str) -> Batch:
    """The examples of a task as the official code encodes them."""
    encoded = reference("encoding.json")
    rows = [dict(zip(encoded["fields"], example, strict=True)) for example in encoded["tasks"][task]["examples"]]
    return as_batch(rows)


def drawn_batch(seed: int, vocabulary: int, lengths: Sequence[int], ans: int = 3) -> Batch:
    """Rows of such lengths, with answers of one to three tokens."""
    rng = np.random.default_rng(seed)
    examples = []
    for length in lengths:
        answer = rng.integers(4, vocabulary, int(rng.integers(1, 4))).tolist()
        cqa = [*rng.integers(4, vocabulary, length - len(answer) - 1).tolist(), ans, *answer]
        blank = [FILL] * (len(cqa) - len(answer) - 1)
        examples.append({"cqa": cqa, "Y": [*blank, *answer, 0], "gen_X": [1, *cqa], "gen_Y": [*cqa, 0]})
    return as_batch(examples)
