"""notMNIST (Bulatov 2011): grey glyphs of the letters A to J, 28x28, from many fonts.

The benchmarks of this field use notMNIST_small, which has no published split. TAG's loader takes the glyphs letter by
letter in the archive's order, leaves out the files that cannot be decoded (two), shuffles the positions with NumPy's
generator seeded with 0, and tests on the first tenth. clray does the same: 16,852 glyphs for training, 1,872 for
testing.

A random sample of 10,000 of these glyphs, published as IDX files, can be used instead. It is split in the same way, has
a fingerprint of its own, and is marked as partial.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clray.data_files import reading
from clray.errors import DataError
from clray.vision.datasets.idx import read_idx
from clray.vision.datasets.published import Form, ImageSet, Published, sums_fingerprint

HOME = "http://yaroslavvb.com/upload/notMNIST/"
LETTERS = "ABCDEFGHIJ"
GLYPHS = 18_724
"""The number of glyphs of notMNIST_small that can be decoded."""
SPLIT_SEED = 0


def _split(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> ImageSet:
    positions = list(range(len(labels)))
    np.random.RandomState(SPLIT_SEED).shuffle(positions)  # shuffles a list, as TAG does
    tested = len(positions) // 10
    train, test = positions[tested:], positions[:tested]
    return ImageSet(images[train], labels[train], images[test], labels[test])


def _from_archive(name: str) -> Callable[[Path], ImageSet]:
    def read(folder: Path) -> ImageSet:
        path = folder / name
        glyphs: dict[str, list[NDArray[np.uint8]]] = {letter: [] for letter in LETTERS}
        with reading(path, f"put the file from {HOME} there"), tarfile.open(path) as tar:
            for member in tar:
                letter = Path(member.name).parent.name
                file = tar.extractfile(member) if letter in glyphs else None
                glyph = _glyph(file.read()) if file else None
                if glyph is not None:
                    glyphs[letter].append(glyph)
        images = [glyph for letter in LETTERS for glyph in glyphs[letter]]
        if len(images) != GLYPHS:
            raise DataError(f"{path}: not notMNIST_small: {len(images)} glyphs can be read, expected {GLYPHS}")
        labels = np.repeat(np.arange(len(LETTERS)), [len(glyphs[letter]) for letter in LETTERS])
        return _split(np.stack(images), labels.astype(np.int64))

    return read


def _glyph(content: bytes) -> NDArray[np.uint8] | None:
    """The pixels [784] of a grey PNG; None where it cannot be decoded."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            return np.asarray(image).reshape(784) if image.mode == "L" and image.size == (28, 28) else None
    except (OSError, SyntaxError, ValueError):  # what Pillow raises for a broken PNG
        return None


SAMPLE_FILES: dict[str, str | None] = {
    "notmnist-10k-images-idx3-ubyte.gz": "2c87c839a4ef9b238846600eec8c35b7",
    "notmnist-10k-labels-idx1-ubyte.gz": "7ea9118cbafd0f6e3ee2ad771d782a01",
}


def _sample(folder: Path) -> ImageSet:
    images, labels = (read_idx(folder / name) for name in SAMPLE_FILES)
    return _split(images.reshape(len(images), -1), labels.astype(np.int64))


def sample(files: dict[str, str | None]) -> Form:
    """The form of the sample of 10,000, in files with these md5 sums."""
    fingerprint = f"sample-{sums_fingerprint(files)}"
    return Form(
        files,
        _sample,
        partial="10,000 of the 18,724 glyphs of notMNIST_small",
        fingerprint=fingerprint,
        identify=lambda _: fingerprint,
        decode_once=False,
    )


def archive(name: str, md5: str | None, mirrors: tuple[str, ...] = ()) -> Form:
    """The form of notMNIST_small in a tar archive."""
    return Form({name: md5}, _from_archive(name), mirrors)


NOTMNIST = Published(
    origin=HOME,
    forms=(
        archive("notMNIST_small.tar.gz", "c9890a473a9769fda4bdf314aaf500dd", (HOME,)),
        archive("notMNIST_small.tar", None),
        sample(SAMPLE_FILES),
    ),
)
