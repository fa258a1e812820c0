"""SVHN, the cropped digits (Netzer et al. 2011): 32x32 RGB, 73,257 for training and 26,032 for testing.

The files label the digit 0 as class 10. Here its label is 0, as in torchvision.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clray.data_files import reading
from clray.vision.datasets.published import Form, ImageSet, Published, sums_fingerprint

HOME = "http://ufldl.stanford.edu/housenumbers/"
FILES: dict[str, str | None] = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}


def _read(folder: Path) -> ImageSet:
    return ImageSet(*_part(folder / "train_32x32.mat"), *_part(folder / "test_32x32.mat"))


def _part(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read ``X`` [32, 32, 3, N] and ``y`` [N, 1], labels 1 to 10, from a MATLAB 5 file."""
    from scipy.io import loadmat

    with reading(path, f"put the file from {HOME} there"):
        content = loadmat(path, variable_names=["X", "y"])
        images, labels = content["X"], content["y"].reshape(-1).astype(np.int64)
        if images.dtype != np.uint8 or images.shape != (32, 32, 3, len(labels)):
            raise ValueError(f"{images.dtype} images {images.shape} with {len(labels)} labels")
        if not set(np.unique(labels)) <= set(range(1, 11)):
            raise ValueError("labels other than 1 to 10")
    return np.ascontiguousarray(images.transpose(3, 2, 0, 1)), labels % 10


def svhn(files: dict[str, str | None]) -> Published:
    """SVHN in files with these md5 sums."""
    fingerprint = sums_fingerprint(files)
    form = Form(files, _read, mirrors=(HOME,), fingerprint=fingerprint, identify=lambda _: fingerprint)
    return Published(origin=HOME, forms=(form,))


SVHN = svhn(FILES)
