"""Layers that several networks use."""

from __future__ import annotations

from torch import Tensor, nn


class BodyAndHead(nn.Module):
    """Layers one after the other; the last one is the head.

    Args:
        body: makes features [n, width].
        head: makes logits from the features.
    """

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def features(self, x: Tensor) -> Tensor:
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
