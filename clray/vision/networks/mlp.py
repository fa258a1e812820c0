"""The perceptron of the benchmarks that are learned in epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from clray.vision.networks.base import Dropout, FeatureModule, Network
from clray.vision.ranges import Hidden

if TYPE_CHECKING:
    from torch import nn


class Mlp(Network):
    """A perceptron with dropout after each hidden ReLU (TAG: 784-256-256-10 T; Stable SGD: 784-100-100-10)."""

    name: Literal["mlp"]
    hidden: Hidden = [256, 256]
    dropout: Dropout = 0.0
    seconds = (0.0006, 0.000003)

    def build(self, shape: Sequence[int], outputs: int) -> FeatureModule:
        import torch
        from torch import nn

        from clray.vision.networks.layers import BodyAndHead

        layers: list[nn.Module] = [nn.Flatten()]
        width = int(torch.Size(shape).numel())
        for hidden in self.hidden:
            layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(self.dropout)]
            width = hidden
        return BodyAndHead(nn.Sequential(*layers), nn.Linear(width, outputs))
