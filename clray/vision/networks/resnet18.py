"""ResNet-18 for large images, and the published ImageNet weights that it may start from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from clray.errors import DataError
from clray.vision.networks.base import FeatureModule, Network


class ResNet18(Network):
    """ResNet-18 (He 2016) for large images; ``pretrained`` starts from torchvision's ImageNet weights (CUB)."""

    name: Literal["resnet18"]
    pretrained: bool = True
    seconds = (0.05, 0.12)

    def build(self, shape: Sequence[int], outputs: int) -> FeatureModule:
        import torch
        from torch import nn

        from clray.vision.networks.resnet18_module import ResNet

        net = ResNet(shape[0], 1000 if self.pretrained else outputs)
        if self.pretrained:
            net.load_state_dict(torch.load(imagenet_weights(), map_location="cpu", weights_only=True))
            net.fc = nn.Linear(net.fc.in_features, outputs)
        return net


_IMAGENET = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
"""The file's name holds the beginning of its sha256, by which torchvision checks it too."""


def imagenet_weights() -> Path:
    """The file of torchvision's ImageNet weights: in ``CLRAY_DATA/resnet18/``, in the cache, or downloaded.

    Raises:
        DataError: the weights cannot be downloaded, or are not the published ones.
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
