"""A small convolutional network, for studies with many short trials on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from clray.vision.networks.base import FeatureModule, Network


class SmallCnn(Network):
    """Stages of a 3x3 convolution, ReLU and 2x2 max-pooling, then a linear layer."""

    name: Literal["small-cnn"]
    filters: Annotated[list[Annotated[int, Field(ge=1, le=4096)]], Field(min_length=1, max_length=4)] = [16, 32]
    """Filters of each stage."""
    norm: bool = False
    """Batch normalisation before each ReLU; the convolutions then have no bias."""
    seconds = (0.001, 0.0001)

    def build(self, shape: Sequence[int], outputs: int) -> FeatureModule:
        from torch import nn

        from clray.vision.networks.layers import BodyAndHead

        layers: list[nn.Module] = []
        channels, height, width = shape
        for filters in self.filters:
            layers.append(nn.Conv2d(channels, filters, 3, padding=1, bias=not self.norm))
            layers += [*([nn.BatchNorm2d(filters)] if self.norm else []), nn.ReLU(), nn.MaxPool2d(2)]
            channels, height, width = filters, height // 2, width // 2
        layers.append(nn.Flatten())
        return BodyAndHead(nn.Sequential(*layers), nn.Linear(channels * height * width, outputs))
