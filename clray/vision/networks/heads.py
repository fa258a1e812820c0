"""Last layers that methods put in place of a network's linear one."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import normalize


class Cosine(nn.Module):
    """Logits that are ``scale`` times the cosine between the features and each class's weights; there is no bias.

    Vectors are divided by their length plus ``eps``, as in the official codes.

    Args:
        width: of the features.
        outputs: the number of logits.
        scale: the inverse of the temperature.
    """

    def __init__(self, width: int, outputs: int, scale: float, eps: float = 1e-6) -> None:
        super().__init__()
        self.L = nn.Linear(width, outputs, bias=False)
        self.scale, self.eps = scale, eps

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * _directions(features, self.eps) @ _directions(self.L.weight, self.eps).T


def _directions(vectors: Tensor, eps: float) -> Tensor:
    return vectors / (vectors.norm(dim=1, keepdim=True) + eps)


class Projection(nn.Module):
    """Two layers that project features onto the unit sphere, for contrastive losses (SCR: width, width, 128)."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs))

    def forward(self, features: Tensor) -> Tensor:
        return normalize(self.layers(features), dim=1)


def replace_last_layer(module: nn.Module, make: Callable[[int], nn.Module]) -> nn.Module:
    """Put another head in place of a network's last layer, and return it.

    Args:
        make: makes the head for features of this width.
    """
    name, last = [(name, part) for name, part in module.named_modules() if isinstance(part, nn.Linear)][-1]
    parent, _, own = name.rpartition(".")
    head = make(last.in_features)
    setattr(module.get_submodule(parent), own, head)
    return head
