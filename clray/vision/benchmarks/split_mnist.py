"""MNIST, its classes divided among tasks that are told at the test: digits in place of ``split-cifar100``.

It has the settings of ``split-cifar100``, so that the quick form of a sweep on it runs where no data are. No
published code is followed.
"""

from __future__ import annotations

from typing import Literal

from clray.vision.benchmarks.split import SplitClasses
from clray.vision.ranges import Tasks


class SplitMnist(SplitClasses):
    """MNIST in label order: 5 tasks of 2 classes."""

    name: Literal["split-mnist"]
    tasks: Tasks = 5

    datasets = ("mnist",)
    label_classes = 10
    official = ""
    official_evaluation_draws = False
