"""DER and DER++ (Buzzega 2020, arXiv 2004.07211), as Mammoth runs them.

The memory keeps the logits that the network gave for an example when it arrived. Besides the cross-entropy of the
stream's batch, a step keeps the network near these logits on a batch of memories: alpha times the mean squared
difference. DER++ adds beta times the cross-entropy of a second batch of memories, which is drawn by itself. Each batch
passes the network by itself. The code of ER-ACE's authors (AML) draws both batches at once, as different memories, and
sends them through the network in one pass (``memories_drawn: at_once``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from clray.trial import later
from clray.vision.methods.incremental.base import ReplayMethod, ReplaySettings, ReservoirLaw
from clray.vision.ranges import Weight

if TYPE_CHECKING:
    from torch import Tensor

    from clray.vision.stream import Batch


class Der(ReplayMethod):
    """Replay of the logits that examples had when they arrived."""

    class Settings(ReplaySettings):
        reservoir: ReservoirLaw = "exact"
        alpha: Weight
        """The weight of the squared difference of logits."""

    passes = 2.0

    _arrived: Tensor
    """The logits of the batch, from the step on it."""

    def kept_fields(self) -> dict[str, tuple[int, ...]]:
        return {"logits": (self.stream.outputs,)}

    def loss(self, batch: Batch) -> Tensor:
        from torch.nn.functional import cross_entropy, mse_loss

        logits = self.learner.logits(self.augmented(batch.x, "stream"))
        self._arrived = logits.detach()
        loss = cross_entropy(logits, batch.y)
        slots = self.replayed()
        if len(slots):
            x, _ = self.examples(slots)
            now = self.learner.logits(self.augmented(x, "memory"))
            loss = loss + self.settings.alpha * mse_loss(now, self.memory.fields["logits"][slots])
        return loss

    def remember(self, batch: Batch) -> None:
        self.memory.add_batch(batch.numbers, logits=self._arrived)


class Derpp(Der):
    """DER with a cross-entropy on memories as well."""

    class Settings(Der.Settings):
        beta: Weight
        """The weight of the memories' cross-entropy."""
        memories_drawn: Literal["apart", "at_once"] = later("apart")
        """See the top of the file."""

    passes = 3.0

    def loss(self, batch: Batch) -> Tensor:
        from torch.nn.functional import cross_entropy

        if self.settings.memories_drawn == "at_once":
            return self._loss_at_once(batch)
        loss = super().loss(batch)
        slots = self.replayed()
        if len(slots):
            x, y = self.examples(slots)
            now = self.learner.logits(self.augmented(x, "memory again"))
            loss = loss + self.settings.beta * cross_entropy(now, y)
        return loss

    def _loss_at_once(self, batch: Batch) -> Tensor:
        from torch.nn.functional import cross_entropy, mse_loss

        logits = self.learner.logits(self.augmented(batch.x, "stream"))
        self._arrived = logits.detach()
        loss = cross_entropy(logits, batch.y)
        slots = self.memory.slots(2 * self.settings.replay_batch)
        if len(slots) > 1:
            x, y = self.examples(slots)
            now, half = self.learner.logits(self.augmented(x, "memory")), (len(slots) + 1) // 2
            loss = loss + self.settings.alpha * mse_loss(now[:half], self.memory.fields["logits"][slots[:half]])
            loss = loss + self.settings.beta * cross_entropy(now[half:], y[half:])
        return loss
