"""Steps of Adam and RMSProp on a perceptron with two hidden layers, in compiled code. See ``kernels/mlp.py``.

Both do the arithmetic of ``torch.optim`` with its default settings, parameter by parameter, in float32. What they keep
of earlier gradients has the layout of ``theta``; the units that pad a layer have gradients of zero, and stay zero.

Arguments of all functions here:

    theta, shape, stream: as in ``kernels.mlp``.
    positions: the examples of all batches, one batch after the other.
    starts: [batches + 1] the start of each batch in ``positions``.
    scales: as ``positions``, float32; each example's loss counts times its scale.
    gradient: [P] working memory.
    lr: float32, the learning rate.
"""

from __future__ import annotations

import math

import numpy as np

from clray.vision.kernels.mlp import deltas, njit, scratch, subtract

# The settings of torch.optim
ADAM_DECAYS = (0.9, 0.999)
RMSPROP_DECAY = 0.99
_SMALL = np.float32(1e-8)


@njit
def _gradient(theta, shape, stream, positions, scales, gradient):
    """The gradient of the sum of the examples' losses times their scales."""
    h1s, h2s, d1s, d2s, zs = scratch(shape, positions.size)
    deltas(theta, shape, stream, positions, -scales, h1s, h2s, d1s, d2s, zs)  # minus: it is subtracted
    gradient[:] = 0
    subtract(gradient, shape, stream, positions, h1s, h2s, d1s, d2s, zs)


@njit
def adam_step_each(theta, shape, stream, positions, starts, scales, gradient, lr, steps, mean, square):
    """A step of Adam on each of several batches in turn (Kingma & Ba 2015, Algorithm 1).

    Args:
        steps: the number of steps that were made before.
        mean, square: [P] the running averages of the gradient and of its square.
    """
    decay1, decay2 = ADAM_DECAYS
    keep1, keep2 = np.float32(1 - decay1), np.float32(decay2)
    take2 = np.float32(1 - decay2)
    for b in range(starts.size - 1):
        begin, end = starts[b], starts[b + 1]
        _gradient(theta, shape, stream, positions[begin:end], scales[begin:end], gradient)
        t = steps + b + 1
        size = np.float32(lr / (1 - decay1**t))
        root = np.float32(math.sqrt(1 - decay2**t))
        for i in range(theta.size):
            g = gradient[i]
            mean[i] += keep1 * (g - mean[i])
            square[i] = square[i] * keep2 + take2 * g * g
            theta[i] -= size * mean[i] / (np.sqrt(square[i]) / root + _SMALL)


@njit
def rmsprop_step_each(theta, shape, stream, positions, starts, scales, gradient, lr, square):
    """A step of RMSProp on each of several batches in turn (Tieleman & Hinton 2012), without momentum.

    Args:
        square: [P] the running average of the gradient's square.
    """
    keep, take = np.float32(RMSPROP_DECAY), np.float32(1 - RMSPROP_DECAY)
    for b in range(starts.size - 1):
        begin, end = starts[b], starts[b + 1]
        _gradient(theta, shape, stream, positions[begin:end], scales[begin:end], gradient)
        for i in range(theta.size):
            g = gradient[i]
            square[i] = square[i] * keep + take * g * g
            theta[i] -= lr * g / (np.sqrt(square[i]) + _SMALL)
