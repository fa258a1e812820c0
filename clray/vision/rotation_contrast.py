"""The computations of OCM (Guo 2022) and OnPro (Wei 2023, arXiv 2308.00301) on images and projections.

The terms follow the codes of both (``Supervised_NT_xent_n`` and ``Supervised_NT_xent_uni``, ``OPELoss``).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

TURNS = 16
"""The forms of an image that ``rotations`` makes."""
_EPS = 1e-8


def rotations(x: Tensor) -> Tensor:
    """Sixteen forms of square images [n, C, H, H], form by form, [16 n, C, H, H].

    First the left half, both halves, then the right half are turned by 180 degrees within the image; the four results
    are then turned as wholes by 0, 180, 90 and 270 degrees.
    """
    left, right = x.tensor_split(2, 3)
    left_turned, right_turned = left.flip(2, 3), right.flip(2, 3)
    halves = [(left, right), (left_turned, right), (left_turned, right_turned), (left, right_turned)]
    inner = torch.cat([torch.cat(pair, 3) for pair in halves])
    return torch.cat([inner, *(inner.rot90(quarters, (2, 3)) for quarters in (2, 1, 3))])


def rotated_labels(y: Tensor, classes: int) -> Tensor:
    """Labels [32 n] for two views of ``rotations``: the classes of each form are classes of their own.

    Args:
        y: [n], also real numbers.
        classes: the distance between the labels of one form and those of the next.
    """
    forms = torch.arange(TURNS, device=y.device).unsqueeze(1)
    return (y + classes * forms).flatten().repeat(2)


def similarity(features: Tensor, projections: Tensor, window: int, factor: float = 1.0) -> Tensor:
    """``factor`` times the similarity [m, m] of projections to each other and to a window of the features.

    Args:
        features: [m, width], longer than projections; they get length 1 before the window is taken.
        projections: [m, size], of length 1.
        window: the first feature that counts.
    """
    seen = normalize(features, dim=1)[:, window : window + projections.shape[1]]
    return projections @ (factor * (seen + projections)).T


def among_same_labels(similarities: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The mean surprise at finding one with the same label (``uni``): each finds all, itself as well.

    Args:
        similarities: [m, m].
        labels: [m]; real numbers that are equal are the same label.
    """
    return -_mean_among(_expected(similarities, temperature, itself=True), labels)


def to_the_other_view(similarities: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The mean surprise at finding the other view of the same image, and twice that at the same label (``n``).

    No one finds itself; but an image counts among those with its label, and there its surprise is a constant.

    Args:
        similarities: [m, m] between images, of which the second half shows the first half in another view.
        labels: [m].
    """
    expected, half = _expected(similarities, temperature, itself=False), len(labels) // 2
    views = expected.diagonal(half).sum() + expected.diagonal(-half).sum()
    return -views / len(labels) - 2 * _mean_among(expected, labels)


def _expected(similarities: Tensor, temperature: float, itself: bool) -> Tensor:
    """The logarithm of a softmax over each row: minus the surprise. ``_EPS`` keeps it finite, as in the codes."""
    odds = ((similarities - similarities.amax(1, keepdim=True).detach()) / temperature).exp()
    if not itself:
        odds = odds * ~torch.eye(len(odds), dtype=torch.bool, device=odds.device)
    return (odds / (odds.sum(1, keepdim=True) + _EPS) + _EPS).log()


def _mean_among(expected: Tensor, labels: Tensor) -> Tensor:
    """The mean over rows of the mean over those with the row's label."""
    same = labels.unsqueeze(1) == labels
    return (torch.where(same, expected, 0.0).sum(1) / (same.sum(1) + _EPS)).mean()


# ----------------------------------------------------------------------------------------------------------------------
# Online prototypes


def class_means(z: Tensor, y: Tensor, classes: int) -> Tensor:
    """The mean [classes, size] of each class's vectors, 0 where there is none.

    Args:
        z: [n, size].
        y: [n] the class of each.
    """
    members = one_hot(y, classes).to(z.dtype)
    return members.T @ z / members.sum(0).clamp(min=1).unsqueeze(1)


def prototype_loss(first: Tensor, second: Tensor, y: Tensor, classes: int, temperature: float) -> tuple[Tensor, Tensor]:
    """Online prototype equilibrium: each class's prototype must find that of the other view among all prototypes.

    Args:
        first, second: two views [n, size] of the same images.
        y: [n] their classes.

    Returns:
        The loss, and the mean [classes, size] of both views' prototypes, not normalised, 0 where a class has none.
    """
    means = class_means(first, y, classes), class_means(second, y, classes)
    z, present = normalize(torch.cat(means), dim=1), one_hot(y, classes).amax(0).bool().repeat(2)
    absent = ~present | torch.eye(2 * classes, dtype=torch.bool, device=z.device)
    surprise = -(z @ z.T / temperature).masked_fill(absent, -torch.inf).log_softmax(1)
    other = torch.cat([surprise.diagonal(classes), surprise.diagonal(-classes)])
    return torch.where(present, other, 0.0).sum() / present.sum(), (means[0] + means[1]).detach() / 2
