"""The random numbers that a trial of the vision track draws.

``ClrayDraws`` uses a separate generator for each purpose. The classes in ``official/`` make the same draws as a paper's
official code, in the same order and from generators seeded in the same way. So a trial with ``randomness: official``
repeats the authors' run with that seed, except for the order in which sums are rounded.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from clray.training import generator

Weights = list[NDArray[np.float32]]
"""A perceptron's weights [out, in] and biases [out] by turns, input layer first."""


class Draws(Protocol):
    """The random draws of one trial: first those of the benchmark, then the weights, then those of training.

    A class in ``official/`` has only the draws that its code makes. A method that needs ``training()`` must be called
    within that context.
    """

    @property
    def benchmark(self) -> np.random.RandomState:
        """The generator for those parts of a benchmark that are drawn anew for every trial."""
        ...

    def examples(self, available: int, experiences: int, count: int) -> list[NDArray[np.int64]]:
        """Draw ``count`` of ``available`` training images for each experience, none twice, in order of arrival."""
        ...

    def perceptron(self, sizes: Sequence[int], initialisation: str) -> Weights:
        """Draw fresh weights of a perceptron; the biases are zero.

        Args:
            sizes: layer widths from input to output.
            initialisation: ``xavier`` (Glorot uniform) or ``linear`` (the bounds of ``torch.nn.Linear``).
        """
        ...

    def weights(self) -> AbstractContextManager[None]:
        """A context in which a torch module draws fresh weights from torch's global generator."""
        ...

    def training(self) -> AbstractContextManager[None]:
        """A context in which torch's global generator holds the trial's state, for dropout. The loop runs within it."""
        ...

    def order(self, name: str, count: int, shuffled: bool) -> NDArray[np.int64]:
        """The order [count] of a pass over ``count`` examples. ``name`` names the pass. Needs ``training()``."""
        ...

    def evaluation(self) -> None:
        """Make the draws that the official code makes before a pass over a test set. Needs ``training()``."""
        ...

    def with_replacement(self, filled: int, count: int) -> NDArray[np.int64]:
        """Draw ``min(count, filled)`` slots, with replacement, of a memory that has ``filled`` slots in use."""
        ...

    def without_replacement(self, filled: int, count: int) -> NDArray[np.int64]:
        """Draw ``count`` different slots of a memory that has ``filled`` slots in use."""
        ...

    def up_to(self, highest: int) -> int:
        """Draw a whole number in [0, highest], both ends included."""
        ...

    def below(self, highest: int, count: int) -> NDArray[np.int64]:
        """Draw ``count`` whole numbers in [0, highest). Needs ``training()``."""
        ...

    def below_each(self, highest: NDArray[np.int64]) -> NDArray[np.int64]:
        """Draw a whole number in [0, highest[i]) for each i."""
        ...

    def permutation(self, count: int) -> NDArray[np.int64]:
        """Draw a random order of the numbers 0 to ``count`` - 1."""
        ...

    def keyed(self, purpose: str) -> np.random.Generator:
        """A generator that depends on the trial's seed and this text only, so that it has no state to be saved."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The states of all generators that have been made so far."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class ClrayDraws:
    """One independent generator for each purpose, all seeded from the trial's seed.

    The order of a pass depends on the seed and the name of the pass only. New purposes should use ``generator(seed,
    "PURPOSE NUMBER")``, as ``order`` does: such a generator has no state that a checkpoint must hold.
    """

    def __init__(self, seed: int, device: str = "cpu") -> None:
        self.seed, self._device = seed, device
        self._made: dict[str, Any] = {}
        """Generators by purpose; each is made when it is first needed."""

    def _numpy(self, purpose: str) -> np.random.Generator:
        if purpose not in self._made:
            self._made[purpose] = _Numpy(generator(self.seed, purpose))
        return self._made[purpose].rng

    def _torch(self, purpose: str) -> TorchGlobals:
        if purpose not in self._made:
            seed = self._number(purpose.removesuffix(" of modules"))
            self._made[purpose] = TorchGlobals(seed, self._device)
        return self._made[purpose]

    def _number(self, purpose: str) -> int:
        """An integer that seeds a generator of another type."""
        return int(generator(self.seed, purpose).integers(2**32))

    def _legacy(self) -> np.random.RandomState:
        if "benchmark" not in self._made:
            self._made["benchmark"] = NumpyLegacy(self._number("benchmark"))
        return self._made["benchmark"].rng

    @property
    def benchmark(self) -> np.random.RandomState:
        return self._legacy()

    def examples(self, available: int, experiences: int, count: int) -> list[NDArray[np.int64]]:
        rng = self._numpy("data order")
        return [rng.permutation(available)[:count] for _ in range(experiences)]

    def perceptron(self, sizes: Sequence[int], initialisation: str) -> Weights:
        layers: Weights = []
        for fan_in, fan_out in itertools.pairwise(sizes):
            bound = bounds(fan_in, fan_out, initialisation)
            layers.append(self._numpy("weights").uniform(-bound, bound, (fan_out, fan_in)).astype(np.float32))
            layers.append(np.zeros(fan_out, np.float32))
        return layers

    def weights(self) -> AbstractContextManager[None]:
        return self._torch("weights of modules").drawing()

    def training(self) -> AbstractContextManager[None]:
        return self._torch("dropout").drawing()

    def order(self, name: str, count: int, shuffled: bool) -> NDArray[np.int64]:
        return generator(self.seed, f"data order: {name}").permutation(count) if shuffled else np.arange(count)

    def evaluation(self) -> None:
        pass

    def with_replacement(self, filled: int, count: int) -> NDArray[np.int64]:
        return self._numpy("buffer").integers(filled, size=min(count, filled)) if filled else np.empty(0, np.int64)

    def without_replacement(self, filled: int, count: int) -> NDArray[np.int64]:
        return self._numpy("buffer").choice(filled, count, replace=False)

    def up_to(self, highest: int) -> int:
        return int(self._numpy("buffer").integers(highest + 1))

    def below(self, highest: int, count: int) -> NDArray[np.int64]:
        return self._numpy("buffer").integers(highest, size=count)

    def below_each(self, highest: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._numpy("buffer").integers(highest)

    def permutation(self, count: int) -> NDArray[np.int64]:
        return self._numpy("buffer").permutation(count)

    def keyed(self, purpose: str) -> np.random.Generator:
        return generator(self.seed, purpose)

    def state_dict(self) -> dict[str, Any]:
        return {purpose: made.state_dict() for purpose, made in self._made.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for purpose, of in state.items():
            if purpose == "benchmark":
                self._legacy()
            elif isinstance(of, dict):
                self._numpy(purpose)
            else:
                self._torch(purpose)
            self._made[purpose].load_state_dict(of)


def bounds(fan_in: int, fan_out: int, initialisation: str) -> float:
    """The bound of a layer's uniform initial weights: Glorot's for ``xavier``, else that of ``torch.nn.Linear``."""
    if initialisation == "xavier":
        return float(np.sqrt(3.0) * np.sqrt(2.0 / (fan_in + fan_out)))
    return float(1.0 / np.sqrt(fan_in))


# ----------------------------------------------------------------------------------------------------------------------
# Generators and their states, as ``torch.load(weights_only=True)`` accepts them


class _Numpy:
    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def state_dict(self) -> dict[str, Any]:
        return dict(self.rng.bit_generator.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rng.bit_generator.state = state


class NumpyLegacy:
    """``numpy.random.RandomState``, from which the official codes draw."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.RandomState(seed)

    def state_dict(self) -> list[Any]:
        name, keys, position, has_gauss, gauss = self.rng.get_state(legacy=True)
        return [name, torch.from_numpy(np.asarray(keys, np.int64)), int(position), int(has_gauss), float(gauss)]

    def load_state_dict(self, state: list[Any]) -> None:
        name, keys, *rest = state
        self.rng.set_state((name, keys.numpy().astype(np.uint32), *rest))


class TorchGlobals:
    """One trial's states of torch's global generators, for the CPU and for the GPU in use.

    Dropout and new modules can draw from torch's global generator only. ``drawing`` puts the trial's states in place,
    and puts the process's own states back at its end.
    """

    def __init__(self, seed: int, device: str) -> None:
        self._device, self._drawing = device, False
        before = self._read()
        torch.manual_seed(seed)
        self._states = self._read()
        self._write(before)

    def _read(self) -> list[torch.Tensor]:
        gpu = [torch.cuda.get_rng_state(self._device)] if self._device != "cpu" else []
        return [torch.get_rng_state(), *gpu]

    def _write(self, states: list[torch.Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self._device != "cpu":
            torch.cuda.set_rng_state(states[1], self._device)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        if self._drawing:  # weights drawn during training come from the same generator
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

    def state_dict(self) -> list[torch.Tensor]:
        return list(self._states)

    def load_state_dict(self, states: list[torch.Tensor]) -> None:
        if len(states) != len(self._states):
            raise ValueError("the checkpoint was made on another kind of device")
        self._states = [state.cpu() for state in states]
