"""Adam and RMSProp for a perceptron that learns from one batch after the other, in the form of its engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch

from clray.vision.kernels import adaptive as kernels
from clray.vision.kernels import mlp
from clray.vision.learners.perceptron import EagerPerceptron, Net
from clray.vision.learners.perceptron_fused import FusedPerceptron
from clray.vision.stream import Numbers

Name = Literal["adam", "rmsprop"]


class Adaptive(Protocol):
    """An optimizer of ``torch.optim`` with its default settings, at the network's learning rate."""

    def step_each(self, batches: Sequence[Numbers], scales: Sequence[Sequence[float]] | None = None) -> None:
        """One step on each batch in turn, with the same bits as single calls.

        A step is on the sum of the examples' losses times ``scales``; by default on their mean loss.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """The averages that the optimizer keeps of earlier gradients."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def adaptive(net: Net, name: Name) -> Adaptive:
    """The optimizer of this name for a network, in the form of the network's engine."""
    if isinstance(net, FusedPerceptron):
        return FusedAdaptive(net, name)
    assert isinstance(net, EagerPerceptron)
    return EagerAdaptive(net, name)


class EagerAdaptive:
    """``torch.optim`` itself: see ``Adaptive``."""

    def __init__(self, net: EagerPerceptron, name: Name) -> None:
        self._net = net
        kind = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}[name]
        self._optimizer = kind(net.parameters, lr=net.lr)

    def step_each(self, batches: Sequence[Numbers], scales: Sequence[Sequence[float]] | None = None) -> None:
        for i, batch in enumerate(batches):
            losses = self._net.losses(batch)
            scale = torch.full_like(losses, 1.0 / len(batch)) if scales is None else losses.new_tensor(scales[i])
            self._optimizer.zero_grad()
            (losses * scale).sum().backward()
            self._optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return self._optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._optimizer.load_state_dict(state)


class FusedAdaptive:
    """The optimizer on the fused kernels: see ``Adaptive`` and ``kernels/adaptive.py``."""

    def __init__(self, net: FusedPerceptron, name: Name) -> None:
        self._net, self._name, self._steps = net, name, 0
        size = len(net.theta)
        self._gradient = mlp.aligned(size)
        self._averages = [np.zeros(size, np.float32) for _ in range(2 if name == "adam" else 1)]
        """The running averages of the gradient (Adam only) and of its square."""

    def step_each(self, batches: Sequence[Numbers], scales: Sequence[Sequence[float]] | None = None) -> None:
        sizes = np.array([len(batch) for batch in batches])
        starts = np.zeros(len(sizes) + 1, np.int64)
        np.cumsum(sizes, out=starts[1:])
        if scales is None:
            each = np.repeat((1.0 / sizes).astype(np.float32), sizes)
        else:
            each = np.array([value for scale in scales for value in scale], np.float32)
        net, numbers = self._net, np.concatenate(batches)
        given = (net.theta, net.shape, net.examples, numbers, starts, each, self._gradient, np.float32(net.lr))
        if self._name == "adam":
            kernels.adam_step_each(*given, self._steps, *self._averages)
        else:
            kernels.rmsprop_step_each(*given, *self._averages)
        self._steps += len(sizes)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self._steps, "averages": [average.copy() for average in self._averages]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps = state["steps"]
        for average, kept in zip(self._averages, state["averages"], strict=True):
            average[...] = kept
