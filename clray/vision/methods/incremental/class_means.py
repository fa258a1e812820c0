"""Answers by the nearest class mean: the class whose mean feature is nearest to an image's feature (iCaRL, SCR).

Where a memory gives the means, they are those of the features that the network has now, so that they must be found
anew when it has learned. ``ClassMeans`` finds them once, at the first question, and keeps them until ``drop``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clray.vision.methods.incremental.base import ReplayMethod

if TYPE_CHECKING:
    from torch import Tensor

    from clray.vision.stream import Batch

_AT_ONCE = 500
"""Memories that pass the network together."""


def nearness(features: Tensor, means: Tensor, known: Tensor) -> Tensor:
    """How near each class's mean is, [n, outputs]: half of minus the squared distance, up to a constant of the image.

    Args:
        features: [n, width].
        means: [outputs, width].
        known: [outputs], true for the classes that have a mean; the others are -inf, and never the answer.
    """
    import torch

    return (features @ means.T - means.square().sum(1) / 2).masked_fill(~known, -torch.inf)


class ClassMeans:
    """The classes' means of the features of a method's memory, for as long as the network does not learn.

    As in the code of SCR and of the survey of Mai et al. (2022): features in evaluation mode, of images that are not
    augmented, each of length 1; the mean is of length 1 too. That code gives a class that was seen, but of which the
    memory has nothing, a random direction. Here it is never the answer.
    """

    def __init__(self, method: ReplayMethod) -> None:
        self._method = method
        self._found: tuple[Tensor, Tensor] | None = None

    def drop(self) -> None:
        """Forget the means: the network or the memory has changed."""
        self._found = None

    def scores(self, x: Tensor) -> Tensor:
        """How near each class's mean is to images [n, C, H, W], as ``nearness`` gives it."""
        from torch.nn.functional import normalize

        if self._found is None:
            self._found = self._find()
        return nearness(normalize(self._method.learner.still_features(x), dim=1), *self._found)

    def _find(self) -> tuple[Tensor, Tensor]:
        """The means [outputs, width], and which classes have one [outputs]."""
        import torch
        from torch.nn.functional import normalize

        method = self._method
        numbers = method.memory.numbers
        parts = [method.stream.examples(numbers[i : i + _AT_ONCE]) for i in range(0, max(len(numbers), 1), _AT_ONCE)]
        features = torch.cat([normalize(method.learner.still_features(x), dim=1) for x, _ in parts])
        y = torch.cat([y for _, y in parts])
        sums = torch.zeros(method.stream.outputs, features.shape[1], device=features.device)
        # A matrix product in place of index_add_, which on a GPU adds in no fixed order.
        members = (torch.arange(len(sums), device=y.device).unsqueeze(1) == y).to(features.dtype)
        return normalize(sums + members @ features, dim=1), members.any(1)


class ClassMeansMethod(ReplayMethod):
    """A replay method that may answer by the nearest class mean of its memory. What learns drops the means."""

    def __init__(self, settings: Any, learner: Any) -> None:
        super().__init__(settings, learner)
        self.class_means = ClassMeans(self)

    @property
    def answers_by_means(self) -> bool:
        """False where the network's logits are the answer."""
        return True

    def remember(self, batch: Batch) -> None:
        super().remember(batch)
        self.class_means.drop()  # here the steps on the batch are over, too

    def end(self, experience: int) -> None:
        self.class_means.drop()
        super().end(experience)

    def scores(self, x: Tensor) -> Tensor:
        return self.class_means.scores(x) if self.answers_by_means else super().scores(x)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.class_means.drop()
