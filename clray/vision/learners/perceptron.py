"""Perceptrons trained by plain SGD on a stream's examples: the choice of the engine, and the plain PyTorch form.

A network starts from given weights and holds the trial's stream; it takes examples by their numbers. The other form is
in ``perceptron_fused``. Both do the same arithmetic in float32 but add in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from clray.errors import DeclarationError
from clray.trial import Trial
from clray.vision.draws import Draws, Weights
from clray.vision.learners.rows import Rows, fractions
from clray.vision.networks.perceptron import Perceptron
from clray.vision.stream import Numbers, Stream


class Net(Protocol):
    """A perceptron in training by plain SGD: no momentum, no weight decay, cross-entropy loss."""

    lr: float

    def step(self, numbers: Sequence[int] | Numbers, scale: Sequence[float] | None = None) -> None:
        """One SGD step on the sum of the examples' losses times ``scale``; by default on their mean loss."""
        ...

    def steps(self, numbers: Sequence[int] | Numbers, scale: Sequence[float] | None = None) -> None:
        """One SGD step per example, in this order; ``scale`` multiplies each example's loss."""
        ...

    def step_each(self, batches: Sequence[Numbers] | Numbers, scales: Sequence[Sequence[float]] | None = None) -> None:
        """``step`` on each batch (or on each row) in turn, with the same bits as single calls."""
        ...

    def reptile(self, batches: NDArray[np.int64], rate: float, scale: NDArray[np.float64] | None = None) -> None:
        """For each batch [S, B] in turn: ``steps`` over it, then ``interpolate`` from the parameters before the batch.

        ``scale`` [S, B] multiplies the examples' losses.
        """
        ...

    def reptile_each(self, examples: Sequence[NDArray[np.int64]], rate: float, across: float | None) -> None:
        """``reptile`` on the batches [S, B] of each example in turn, with the same bits as single calls.

        After each example ``interpolate`` follows, from the parameters before the example and at the rate ``across``,
        if there is one.
        """
        ...

    def snapshot(self) -> Any:
        """The parameters as they are now, for ``interpolate``."""
        ...

    def interpolate(self, before: Any, rate: float) -> None:
        """Parameters become ``before + rate * (now - before)``: a Reptile step (Nichol 2018; MER, Algorithm 1)."""
        ...

    def correct(self, experience: int) -> int:
        """Count the right answers on an experience's test images."""
        ...

    def is_finite(self) -> bool:
        """True if all parameters are finite."""
        ...

    def weights(self) -> Weights: ...

    def load(self, weights: Sequence[Any]) -> None:
        """Replace all parameters by arrays or tensors."""
        ...


class PerceptronLearner:
    """Makes perceptrons on the chosen engine: plain PyTorch, or the fused kernels on the CPU.

    Args:
        network: settings of the perceptrons.
        stream: the trial's stream.
        draws: the trial's random draws.
        engine: ``eager``, ``fused`` or ``auto``: fused wherever that is possible.
        device: the device of the eager form.
    """

    @staticmethod
    def check(trial: Trial, device: str) -> None:
        """Refuse an engine that cannot run on a device.

        Raises:
            DeclarationError: it cannot.
        """
        if trial.engine == "fused" and device != "cpu":
            raise DeclarationError("engine: fused: this track's kernels are for the CPU; allowed here: auto, eager")

    def __init__(
        self, network: Perceptron, stream: Stream, draws: Draws, engine: str = "auto", device: str = "cpu"
    ) -> None:
        self.network, self.stream, self.draws, self._device = network, stream, draws, device
        possible = device == "cpu" and len(network.hidden) == 2
        self.fused = engine == "fused" or (engine == "auto" and possible)
        """Networks and evaluation are on the fused kernels."""

    @classmethod
    def of(cls, trial: Trial, stream: Stream, draws: Draws, device: str) -> PerceptronLearner:
        """Make a trial's learner."""
        return cls(Perceptron(**trial.model), stream, draws, trial.engine, device)

    @property
    def facts(self) -> dict[str, Any]:
        return {"engine": "fused" if self.fused else "eager"}

    @cached_property
    def _rows(self) -> Rows:
        return Rows.of(self.stream)

    @cached_property
    def _sparse(self) -> Any:
        from clray.vision.learners.perceptron_fused import SparseRows

        return SparseRows.of(self._rows)

    def state_dict(self) -> dict[str, Any]:
        """An empty state: the method holds the networks."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass

    def initial(self, sizes: Sequence[int] | None = None, initialisation: str = "xavier") -> Weights:
        """Fresh weights with zero biases: ``xavier`` (Glorot uniform, as MER has it) or ``linear`` (PyTorch's own).

        Args:
            sizes: layer widths from input to output; None for the declared ones.
        """
        return self.draws.perceptron(sizes or self.sizes(), initialisation)

    def sizes(self, hidden: list[int] | None = None) -> list[int]:
        """Layer widths from input to output; ``hidden`` in place of the declared widths."""
        pixels = int(np.prod(self.stream.shape))
        return self.network.sizes(pixels, self.stream.outputs, hidden)

    def net(self, lr: float, weights: Weights | None = None) -> Net:
        """A network in training at a constant learning rate; it gets fresh weights where none are given."""
        weights = self.initial() if weights is None else weights
        if self.fused:
            from clray.vision.learners.perceptron_fused import FusedPerceptron

            return FusedPerceptron(weights, self._sparse, lr)
        return EagerPerceptron(weights, self._rows, lr, self._device)


class EagerPerceptron:
    """The plain PyTorch form, with autograd and with the update written out."""

    def __init__(self, weights: Weights, rows: Rows, lr: float, device: str = "cpu") -> None:
        self._rows, self._device, self.lr = rows, device, lr
        self.parameters = [torch.tensor(w, device=device, requires_grad=True) for w in weights]

    def batch(self, numbers: Sequence[int] | Numbers) -> tuple[Any, Any]:
        """Images [n, inputs] float32 and labels [n] as tensors."""
        where = np.asarray(numbers, np.int64)
        x = torch.from_numpy(fractions(self._rows.images[where])).to(self._device)
        return x, torch.from_numpy(self._rows.labels[where]).to(self._device)

    def logits(self, x: Any) -> Any:
        """The logits [n, classes] of images [n, inputs]."""
        last = len(self.parameters) // 2 - 1
        for layer in range(last + 1):
            x = torch.nn.functional.linear(x, self.parameters[2 * layer], self.parameters[2 * layer + 1])
            if layer < last:
                x = torch.relu(x)
        return x

    def losses(self, numbers: Sequence[int] | Numbers) -> Any:
        """The cross-entropy [n] of each example."""
        x, y = self.batch(numbers)
        return torch.nn.functional.cross_entropy(self.logits(x), y, reduction="none")

    def step(self, numbers: Sequence[int] | Numbers, scale: Sequence[float] | None = None) -> None:
        losses = self.losses(numbers)
        if scale is None:
            self.descend(losses.mean())
        else:
            self.descend((losses * torch.tensor(scale, dtype=losses.dtype, device=losses.device)).sum())

    def steps(self, numbers: Sequence[int] | Numbers, scale: Sequence[float] | None = None) -> None:
        for i, number in enumerate(numbers):
            self.step([int(number)], None if scale is None else [scale[i]])

    def step_each(self, batches: Sequence[Numbers] | Numbers, scales: Sequence[Sequence[float]] | None = None) -> None:
        for i, batch in enumerate(batches):
            self.step(batch, None if scales is None else scales[i])

    def reptile(self, batches: NDArray[np.int64], rate: float, scale: NDArray[np.float64] | None = None) -> None:
        for b, batch in enumerate(batches):
            before = self.snapshot()
            self.steps(batch, None if scale is None else scale[b].tolist())
            self.interpolate(before, rate)

    def reptile_each(self, examples: Sequence[NDArray[np.int64]], rate: float, across: float | None) -> None:
        for batches in examples:
            before = self.snapshot()
            self.reptile(batches, rate)
            if across is not None:
                self.interpolate(before, across)

    def gradients(self, loss: Any) -> list[Any]:
        """The gradient of ``loss`` with respect to each parameter."""
        return list(torch.autograd.grad(loss, self.parameters))

    def descend(self, loss: Any) -> None:
        """One SGD step on ``loss``."""
        self.update(self.gradients(loss))

    def update(self, gradients: Sequence[Any]) -> None:
        """One SGD step along given gradients."""
        with torch.no_grad():
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.add_(gradient, alpha=-self.lr)  # the same bits as torch.optim.SGD

    def snapshot(self) -> list[Any]:
        return [p.detach().clone() for p in self.parameters]

    def interpolate(self, before: list[Any], rate: float) -> None:
        with torch.no_grad():
            for parameter, old in zip(self.parameters, before, strict=True):
                parameter.copy_(old + (parameter - old) * rate)

    @torch.no_grad()
    def correct(self, experience: int) -> int:
        x = torch.from_numpy(self._rows.tests(experience)).to(self._device)
        predicted = self.logits(x).argmax(1).cpu().numpy()
        return int((predicted == self._rows.test_labels[: self._rows.scored]).sum())

    def is_finite(self) -> bool:
        return all(bool(p.isfinite().all()) for p in self.parameters)

    def weights(self) -> Weights:
        return [p.detach().cpu().numpy().copy() for p in self.parameters]

    def load(self, weights: Sequence[Any]) -> None:
        with torch.no_grad():
            for parameter, new in zip(self.parameters, weights, strict=True):
                parameter.copy_(torch.as_tensor(new))
