"""ASER, adversarial Shapley value replay (Shim 2021, arXiv 2009.00093), as the code of Mai et al. (2022) has it.

How much an example helps to classify others is its Shapley value in a vote of the k nearest neighbours, by squared
distance of features in evaluation mode. Candidates are memories, as many of each class. ``kind`` names their score:

- ``asvm`` (ASERmu): its mean value for other memories, minus its mean value for the stream's batch.
- ``asv`` (ASER): its largest value for other memories, minus its smallest for the batch.
- ``neg_sv``: minus the sum of its values for the batch.

Those with the best scores are replayed: they are near to memories of their own class and in the way of the new ones.
Until an example finds the memory full, memories are drawn at random. In a full memory, the batch and memories drawn at
random compete: those with the largest sums of values, for memories of all classes and for those examples of the batch
whose class is rare in memory, stay. A class is rare when its share of the places is below a number that is drawn anew
for each batch, up to one part in the number of classes.

The recorded figures cover the values and the scores. The rest follows the code as it was read, not a run of it. A step
learns from memories and batch in one pass and one mean (``passes: joint``, its agent ASER), or in two (``separate``,
its agent ER). Before the joint pass it sends each of them through the network by itself, the batch before memories are
chosen, and throws the gradients away; these passes move the running statistics of batch normalisation. Ours are the
order of the draws, the augmentation of memories after they were chosen, and the order among equal scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from clray.vision.methods.incremental.base import ReplayMethod, ReplaySettings
from clray.vision.ranges import Count

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from clray.vision.learners.incremental import IncrementalLearner
    from clray.vision.stream import Batch, Numbers

Score = Literal["asvm", "asv", "neg_sv"]


class Aser(ReplayMethod):
    """Replays and keeps memories by their Shapley values in a vote of nearest neighbours."""

    class Settings(ReplaySettings):
        kind: Score = "asvm"
        neighbours: Count = 3
        """k, the neighbours that vote."""
        per_class: Annotated[float, Field(ge=1, le=1e5)] = 1.5
        """Candidates of each class, rounded down; this many times all classes, rounded down, compete for places."""
        passes: Literal["joint", "separate"] = "joint"

    passes = 3.5

    def __init__(self, settings: Any, learner: IncrementalLearner) -> None:
        super().__init__(settings, learner)
        self._labels = self.stream.labels.cpu().numpy()

    def loss(self, batch: Batch) -> Tensor:
        import torch
        from torch.nn.functional import cross_entropy

        logits, x, y = self.learner.logits, self.augmented(batch.x, "stream"), batch.y
        own = cross_entropy(logits(x), y)  # before the choice, whose features use the running statistics
        slots = self.retrieved(batch)
        if not len(slots):
            return own
        old_x, old_y = self.examples(slots)
        old_x = self.augmented(old_x, "memory")
        if self.settings.passes == "separate":
            return own + cross_entropy(logits(old_x), old_y)
        with torch.no_grad():
            logits(old_x)
        return cross_entropy(logits(torch.cat([old_x, x])), torch.cat([old_y, y]))

    # ------------------------------------------------------------------------------------------------------------------
    # Retrieval

    def retrieved(self, batch: Batch) -> Numbers:
        """The slots of the memories to replay."""
        if self.memory.seen <= self.memory.capacity:
            return self.replayed()
        candidates = self.of_each_class()
        judges = [batch.numbers]
        if self.settings.kind != "neg_sv":
            others = self.of_each_class(without=candidates)
            judges += [self.memory.numbers[others]] if len(others) else []
        against, *together = self.values(judges, self.memory.numbers[candidates])
        best = scores(self.settings.kind, against, *together).argsort(descending=True, stable=True)
        return candidates[best[: self.settings.replay_batch].cpu().numpy()]

    def of_each_class(self, without: Numbers | None = None) -> Numbers:
        """Draw slots: as many of each class, or all of a class where there are fewer.

        Args:
            without: slots that are left out.
        """
        import numpy as np

        order = self.draws.permutation(len(self.memory))
        if without is not None:
            order = order[~np.isin(order, without)]
        return order[first_of_each(self._labels[self.memory.numbers[order]], int(self.settings.per_class))]

    def values(self, judges: list[Numbers], candidates: Numbers) -> list[Tensor]:
        """The Shapley values [judges, candidates] for each group of judges; all examples are given by their numbers."""
        import numpy as np

        together = np.concatenate([*judges, candidates])
        x, y = self.stream.examples(together)
        features, sizes = self.learner.still_features(x), [len(group) for group in judges]
        *judged, own = zip(features.split([*sizes, len(candidates)]), y.split([*sizes, len(candidates)]), strict=True)
        return [shapley_values(*group, *own, self.settings.neighbours) for group in judged]

    # ------------------------------------------------------------------------------------------------------------------
    # Update

    def remember(self, batch: Batch) -> None:
        room = self.memory.capacity - len(self.memory)
        if room:
            self.memory.add_batch(batch.numbers[:room])
        if len(batch) > room:
            self.compete(batch.numbers[room:])

    def compete(self, arriving: Numbers) -> None:
        """Let arriving examples take the places of memories with smaller values."""
        import numpy as np

        memory, classes = self.memory, self.stream.outputs
        rare = self.draws.keyed(f"aser rare classes {self.steps}").uniform(0, 1 / classes)
        shares = np.bincount(self._labels[memory.numbers], minlength=classes) / memory.capacity
        judges = self.of_each_class()
        others = np.setdiff1d(np.arange(len(memory)), judges)
        places = others[
            self.draws.without_replacement(len(others), min(int(self.settings.per_class * classes), len(others)))
        ]
        numbers = [memory.numbers[judges], arriving[shares[self._labels[arriving]] < rare]]
        (values,) = self.values([np.concatenate(numbers)], np.concatenate([memory.numbers[places], arriving]))
        ranked = values.sum(0).argsort(descending=True, stable=True).cpu().numpy()
        kept, dropped = ranked[: len(places)], ranked[len(places) :]
        memory.numbers[places[dropped[dropped < len(places)]]] = arriving[kept[kept >= len(places)] - len(places)]
        memory.seen += len(arriving)


def scores(kind: Score, against: Tensor, together: Tensor | None = None) -> Tensor:
    """The scores [candidates] from values for the stream's batch and for other memories, [judges, candidates] each.

    Without other memories the values for the batch decide, whatever the kind.
    """
    if together is None:
        return -against.sum(0)
    if kind == "asv":
        return together.amax(0) - against.amin(0)
    return together.mean(0) - against.mean(0)


def first_of_each(labels: NDArray[np.int64], count: int) -> Numbers:
    """The indices of the first ``count`` of each label, label by label."""
    import numpy as np

    order = np.argsort(labels, kind="stable")
    ranked = labels[order]
    rank = np.arange(len(ranked)) - np.searchsorted(ranked, ranked)
    return order[rank < count]


def shapley_values(features: Tensor, y: Tensor, candidates: Tensor, candidate_y: Tensor, k: int) -> Tensor:
    """How much each candidate helps the k nearest candidates to vote for each judge's label, [judges, candidates].

    With k candidates or more these are the exact Shapley values of the game in which a set of candidates is worth the
    number of the judge's label among the set's k nearest, divided by k (Jia 2019, Theorem 1). From the farthest
    candidate on, s(n) = right(n) / n and s(i) = s(i+1) + (right(i) - right(i+1)) / k * min(k, i) / i.

    Args:
        features, y: of the judges.
        candidates, candidate_y: of the candidates.
    """
    import torch

    distances = (features.unsqueeze(1) - candidates.unsqueeze(0)).square().sum(2)
    order = distances.argsort(dim=1, stable=True)
    right = (candidate_y[order] == y.unsqueeze(1)).to(features.dtype)
    rank = torch.arange(1, len(candidates) + 1, device=y.device)
    steps = (right - torch.nn.functional.pad(right[:, 1:], (0, 1))) * rank.clamp(max=k) / (rank * k)
    steps[:, -1] = right[:, -1] / len(candidates)
    return torch.empty_like(steps).scatter_(1, order, steps.flip(1).cumsum(1).flip(1))
