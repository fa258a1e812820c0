"""MIR, maximally interfered retrieval (Aljundi 2019, arXiv 1908.04742), as two codes have it.

A step replays the memories whose loss the next step would raise most. Candidates are drawn from the memory; a virtual
step on the stream's batch alone gives other weights; the memories whose cross-entropy is larger by most with these are
learned together with the batch, as in ER: two passes, the sum of two means.

The authors' code takes no candidate from the batch's own task (``replay_from: earlier_tasks``), that of Mai et al.
(2022) takes them from the whole memory. As in both, the virtual step is plain gradient descent with the learning rate,
whatever the optimizer is, and both losses are taken in training mode. With batch normalisation the pass with the
network's own weights moves the running statistics; the virtual step's pass is one of a copy, which is thrown away.
Candidates are judged as they are, and the chosen ones are augmented afterwards: that order is ours, since neither code
augments anything here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clray.vision.methods.incremental.base import DrawnSettings, ReplayMethod
from clray.vision.ranges import Count

if TYPE_CHECKING:
    from torch import Tensor

    from clray.vision.stream import Batch


class Mir(ReplayMethod):
    """Replay of the memories that a step on the batch alone would harm most."""

    class Settings(DrawnSettings):
        candidates: Count = 50
        """Memories among which those to replay are chosen."""

    passes = 5.0

    def step(self, batch: Batch) -> None:
        from torch.nn.functional import cross_entropy

        learner = self.learner
        learner.zero_grad()
        cross_entropy(learner.logits(self.augmented(batch.x, "stream")), batch.y).backward()
        slots = self.replayed_beside(batch, self.settings.candidates)
        if len(slots):
            x, y = self.examples(slots)
            chosen = self.harm(x, y).argsort(descending=True, stable=True)[: self.settings.replay_batch]
            x = self.augmented(x[chosen], "memory")
            cross_entropy(learner.logits(x), y[chosen]).backward()
        learner.step()

    def harm(self, x: Tensor, y: Tensor) -> Tensor:
        """How much a virtual step along the gradients that are there raises the loss of each image, [n]."""
        import torch
        from torch.nn.functional import cross_entropy

        with torch.no_grad():
            named = self.learner.module.named_parameters()
            moved = {name: p - self.settings.lr * p.grad for name, p in named if p.grad is not None}
            before = cross_entropy(self.learner.logits(x), y, reduction="none")
            after = cross_entropy(self.learner.logits_aside(x, moved), y, reduction="none")
        return after - before
