"""The reduced ResNet-18 of Chaudhry et al. (2019), "On tiny episodic memories in continual learning".

It exists in two forms. In TAG's code every block has one 3x3 convolution (496,680 parameters for 100 classes). Stable
SGD's code makes a second one that it never uses (1,108,680 parameters). That one draws random numbers when the network
is made, and changes nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from clray.vision.networks.base import Dropout, FeatureModule, Network


class ReducedResNet18(Network):
    """ResNet-18 with 20, 40, 80 and 160 filters, as in Chaudhry et al. (2019)."""

    name: Literal["reduced-resnet18"]
    filters: Annotated[int, Field(ge=1, le=4096)] = 20
    dropout: Dropout = 0.0
    """After both batch normalisations of every block."""
    unused_convolutions: bool = False
    """Stable SGD's form: a second convolution a block that is never used."""
    seconds = (0.006, 0.0022)

    def build(self, shape: Sequence[int], outputs: int) -> FeatureModule:
        from clray.vision.networks.reduced_resnet18_module import ReducedResNet

        return ReducedResNet(shape, outputs, self.filters, self.dropout, self.unused_convolutions)
