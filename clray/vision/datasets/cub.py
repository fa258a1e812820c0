"""CUB-200-2011 (Wah et al. 2011): 200 species of birds, 5,994 photographs for training and 5,794 for testing.

Every photograph is resized to 224x224 as TAG does (``cv2.resize`` of floats, its default), but rounded to whole
numbers. TAG keeps the fractions; the difference is at most 0.5 of 255. Grey photographs become RGB.

Either of two sets of lists gives the labels and the split: the official ``images.txt``, ``image_class_labels.txt`` and
``train_test_split.txt``, or the lists of A-GEM's repository that TAG reads, ``CUB_train_list.txt`` and
``CUB_test_list.txt`` (``path label`` on each line, labels from 0). The official lists are preferred. Both were compared
for the first class, photograph by photograph: A-GEM's list is the official split in the official order. The fingerprint
covers the lists and the JPEG files, so it shows if the lists differ. It does not cover the decoded pixels, which may
differ in their last bit between versions of libjpeg.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clray.data_files import reading
from clray.errors import DataError
from clray.vision.datasets.published import Form, ImageSet, Published
from clray.vision.resize import bilinear

HOME = "https://data.caltech.edu/records/65de6-vp158/files/"
FOLDER = "CUB_200_2011"
PHOTOGRAPHS = (5_994, 5_794)
CLASSES = 200
SIDE = 224


class _Example(NamedTuple):
    path: str  # below images/
    label: int
    trained: bool


class _Files:
    """The files of the data set, in a folder or an archive."""

    def __init__(self, root: Path, where: str) -> None:
        self.path = root / where
        self.archived = where.endswith(".tgz")

    def read(self, names: list[str]) -> Iterator[tuple[str, bytes]]:
        """Yield these files in any order, without those that are missing. Paths are below ``CUB_200_2011``."""
        wanted = set(names)
        if not self.archived:
            for name in names:
                path = self.path / name
                try:
                    yield name, path.read_bytes()
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise DataError(f"{path}: cannot be read: {error}") from None
            return
        with reading(self.path, f"put the file from {HOME} there"), tarfile.open(self.path) as tar:
            for member in tar:
                name = member.name.removeprefix("./").removeprefix(f"{FOLDER}/")
                file = tar.extractfile(member) if name in wanted else None
                if file:
                    yield name, file.read()


# --------------------------------------------------------------------------------------------------------------
# The lists

OFFICIAL_LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt")
AGEM_LISTS = ("CUB_train_list.txt", "CUB_test_list.txt")


def _examples(files: _Files, lists: tuple[str, ...]) -> list[_Example]:
    texts = dict(files.read(list(lists)))
    missing = [name for name in lists if name not in texts]
    if missing:
        raise DataError(f"{files.path}: incomplete: missing {', '.join(missing)}")
    with reading(f"{files.path}: {', '.join(lists)}"):
        tables = [[line.split() for line in texts[name].decode().splitlines() if line.strip()] for name in lists]
        examples = _official(*tables) if lists == OFFICIAL_LISTS else _agem(*tables)
        found = tuple(sum(e.trained == trained for e in examples) for trained in (True, False))
        if found != PHOTOGRAPHS:
            raise ValueError(f"{found[0]} photographs for training and {found[1]} for testing, expected {PHOTOGRAPHS}")
        if {e.label for e in examples} != set(range(CLASSES)):
            raise ValueError(f"the classes are not {CLASSES}")
        if any(".." in Path(e.path).parts or Path(e.path).is_absolute() for e in examples):
            raise ValueError("a path leads out of the folder")
    return examples


def _official(images: list[list[str]], classes: list[list[str]], split: list[list[str]]) -> list[_Example]:
    labels, trained = dict(classes), dict(split)
    return [_Example(path, int(labels[i]) - 1, trained[i] == "1") for i, path in images]


def _agem(train: list[list[str]], test: list[list[str]]) -> list[_Example]:
    return [_Example(path, int(label), part is train) for part in (train, test) for path, label in part]


# --------------------------------------------------------------------------------------------------------------
# The photographs


def _photographs(files: _Files, examples: list[_Example]) -> Iterator[tuple[str, bytes]]:
    left = {e.path for e in examples}
    for name, content in files.read([f"images/{e.path}" for e in examples]):
        path = name.removeprefix("images/")
        left.discard(path)
        yield path, content
    if left:
        raise DataError(f"{files.path}: incomplete: missing images/{min(left)}, {len(left)} photographs in all")


def _identify(files: _Files, lists: tuple[str, ...]) -> str:
    examples = _examples(files, lists)
    sums = {path: hashlib.sha256(content).hexdigest() for path, content in _photographs(files, examples)}
    digest = hashlib.sha256(f"{SIDE}x{SIDE} bilinear".encode())
    for example in sorted(examples, key=lambda e: not e.trained):  # a stable sort: each part keeps its order
        digest.update(f"{example.path} {example.label} {example.trained} {sums[example.path]}\n".encode())
    return digest.hexdigest()[:16]


def _read(files: _Files, lists: tuple[str, ...]) -> ImageSet:
    examples = _examples(files, lists)
    images, labels = [], []
    place: dict[str, tuple[int, int]] = {}
    for part, trained in enumerate((True, False)):
        chosen = [e for e in examples if e.trained == trained]
        images.append(np.empty((len(chosen), 3, SIDE, SIDE), np.uint8))
        labels.append(np.array([e.label for e in chosen], np.int64))
        place |= {e.path: (part, i) for i, e in enumerate(chosen)}
    for path, content in _photographs(files, examples):
        part, i = place[path]
        images[part][i] = _photograph(content, files.path / "images" / path)
    return ImageSet(images[0], labels[0], images[1], labels[1])


def _photograph(content: bytes, path: Path) -> NDArray[np.uint8]:
    """Decode a JPEG file to [3, 224, 224]."""
    from PIL import Image

    with (
        reading(path, "put the published JPEG file there"),
        Image.open(io.BytesIO(content), formats=("JPEG",)) as image,
    ):
        pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    return np.rint(bilinear(pixels, SIDE, SIDE)).astype(np.uint8)


def _form(where: str, lists: tuple[str, ...], files: dict[str, str | None], mirrors: tuple[str, ...] = ()) -> Form:
    def read(root: Path) -> ImageSet:
        return _read(_Files(root, where), lists)

    def identify(root: Path) -> str:
        return _identify(_Files(root, where), lists)

    return Form(files, read, mirrors, identify=identify)


def _forms() -> Iterator[Form]:
    for folder in (FOLDER, "."):
        for lists in (OFFICIAL_LISTS, AGEM_LISTS):
            prefix = "" if folder == "." else f"{folder}/"
            yield _form(folder, lists, {prefix + name: None for name in lists})
    archive = f"{FOLDER}.tgz"
    yield _form(archive, OFFICIAL_LISTS, {archive: "97eceeb196236b17998738112f37df78"}, (HOME,))


CUB = Published(origin=HOME.removesuffix("/files/"), forms=tuple(_forms()))
