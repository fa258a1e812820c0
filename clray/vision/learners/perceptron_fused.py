"""Perceptrons with two hidden layers on the fused kernels, on the CPU. See ``kernels/mlp.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clray.vision.draws import Weights
from clray.vision.kernels import mlp
from clray.vision.learners.rows import Rows
from clray.vision.stream import Numbers


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
        """The arrays that kernels take: (pointers [N + 1], pixels, intensities, labels [N])."""
        return self.pointers, self.pixels, self.intensities, self.labels


@dataclass(frozen=True)
class SparseRows:
    """A stream's images for the kernels, with the attributes of ``Rows``."""

    train: SparseImages
    test: SparseImages
    pixel_maps: NDArray[np.int16]
    scored: int

    @classmethod
    def of(cls, rows: Rows) -> SparseRows:
        train, test = SparseImages(rows.images, rows.labels), SparseImages(rows.test_images, rows.test_labels)
        return cls(train, test, rows.pixel_maps, rows.scored)


class FusedPerceptron:
    """The fused kernels, for a perceptron with two hidden layers on the CPU. See ``kernels/mlp.py``."""

    def __init__(self, weights: Weights, rows: SparseRows, lr: float) -> None:
        self._rows, self.examples, self.lr = rows, rows.train.arrays, lr
        (h1, inputs), (h2, _), (classes, _) = (w.shape for w in weights[::2])
        self._widths = (inputs, h1, h2, classes)
        self.shape = (inputs, -(-h1 // mlp.PAD) * mlp.PAD, -(-h2 // mlp.PAD) * mlp.PAD, classes)
        self.theta = self.flat(weights)

    def flat(self, weights: Weights) -> NDArray[np.float32]:
        """Convert weights to the kernels' layout: one vector, input-major, padded, aligned to a cache line."""
        d, h1, h2, k = self.shape
        theta = mlp.aligned(d * h1 + h1 + h1 * h2 + h2 + k * h2 + k)
        for view, w in zip(self.views(theta), weights, strict=True):
            view[...] = w
        return theta

    def views(self, theta: NDArray[np.float32]) -> Weights:
        """The unpadded weights [out, in] and biases within ``theta``, as views."""
        W1, b1, W2, b2, W3, b3 = mlp.layer_views.py_func(theta, self.shape)
        _, h1, h2, _ = self._widths
        return [W1[:, :h1].T, b1[:h1], W2[:h1, :h2].T, b2[:h2], W3[:, :h2], b3]

    def _rates(self, n: int, scale: Sequence[float] | None, default: float) -> NDArray[np.float32]:
        if scale is None:
            return np.full(n, self.lr * default, np.float32)
        return (np.asarray(scale, np.float32) * np.float32(self.lr)).astype(np.float32)

    def steps(self, numbers: Sequence[int] | Numbers, scale: Sequence[float] | None = None) -> None:
        where = np.asarray(numbers, np.int64)
        rates = self._rates(len(where), scale, 1.0)
        mlp.sgd_steps(self.theta, self.shape, self.examples, where, rates)

    def step(self, numbers: Sequence[int] | Numbers, scale: Sequence[float] | None = None) -> None:
        where = np.asarray(numbers, np.int64)
        rates = self._rates(len(where), scale, 1.0 / len(where))
        mlp.sgd_step(self.theta, self.shape, self.examples, where, rates)

    def reptile(self, batches: NDArray[np.int64], rate: float, scale: NDArray[np.float64] | None = None) -> None:
        rates = (np.ones(batches.shape) if scale is None else scale).astype(np.float32) * np.float32(self.lr)
        mlp.reptile(self.theta, self.shape, self.examples, batches, rates, np.float32(rate))

    def step_each(self, batches: Sequence[Numbers] | Numbers, scales: Sequence[Sequence[float]] | None = None) -> None:
        sizes = np.array([len(batch) for batch in batches])
        starts = np.zeros(len(sizes) + 1, np.int64)
        np.cumsum(sizes, out=starts[1:])
        if scales is None:
            rates = np.repeat((self.lr * (1.0 / sizes)).astype(np.float32), sizes)
        else:
            rates = self._rates(int(starts[-1]), [value for scale in scales for value in scale], 1.0)
        mlp.sgd_step_each(self.theta, self.shape, self.examples, np.concatenate(batches), starts, rates)

    def pulled_step(
        self, numbers: Sequence[int] | Numbers, stiffness: NDArray[np.float32], anchor: NDArray[np.float32]
    ) -> None:
        """``step`` on the mean loss plus a quadratic penalty; see ``kernels.mlp.pulled_step``."""
        where = np.asarray(numbers, np.int64)
        rates = self._rates(len(where), None, 1.0 / len(where))
        mlp.pulled_step(self.theta, self.shape, self.examples, where, rates, stiffness, anchor)

    def reptile_each(self, examples: Sequence[NDArray[np.int64]], rate: float, across: float | None) -> None:
        count = len(examples[0])
        widths = np.array([batches.shape[1] for batches in examples])
        numbers = np.concatenate([batches.ravel() for batches in examples])
        inner, outer = np.float32(rate), np.float32(1.0 if across is None else across)
        mlp.reptile_each(
            self.theta, self.shape, self.examples, numbers, widths, count, np.float32(self.lr), inner, outer,
            across is not None,
        )  # fmt: skip

    def pulled_step_each(self, numbers: Numbers, stiffness: NDArray[np.float32], anchor: NDArray[np.float32]) -> None:
        """``pulled_step`` on each example in turn, with the same bits as single calls."""
        rates = self._rates(1, None, 1.0)
        mlp.pulled_step_each(self.theta, self.shape, self.examples, numbers, rates, stiffness, anchor)

    def gradient(self, numbers: Sequence[int] | Numbers) -> NDArray[np.float32]:
        """The gradient of the mean loss, in the layout of ``theta``."""
        return mlp.gradient(self.theta, self.shape, self.examples, np.asarray(numbers, np.int64))

    def snapshot(self) -> NDArray[np.float32]:
        return self.theta.copy()

    def interpolate(self, before: NDArray[np.float32], rate: float) -> None:
        mlp.interpolate(self.theta, before, np.float32(rate))

    def correct(self, experience: int) -> int:
        rows = self._rows
        pixel_map = rows.pixel_maps[experience]
        folded = mlp.aligned(*self.shape[:2])
        return int(mlp.correct(self.theta, self.shape, rows.test.arrays, pixel_map, rows.scored, folded))

    def is_finite(self) -> bool:
        return bool(np.isfinite(self.theta).all())

    def weights(self) -> Weights:
        return [np.array(view, order="C") for view in self.views(self.theta)]

    def load(self, weights: Sequence[Any]) -> None:
        for view, w in zip(self.views(self.theta), weights, strict=True):
            view[...] = w
