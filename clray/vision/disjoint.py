"""The classes and the images that two phases of an experiment have in common.

Hyper-parameters that were tuned on one phase are evaluated on the other, so nothing may be in both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from clray.errors import DeclarationError
from clray.trial import Trial
from clray.vision import data as sources
from clray.vision.benchmarks import BENCHMARKS
from clray.vision.benchmarks.class_incremental import CLASSES

Labels = dict[str, set[int]]
"""Labels of classes, by the image set that has them."""


def labels_of(trials: Iterable[Trial]) -> Labels:
    """The classes that some trials learn.

    Raises:
        DeclarationError: a benchmark does not say which classes of an image set it has.
    """
    found: Labels = {}
    for trial in trials:
        dataset = trial.benchmark.get("dataset")
        if dataset not in CLASSES or "classes" not in trial.benchmark:
            known = ", ".join(name for name in BENCHMARKS if "classes" in BENCHMARKS[name].model_fields)
            raise DeclarationError(
                f"{trial.benchmark['name']}: a benchmark that does not say which classes it has cannot be tuned on "
                f"other classes; allowed: {known}"
            )
        found.setdefault(dataset, set()).update(trial.benchmark["classes"] or range(CLASSES[dataset]))
    return found


def shared_classes(one: Labels, other: Labels) -> Labels:
    """The classes that are in both; empty where there is none."""
    both = {dataset: labels & other.get(dataset, set()) for dataset, labels in one.items()}
    return {dataset: labels for dataset, labels in both.items() if labels}


def shared_images(one: Labels, other: Labels, data: Mapping[str, dict[str, Any]]) -> list[tuple[str, int, str, int]]:
    """Images with the same pixels in both, as the image set and the label in the one and in the other.

    The training and the test images of the classes are compared, all of them, whatever part a stream uses.

    Args:
        data: each image set as a track's ``data()`` describes it.
    """
    hashes = [_hashes(labels, data) for labels in (one, other)]
    return [(*hashes[0][key], *hashes[1][key]) for key in hashes[0] if key in hashes[1]]


def _hashes(of: Labels, data: Mapping[str, dict[str, Any]]) -> dict[bytes, tuple[str, int]]:
    found: dict[bytes, tuple[str, int]] = {}
    for dataset, wanted in of.items():
        content = sources.load(data[dataset])
        for images, labels in (
            (content.train_images, content.train_labels),
            (content.test_images, content.test_labels),
        ):
            for i in np.flatnonzero(np.isin(labels, sorted(wanted))):
                digest = hashlib.blake2b(images[i].tobytes(), digest_size=16).digest()
                found.setdefault(digest, (dataset, int(labels[i])))
    return found
