"""PCR, proxy-based contrastive replay (Lin 2023, arXiv 2304.04408), as the code of its authors runs it.

Logits are the cosines between the features and each class's weights, its proxy, divided by a temperature. A step takes
the batch and a batch of memories, each image as it is and augmented, and a softmax over the classes that are among
them (``clray.vision.losses.proxy_contrastive``). The stream's images pass the network first, then the memories; a
batch normalisation layer sees them apart.

As in that code, a batch that arrives while the memory is empty takes a step of which the gradient is zero. So the first
batch is only remembered. Classes that have not arrived are never the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clray.vision.methods.incremental.base import AugmentationName, ReplayMethod, ReplaySettings
from clray.vision.ranges import Rate

if TYPE_CHECKING:
    from torch import Tensor

    from clray.vision.learners.incremental import IncrementalLearner
    from clray.vision.stream import Batch


class Pcr(ReplayMethod):
    """A softmax over the classes of the batch and the memories, each counted as often as it is there."""

    class Settings(ReplaySettings):
        augmentation: AugmentationName = "simclr"
        temperature: Rate = 0.09

    passes = 4.0

    def build(self) -> None:
        from clray.vision.networks.heads import Cosine

        scale = 1 / self.settings.temperature
        self.head: Any = self.learner.replace_head(lambda width: Cosine(width, self.stream.outputs, scale))

    def __init__(self, settings: Any, learner: IncrementalLearner) -> None:
        import torch

        super().__init__(settings, learner)
        self.arrived = torch.zeros(self.stream.outputs, dtype=torch.bool, device=self.stream.device)
        """[outputs], true for the classes of which an example has arrived."""

    def observe(self, batch: Batch) -> None:
        self.arrived[batch.y] = True
        super().observe(batch)

    def loss(self, batch: Batch) -> Tensor:
        import torch
        from torch.nn.functional import cross_entropy

        from clray.vision.losses import proxy_contrastive

        logits, y = self.head(self.both_views(batch.x, "stream")), batch.y.repeat(2)
        slots = self.replayed()
        if not len(slots):
            return 0 * cross_entropy(logits, y)
        old_x, old_y = self.examples(slots)
        old_logits = self.head(self.both_views(old_x, "memory"))
        labels = torch.cat([old_y.repeat(2), y])
        return proxy_contrastive(self.learner.within_level(torch.cat([old_logits, logits]), labels), labels)

    def both_views(self, x: Tensor, view: str) -> Tensor:
        """The features [2n, width] of images as they are, then of the same images augmented, from one pass."""
        import torch

        return self.learner.features(torch.cat([x, self.augmented(x, view)]))

    def scores(self, x: Tensor) -> Tensor:
        return super().scores(x).masked_fill(~self.arrived, -1e9)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"arrived": self.arrived.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.arrived.copy_(state["arrived"])
