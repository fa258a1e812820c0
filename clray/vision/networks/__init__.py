"""The networks of the vision track, one file for each, and the list of their names.

A network is a class of settings that makes a torch module. Its file loads torch only when it makes one, so that
planning a sweep is fast. The perceptron of the methods that learn from one example at a time is not a torch module:
``perceptron.py``.
"""

from __future__ import annotations

from clray.registry import Registry
from clray.vision.networks.base import Network

NETWORKS: Registry[Network] = Registry(
    __name__,
    {
        "mlp": "mlp:Mlp",
        "reduced-resnet18": "reduced_resnet18:ReducedResNet18",
        "alexnet": "alexnet:AlexNet",
        "resnet18": "resnet18:ResNet18",
        "slim-resnet18": "slim_resnet18:SlimResNet18",
        "small-cnn": "small_cnn:SmallCnn",
    },
    base="clray.vision.networks.base:Network",
    group="clray.networks",
)
