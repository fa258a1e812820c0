"""ER-ACE (Caccia 2022): a batch of the stream competes only among the classes that it cannot make the network forget.

The cross-entropy of the stream's batch is over the classes in the batch and those not seen yet, so that it does not
push old classes down; that of the memories is over all classes. ``begins`` says when that begins:

- ``first_batch``: in the code of the paper's authors (``pclucas14/AML``), and in Mammoth's task-free form.
- ``second_task``: Mammoth's default. The first task has a plain cross-entropy and no replay.

As not seen both codes take all logits from the largest seen one on, that one included. Where labels are numbered as
they arrive that is right, but for the one class. ``form`` chooses between two details of the codes:

- ``mammoth``: once the last logit was seen, it competes only where it is in the batch. Both batches are augmented.
- ``authors``: the largest seen logit always competes. Images of the stream are never augmented, only memories.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from clray.trial import later
from clray.vision.methods.incremental.base import ReplayMethod, ReplaySettings
from clray.vision.methods.incremental.tasks import task_of

if TYPE_CHECKING:
    from torch import Tensor

    from clray.vision.learners.incremental import IncrementalLearner
    from clray.vision.stream import Batch


class ErAce(ReplayMethod):
    """Replay in which the stream's loss leaves out the logits of old classes."""

    class Settings(ReplaySettings):
        begins: Literal["first_batch", "second_task"] = "first_batch"
        head: Literal["linear", "cosine"] = "linear"
        """Mammoth has a cosine head with a scale of 10 by default, the paper a linear one."""
        form: Literal["mammoth", "authors"] = later("mammoth")
        """See the top of the file."""

        @property
        def needs_boundaries(self) -> bool:
            return self.begins == "second_task"

    passes = 2.0

    def build(self) -> None:
        if self.settings.head == "cosine":
            self.learner.replace_head(lambda width: _cosine(width, self.stream.outputs))

    def __init__(self, settings: Any, learner: IncrementalLearner) -> None:
        super().__init__(settings, learner)
        self.largest_seen = -1
        """The largest logit of a class of which an example has arrived."""

    def loss(self, batch: Batch) -> Tensor:
        from torch.nn.functional import cross_entropy

        authors = self.settings.form == "authors"
        logits = self.learner.logits(batch.x if authors else self.augmented(batch.x, "stream"))
        self.largest_seen = max(self.largest_seen, int(batch.y.max()))
        if self.settings.begins == "second_task" and task_of("er_ace", batch) == 0:
            return cross_entropy(logits, batch.y)
        loss = cross_entropy(self._among_new(logits, batch.y), batch.y)
        slots = self.replayed()
        if len(slots):
            x, y = self.examples(slots)
            loss = loss + cross_entropy(self.learner.logits(self.augmented(x, "memory")), y)
        return loss

    def _among_new(self, logits: Tensor, y: Tensor) -> Tensor:
        """The logits [n, C], with a large negative number for classes that do not compete.

        Those were seen and are not in the batch; where labels have levels, all classes of other levels are among them.
        """
        import torch

        competing = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
        competing[y] = True
        if self.settings.form == "authors" or self.largest_seen < logits.shape[1] - 1:
            competing[self.largest_seen :] = True
        return self.learner.within_level(logits.masked_fill(~competing, -1e9), y)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"largest_seen": self.largest_seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.largest_seen = state["largest_seen"]


def _cosine(width: int, outputs: int) -> Any:
    from clray.vision.networks.heads import Cosine

    return Cosine(width, outputs, scale=10.0, eps=1e-5)
