"""UER, unbiased experience replay (Lin 2023, arXiv 2309.04081), as far as its abstract describes it.

There is no official code: the authors' repository holds a README only. The abstract says this: a logit is the product
of the length of the features, the length of the class's weights, and the cosine between them. The examples of the
stream learn from the cosine only, so that new classes do not get longer weights; the memories learn from the whole
product. All else is as in experience replay.

The abstract does not give the factor of the cosine (``scale``), how answers are made, or whether there are augmented
images. Here answers are the whole products. No claim of a reproduction can rest on this method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clray.vision.methods.incremental.base import ReplayMethod, ReplaySettings
from clray.vision.ranges import Rate

if TYPE_CHECKING:
    from torch import Tensor

    from clray.vision.stream import Batch


class Uer(ReplayMethod):
    """Replay in which the stream's loss sees only the angles between features and weights."""

    class Settings(ReplaySettings):
        scale: Rate = 10.0
        """The factor of the cosines in the stream's loss; the abstract does not give it."""

    passes = 2.0

    def build(self) -> None:
        from torch.nn import Linear

        # Without a bias, so that a logit is the product of the two lengths and the cosine.
        self.head: Any = self.learner.replace_head(lambda width: Linear(width, self.stream.outputs, bias=False))

    def loss(self, batch: Batch) -> Tensor:
        from torch.nn.functional import cross_entropy, normalize

        features = self.learner.features(self.augmented(batch.x, "stream"))
        cosines = normalize(features, dim=1) @ normalize(self.head.weight, dim=1).T
        loss = cross_entropy(self.learner.within_level(self.settings.scale * cosines, batch.y), batch.y)
        slots = self.replayed()
        if len(slots):
            x, y = self.examples(slots)
            loss = loss + cross_entropy(self.learner.logits(self.augmented(x, "memory")), y)
        return loss
