"""Naive fine-tuning on class-incremental streams: the lower bound that every method is compared with.

Nothing is remembered, so that the classes of the last task push down the logits of all earlier ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clray.vision.methods.incremental.base import IncrementalMethod, IncrementalSettings

if TYPE_CHECKING:
    from torch import Tensor

    from clray.vision.stream import Batch


class Naive(IncrementalMethod):
    """Learns from each batch by its cross-entropy over all classes."""

    class Settings(IncrementalSettings):
        pass

    def loss(self, batch: Batch) -> Tensor:
        from torch.nn.functional import cross_entropy

        return cross_entropy(self.learner.logits(self.augmented(batch.x, "stream")), batch.y)
