"""The slim ResNet-18 against the figures of the modules in the official codes of Mai et al. and of PCR."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from official_steps import FOLDER

from clray.vision.networks.heads import Cosine, Projection, replace_last_layer
from clray.vision.networks.slim_resnet18 import SlimResNet18

RECORDED = json.loads((FOLDER / "resnet.json").read_text(encoding="utf-8"))
CASES = {
    "of 10 classes": RECORDED["raptor"]["reduced_resnet18_nf20_10"],
    "of 100 classes": RECORDED["raptor"]["reduced_resnet18_nf20_100"],
    "with PCR's head": RECORDED["pcr"]["pcr_reduced_resnet18_nf20_100"],
}
OURS = {"pcrLinear.L.weight": "linear.L.weight"}
"""The names of clray's parameters, where they are other ones."""


def weights(recorded: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights of a recorded module, from their formula."""
    state = {}
    floats = [(name, shape) for name, shape in recorded["state"] if not name.endswith("num_batches_tracked")]
    for k, (name, shape) in enumerate(floats):
        values = np.sin((np.arange(math.prod(shape)) + 1) * (0.7 + 0.013 * k)).reshape(shape)
        if len(shape) > 1:
            values = values * math.sqrt(2 / math.prod(shape[1:]))
        elif name.endswith("running_var"):
            values = 1 + 0.2 * values
        elif name.endswith("running_mean"):
            values = 0.05 * values
        elif name.endswith("weight"):
            values = 1 + 0.1 * values
        else:
            values = 0.1 * values
        state[name] = torch.from_numpy(values).float()
    return state


def module_of(recorded: dict[str, Any]) -> Any:
    """clray's module with the recorded weights."""
    state = weights(recorded)
    outputs = len(state["linear.bias"])
    module: Any = SlimResNet18(name="slim-resnet18").build((3, 32, 32), outputs)
    if "pcrLinear.L.weight" in state:
        replace_last_layer(module, lambda width: Cosine(width, outputs, 1 / 0.09))
        state = {name: value for name, value in state.items() if not name.startswith("linear.")}
    missing, unknown = module.load_state_dict({OURS.get(name, name): v for name, v in state.items()}, strict=False)
    assert unknown == []
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return module


def x() -> torch.Tensor:
    return torch.from_numpy((np.sin(0.11 * np.arange(4 * 3 * 32 * 32)) + 1) / 2).float().view(4, 3, 32, 32)


@pytest.mark.parametrize("name", CASES)
class TestSlimResNet18:
    def test_parameters(self, name):
        """The official module with PCR's head keeps the linear one, which it does not use."""
        recorded = CASES[name]
        module = module_of(recorded)
        unused = ("linear.weight", "linear.bias") if "PCR" in name else ()
        expected = [[OURS.get(part, part), shape] for part, shape in recorded["state"] if part not in unused]
        assert [[part, list(value.shape)] for part, value in module.state_dict().items()] == expected
        left_out = sum(math.prod(shape) for part, shape in recorded["state"] if part in unused)
        assert sum(p.numel() for p in module.parameters()) == recorded["params"] - left_out
        assert len(list(module.parameters())) == recorded["tensors"] - len(unused)

    def test_in_evaluation(self, name):
        recorded, module = CASES[name]["eval"], module_of(CASES[name]).eval()
        with torch.no_grad():
            features, logits = module.features(x()), module(x())
        assert list(features.shape) == CASES[name]["feature_shape"]
        assert features[:, :20].numpy() == pytest.approx(np.array(recorded["features"]), abs=1e-5)
        assert features.sum(1).tolist() == pytest.approx(recorded["features_sum"], rel=1e-5)
        assert logits[:, :10].numpy() == pytest.approx(np.array(recorded["logits"]), abs=1e-5)

    def test_in_training(self, name):
        """The batch is small, and 20 normalisations make rounding grow: in float64 features differ from those recorded
        by 9e-4, and channels-last in float32 by 1.3e-3."""
        recorded, module = CASES[name]["train"], module_of(CASES[name]).train()
        with torch.no_grad():
            features = module.features(x())
        assert features[:, :20].numpy() == pytest.approx(np.array(recorded["features"]), abs=3e-3)
        assert features.sum(1).tolist() == pytest.approx(recorded["features_sum"], rel=1e-3)
        for statistic in ("mean", "var"):
            taken = getattr(module.bn1, f"running_{statistic}").tolist()
            assert taken == pytest.approx(recorded[f"bn1_running_{statistic}_after"], abs=1e-5)


def test_the_whole_form():
    module: Any = SlimResNet18(name="slim-resnet18", filters=64).build((3, 32, 32), 100)
    assert sum(p.numel() for p in module.parameters()) == RECORDED["raptor"]["resnet18_nf64_100"]["params"]
    assert len(list(module.parameters())) == RECORDED["raptor"]["resnet18_nf64_100"]["tensors"]


def test_with_the_projection_of_scr():
    """The official module keeps the linear layer of 100 classes, which it does not use."""
    module: Any = SlimResNet18(name="slim-resnet18").build((3, 32, 32), 100)
    unused = sum(p.numel() for p in module.linear.parameters())
    recorded = RECORDED["raptor"]["supcon_resnet_mlp"]
    replace_last_layer(module, lambda width: Projection(width, recorded["out_dim"]))
    assert sum(p.numel() for p in module.parameters()) == recorded["params"] - unused
    vectors = module(x())
    assert vectors.shape == (4, recorded["out_dim"])
    assert vectors.norm(dim=1).tolist() == pytest.approx([1.0] * 4)
