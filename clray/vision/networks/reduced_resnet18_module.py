"""The torch module that ``reduced_resnet18.py`` builds: the reduced ResNet-18."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clray.vision.networks.layers import conv3x3


class _ReducedBlock(nn.Module):
    """Convolution, ReLU, batch norm, sum with the shortcut, ReLU, batch norm: the order in both official codes."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float, unused: bool) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride)
        if unused:
            conv3x3(outputs, outputs)  # draws its initial weights; the block does not use it
        changes = stride != 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else nn.Identity()
        self.norm1 = nn.Sequential(nn.BatchNorm2d(outputs), nn.Dropout(dropout))
        self.norm2 = nn.Sequential(nn.BatchNorm2d(outputs), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(torch.relu(self.norm1(torch.relu(self.conv1(x))) + self.shortcut(x)))


class ReducedResNet(nn.Module):
    """Reduced ResNet-18.

    Args:
        shape: channels, height and width of an image.
        outputs: the number of logits.
        width: the number of filters in the first stage; each later stage has twice as many as the one before.
        dropout: the dropout probability after both batch normalisations of every block.
        unused: True to make a second convolution in every block, which draws its weights and is not used.
    """

    def __init__(self, shape: Sequence[int], outputs: int, width: int, dropout: float, unused: bool) -> None:
        super().__init__()
        self.conv1 = conv3x3(shape[0], width)
        self.bn1 = nn.BatchNorm2d(width)
        blocks: list[nn.Module] = []
        inputs = width
        for stage, stride in enumerate((1, 2, 2, 2)):
            for first in (True, False):
                blocks.append(_ReducedBlock(inputs, width << stage, stride if first else 1, dropout, unused))
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
