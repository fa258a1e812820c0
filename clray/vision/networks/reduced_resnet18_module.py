"""The torch module of ``reduced_resnet18``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from clray.vision.networks.layers import conv3x3

if TYPE_CHECKING:
    from clray.vision.networks.reduced_resnet18 import ReducedResNet18


class _ReducedBlock(nn.Module):
    """Convolution, ReLU, batch norm; add the shortcut; ReLU, batch norm. Both official codes have this order."""

    def __init__(self, inputs: int, outputs: int, stride: int, settings: ReducedResNet18) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride)
        if settings.unused_convolutions:
            conv3x3(outputs, outputs)  # draws its weights, but is not used
        changes = stride != 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else nn.Identity()
        self.norm1 = nn.Sequential(nn.BatchNorm2d(outputs), nn.Dropout(settings.dropout))
        self.norm2 = nn.Sequential(nn.BatchNorm2d(outputs), nn.Dropout(settings.dropout))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(torch.relu(self.norm1(torch.relu(self.conv1(x))) + self.shortcut(x)))


class ReducedResNet(nn.Module):
    def __init__(self, settings: ReducedResNet18, shape: Sequence[int], outputs: int) -> None:
        super().__init__()
        width = settings.filters
        self.conv1 = conv3x3(shape[0], width)
        self.bn1 = nn.BatchNorm2d(width)
        blocks: list[nn.Module] = []
        inputs = width
        for stage, stride in enumerate((1, 2, 2, 2)):
            for first in (True, False):
                blocks.append(_ReducedBlock(inputs, width << stage, stride if first else 1, settings))
                inputs = width << stage
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AvgPool2d(4)
        side = shape[1]
        for _ in range(3):
            side = -(-side // 2)
        self.linear = nn.Linear(inputs * (side // 4) ** 2, outputs)

    def features(self, x: Tensor) -> Tensor:
        x = self.blocks(torch.relu(self.bn1(self.conv1(x))))
        return self.pool(x).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.features(x))
