"""MNIST and Fashion-MNIST: gzipped IDX files, 60,000 grey images of 28x28 for training and 10,000 for testing."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clray.errors import DataError
from clray.vision.datasets.published import Form, ImageSet, Published, sums_fingerprint


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An IDX file of unsigned bytes, gzipped: big-endian magic, sizes, content."""
    try:
        raw = gzip.decompress(path.read_bytes())
        dimensions = raw[3]
        shape = np.frombuffer(raw, ">u4", dimensions, offset=4)
        if raw[:3] != b"\0\0\x08":
            raise ValueError("not an IDX file of unsigned bytes")
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(tuple(int(n) for n in shape))
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise DataError(f"{path}: not a readable IDX file: {error}") from None


def _read(folder: Path) -> ImageSet:
    kinds = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    train_images, train_labels, test_images, test_labels = (read_idx(folder / f"{k}-ubyte.gz") for k in kinds)
    return ImageSet(
        train_images.reshape(len(train_images), -1),
        train_labels.astype(np.int64),
        test_images.reshape(len(test_images), -1),
        test_labels.astype(np.int64),
    )


def idx_set(origin: str, files: dict[str, str | None], mirrors: tuple[str, ...], advice: str = "") -> Published:
    """A data set of the four IDX files with these md5 sums."""
    fingerprint = sums_fingerprint(files)
    form = Form(files, _read, mirrors, fingerprint=fingerprint, identify=lambda _: fingerprint, decode_once=False)
    return Published(origin=origin, forms=(form,), advice=advice)


MNIST = idx_set(
    "http://yann.lecun.com/exdb/mnist/",
    {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "5,000 embedded digits stand in until it is; they are never judged",
)

FASHION_MNIST = idx_set(
    "https://github.com/zalandoresearch/fashion-mnist",
    {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
    ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
)
