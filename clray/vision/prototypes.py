"""Distances between digits, from which the Curriculum Designer scores orders of them (``clray.analysis.curriculum``).

Run as ``python -m clray.vision.prototypes`` it prints the distances that ``sweeps/online/class_orders.yaml`` declares.
A class's prototype is the mean of the features of its training images among the digits that ship with clray, 400 of
each, and two classes are as far apart as the cosine between their prototypes says. Features are had in two ways:

- ``pixels``: the image itself.
- ``teacher``: what a small convolutional network makes of it that was trained to tell the other five digits apart. It
  has never seen those whose order is scored; the paper's teacher is a network trained on 100 classes of ImageNet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from clray.vision.datasets.published import ImageSet

CLASSES = (0, 1, 2, 3, 4)
"""The digits whose orders are scored."""
_EPOCHS, _BATCH, _RATE = 4, 20, 0.05


def prototypes(images: ImageSet, features: str) -> NDArray[np.float64]:
    """The mean features [5, d] of each of ``CLASSES``; ``features`` is ``pixels`` or ``teacher``."""
    import torch

    x = torch.from_numpy(np.array(images.train_images)).view(-1, *images.image_shape).float() / 255
    y = torch.from_numpy(np.array(images.train_labels))
    if features == "teacher":
        from clray.vision.networks.small_cnn import SmallCnn

        others = torch.tensor([label not in CLASSES for label in y.tolist()])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network: Any = SmallCnn(name="small-cnn").build(images.image_shape, 10)
            optimizer = torch.optim.SGD(network.parameters(), _RATE)
            own_x, own_y = x[others], y[others]
            for _ in range(_EPOCHS):
                for numbers in torch.randperm(len(own_x)).split(_BATCH):
                    loss = torch.nn.functional.cross_entropy(network(own_x[numbers]), own_y[numbers])
                    network.zero_grad()
                    loss.backward()
                    optimizer.step()
        with torch.no_grad():
            x = network.features(x)
    return np.array([x[y == c].flatten(1).double().mean(0).numpy() for c in CLASSES])


def distances(prototypes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cosine distances [K, K] between the classes' mean features [K, d]; zero between a class and itself."""
    unit = prototypes / np.linalg.norm(prototypes, axis=1, keepdims=True)
    found = np.maximum(1 - unit @ unit.T, 0)
    np.fill_diagonal(found, 0)
    return found


def main() -> None:
    from clray.vision.datasets.embedded import embedded_digits

    for features in ("pixels", "teacher"):
        print(f"  {features}:")
        for row in distances(prototypes(embedded_digits(), features)):
            print(f"    - [{', '.join(f'{value:.4f}' for value in row)}]")


if __name__ == "__main__":
    main()
