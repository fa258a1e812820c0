"""Experience replay (Chaudhry 2019) on class-incremental streams, in the forms of Mai et al. (2022) and of Mammoth.

A step learns from a batch of the stream and a batch of memories. Their cross-entropies are over all classes. The
survey's code (``passes: separate``) sends each batch through the network by itself and adds the two means; Mammoth's
(``joint``) takes one mean over both in one pass, which also shares the statistics of batch normalisation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from clray.vision.methods.incremental.base import ReplayMethod, ReplaySettings

if TYPE_CHECKING:
    from torch import Tensor

    from clray.vision.stream import Batch


class Er(ReplayMethod):
    """Learns from each batch together with a batch of memories."""

    class Settings(ReplaySettings):
        passes: Literal["separate", "joint"] = "separate"

    passes = 2.0

    def loss(self, batch: Batch) -> Tensor:
        import torch
        from torch.nn.functional import cross_entropy

        logits, y = self.learner.logits, batch.y
        x, slots = self.augmented(batch.x, "stream"), self.replayed()
        if not len(slots):
            return cross_entropy(logits(x), y)
        old_x, old_y = self.examples(slots)
        old_x = self.augmented(old_x, "memory")
        if self.settings.passes == "joint":
            return cross_entropy(logits(torch.cat([x, old_x])), torch.cat([y, old_y]))
        return cross_entropy(logits(x), y) + cross_entropy(logits(old_x), old_y)
