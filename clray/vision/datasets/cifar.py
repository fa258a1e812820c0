"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 32x32 RGB, 50,000 for training and 10,000 for testing.

Every form gives the same arrays in the same order: that of the official Python version, batches 1 to 5 one after the
other. For CIFAR-100 the fingerprint of the content is known, and all that is read is compared with it. So a Parquet
copy in another row order is refused. The copy that clray was developed with is in the official order: the official
pickles and the official binary files were rebuilt from it byte for byte. For CIFAR-10 no fingerprint is known: its
archives are checked by their published md5 sums only. If the content of the Python and of the binary archive differed,
their fingerprints would differ too.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from clray.data_files import reading
from clray.errors import DataError
from clray.vision.datasets.pickles import read_pickle
from clray.vision.datasets.published import Form, ImageSet, Published

HOME = "https://www.cs.toronto.edu/~kriz/"
PIXELS = 3 * 32 * 32
COUNTS = (50_000, 10_000)

Part = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images [n, 3, 32, 32] and labels [n]."""


# --------------------------------------------------------------------------------------------------------------
# One part of the data in each form


def _pickled(file: IO[bytes], label: str) -> Part:
    """A batch of the Python version: ``data`` [n, 3072] and a list of labels."""
    batch = read_pickle(file)
    batch = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
    return _part(np.asarray(batch["data"]), np.asarray(batch[label]))


def _binary(file: IO[bytes], label_bytes: int) -> Part:
    """A batch of the binary version: records of labels (the fine one last) and 3072 bytes."""
    records = np.frombuffer(file.read(), np.uint8).reshape(-1, label_bytes + PIXELS)
    return _part(records[:, label_bytes:], records[:, label_bytes - 1])


def _parquet(path: Path, label: str) -> Part:
    """A Parquet file with a column of encoded images (WebP, PNG) and one of labels, as the Hugging Face hub has it."""
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(path)
    column = "image" if "image" in table.column_names else "img"
    images = np.empty((table.num_rows, 3, 32, 32), np.uint8)
    for i, value in enumerate(table[column].to_pylist()):
        encoded = value["bytes"] if isinstance(value, dict) else value
        with Image.open(io.BytesIO(encoded), formats=("WEBP", "PNG")) as image:
            if image.size != (32, 32):
                raise ValueError(f"image {i} has {image.width} x {image.height} pixels, expected 32 x 32")
            images[i] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    return _part(images, table[label].to_numpy())


def _part(images: NDArray[Any], labels: NDArray[Any]) -> Part:
    if images.dtype != np.uint8 or labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise ValueError(f"{images.dtype} images {images.shape} with {labels.dtype} labels {labels.shape}")
    return images.reshape(-1, 3, 32, 32), labels.astype(np.int64)


# --------------------------------------------------------------------------------------------------------------
# A whole set in each form


def _whole(where: Path, train: list[Part], test: list[Part], classes: int) -> ImageSet:
    (train_images, train_labels), (test_images, test_labels) = map(_joined, (train, test))
    for labels, count in zip((train_labels, test_labels), COUNTS, strict=True):
        if len(labels) != count or not np.array_equal(np.sort(labels), np.repeat(range(classes), count // classes)):
            raise DataError(f"{where}: not CIFAR-{classes}: {len(labels)} images, expected {count} in equal classes")
    return ImageSet(train_images, train_labels, test_images, test_labels)


def _joined(parts: list[Part]) -> Part:
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _from_files(
    folder: str, train: list[str], test: list[str], classes: int, part: Callable[[IO[bytes]], Part]
) -> Callable[[Path], ImageSet]:
    def one(path: Path) -> Part:
        with reading(path), path.open("rb") as file:
            return part(file)

    def read(root: Path) -> ImageSet:
        where = root / folder
        return _whole(where, [one(where / n) for n in train], [one(where / n) for n in test], classes)

    return read


def _from_archive(
    archive: str, folder: str, train: list[str], test: list[str], classes: int, part: Callable[[IO[bytes]], Part]
) -> Callable[[Path], ImageSet]:
    def read(root: Path) -> ImageSet:
        path, parts = root / archive, {}
        with reading(path), tarfile.open(path) as tar:
            for member in tar:  # in one pass: going back in a compressed archive reads it again from its start
                name = member.name.removeprefix("./").removeprefix(f"{folder}/")
                file = tar.extractfile(member) if name in (*train, *test) else None
                if file is not None:
                    parts[name] = part(file)
        missing = [name for name in (*train, *test) if name not in parts]
        if missing:
            raise DataError(f"{path}: torn or foreign: it holds no {folder}/{missing[0]}")
        return _whole(path, [parts[n] for n in train], [parts[n] for n in test], classes)

    return read


def _from_parquet(train: str, test: str, label: str, classes: int) -> Callable[[Path], ImageSet]:
    def one(path: Path) -> Part:
        with reading(path):
            return _parquet(path, label)

    def read(root: Path) -> ImageSet:
        return _whole(root, [one(root / train)], [one(root / test)], classes)

    return read


def _forms(
    classes: int,
    fingerprint: str | None,
    pickles: dict[str, str | None],
    bins: dict[str, str | None],
    sums: dict[str, str],
) -> tuple[Form, ...]:
    """The forms of CIFAR-10 or CIFAR-100: archives, unpacked folders, Parquet."""
    label, label_bytes = ("labels", 1) if classes == 10 else ("fine_labels", 2)
    column = "label" if classes == 10 else "fine_label"
    python, binary = sums  # the names of the two archives
    python_folder = "cifar-10-batches-py" if classes == 10 else "cifar-100-python"
    binary_folder = "cifar-10-batches-bin" if classes == 10 else "cifar-100-binary"

    def pickled(file: IO[bytes]) -> Part:
        return _pickled(file, label)

    def binned(file: IO[bytes]) -> Part:
        return _binary(file, label_bytes)

    *train, test = pickles
    *train_bins, test_bin = bins
    forms = [
        Form(
            {python: sums[python]},
            _from_archive(python, python_folder, train, [test], classes, pickled),
            mirrors=(HOME,),
            fingerprint=fingerprint,
        ),
        Form(
            {binary: sums[binary]},
            _from_archive(binary, binary_folder, train_bins, [test_bin], classes, binned),
            fingerprint=fingerprint,
        ),
    ]
    for folder in (f"{python_folder}/", ""):
        forms.append(
            Form(
                {folder + name: md5 for name, md5 in pickles.items()},
                _from_files(folder, train, [test], classes, pickled),
                fingerprint=fingerprint,
            )
        )
    for folder in (f"{binary_folder}/", ""):
        forms.append(
            Form(
                {folder + name: md5 for name, md5 in bins.items()},
                _from_files(folder, train_bins, [test_bin], classes, binned),
                fingerprint=fingerprint,
            )
        )
    for pair in (("train.parquet", "test.parquet"), ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet")):
        forms.append(Form(dict.fromkeys(pair), _from_parquet(*pair, column, classes), fingerprint=fingerprint))
    return tuple(forms)


CIFAR10 = Published(
    origin=f"{HOME}cifar.html",
    forms=_forms(
        10,
        None,
        {
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
        },
        {**{f"data_batch_{n}.bin": None for n in range(1, 6)}, "test_batch.bin": None},
        {
            "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
            "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
        },
    ),
)

CIFAR100 = Published(
    origin=f"{HOME}cifar.html",
    forms=_forms(
        100,
        "7d33c686d16e0732",
        {"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        {"train.bin": "6172c7755cfe09b2fe270c85cebc1b15", "test.bin": "4499cfba6c016c1be1438163640a0898"},
        {
            "cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85",
            "cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8",
        },
    ),
)
