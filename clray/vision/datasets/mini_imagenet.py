"""mini-ImageNet (Vinyals et al. 2016) as continual learning uses it: 100 classes, 84x84 RGB, 480 + 120 a class.

The files are the three pickles of Kaggle's ``whitemoon/miniimagenet``, made for few-shot learning with disjoint classes
in train (64), test (20) and val (16). TAG joins them in this order, numbers the classes as they come, and takes the
first four fifths of each class for training. No checksum of them is published.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clray.data_files import reading
from clray.vision.datasets.pickles import read_pickle
from clray.vision.datasets.published import Form, ImageSet, Published

HOME = "https://www.kaggle.com/datasets/whitemoon/miniimagenet"
CLASSES = {"train": 64, "test": 20, "val": 16}
"""Classes in each pickle, in the order in which TAG joins them."""
PER_CLASS = 600
SIDE = 84


def _file(part: str) -> str:
    return f"mini-imagenet-cache-{part}.pkl"


def _read(folder: Path) -> ImageSet:
    classes, trained = sum(CLASSES.values()), PER_CLASS * 4 // 5
    train = np.empty((classes, trained, 3, SIDE, SIDE), np.uint8)
    test = np.empty((classes, PER_CLASS - trained, 3, SIDE, SIDE), np.uint8)
    done = 0
    for part, count in CLASSES.items():
        images = _part(folder / _file(part), count).transpose(0, 1, 4, 2, 3)
        train[done : done + count], test[done : done + count] = images[:, :trained], images[:, trained:]
        done += count
    return ImageSet(
        train.reshape(-1, 3, SIDE, SIDE),
        np.repeat(np.arange(classes, dtype=np.int64), trained),
        test.reshape(-1, 3, SIDE, SIDE),
        np.repeat(np.arange(classes, dtype=np.int64), PER_CLASS - trained),
    )


def _part(path: Path, classes: int) -> NDArray[np.uint8]:
    """Read the images of a pickle, [classes, PER_CLASS, 84, 84, 3]."""
    with reading(path, f"put the file from {HOME} there"):
        with path.open("rb") as file:
            content = read_pickle(file)
        content = {key.decode() if isinstance(key, bytes) else key: value for key, value in content.items()}
        images = np.asarray(content["image_data"])
        if images.dtype != np.uint8 or images.shape != (classes * PER_CLASS, SIDE, SIDE, 3):
            raise ValueError(f"image_data is {images.dtype} {images.shape}")
        _check_blocks(content.get("class_dict", {}))
    return images.reshape(classes, PER_CLASS, SIDE, SIDE, 3)


def _check_blocks(class_dict: dict[Any, Any]) -> None:
    """Check that every class is one block of the file: TAG labels images by their position alone."""
    for name, positions in class_dict.items():
        positions = np.sort(np.asarray(positions))
        first = int(positions[0])
        if first % PER_CLASS or not np.array_equal(positions, np.arange(first, first + PER_CLASS)):
            raise ValueError(f"class {name} is not {PER_CLASS} images in a row")


MINI_IMAGENET = Published(
    origin=HOME,
    forms=(Form({_file(part): None for part in CLASSES}, _read),),
    advice=(
        f"download it from {HOME} (a Kaggle account is needed) and put "
        f"{', '.join(map(_file, CLASSES))} into $CLRAY_DATA/mini-imagenet"
    ),
)
