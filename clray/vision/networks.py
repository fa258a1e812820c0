"""Networks that are trained task by task: their settings, and the torch modules they make.

The reduced ResNet-18 exists in two forms. TAG's code leaves every block with one 3x3 convolution (496,680 parameters
for 100 classes); Stable SGD's keeps a second one that it never uses (1,108,680), which costs random numbers when the
network is made, and nothing else. Layers are made in the order in which the official codes make them, so that the
same seed gives the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from clray.errors import DataError
from clray.vision.ranges import Hidden

Dropout = Annotated[float, Field(ge=0, lt=1)]


class Network(BaseModel):
    """The base of every network's settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: ClassVar[tuple[float, float]] = (0.02, 0.002)
    """What a step takes on one core, roughly: for itself, and for each 32-pixel image in the batch. Plans tell it."""

    def build(self, shape: Sequence[int], outputs: int) -> nn.Module:
        """A fresh module, its weights drawn from torch's global generator.

        Args:
            shape: channels, height and width of an image.
            outputs: logits, of all tasks together.
        """
        raise NotImplementedError


class MlpNetwork(Network):
    """A perceptron with dropout after each hidden ReLU (TAG: 784-256-256-10 T; Stable SGD: 784-100-100-10)."""

    name: Literal["mlp"]
    hidden: Hidden = [256, 256]
    dropout: Dropout = 0.0
    seconds = (0.0006, 0.000003)

    def build(self, shape: Sequence[int], outputs: int) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        width = int(torch.Size(shape).numel())
        for hidden in self.hidden:
            layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(self.dropout)]
            width = hidden
        return nn.Sequential(*layers, nn.Linear(width, outputs))


class ReducedResNet18(Network):
    """ResNet-18 with 20, 40, 80 and 160 filters, as Chaudhry et al. (2019, "tiny episodic memories") have it."""

    name: Literal["reduced-resnet18"]
    filters: Annotated[int, Field(ge=1, le=4096)] = 20
    dropout: Dropout = 0.0
    """After both batch normalisations of every block."""
    unused_convolutions: bool = False
    """Stable SGD's form: a second convolution a block that is never used."""
    seconds = (0.006, 0.0022)

    def build(self, shape: Sequence[int], outputs: int) -> nn.Module:
        return _ReducedResNet(self, shape, outputs)


class AlexNet(Network):
    """TAG's five-layer AlexNet, for the 10 tasks of split CIFAR-100 (6,717,860 parameters).

    Dropout is fixed at 0.2 (first two convolutions) and 0.5. The official class also makes batch normalisations that it
    never applies; they draw no random number, and are not made here.
    """

    name: Literal["alexnet"]
    seconds = (0.02, 0.0015)

    def build(self, shape: Sequence[int], outputs: int) -> nn.Module:
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
        return nn.Sequential(*layers, nn.Linear(width, outputs))


class ResNet18(Network):
    """ResNet-18 (He 2016) for large images; ``pretrained`` starts from torchvision's ImageNet weights (CUB)."""

    name: Literal["resnet18"]
    pretrained: bool = True
    seconds = (0.05, 0.12)

    def build(self, shape: Sequence[int], outputs: int) -> nn.Module:
        net = _ResNet18(shape[0], 1000 if self.pretrained else outputs)
        if self.pretrained:
            net.load_state_dict(torch.load(imagenet_weights(), map_location="cpu", weights_only=True))
            net.fc = nn.Linear(net.fc.in_features, outputs)
        return net


NETWORKS: dict[str, type[Network]] = {
    "mlp": MlpNetwork,
    "reduced-resnet18": ReducedResNet18,
    "alexnet": AlexNet,
    "resnet18": ResNet18,
}

_IMAGENET = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
"""The file's name holds the beginning of its sha256, by which torchvision checks it too."""


def imagenet_weights() -> Path:
    """torchvision's ImageNet weights of ResNet-18: from ``CLRAY_DATA/resnet18/``, the cache, or downloaded.

    Raises:
        DataError: they cannot be had, or are not the published ones.
    """
    import hashlib
    import os

    import pooch
    from requests.exceptions import RequestException

    from clray.vision.data import cache_folder

    name = _IMAGENET.rpartition("/")[2]
    expected = name.removesuffix(".pth").rpartition("-")[2]
    given = os.environ.get("CLRAY_DATA")
    path = cache_folder() / "resnet18" / name
    if given and (Path(given) / "resnet18" / name).is_file():
        path = Path(given) / "resnet18" / name
    if not path.is_file():
        try:
            pooch.get_logger().setLevel("ERROR")
            downloader = pooch.HTTPDownloader(timeout=20)
            pooch.retrieve(_IMAGENET, None, fname=name, path=path.parent, downloader=downloader)
        except (RequestException, ValueError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"resnet18: the ImageNet weights could not be downloaded from {_IMAGENET}: {reason}"
            ) from None
    if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(expected):
        raise DataError(f"{path}: not the published weights (sha256 must begin with {expected}): remove it")
    return path


def _conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


class _ReducedBlock(nn.Module):
    """conv, ReLU, batch norm; plus the shortcut; ReLU, batch norm: the order of both official codes."""

    def __init__(self, inputs: int, outputs: int, stride: int, settings: ReducedResNet18) -> None:
        super().__init__()
        self.conv1 = _conv3x3(inputs, outputs, stride)
        if settings.unused_convolutions:
            _conv3x3(outputs, outputs)  # draws its weights, and takes no part
        changes = stride != 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else nn.Identity()
        self.norm1 = nn.Sequential(nn.BatchNorm2d(outputs), nn.Dropout(settings.dropout))
        self.norm2 = nn.Sequential(nn.BatchNorm2d(outputs), nn.Dropout(settings.dropout))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(torch.relu(self.norm1(torch.relu(self.conv1(x))) + self.shortcut(x)))


class _ReducedResNet(nn.Module):
    def __init__(self, settings: ReducedResNet18, shape: Sequence[int], outputs: int) -> None:
        super().__init__()
        width = settings.filters
        self.conv1 = _conv3x3(shape[0], width)
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

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(torch.relu(self.bn1(self.conv1(x))))
        return self.linear(self.pool(x).flatten(1))


class _BasicBlock(nn.Module):
    """He 2016, in torchvision's names: its published weights load."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(out + (x if self.downsample is None else self.downsample(x)))


class _ResNet18(nn.Module):
    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for stage, (width, stride) in enumerate(((64, 1), (128, 2), (256, 2), (512, 2)), start=1):
            layer = nn.Sequential(_BasicBlock(inputs, width, stride), _BasicBlock(width, width, 1))
            self.add_module(f"layer{stage}", layer)
            inputs = width
        self.fc = nn.Linear(512, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, padding=1)
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))
