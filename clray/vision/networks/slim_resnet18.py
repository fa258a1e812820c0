"""The slim ResNet-18 of GEM (Lopez-Paz 2017), which most papers on online continual learning use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from clray.vision.networks.base import FeatureModule, Network


class SlimResNet18(Network):
    """ResNet-18 for images of 32 pixels; 20 filters make GEM's slim form, 64 the whole one.

    Unlike ``reduced-resnet18``, the form of TAG's and Stable SGD's codes, its blocks have two convolutions, each with
    its batch normalisation, as in He et al. (2016). With 20 filters and 100 classes it has 1,109,240 parameters.
    """

    name: Literal["slim-resnet18"]
    filters: Annotated[int, Field(ge=1, le=4096)] = 20
    """Filters of the first stage."""
    seconds = (0.008, 0.0035)

    def build(self, shape: Sequence[int], outputs: int) -> FeatureModule:
        from clray.vision.networks.slim_resnet18_module import SlimResNet

        return SlimResNet(shape, outputs, self.filters)
