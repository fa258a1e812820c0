"""The order in which examples arrive: visits of experiences, passes over each, and batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from clray.vision.draws import Draws
from clray.vision.stream import Batch, Numbers, Stream


class Plan:
    """The order in which a trial's examples arrive, and the trial's position in it.

    Args:
        stream: the experiences.
        visits: the experiences in the order in which they are visited; one may come again.
        passes: number of passes over a visit's examples.
        size: number of examples in a batch.
        draws: gives each pass its order.
        begin: is called with the experience before each pass.
        hidden: batches do not say which experience they belong to.
    """

    def __init__(
        self,
        stream: Stream,
        visits: Sequence[int],
        passes: int,
        size: int,
        draws: Draws,
        begin: Callable[[int], None],
        hidden: bool = False,
    ) -> None:
        self.stream, self.visits, self.passes, self.size = stream, list(visits), passes, size
        self._draws, self._begin, self._hidden = draws, begin, hidden
        self.visit = self.epoch = self.place = 0
        self._order: Numbers | None = None
        """The visit's examples in the order of this pass; None where the pass has not begun."""

    @property
    def over(self) -> bool:
        return self.visit == len(self.visits)

    @property
    def experience(self) -> int:
        """The experience that is being visited."""
        return self.visits[self.visit]

    @property
    def seen(self) -> list[int]:
        """The experiences from which a batch has arrived, each once, in the order of their first visits."""
        begun = self.visit + (not self.over and (self.epoch, self.place) != (0, 0))
        return list(dict.fromkeys(self.visits[:begun]))

    @property
    def seen_labels(self) -> list[int]:
        """The logits of the classes of which an example has arrived, in rising order."""
        numbers = [self.stream.experiences[e].examples for e in self.visits[: self.visit]]
        if self._order is not None:
            numbers.append(self._order[: None if self.epoch else self.place])
        if not numbers:
            return []
        return self.stream.labels[self.stream.on_device(np.concatenate(numbers))].unique().tolist()

    @property
    def revisits(self) -> bool:
        """True where an experience is visited more than once."""
        return len(set(self.visits)) < len(self.visits)

    @property
    def done(self) -> float:
        """The fraction of the plan that has arrived, 0 to 1."""
        if self.over:
            return 1.0
        count = max(len(self.stream.experiences[self.experience].examples), 1)
        of_visit = (self.epoch + min(self.place, count) / count) / self.passes
        return (self.visit + of_visit) / len(self.visits)

    def next(self) -> Batch | None:
        """The next batch of this visit; None at the end of the visit."""
        numbers = self._take(self.size)
        if numbers is None:
            return None
        return Batch(self.stream, numbers, None if self._hidden else self.experience)

    def next_singles(self, most: int) -> Numbers | None:
        """Up to ``most`` next examples of this pass, for batches of one example; None at the end of the visit."""
        assert self.size == 1
        return self._take(most)

    def _take(self, count: int) -> Numbers | None:
        while self.epoch < self.passes:
            if self._order is None:
                self._begin_pass()
            assert self._order is not None
            numbers = self._order[self.place : self.place + count]
            if len(numbers) >= self.size or (len(numbers) and not self.stream.drops_last):
                self.place += len(numbers)
                return numbers
            self.epoch, self.place, self._order = self.epoch + 1, 0, None
        return None

    def _begin_pass(self) -> None:
        own = self.stream.experiences[self.experience].examples
        self._begin(self.experience)
        order = self._draws.order(f"visit {self.visit}, epoch {self.epoch}", len(own), self.stream.shuffles)
        self._order = own[order]

    @property
    def visit_is_over(self) -> bool:
        """True when the visit has no more batches."""
        if self.epoch < self.passes - 1 or (self.epoch < self.passes and self._order is None):
            return False
        rest = 0 if self._order is None else len(self._order) - self.place
        return rest <= 0 or (rest < self.size and self.stream.drops_last)

    def end_visit(self) -> None:
        self.visit, self.epoch, self.place, self._order = self.visit + 1, 0, 0, None

    def state_dict(self) -> dict[str, Any]:
        order = None if self._order is None else torch.from_numpy(self._order)
        return {"at": [self.visit, self.epoch, self.place], "order": order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.visit, self.epoch, self.place = state["at"]
        order = state["order"]
        self._order = None if order is None else order.numpy()
        if order is not None:
            self._begin(self.experience)
