"""Losses that compare the images of a batch with each other. Methods import this module inside their steps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax


def supervised_contrastive(features: Tensor, labels: Tensor, temperature: float, anchors: str = "all_views") -> Tensor:
    """Supervised contrastive loss (Khosla 2020, equation 2), as the codes of SCR and PCR have it.

    For each anchor it is the mean, over the other vectors of its class, of minus the logarithm of the softmax that
    tells such a vector from all vectors but the anchor itself.

    Args:
        features: [n, views, width], each of length 1.
        labels: [n].
        temperature: divides the inner products.
        anchors: ``all_views``, or ``first_view``: only the first view of each image is an anchor.
    """
    vectors, y = features.transpose(0, 1).flatten(0, 1), labels.repeat(features.shape[1])
    count = len(vectors) if anchors == "all_views" else len(labels)
    # Row i is the anchor i; its own column takes no part.
    itself = torch.eye(count, len(vectors), dtype=torch.bool, device=features.device)
    similarity = (vectors[:count] @ vectors.T / temperature).masked_fill(itself, -torch.inf)
    of_its_class = (y[:count].unsqueeze(1) == y) & ~itself
    log_chances = log_softmax(similarity, dim=1).masked_fill(~of_its_class, 0)
    return -(log_chances.sum(1) / of_its_class.sum(1)).mean()


def proxy_contrastive(logits: Tensor, labels: Tensor) -> Tensor:
    """PCR's loss (Lin 2023, equation 6): a softmax over the classes in the batch, each as often as it is there.

    The paper has the weights of a class as the only positive of its images, and those of each image's class in the
    batch as what they are told apart from. So a class's term in the denominator is counted once for each of its images:
    the softmax is that of the logits plus the logarithm of that count. The numerator is counted once only, which adds a
    constant to the loss and nothing to its gradient.

    Args:
        logits: [n, outputs], the cosines divided by the temperature.
        labels: [n].
    """
    counts = torch.bincount(labels, minlength=logits.shape[1])
    log_counts = counts.to(logits.dtype).log()  # -inf where the class is not in the batch
    return cross_entropy(logits + log_counts, labels) + log_counts[labels].mean()


def similarity_distillation(features: Tensor, old_features: Tensor, temperature: float) -> Tensor:
    """The cross-entropy between the old and the new similarities of each image with the others (as in Co2L and HPCR).

    Args:
        features: [n, width], each of length 1.
        old_features: the same of an older network; no gradient goes through them.
        temperature: divides the cosines.
    """
    itself = torch.eye(len(features), dtype=torch.bool, device=features.device)

    def log_chances(vectors: Tensor) -> Tensor:
        return log_softmax((vectors @ vectors.T / temperature)[~itself].view(len(vectors), -1), dim=1)

    return -(log_chances(old_features.detach()).exp() * log_chances(features)).sum(1).mean()
