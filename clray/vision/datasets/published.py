"""The types that describe a data set: its images, and the forms in which it is published."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Source = Literal["auto", "files", "embedded"]
"""Which images a trial reads. ``files``: the published files or an error. ``embedded``: the digits of clray itself.
``auto``: the files where they are or can be downloaded, else what stands in for them."""

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True)
class ImageSet:
    """A labelled image set, for training and for testing.

    Attributes:
        train_images: uint8, [N, height * width] where images are grey, else [N, 3, height, width], RGB.
        train_labels: [N] int64, from 0.
        test_images: as ``train_images``.
        test_labels: as ``train_labels``.

    The arrays may be mapped from files that other processes read too: they are read-only then.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]

    def check(self) -> None:
        """Check that the images are bytes, and that each has a label.

        Raises:
            ValueError: they are not, or one has none.
        """
        for part in ("train", "test"):
            images, labels = getattr(self, f"{part}_images"), getattr(self, f"{part}_labels")
            if images.dtype != np.uint8 or labels.dtype != np.int64:
                raise ValueError(f"{part}: {images.dtype} images with {labels.dtype} labels, expected uint8 and int64")
            if labels.shape != (len(images),) or not len(images):
                raise ValueError(f"{part}: {len(images)} images with {labels.size} labels")
            if labels.min() < 0:
                raise ValueError(f"{part}: a label is {labels.min()}, expected 0 or more")

    def protect(self) -> None:
        """Make the arrays read-only, since several trials use them."""
        for name in ARRAYS:
            getattr(self, name).setflags(write=False)

    @property
    def nbytes(self) -> int:
        """The number of bytes of all arrays."""
        return sum(getattr(self, name).nbytes for name in ARRAYS)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        shape = self.train_images.shape[1:]
        if len(shape) == 3:
            return int(shape[0]), int(shape[1]), int(shape[2])
        side = round(shape[0] ** 0.5)
        return 1, side, side

    @property
    def fingerprint(self) -> str:
        """A hash of the arrays. Equal content has equal fingerprints, from whatever file it was read."""
        digest = hashlib.sha256()
        for name in ARRAYS:
            array = np.ascontiguousarray(getattr(self, name))
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(array.data)
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Form:
    """One form in which a data set is published: its files, and how they are read.

    Attributes:
        files: the md5 of each file by its path below the data set's folder; None where none was published.
        read: reads the images in that folder. It raises ``DataError`` where a file is damaged or is not the published
            one.
        mirrors: addresses that serve the files under these names; empty where clray cannot download them.
        partial: why this is not the whole data set; numbers measured on it are not compared with a paper's.
        fingerprint: the fingerprint of the content, where it is known in advance.
        identify: computes the fingerprint of the content in that folder, where it must not be the hash of the arrays
            that ``read`` returns: decoded JPEG files differ in their last bits between machines.
        decode_once: keep the decoded arrays in the cache, since reading is slow.
    """

    files: dict[str, str | None]
    read: Callable[[Path], ImageSet]
    mirrors: tuple[str, ...] = ()
    partial: str = ""
    fingerprint: str | None = None
    identify: Callable[[Path], str] | None = None
    decode_once: bool = True

    @property
    def checksummed(self) -> bool:
        """True where every file has a published md5."""
        return None not in self.files.values()


@dataclass(frozen=True)
class Published:
    """A data set as published.

    Attributes:
        origin: the address where people find the data set.
        forms: the forms clray reads, the preferred one first.
        advice: the advice for a missing data set: how to get it if clray cannot download it, what can be used instead.
        elsewhere: folders where other tools leave the files, below ``CLRAY_DATA`` or below the data set's own folder.
    """

    origin: str
    forms: tuple[Form, ...] = field(default=())
    advice: str = ""
    elsewhere: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint of the whole data set, where it is known in advance."""
        return next((form.fingerprint for form in self.forms if form.fingerprint and not form.partial), None)

    @property
    def download(self) -> Form | None:
        """The form that ``fetch`` downloads."""
        return next((form for form in self.forms if form.mirrors), None)


def sums_fingerprint(files: dict[str, str | None]) -> str:
    """The fingerprint of a data set published in one form only, computed from its file names and their md5 sums."""
    return hashlib.sha256("".join(f"{name}{md5}" for name, md5 in sorted(files.items())).encode()).hexdigest()[:16]
