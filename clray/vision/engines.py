"""What carries out SGD on a perceptron over a stream: plain PyTorch, or the fused kernels. Methods use either alike.

A network starts from given weights and knows the trial's stream; examples are named by their positions in it. Both
engines do the same arithmetic in float32 but sum in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clray.vision.benchmarks import Stream
from clray.vision.models import Weights

Positions = Sequence[int] | NDArray[np.int64]


class Net(Protocol):
    """A perceptron in training by plain SGD: no momentum, no weight decay, cross-entropy loss."""

    lr: float

    def steps(self, positions: Positions, scale: Sequence[float] | None = None) -> None:
        """One SGD step per example, in this order; ``scale`` multiplies each example's loss."""
        ...

    def step(self, positions: Positions, scale: Sequence[float] | None = None) -> None:
        """One SGD step on the sum of the examples' losses times ``scale``; by default the mean loss."""
        ...

    def reptile(self, batches: NDArray[np.int64], rate: float, scale: NDArray[np.float64] | None = None) -> None:
        """For each batch [S, B] in turn: ``steps`` over it, then ``interpolate`` from where it began.

        ``scale`` [S, B] multiplies the examples' losses.
        """
        ...

    def snapshot(self) -> Any:
        """The parameters as they are now, for ``interpolate``."""
        ...

    def interpolate(self, before: Any, rate: float) -> None:
        """Parameters become ``before + rate * (now - before)``: a Reptile step (Nichol 2018; MER, Algorithm 1)."""
        ...

    def weights(self) -> Weights: ...

    def load(self, weights: Weights) -> None:
        """Replace all parameters."""
        ...


class EagerNet:
    """Plain PyTorch: autograd and the update written out."""

    def __init__(self, weights: Weights, stream: Stream, lr: float, device: str = "cpu") -> None:
        import torch

        self._torch = torch
        self._stream, self._device, self.lr = stream, device, lr
        self.parameters = [torch.tensor(w, device=device, requires_grad=True) for w in weights]

    def batch(self, positions: Positions) -> tuple[Any, Any]:
        """Images [n, inputs] float32 and labels [n] as tensors."""
        torch, positions = self._torch, np.asarray(positions, np.int64)
        x = torch.from_numpy(self._stream.x(positions)).to(self._device)
        return x, torch.from_numpy(self._stream.labels[positions]).to(self._device)

    def logits(self, x: Any) -> Any:
        """[n, classes] for images [n, inputs]."""
        return _logits(self._torch, self.parameters, x)

    def losses(self, positions: Positions) -> Any:
        """The cross-entropy [n] of each example."""
        x, y = self.batch(positions)
        return self._torch.nn.functional.cross_entropy(self.logits(x), y, reduction="none")

    def step(self, positions: Positions, scale: Sequence[float] | None = None) -> None:
        losses = self.losses(positions)
        if scale is None:
            self.descend(losses.mean())
        else:
            self.descend((losses * self._torch.tensor(scale, dtype=losses.dtype, device=losses.device)).sum())

    def steps(self, positions: Positions, scale: Sequence[float] | None = None) -> None:
        for i, position in enumerate(positions):
            self.step([int(position)], None if scale is None else [scale[i]])

    def reptile(self, batches: NDArray[np.int64], rate: float, scale: NDArray[np.float64] | None = None) -> None:
        for b, batch in enumerate(batches):
            before = self.snapshot()
            self.steps(batch, None if scale is None else scale[b].tolist())
            self.interpolate(before, rate)

    def gradients(self, loss: Any) -> list[Any]:
        """The gradient of ``loss`` with respect to each parameter."""
        return list(self._torch.autograd.grad(loss, self.parameters))

    def descend(self, loss: Any) -> None:
        """One SGD step on ``loss``."""
        self.update(self.gradients(loss))

    def update(self, gradients: Sequence[Any]) -> None:
        """One SGD step along given gradients."""
        with self._torch.no_grad():
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.add_(gradient, alpha=-self.lr)  # as torch.optim.SGD does it, to the last bit

    def snapshot(self) -> list[Any]:
        return [p.detach().clone() for p in self.parameters]

    def interpolate(self, before: list[Any], rate: float) -> None:
        with self._torch.no_grad():
            for parameter, old in zip(self.parameters, before, strict=True):
                parameter.copy_(old + (parameter - old) * rate)

    def weights(self) -> Weights:
        return [p.detach().cpu().numpy().copy() for p in self.parameters]

    def load(self, weights: Weights) -> None:
        with self._torch.no_grad():
            for parameter, new in zip(self.parameters, weights, strict=True):
                parameter.copy_(self._torch.from_numpy(new))


def _logits(torch: Any, parameters: Sequence[Any], x: Any) -> Any:
    last = len(parameters) // 2 - 1
    for layer in range(last + 1):
        x = torch.nn.functional.linear(x, parameters[2 * layer], parameters[2 * layer + 1])
        if layer < last:
            x = torch.relu(x)
    return x


class SparseImages:
    """Images as the lists of their non-zero pixels, for the fused kernels."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        rows, pixels = np.nonzero(images)
        self.pointers = np.zeros(len(images) + 1, np.int64)
        np.cumsum(np.bincount(rows, minlength=len(images)), out=self.pointers[1:])
        self.pixels = pixels.astype(np.uint16)
        self.intensities = images[rows, pixels].astype(np.float32) / np.float32(255)
        self.labels = labels

    @property
    def arrays(self) -> tuple[Any, ...]:
        """(pointers [N + 1], pixels, intensities, labels [N])."""
        return self.pointers, self.pixels, self.intensities, self.labels


class FusedNet:
    """The fused kernels, for a perceptron with two hidden layers on the CPU. See ``kernels/mlp.py``."""

    def __init__(self, weights: Weights, examples: SparseImages, lr: float) -> None:
        from clray.vision.kernels import mlp

        self._kernels, self._examples, self.lr = mlp, examples.arrays, lr
        (h1, inputs), (h2, _), (classes, _) = (w.shape for w in weights[::2])
        self._widths = (inputs, h1, h2, classes)
        pad = mlp.PAD
        self.shape = (inputs, -(-h1 // pad) * pad, -(-h2 // pad) * pad, classes)
        self.theta = self.flat(weights)

    def flat(self, weights: Weights) -> NDArray[np.float32]:
        """Weights in the kernels' layout: one vector, input-major, padded, on a cache line's boundary."""
        d, h1, h2, k = self.shape
        size = d * h1 + h1 + h1 * h2 + h2 + k * h2 + k
        raw = np.zeros(size + 16, np.float32)
        start = (-raw.ctypes.data % 64) // 4
        theta = raw[start : start + size]
        for view, w in zip(self.views(theta), weights, strict=True):
            view[...] = w
        return theta

    def views(self, theta: NDArray[np.float32]) -> Weights:
        """The unpadded weights [out, in] and biases within ``theta``, as views."""
        W1, b1, W2, b2, W3, b3 = self._kernels._layers.py_func(theta, self.shape)
        _, h1, h2, _ = self._widths
        return [W1[:, :h1].T, b1[:h1], W2[:h1, :h2].T, b2[:h2], W3[:, :h2], b3]

    def _rates(self, n: int, scale: Sequence[float] | None, default: float) -> NDArray[np.float32]:
        if scale is None:
            return np.full(n, self.lr * default, np.float32)
        return (np.asarray(scale, np.float32) * np.float32(self.lr)).astype(np.float32)

    def steps(self, positions: Positions, scale: Sequence[float] | None = None) -> None:
        where = np.asarray(positions, np.int64)
        rates = self._rates(len(where), scale, 1.0)
        self._kernels.sgd_steps(self.theta, self.shape, self._examples, where, rates)

    def step(self, positions: Positions, scale: Sequence[float] | None = None) -> None:
        where = np.asarray(positions, np.int64)
        rates = self._rates(len(where), scale, 1.0 / len(where))
        self._kernels.sgd_step(self.theta, self.shape, self._examples, where, rates)

    def reptile(self, batches: NDArray[np.int64], rate: float, scale: NDArray[np.float64] | None = None) -> None:
        rates = (np.ones(batches.shape) if scale is None else scale).astype(np.float32) * np.float32(self.lr)
        self._kernels.reptile(self.theta, self.shape, self._examples, batches, rates, np.float32(rate))

    def pulled_step(self, positions: Positions, stiffness: NDArray[np.float32], anchor: NDArray[np.float32]) -> None:
        """``step`` on the mean loss plus a quadratic penalty; see ``kernels.mlp.pulled_step``."""
        where = np.asarray(positions, np.int64)
        rates = self._rates(len(where), None, 1.0 / len(where))
        self._kernels.pulled_step(self.theta, self.shape, self._examples, where, rates, stiffness, anchor)

    def gradient(self, positions: Positions) -> NDArray[np.float32]:
        """The gradient of the mean loss, in the layout of ``theta``."""
        return self._kernels.gradient(self.theta, self.shape, self._examples, np.asarray(positions, np.int64))

    def groups(self, positions: NDArray[np.int64]) -> Groups:
        """Groups of examples [G, m] whose gradients will be asked for again and again."""
        return Groups(self, positions)

    def snapshot(self) -> NDArray[np.float32]:
        return self.theta.copy()

    def interpolate(self, before: NDArray[np.float32], rate: float) -> None:
        self._kernels.interpolate(self.theta, before, np.float32(rate))

    def weights(self) -> Weights:
        return [np.array(view, order="C") for view in self.views(self.theta)]

    def load(self, weights: Weights) -> None:
        for view, w in zip(self.views(self.theta), weights, strict=True):
            view[...] = w


class Groups:
    """Groups of a stream's examples, and the gradients of a ``FusedNet`` for the mean loss of each.

    ``update`` passes all examples through the network as it is now; the rest is about that state.
    """

    def __init__(self, net: FusedNet, positions: NDArray[np.int64]) -> None:
        self._net, self._positions = net, np.ascontiguousarray(positions)
        self._room = net._kernels.scratch(net.shape, positions.size)
        self._columns = net._kernels.by_input(net._examples, self._positions, net.shape[0])
        self._gradients = np.empty((len(positions), net.theta.size), np.float32)

    def __len__(self) -> int:
        return len(self._positions)

    def update(self) -> None:
        """Forward and backward passes of all examples, at the network's present parameters."""
        net = self._net
        net._kernels.mean_passes(net.theta, net.shape, net._examples, self._positions, self._room)

    def products(self, position: int) -> NDArray[np.float64]:
        """The inner product [G] of each group's gradient with that of one example, no gradient being formed."""
        net, own = self._net, np.array([[position]])
        room = net._kernels.scratch(net.shape, 1)
        net._kernels.mean_passes(net.theta, net.shape, net._examples, own, room)
        return net._kernels.gradient_products(net.shape, net._examples, self._positions, self._room, position, room)

    def gradients(self) -> NDArray[np.float32]:
        """[G, P] in the layout of ``theta``: valid until the next call."""
        self._net._kernels.group_gradients(self._net.shape, self._positions, self._columns, self._room, self._gradients)
        return self._gradients


class Workshop:
    """Builds the trial's networks on the engine in use, and scores weights on the test set."""

    def __init__(self, stream: Stream, engine: str, device: str = "cpu") -> None:
        """``engine`` is ``eager``, ``fused`` (the kernels, on the CPU) or ``auto``: fused wherever that is possible."""
        self.stream, self.device = stream, device
        self.fused = engine == "fused" or (engine == "auto" and device == "cpu")
        """Whether networks and evaluation are on the fused kernels."""
        if self.fused:
            self._examples = SparseImages(stream.images, stream.labels)
            self._test = SparseImages(stream.test_images, stream.test_labels)

    @property
    def name(self) -> str:
        """The engine in use, for the record."""
        return "fused" if self.fused else "eager"

    def net(self, weights: Weights, lr: float) -> Net:
        """A network in training that starts from ``weights``."""
        if self.fused:
            return FusedNet(weights, self._examples, lr)
        return EagerNet(weights, self.stream, lr, self.device)

    def accuracy(self, weights: Weights, task: int) -> float:
        """The fraction of the test set that a perceptron with these weights gets right on a task of the stream."""
        right = self._count_fused(weights, task) if self.fused else self._count_eager(weights, task)
        return right / len(self.stream.test_labels)

    def _count_fused(self, weights: Weights, task: int) -> int:
        net = FusedNet(weights, self._test, 0.0)
        pixel_map = self.stream.pixel_maps[task]
        return int(net._kernels.correct(net.theta, net.shape, net._examples, pixel_map, self.stream.scored))

    def _count_eager(self, weights: Weights, task: int) -> int:
        import torch

        with torch.no_grad():
            x = torch.from_numpy(self.stream.test_x(task)).to(self.device)
            parameters = [torch.from_numpy(w).to(self.device) for w in weights]
            predicted = _logits(torch, parameters, x).argmax(1).cpu().numpy()
        return int((predicted == self.stream.test_labels[: self.stream.scored]).sum())
