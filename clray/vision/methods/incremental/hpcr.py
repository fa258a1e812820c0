"""HPCR, holistic proxy-based contrastive replay (Lin 2023, arXiv 2309.15038), as the code of its authors runs it.

It adds three things to PCR:

- A factor of the loss that rises and falls with the batches of a task, which stands for a temperature that does.
- From the second task on, the distillation of proxies: the mean squared difference between the logits of memories now
  and when they arrived. It is over the classes of the batch and the memories, each counted as often as it is there.
- From the second task on, the distillation of samples: the similarities of the memories with each other, as they are
  now and as they were when these arrived.

The memory keeps the logits and features that an example had when it arrived, of the image that is not augmented.

The official code puts features beside the wrong examples. In the batch that fills the memory, the examples that find no
free place compete for the places of others, and their images and logits are cut out of the batch by themselves; but
their features are not. So the first of them gets the features of the batch's first example, and so on
(``features: as_coded``). This happens only where the memory is not a multiple of the batch. ``corrected`` stores each
example's own features.

The paper also has contrastive pairs of images. In the official code they are off by default, and they are not here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from clray.vision.methods.incremental.pcr import Pcr
from clray.vision.methods.incremental.tasks import task_of
from clray.vision.ranges import Passes, Rate, Weight

if TYPE_CHECKING:
    from torch import Tensor

    from clray.vision.learners.incremental import IncrementalLearner
    from clray.vision.stream import Batch


class Hpcr(Pcr):
    """PCR with a changing temperature, and the distillation of logits and of similarities."""

    class Settings(Pcr.Settings):
        lowest: Rate = 0.5625
        """The factor of PCR's loss at the first batch of a task: the temperature 0.09 divided by 0.16."""
        highest: Rate = 1.8
        """The factor half a period later: 0.09 divided by 0.05."""
        period: Passes = 500
        """Batches from the first lowest factor to the next."""
        alpha: Weight = 0.1
        """The weight of the distillation of proxies. The official README gives 0.01 for CIFAR-10."""
        beta: Weight = 0.5
        """The weight of the distillation of samples."""
        features: Literal["as_coded", "corrected"] = "as_coded"
        """``corrected`` stores each example's own features: see the top of the file."""

        @property
        def needs_boundaries(self) -> bool:
            return True

    def __init__(self, settings: Any, learner: IncrementalLearner) -> None:
        super().__init__(settings, learner)
        self.batches = 0
        """Batches of this pass over the task before the one that is learned."""

    _arrived: tuple[Tensor, Tensor]
    """The logits and features of the batch, from the last step on it."""

    def kept_fields(self) -> dict[str, tuple[int, ...]]:
        return {"logits": (self.stream.outputs,), "features": (self.head.L.in_features,)}

    def begin(self, experience: int) -> None:
        self.batches = 0

    def observe(self, batch: Batch) -> None:
        task_of("hpcr", batch)
        super().observe(batch)
        self.batches += 1

    def factor(self) -> float:
        """The factor of PCR's loss at this batch."""
        lowest, highest, period = self.settings.lowest, self.settings.highest, self.settings.period
        return lowest + (highest - lowest) * (1 - math.cos(2 * math.pi * self.batches / period)) / 2

    def loss(self, batch: Batch) -> Tensor:
        import torch
        from torch.nn.functional import cross_entropy

        from clray.vision.losses import proxy_contrastive

        features, y = self.both_views(batch.x, "stream"), batch.y.repeat(2)
        logits, count = self.head(features), len(batch)
        self._arrived = logits[:count].detach(), features[:count].detach()
        slots = self.replayed()
        if not len(slots):
            return 0 * cross_entropy(logits, y)
        old_x, old_y = self.examples(slots)
        old_features = self.both_views(old_x, "memory")
        old_logits, labels = self.head(old_features), torch.cat([old_y.repeat(2), y])
        all_logits = self.learner.within_level(torch.cat([old_logits, logits]), labels)
        loss = self.factor() * proxy_contrastive(all_logits, labels)
        if task_of("hpcr", batch) == 0:
            return loss
        kept = {name: values[slots].repeat(2, 1) for name, values in self.memory.fields.items()}
        return loss + self._distilled(old_logits, old_features, kept, labels)

    def _distilled(self, logits: Tensor, features: Tensor, kept: dict[str, Tensor], labels: Tensor) -> Tensor:
        """The distillation of proxies and of samples, for memories [n] and the labels of the whole step."""
        from torch.nn.functional import mse_loss, normalize

        from clray.vision.losses import similarity_distillation

        proxies = mse_loss(logits[:, labels], kept["logits"][:, labels])
        now, then = normalize(features, dim=1), normalize(kept["features"], dim=1)
        samples = similarity_distillation(now, then, self.settings.temperature)
        return self.settings.alpha * proxies + self.settings.beta * samples

    def remember(self, batch: Batch) -> None:
        import torch

        (logits, features), room = self._arrived, self.memory.capacity - len(self.memory)
        if self.settings.features == "as_coded" and 0 < room < len(batch):
            features = torch.cat([features[:room], features[: len(batch) - room]])
        self.memory.add_batch(batch.numbers, logits=logits, features=features)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"batches": self.batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.batches = state["batches"]
