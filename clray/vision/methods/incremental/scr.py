"""SCR, supervised contrastive replay (Mai 2021, arXiv 2103.13885), as the code of its authors runs it.

In place of the last layer the network has a projection onto the unit sphere. A step takes the supervised contrastive
loss of the memories and the batch, each image as it is and augmented; the two views pass the network one after the
other. Answers are the nearest class mean of the memory, in the features before the projection. While the memory is
empty nothing is learned: the first batch is only remembered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clray.vision.methods.incremental.base import AugmentationName, ReplaySettings
from clray.vision.methods.incremental.class_means import ClassMeansMethod
from clray.vision.ranges import Count, Rate

if TYPE_CHECKING:
    from torch import Tensor

    from clray.vision.stream import Batch


class Scr(ClassMeansMethod):
    """A supervised contrastive loss over the batch and memories, and answers by class means."""

    class Settings(ReplaySettings):
        replay_batch: Count = 100
        augmentation: AugmentationName = "simclr"
        temperature: Rate = 0.07
        projection: Count = 128
        """Width of the projected features."""

    passes = 22.0
    """Two views of 110 images, beside the batch of 10."""

    def build(self) -> None:
        from clray.vision.networks.heads import Projection

        self.learner.replace_head(lambda width: Projection(width, self.settings.projection))

    def observe(self, batch: Batch) -> None:
        if len(self.memory):
            super().observe(batch)
        else:
            self.remember(batch)

    def loss(self, batch: Batch) -> Tensor:
        import torch

        from clray.vision.losses import supervised_contrastive

        old_x, old_y = self.examples(self.replayed())
        x = torch.cat([old_x, batch.x])
        views = [self.learner.logits(view) for view in (x, self.augmented(x, "second view"))]
        labels = torch.cat([old_y, batch.y])
        return supervised_contrastive(torch.stack(views, 1), labels, self.settings.temperature)
