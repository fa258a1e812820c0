"""MNIST and Fashion-MNIST: gzipped IDX files, 60,000 grey images of 28x28 for training and 10,000 for testing.

Other tools unpack the files, put them into ``MNIST/raw`` or name them ``train-images.idx3-ubyte``. Such files are read
too where the checksum of the unpacked content is known. For Fashion-MNIST it is not known, so that its unpacked files
are not read.
"""

from __future__ import annotations

import functools
import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clray.data_files import reading
from clray.vision.datasets.published import Form, ImageSet, Published, sums_fingerprint


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped if its name says so: big-endian magic, sizes, content."""
    with reading(path):
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
        dimensions = raw[3]
        shape = np.frombuffer(raw, ">u4", dimensions, offset=4)
        if raw[:3] != b"\0\0\x08":
            raise ValueError("not an IDX file of unsigned bytes")
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(tuple(int(n) for n in shape))


KINDS = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
"""The first part of the published names of the four files; ``-ubyte.gz`` follows."""


def _read(names: tuple[str, ...], folder: Path) -> ImageSet:
    """Read the images from four files, in the order of ``KINDS``."""
    train_images, train_labels, test_images, test_labels = (read_idx(folder / name) for name in names)
    return ImageSet(
        train_images.reshape(len(train_images), -1),
        train_labels.astype(np.int64),
        test_images.reshape(len(test_images), -1),
        test_labels.astype(np.int64),
    )


def idx_set(
    origin: str,
    files: dict[str, str | None],
    mirrors: tuple[str, ...],
    advice: str = "",
    unpacked: tuple[str, ...] = (),
    elsewhere: tuple[str, ...] = (),
) -> Published:
    """Describe a data set of four IDX files with these md5 sums, as published and as other tools name them.

    Args:
        unpacked: the md5 sums of the unpacked files, in the order of ``KINDS``, where they are known.
        elsewhere: see ``Published``.
    """
    fingerprint = sums_fingerprint(files)
    published = tuple(f"{kind}-ubyte.gz" for kind in KINDS)
    dotted = tuple(name.replace("-idx", ".idx") for name in published)

    def form(names: tuple[str, ...], sums: tuple[str | None, ...], mirrors: tuple[str, ...] = ()) -> Form:
        return Form(
            dict(zip(names, sums, strict=True)),
            functools.partial(_read, names),
            mirrors,
            fingerprint=fingerprint,
            identify=lambda _: fingerprint,
            decode_once=False,
        )

    packed = tuple(files[name] for name in published)
    forms = [form(published, packed, mirrors), form(dotted, packed)]
    if unpacked:
        forms += [form(tuple(name.removesuffix(".gz") for name in names), unpacked) for names in (published, dotted)]
    return Published(origin=origin, forms=tuple(forms), advice=advice, elsewhere=elsewhere)


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
    unpacked=(
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ),
    elsewhere=("MNIST/raw",),
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
    elsewhere=("FashionMNIST/raw",),
)
