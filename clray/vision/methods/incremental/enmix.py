"""EnMix, the first half of DualMix (Fan 2023, arXiv 2303.07864), as far as its abstract describes it.

There is no official code. The abstract says that augmented images and their labels are mixed at the same time. Here the
batch and the memories of a step of experience replay are augmented and pass the network together; each image is mixed
with another one of them, drawn at random, as in mixup (Zhang 2018): the part of the image is drawn once a step from a
Beta distribution, and the cross-entropies with the two labels get the same parts.

The abstract gives neither the distribution of the part nor the pairs that are mixed. The second half of DualMix
(AdpMix, which mixes old and new classes with a changing ratio of the labels) is not here: the abstract does not give
its rule. No claim of a reproduction can rest on this method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clray.vision.methods.incremental.base import ReplayMethod, ReplaySettings
from clray.vision.ranges import Rate

if TYPE_CHECKING:
    from torch import Tensor

    from clray.vision.stream import Batch


class EnMix(ReplayMethod):
    """Replay of mixed images with mixed labels."""

    class Settings(ReplaySettings):
        beta: Rate = 1.0
        """Both parameters of the Beta distribution of an image's part; with 1 the part is uniform."""

    passes = 2.0

    def loss(self, batch: Batch) -> Tensor:
        import torch
        from torch.nn.functional import cross_entropy

        old_x, old_y = self.examples(self.replayed())
        x, y = torch.cat([batch.x, old_x]), torch.cat([batch.y, old_y])
        x = self.augmented(x, "mixed")
        rng = self.draws.keyed(f"mixing {self.steps}")
        part, other = rng.beta(self.settings.beta, self.settings.beta), rng.permutation(len(x))
        logits = self.learner.logits(part * x + (1 - part) * x[other])
        return part * cross_entropy(logits, y) + (1 - part) * cross_entropy(logits, y[other])
