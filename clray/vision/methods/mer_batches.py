"""MER (Riemer 2019) with batches, for networks of images: the row "mer" of Chaudhry et al. (2019).

For each batch of the stream the network takes ``steps`` steps, each on the batch and a new draw of memories together;
then its parameters go back to the point ``gamma`` of the way from where they began (Reptile's step across batches):
w = w0 + gamma (w - w0). The batch is offered to a reservoir after that.

MER's own code learns one image at a time (``mer``), which batch normalisation does not allow. How Chaudhry et al. ran
it on a ResNet was not to be read: the division into steps is ours, and the row carries that difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from clray.vision.methods.er_tiny import ErTiny
from clray.vision.ranges import Passes

if TYPE_CHECKING:
    from clray.vision.stream import Batch


class MerBatches(ErTiny):
    """Steps on a batch with several draws of memories, then a part of the way back."""

    class Settings(ErTiny.Settings):
        steps: Passes = 5
        """Steps on each batch."""
        gamma: Annotated[float, Field(gt=0, le=1)] = 0.3
        """The part of the way that is kept; 1 keeps all of it."""

        @property
        def passes_of_a_batch(self) -> float:
            """As ``passes``, with these settings; for plans."""
            return ErTiny.passes * self.steps

    def observe(self, batch: Batch) -> None:
        import numpy as np
        import torch

        learner = self.learner
        before = [p.detach().clone() for p in learner.parameters]
        for _ in range(self.settings.steps):
            learner.zero_grad()
            learner.loss_of(np.concatenate([batch.numbers, self.replayed()])).backward()
            learner.step()
        with torch.no_grad():
            for p, start in zip(learner.parameters, before, strict=True):
                p.copy_(start + self.settings.gamma * (p - start))
        self.remember(batch)
