"""TAG's AlexNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from clray.vision.networks.base import FeatureModule, Network

if TYPE_CHECKING:
    from torch import nn


class AlexNet(Network):
    """TAG's five-layer AlexNet, for the 10 tasks of split CIFAR-100 (6,717,860 parameters).

    Dropout is fixed at 0.2 (first two convolutions) and 0.5. The official class also makes batch normalisations that it
    never applies; they draw no random number, and are not made here.
    """

    name: Literal["alexnet"]
    seconds = (0.02, 0.0015)

    def build(self, shape: Sequence[int], outputs: int) -> FeatureModule:
        from torch import nn

        from clray.vision.networks.layers import BodyAndHead

        channels, size, _ = shape
        side = size
        layers: list[nn.Module] = []
        for filters, kernel, dropout in ((64, size // 8, 0.2), (128, size // 10, 0.2), (256, 2, 0.5)):
            layers += [nn.Conv2d(channels, filters, kernel), nn.ReLU(), nn.Dropout(dropout), nn.MaxPool2d(2)]
            channels, side = filters, (side - kernel + 1) // 2
        layers.append(nn.Flatten())
        width = channels * side * side
        for hidden in (2048, 2048):
            layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(0.5)]
            width = hidden
        return BodyAndHead(nn.Sequential(*layers), nn.Linear(width, outputs))
