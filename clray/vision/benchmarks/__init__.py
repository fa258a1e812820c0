"""The benchmarks of the vision track, one file for each family, and the list of their names.

A benchmark is a class of settings that can build a trial's stream. Its file loads torch only when it builds one, so
that planning a sweep is fast.
"""

from __future__ import annotations

from clray.registry import Registry
from clray.vision.benchmarks.base import Benchmark

BENCHMARKS: Registry[Benchmark] = Registry(
    __name__,
    {
        "mnist-rotations": "mer:MnistRotations",
        "mnist-permutations": "mer:MnistPermutations",
        "mnist-many-permutations": "mer:MnistPermutations",
        "rotated-mnist": "rearranged_mnist:RotatedMnist",
        "permuted-mnist": "rearranged_mnist:PermutedMnist",
        "split-cifar100": "split:SplitCifar100",
        "split-mini-imagenet": "split:SplitMiniImageNet",
        "split-cub": "split:SplitCub",
        "split-mnist": "split_mnist:SplitMnist",
        "5-dataset": "five_datasets:FiveDatasets",
        "class-incremental": "class_incremental:ClassIncremental",
        "i-blurry": "blurry:IBlurry",
        "si-blurry": "blurry:SiBlurry",
        "coarse-to-fine": "coarse_to_fine:CoarseToFine",
    },
    base="clray.vision.benchmarks.base:Benchmark",
    group="clray.benchmarks",
)
