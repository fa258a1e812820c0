"""The torch module of ``slim-resnet18``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clray.vision.networks.layers import conv3x3


class _Block(nn.Module):
    """The basic block of He 2016 with GEM's names: a 1x1 convolution as shortcut where the size changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(out + self.shortcut(x))


class SlimResNet(nn.Module):
    """ResNet-18 with a 3x3 stem and no pooling after it.

    Args:
        shape: channels, height and width of an image.
        outputs: the number of logits.
        filters: the number of filters in the first stage; each later stage has twice as many as the one before.
    """

    def __init__(self, shape: Sequence[int], outputs: int, filters: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(shape[0], filters)
        self.bn1 = nn.BatchNorm2d(filters)
        inputs = filters
        for stage, stride in enumerate((1, 2, 2, 2)):
            width = filters << stage
            self.add_module(f"layer{stage + 1}", nn.Sequential(_Block(inputs, width, stride), _Block(width, width, 1)))
            inputs = width
        side = shape[1]
        for _ in range(3):
            side = -(-side // 2)
        self._pool = min(4, side)
        self.linear = nn.Linear(inputs * (side // self._pool) ** 2, outputs)

    def features(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return nn.functional.avg_pool2d(x, self._pool).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.features(x))
