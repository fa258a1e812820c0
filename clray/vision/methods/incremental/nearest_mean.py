"""The nearest class mean on frozen features (Janson 2022, arXiv 2210.04428): a network that never learns.

Each class has the running mean of its features, which are divided by their length. The answer is the class whose mean
is nearest to the features of an image. The mean itself is not divided by its length, as in the authors' code. The
features are those of the network with which the trial begins: random weights, or published ones
(``resnet18`` with ``pretrained``; the paper has a larger network).

The means do not depend on the order of the examples, but for the rounding of float64. So the final accuracy is the same
for every order of classes and tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from clray.vision.methods import base
from clray.vision.methods.incremental.base import IncrementalMethod
from clray.vision.methods.incremental.class_means import nearness
from clray.vision.ranges import Count

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from clray.vision.learners.incremental import IncrementalLearner
    from clray.vision.stream import Batch


class NearestMean(IncrementalMethod):
    """Running means of frozen features; nothing is learned by gradients."""

    class Settings(base.Settings):
        batch: Count = 10
        """Images that pass the network together."""
        resize: Annotated[int, Field(ge=1, le=1024)] | None = None
        """Enlarge images to this many pixels a side, by bilinear interpolation; the paper's network needs 224."""

        def make(self, parameters: list[Any]) -> torch.optim.Optimizer:
            """Make an optimizer that takes no steps: a learner has one."""
            import torch

            return torch.optim.SGD(parameters, lr=0.0)

    passes = 0.4

    def __init__(self, settings: Any, learner: IncrementalLearner) -> None:
        import torch

        super().__init__(settings, learner)
        width = self._features(self.stream.examples(self.stream.experiences[0].examples[:1])[0]).shape[1]
        shape, device = (self.stream.outputs, width), self.stream.device
        self.sums = torch.zeros(shape, dtype=torch.float64, device=device)
        """[outputs, width] the sum of each class's features; float64, so that their order does not matter."""
        self.numbers = torch.zeros(shape[0], dtype=torch.int64, device=device)
        """[outputs] the examples of each class."""

    def _features(self, x: Tensor) -> Tensor:
        """The features [n, width] of images, each of length 1."""
        from torch.nn.functional import interpolate, normalize

        if self.settings.resize is not None:
            side = self.settings.resize
            x = interpolate(x, (side, side), mode="bilinear", align_corners=False, antialias=True)
        return normalize(self.learner.still_features(x), dim=1).double()

    def observe(self, batch: Batch) -> None:
        from torch.nn.functional import one_hot

        members = one_hot(batch.y, self.stream.outputs)
        self.sums += members.T.double() @ self._features(batch.x)
        self.numbers += members.sum(0)

    def scores(self, x: Tensor) -> Tensor:
        means = self.sums / self.numbers.clamp(min=1).unsqueeze(1)
        return nearness(self._features(x), means, self.numbers > 0)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"sums": self.sums.clone(), "numbers": self.numbers.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.sums.copy_(state["sums"])
        self.numbers.copy_(state["numbers"])
