"""Every random number that a trial of the vision track draws, in two ways.

``ClrayRandomness`` gives each purpose its own generator. ``OfficialRandomness`` draws what the official MER code
(github.com/mattriemer/MER @4b7b9c9) draws, in its order, from generators seeded as it seeds them: a trial then is the
authors' run with that seed, and its figures must agree with theirs, not only their distribution.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clray.training import generator


class Randomness(Protocol):
    """The draws of one trial. Training examples are chosen first, then weights are drawn, then training begins."""

    def choose(self, available: int, tasks: int, count: int) -> list[NDArray[np.int64]]:
        """For each task, ``count`` of ``available`` training examples, without repetition, in order of arrival."""
        ...

    def weights(self, sizes: Sequence[int], initialisation: str) -> list[NDArray[np.float32]]:
        """The weights and biases of a perceptron, [out, in] and [out] by turns.

        Args:
            sizes: layer widths from input to output.
            initialisation: ``xavier`` (Glorot uniform) or ``linear`` (the bounds of ``torch.nn.Linear``).
        """
        ...

    def replay(self, filled: int, count: int) -> NDArray[np.int64]:
        """``min(count, filled)`` slots of a memory of which ``filled`` are in use, uniform, with replacement."""
        ...

    def up_to(self, highest: int) -> int:
        """A whole number in [0, highest], both included."""
        ...

    def shuffled(self, items: Sequence[int]) -> NDArray[np.int64]:
        """The items in random order."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The states of all generators, whatever they were used for so far."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def _bounds(fan_in: int, fan_out: int, initialisation: str) -> float:
    if initialisation == "xavier":
        return float(np.sqrt(3.0) * np.sqrt(2.0 / (fan_in + fan_out)))
    return float(1.0 / np.sqrt(fan_in))  # what torch.nn.Linear gives its weights


class ClrayRandomness:
    """Independent generators by purpose, all from the trial's seed."""

    def __init__(self, seed: int) -> None:
        self._order = generator(seed, "data order")
        self._weights = generator(seed, "weights")
        self._memory = generator(seed, "buffer")

    def choose(self, available: int, tasks: int, count: int) -> list[NDArray[np.int64]]:
        return [self._order.permutation(available)[:count] for _ in range(tasks)]

    def weights(self, sizes: Sequence[int], initialisation: str) -> list[NDArray[np.float32]]:
        layers: list[NDArray[np.float32]] = []
        for fan_in, fan_out in itertools.pairwise(sizes):
            bound = _bounds(fan_in, fan_out, initialisation)
            layers.append(self._weights.uniform(-bound, bound, (fan_out, fan_in)).astype(np.float32))
            layers.append(np.zeros(fan_out, np.float32))
        return layers

    def replay(self, filled: int, count: int) -> NDArray[np.int64]:
        return self._memory.integers(filled, size=min(count, filled)) if filled else np.empty(0, np.int64)

    def up_to(self, highest: int) -> int:
        return int(self._memory.integers(highest + 1))

    def shuffled(self, items: Sequence[int]) -> NDArray[np.int64]:
        return self._memory.permutation(np.asarray(items, np.int64))

    def state_dict(self) -> dict[str, Any]:
        return {
            "order": self._order.bit_generator.state,
            "weights": self._weights.bit_generator.state,
            "memory": self._memory.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._order.bit_generator.state = state["order"]
        self._weights.bit_generator.state = state["weights"]
        self._memory.bit_generator.state = state["memory"]


class OfficialRandomness:
    """The official code's draws: torch for examples and weights, Python's ``random`` for all that follows."""

    def __init__(self, seed: int) -> None:
        import torch

        self._torch = torch.Generator().manual_seed(seed)
        self._python = random.Random(seed)

    def choose(self, available: int, tasks: int, count: int) -> list[NDArray[np.int64]]:
        import torch

        chosen = [torch.randperm(available, generator=self._torch)[:count].tolist() for _ in range(tasks)]
        for examples in chosen:
            self._python.shuffle(examples)
        return [np.asarray(examples, np.int64) for examples in chosen]

    def weights(self, sizes: Sequence[int], initialisation: str) -> list[NDArray[np.float32]]:
        import torch

        def uniform(shape: tuple[int, ...], bound: float) -> NDArray[np.float32]:
            return torch.empty(shape).uniform_(-bound, bound, generator=self._torch).numpy()

        pairs = list(itertools.pairwise(sizes))
        layers: list[NDArray[np.float32]] = []
        for fan_in, fan_out in pairs:  # every Linear first draws PyTorch's own weights and biases
            layers.append(uniform((fan_out, fan_in), _bounds(fan_in, fan_out, "linear")))
            uniform((fan_out,), _bounds(fan_in, fan_out, "linear"))
            layers.append(np.zeros(fan_out, np.float32))
        if initialisation == "xavier":  # and is overwritten when the whole network stands
            for i, (fan_in, fan_out) in enumerate(pairs):
                layers[2 * i] = uniform((fan_out, fan_in), _bounds(fan_in, fan_out, "xavier"))
        return layers

    def replay(self, filled: int, count: int) -> NDArray[np.int64]:
        order = list(range(filled))
        slots = []
        for j in range(min(count, filled)):  # the whole list is shuffled for every draw: slow, and part of the stream
            self._python.shuffle(order)
            slots.append(order[j])
        return np.asarray(slots, np.int64)

    def up_to(self, highest: int) -> int:
        return self._python.randint(0, highest)

    def shuffled(self, items: Sequence[int]) -> NDArray[np.int64]:
        order = list(range(len(items)))
        self._python.shuffle(order)
        return np.asarray(items, np.int64)[order]

    def state_dict(self) -> dict[str, Any]:
        version, words, gauss = self._python.getstate()
        return {"python": [version, list(words), gauss], "torch": self._torch.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        version, words, gauss = state["python"]
        self._python.setstate((version, tuple(words), gauss))
        self._torch.set_state(state["torch"])
