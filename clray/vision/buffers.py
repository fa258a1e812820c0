"""Replay memories. They hold positions in the stream, not images: the images are there once, in the stream."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clray.vision.randomness import Randomness


class Reservoir:
    """A memory that holds a uniform sample of what it has seen (Vitter 1985; MER, Algorithm 3).

    As coded officially, example number ``age`` enters with probability ``capacity / (age + 1)``: the draw is from
    [0, age], both included, one more than in Algorithm R.
    """

    def __init__(self, capacity: int, randomness: Randomness) -> None:
        self.capacity = capacity
        self.age = 0
        """Examples seen since the beginning of the stream."""
        self._positions = np.empty(capacity, np.int64)
        self._randomness = randomness

    def __len__(self) -> int:
        return min(self.age, self.capacity)

    def draw(self, count: int) -> NDArray[np.int64]:
        """Stream positions of ``min(count, len(self))`` examples, uniform, with replacement."""
        return self._positions[self._randomness.replay(len(self), count)]

    def add(self, position: int) -> None:
        """Offer the memory one more example."""
        filled = len(self)
        self.age += 1
        if filled < self.capacity:
            self._positions[filled] = position
        else:
            slot = self._randomness.up_to(self.age)
            if slot < self.capacity:
                self._positions[slot] = position

    def state_dict(self) -> dict[str, Any]:
        return {"age": self.age, "positions": self._positions[: len(self)].tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.age = state["age"]
        self._positions[: len(self)] = state["positions"]
