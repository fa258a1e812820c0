"""The image data sets: the published files of each, and how they are read."""

from __future__ import annotations

from clray.vision.datasets.cifar import CIFAR10, CIFAR100
from clray.vision.datasets.cub import CUB
from clray.vision.datasets.idx import FASHION_MNIST, MNIST
from clray.vision.datasets.mini_imagenet import MINI_IMAGENET
from clray.vision.datasets.notmnist import NOTMNIST
from clray.vision.datasets.published import Published
from clray.vision.datasets.svhn import SVHN

PUBLISHED: dict[str, Published] = {
    "mnist": MNIST,
    "fashion-mnist": FASHION_MNIST,
    "notmnist": NOTMNIST,
    "svhn": SVHN,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "mini-imagenet": MINI_IMAGENET,
    "cub": CUB,
}
