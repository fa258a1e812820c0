"""The random draws of the official codes of TAG and Stable SGD.

These codes (github.com/pranshu28/TAG @187d4df and github.com/imirzadeh/stable-continual-learning @be4049c) draw
weights, the order of examples, dropout and the slots of the reservoir from torch's global generator. They draw the
benchmark and the replayed memories from NumPy's.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clray.vision.draws import NumpyLegacy, TorchGlobals


class OfficialDraws:
    """Draws from torch's and NumPy's global generators in the state that ``manual_seed(seed)`` gives."""

    def __init__(self, seed: int, device: str = "cpu") -> None:
        self._numpy = NumpyLegacy(seed)
        self._torch = TorchGlobals(seed, device)
        self.benchmark = self._numpy.rng

    def weights(self) -> AbstractContextManager[None]:
        return self._torch.drawing()

    def training(self) -> AbstractContextManager[None]:
        return self._torch.drawing()

    def order(self, name: str, count: int, shuffled: bool) -> NDArray[np.int64]:
        self.evaluation()
        if not shuffled:
            return np.arange(count)
        seed = int(torch.empty((), dtype=torch.int64).random_().item())  # the sampler's own generator
        return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).numpy()

    def evaluation(self) -> None:
        torch.empty((), dtype=torch.int64).random_()  # a data loader draws its base seed at the start of every pass

    def without_replacement(self, filled: int, count: int) -> NDArray[np.int64]:
        return self.benchmark.choice(filled, count, replace=False)

    def below(self, highest: int, count: int) -> NDArray[np.int64]:
        return torch.empty(count).uniform_(0, highest).long().numpy()

    def below_each(self, highest: NDArray[np.int64]) -> NDArray[np.int64]:
        """One after the other: for methods with an exact reservoir, which these codes do not have."""
        return np.array([int(self.below(high, 1)[0]) for high in highest.tolist()], np.int64)

    def state_dict(self) -> dict[str, Any]:
        return {"torch": self._torch.state_dict(), "numpy": self._numpy.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._torch.load_state_dict(state["torch"])
        self._numpy.load_state_dict(state["numpy"])
