"""The random draws of MER's official code (github.com/mattriemer/MER @4b7b9c9).

It draws examples and weights from torch's generator, and all later numbers from Python's ``random``.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clray.vision.draws import Weights, bounds


class OfficialDraws:
    """Draws examples and weights from torch, and the slots of the memory from Python's ``random``."""

    def __init__(self, seed: int, device: str = "cpu") -> None:
        self._torch = torch.Generator().manual_seed(seed)
        self._python = random.Random(seed)

    def examples(self, available: int, experiences: int, count: int) -> list[NDArray[np.int64]]:
        chosen = [torch.randperm(available, generator=self._torch)[:count].tolist() for _ in range(experiences)]
        for each in chosen:
            self._python.shuffle(each)
        return [np.asarray(each, np.int64) for each in chosen]

    def perceptron(self, sizes: Sequence[int], initialisation: str) -> Weights:
        def uniform(shape: tuple[int, ...], bound: float) -> NDArray[np.float32]:
            return torch.empty(shape).uniform_(-bound, bound, generator=self._torch).numpy()

        pairs = list(itertools.pairwise(sizes))
        layers: Weights = []
        for fan_in, fan_out in pairs:  # every Linear first draws PyTorch's own weights and biases
            layers.append(uniform((fan_out, fan_in), bounds(fan_in, fan_out, "linear")))
            uniform((fan_out,), bounds(fan_in, fan_out, "linear"))
            layers.append(np.zeros(fan_out, np.float32))
        if initialisation == "xavier":  # Xavier's weights replace them when all layers are made
            for i, (fan_in, fan_out) in enumerate(pairs):
                layers[2 * i] = uniform((fan_out, fan_in), bounds(fan_in, fan_out, "xavier"))
        return layers

    def training(self) -> AbstractContextManager[None]:
        return nullcontext()

    def order(self, name: str, count: int, shuffled: bool) -> NDArray[np.int64]:
        return np.arange(count)

    def evaluation(self) -> None:
        pass

    def with_replacement(self, filled: int, count: int) -> NDArray[np.int64]:
        order = list(range(filled))
        slots = []
        for j in range(min(count, filled)):  # slow, but the official code shuffles the whole list for every draw
            self._python.shuffle(order)
            slots.append(order[j])
        return np.asarray(slots, np.int64)

    def up_to(self, highest: int) -> int:
        return self._python.randint(0, highest)

    def permutation(self, count: int) -> NDArray[np.int64]:
        order = list(range(count))
        self._python.shuffle(order)
        return np.asarray(order, np.int64)

    def state_dict(self) -> dict[str, Any]:
        version, words, gauss = self._python.getstate()
        return {"python": [version, list(words), gauss], "torch": self._torch.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        version, words, gauss = state["python"]
        self._python.setstate((version, tuple(words), gauss))
        self._torch.set_state(state["torch"])
