"""Experience replay (Chaudhry 2019) on class-incremental streams, in the forms of Mai et al. (2022) and of Mammoth.

A step learns from a batch of the stream and a batch of memories. Their cross-entropies are over all classes. The
survey's code (``passes: separate``) sends each batch through the network by itself and adds the two means; Mammoth's
(``joint``) takes one mean over both in one pass, which also shares the statistics of batch normalisation.

The survey adds two tricks to it: answers by the nearest class mean of the memory's features (``classifier: ncm``), and
a pass over the memory at the end of each task, with a tenth of the gradient (``review``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from clray.vision.methods.incremental.base import DrawnSettings
from clray.vision.methods.incremental.class_means import ClassMeansMethod
from clray.vision.methods.incremental.tasks import task_of

if TYPE_CHECKING:
    from torch import Tensor

    from clray.vision.stream import Batch


class Er(ClassMeansMethod):
    """Learns from each batch together with a batch of memories."""

    class Settings(DrawnSettings):
        passes: Literal["separate", "joint"] = "separate"
        classifier: Literal["softmax", "ncm"] = "softmax"
        """``ncm``: answer with the class whose mean in the memory is nearest."""
        review: bool = False
        """At the end of each task learn from all memories once, with a tenth of the gradient. Needs boundaries."""

        @property
        def needs_boundaries(self) -> bool:
            return self.review or super().needs_boundaries

    passes = 2.0

    @property
    def answers_by_means(self) -> bool:
        return self.settings.classifier == "ncm"

    def observe(self, batch: Batch) -> None:
        if self.settings.review:
            task_of("ocl_er", batch)  # an error where the end of a task would not be seen
        super().observe(batch)

    def loss(self, batch: Batch) -> Tensor:
        import torch
        from torch.nn.functional import cross_entropy

        logits, y = self.learner.logits, batch.y
        x, slots = self.augmented(batch.x, "stream"), self.replayed_beside(batch, self.settings.replay_batch)
        if not len(slots):
            return cross_entropy(logits(x), y)
        old_x, old_y = self.examples(slots)
        old_x = self.augmented(old_x, "memory")
        if self.settings.passes == "joint":
            return cross_entropy(logits(torch.cat([x, old_x])), torch.cat([y, old_y]))
        return cross_entropy(logits(x), y) + cross_entropy(logits(old_x), old_y)

    def end(self, experience: int) -> None:
        super().end(experience)
        if self.settings.review:
            self._review()

    def _review(self) -> None:
        """Learn from the memories in a random order, in full batches, not augmented; as the survey's code does."""
        from torch.nn.functional import cross_entropy

        size, order = self.settings.replay_batch, self.draws.permutation(len(self.memory))
        for start in range(0, len(order) - size + 1, size):
            x, y = self.examples(order[start : start + size])
            self.learner.descend(cross_entropy(self.learner.logits(x), y) / 10)
