"""Every random number that a trial of the vision track draws.

``ClrayDraws`` gives each purpose its own generator. The classes in ``official/`` draw what a paper's official code
draws, in its order, from generators seeded as it seeds them: a trial with ``randomness: official`` is the authors' run
with that seed, up to the order in which sums are rounded.
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
    """The draws of one trial: the benchmark's first, then weights, then those of training.

    An official code's class has those that the code makes.
    """

    @property
    def benchmark(self) -> np.random.RandomState:
        """For what a benchmark draws anew for every trial."""
        ...

    def examples(self, available: int, experiences: int, count: int) -> list[NDArray[np.int64]]:
        """For each experience, ``count`` of ``available`` training images, none twice, in order of arrival."""
        ...

    def perceptron(self, sizes: Sequence[int], initialisation: str) -> Weights:
        """Fresh weights of a perceptron, and biases of zero.

        Args:
            sizes: layer widths from input to output.
            initialisation: ``xavier`` (Glorot uniform) or ``linear`` (the bounds of ``torch.nn.Linear``).
        """
        ...

    def weights(self) -> AbstractContextManager[None]:
        """A context in which a torch module draws fresh weights from torch's global generator."""
        ...

    def training(self) -> AbstractContextManager[None]:
        """A context in which torch's global generator is the trial's, for dropout. The loop runs within it."""
        ...

    def order(self, name: str, count: int, shuffled: bool) -> NDArray[np.int64]:
        """[count] the order of a pass over ``count`` examples; ``name`` names the pass. Within ``training()``."""
        ...

    def evaluation(self) -> None:
        """A pass over a test set is about to begin. Within ``training()``."""
        ...

    def with_replacement(self, filled: int, count: int) -> NDArray[np.int64]:
        """``min(count, filled)`` slots of a memory of which ``filled`` are in use."""
        ...

    def without_replacement(self, filled: int, count: int) -> NDArray[np.int64]:
        """[count] slots of a memory of which ``filled`` are in use, none twice."""
        ...

    def up_to(self, highest: int) -> int:
        """A whole number in [0, highest], both included."""
        ...

    def below(self, highest: int, count: int) -> NDArray[np.int64]:
        """[count] whole numbers in [0, highest). Within ``training()``."""
        ...

    def permutation(self, count: int) -> NDArray[np.int64]:
        """The numbers 0 to ``count`` - 1 in random order."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The states of all generators that were made so far."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class ClrayDraws:
    """Independent generators by purpose, all from the trial's seed. A pass's order follows from its name alone.

    New purposes should take ``generator(seed, "PURPOSE NUMBER")`` as ``order`` does: such a generator has no state that
    a checkpoint must hold.
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
        """A seed for generators of another kind."""
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

    def permutation(self, count: int) -> NDArray[np.int64]:
        return self._numpy("buffer").permutation(count)

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
    """The largest weight of a layer: Glorot's for ``xavier``, for ``linear`` that of ``torch.nn.Linear``."""
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
    """torch's global generators (that of the CPU, and that of the GPU in use) as one trial has them.

    Dropout and fresh modules draw from torch's global generator and from nothing else. Within ``drawing`` it is the
    trial's; before and after, it is as the process had it.
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

    def state_dict(self) -> list[torch.Tensor]:
        return list(self._states)

    def load_state_dict(self, states: list[torch.Tensor]) -> None:
        if len(states) != len(self._states):
            raise ValueError("the checkpoint was made on another kind of device")
        self._states = [state.cpu() for state in states]
