"""Every random number that a trial on a task-incremental benchmark draws, in two ways.

``ClrayTaskRandomness`` gives each purpose its own generator. ``OfficialTaskRandomness`` draws what the official codes
of TAG (github.com/pranshu28/TAG @187d4df) and Stable SGD (github.com/imirzadeh/stable-continual-learning @be4049c)
draw from torch's and numpy's global generators, in their order: a trial then is the authors' run with that seed, up to
the order in which sums are rounded.

Dropout and fresh weights come from torch's global generator in either case. While a trial draws, that generator is
the trial's own; before and after, it is as the process had it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from clray.training import generator


class TaskRandomness(Protocol):
    """The draws of one trial: the benchmark's, then weights, then those of training."""

    benchmark: np.random.RandomState
    """For what the benchmark draws anew for every trial."""

    def weights(self) -> Any:
        """A context in which fresh weights are drawn from torch's global generator."""
        ...

    def training(self) -> Any:
        """A context in which torch's global generator is the trial's: dropout."""
        ...

    def order(self, what: str, count: int, shuffled: bool) -> Tensor:
        """[count] the order of a pass over ``count`` images; ``what`` names the pass. Within ``training()``."""
        ...

    def evaluation(self) -> None:
        """A pass over a test set is about to begin. Within ``training()``."""
        ...

    def choice(self, available: int, count: int) -> Tensor:
        """[count] of ``available`` slots of a memory, none twice."""
        ...

    def below(self, highest: int, count: int) -> Tensor:
        """[count] whole numbers in [0, highest). Within ``training()``."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The states of all generators, whatever they were used for so far."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class _GlobalGenerator:
    """torch's global generators (that of the CPU, and of the GPU in use) as a trial has them."""

    def __init__(self, seed: int, device: str) -> None:
        self._device = device
        self._states = self._swap(None, seed)
        self._drawing = False

    def _swap(self, states: list[Tensor] | None, seed: int | None = None) -> list[Tensor]:
        """Put ``states`` (or those that follow from ``seed``) in place and out again; what they were inside."""
        before = self._read()
        if states is None:
            torch.manual_seed(seed or 0)
            states = self._read()
        self._write(before)
        return states

    def _read(self) -> list[Tensor]:
        gpu = [torch.cuda.get_rng_state(self._device)] if self._device != "cpu" else []
        return [torch.get_rng_state(), *gpu]

    def _write(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self._device != "cpu":
            torch.cuda.set_rng_state(states[1], self._device)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        if self._drawing:  # weights that are drawn while a trial trains, from the same generator
            yield
            return
        before = self._read()
        self._write(self._states)
        self._drawing = True
        try:
            yield
        finally:
            self._drawing = False
            self._states = self._read()
            self._write(before)

    def state_dict(self) -> list[Tensor]:
        return list(self._states)

    def load_state_dict(self, states: list[Tensor]) -> None:
        if len(states) != len(self._states):
            raise ValueError("the checkpoint was made on another kind of device")
        self._states = [state.cpu() for state in states]


def _numpy_state(rng: np.random.RandomState) -> list[Any]:
    name, keys, position, has_gauss, gauss = rng.get_state(legacy=True)
    return [name, torch.from_numpy(np.asarray(keys, np.int64)), int(position), int(has_gauss), float(gauss)]


def _set_numpy_state(rng: np.random.RandomState, state: list[Any]) -> None:
    name, keys, *rest = state
    rng.set_state((name, keys.numpy().astype(np.uint32), *rest))


def _seed(seed: int, purpose: str) -> int:
    return int(generator(seed, purpose).integers(2**32))


class ClrayTaskRandomness:
    """Independent generators by purpose, all from the trial's seed. A pass's order follows from its name alone."""

    def __init__(self, seed: int, device: str = "cpu") -> None:
        self._trial_seed = seed
        self.benchmark = np.random.RandomState(_seed(seed, "benchmark"))
        self._weights = _GlobalGenerator(_seed(seed, "weights"), device)
        self._dropout = _GlobalGenerator(_seed(seed, "dropout"), device)
        self._memory = generator(seed, "buffer")

    def weights(self) -> Any:
        return self._weights.drawing()

    def training(self) -> Any:
        return self._dropout.drawing()

    def order(self, what: str, count: int, shuffled: bool) -> Tensor:
        if not shuffled:
            return torch.arange(count)
        return torch.from_numpy(generator(self._trial_seed, f"data order: {what}").permutation(count))

    def evaluation(self) -> None:
        pass

    def choice(self, available: int, count: int) -> Tensor:
        return torch.from_numpy(self._memory.choice(available, count, replace=False))

    def below(self, highest: int, count: int) -> Tensor:
        return torch.from_numpy(self._memory.integers(highest, size=count))

    def state_dict(self) -> dict[str, Any]:
        return {
            "benchmark": _numpy_state(self.benchmark),
            "weights": self._weights.state_dict(),
            "dropout": self._dropout.state_dict(),
            "memory": self._memory.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        _set_numpy_state(self.benchmark, state["benchmark"])
        self._weights.load_state_dict(state["weights"])
        self._dropout.load_state_dict(state["dropout"])
        self._memory.bit_generator.state = state["memory"]


class OfficialTaskRandomness:
    """The official codes' draws: torch's global generator for weights, loaders, dropout and the reservoir, numpy's
    for the benchmark and for what is taken from a memory."""

    def __init__(self, seed: int, device: str = "cpu") -> None:
        self.benchmark = np.random.RandomState(seed)
        self._torch = _GlobalGenerator(seed, device)

    def weights(self) -> Any:
        return self._torch.drawing()

    def training(self) -> Any:
        return self._torch.drawing()

    def order(self, what: str, count: int, shuffled: bool) -> Tensor:
        self.evaluation()
        if not shuffled:
            return torch.arange(count)
        seed = int(torch.empty((), dtype=torch.int64).random_().item())  # the sampler's own generator
        return torch.randperm(count, generator=torch.Generator().manual_seed(seed))

    def evaluation(self) -> None:
        torch.empty((), dtype=torch.int64).random_()  # a data loader's base seed, drawn at the start of every pass

    def choice(self, available: int, count: int) -> Tensor:
        return torch.from_numpy(self.benchmark.choice(available, count, replace=False))

    def below(self, highest: int, count: int) -> Tensor:
        return torch.empty(count).uniform_(0, highest).long()

    def state_dict(self) -> dict[str, Any]:
        return {"torch": self._torch.state_dict(), "numpy": _numpy_state(self.benchmark)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._torch.load_state_dict(state["torch"])
        _set_numpy_state(self.benchmark, state["numpy"])
