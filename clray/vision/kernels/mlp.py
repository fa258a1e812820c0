"""SGD on a perceptron with two hidden layers over sparse images, on one core, entirely in compiled code.

A step of batch size 1 on a 784-100-100-10 network needs so little arithmetic that a framework spends most of the time
on other things. Three things make it fast here:

- inputs are stored as lists of their non-zero pixels: about a fifth of an MNIST image;
- weights are stored input-major (one row of outgoing weights per input), so that forward and backward pass read only
  the rows of active inputs and hidden units, each row contiguous;
- a row is accumulated in vector registers. LLVM cannot do that by itself, as it must assume that the accumulator
  overlaps the weights. So that one loop is written in LLVM's instructions (``_block_sum``), as is ``dot``.

Parameters are one flat float32 vector ``theta``: W1 [inputs, h1], b1 [h1], W2 [h1, h2], b2 [h2], W3 [classes, h2], b3
[classes]. Hidden widths are padded to a multiple of 16 with units whose weights are zero. They stay zero, since the
units' activations and gradients are zero. ``rate`` arguments are the learning rate times the example's loss weight.

Nothing here is random, nothing runs in parallel, and every sum has a fixed order: the same calls give the same bits.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from clray.vision.kernels import keep_kernels

PAD = 16
_LANES = 16
"""Numbers in a vector: a register of AVX-512. Where registers are shorter LLVM takes several, with the same bits."""
# No fast-math: it lets LLVM choose the order of a sum. The order in the process that compiled a kernel was another than
# in processes that loaded it from the cache. Sums over many numbers are written out instead (_block_sum, dot).
njit = numba.njit(error_model="numpy", cache=keep_kernels(), nogil=True)


def aligned(*shape: int) -> NDArray[np.float32]:
    """A float32 array of zeros that begins at a cache line, so that no vector of a padded row lies across two."""
    size = math.prod(shape)
    raw = np.zeros(size + 16, np.float32)
    start = (-raw.ctypes.data % 64) // 4
    return raw[start : start + size].reshape(shape)


def _fused(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c with one rounding, whatever the processor."""
    kind = ir.FunctionType(a.type, [a.type] * 3)
    name = f"llvm.fma.v{a.type.count}f32"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])


def _block_sum(vectors: int) -> Any:
    """An intrinsic ``f(out, bias, rows, indices, values, start, stop, j)`` for ``b = 16 * vectors`` columns from ``j``:

    ``out[j:j+b] = bias[j:j+b] + Σ_{start≤i<stop} values[i] * rows[indices[i], j:j+b]``, summed in registers in the
    order of i.
    ``rows`` is [R, W] float32, contiguous; ``indices`` unsigned integers.
    """

    @intrinsic
    def block_sum(
        typingctx: Any, out: Any, bias: Any, rows: Any, indices: Any, values: Any, start: Any, stop: Any, j: Any
    ) -> Any:
        signature = types.void(out, bias, rows, indices, values, start, stop, j)

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            arrays = [context.make_array(sig.args[i])(context, builder, args[i]) for i in range(5)]
            out_, bias_, rows_, indices_, values_ = (a.data for a in arrays)
            width = builder.extract_value(arrays[2].shape, 1)
            i64, i32 = ir.IntType(64), ir.IntType(32)
            vector = ir.VectorType(ir.FloatType(), _LANES)

            def at(pointer: Any, offset: int) -> Any:
                moved = builder.gep(pointer, [builder.add(args[7], ir.Constant(i64, offset * _LANES))])
                return builder.bitcast(moved, vector.as_pointer())

            sums = [cgutils.alloca_once(builder, vector) for _ in range(vectors)]  # LLVM turns these into registers
            for k, total in enumerate(sums):
                builder.store(builder.load(at(bias_, k), align=4), total)
            with cgutils.for_range(builder, args[6], args[5]) as loop:
                index = builder.zext(builder.load(builder.gep(indices_, [loop.index])), i64)
                value = builder.load(builder.gep(values_, [loop.index]))
                undefined = ir.Constant(vector, ir.Undefined)
                spread = builder.insert_element(undefined, value, ir.Constant(i32, 0))
                mask = ir.Constant(ir.VectorType(i32, _LANES), [0] * _LANES)
                spread = builder.shuffle_vector(spread, undefined, mask)
                row = builder.gep(rows_, [builder.mul(index, width)])
                for k, total in enumerate(sums):
                    weights = builder.load(at(row, k), align=4)
                    builder.store(_fused(builder, spread, weights, builder.load(total)), total)
            for k, total in enumerate(sums):
                builder.store(builder.load(total), at(out_, k), align=4)
            return context.get_dummy_value()

        return signature, generate

    return block_sum


def _inner_product(builder: Any, x: Any, y: Any, length: Any) -> Any:
    """The inner product of ``length`` numbers from two pointers: 16 partial sums, added in pairs."""
    i64, i32 = ir.IntType(64), ir.IntType(32)
    vector = ir.VectorType(ir.FloatType(), _LANES)

    def load(pointer: Any, offset: Any) -> Any:
        return builder.load(builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer()), align=4)

    def half(value: Any, part: range) -> Any:
        return builder.shuffle_vector(value, value, ir.Constant(ir.VectorType(i32, len(part)), list(part)))

    total = cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * _LANES))
    with cgutils.for_range(builder, builder.udiv(length, ir.Constant(i64, _LANES))) as loop:
        start = builder.mul(loop.index, ir.Constant(i64, _LANES))
        builder.store(_fused(builder, load(x, start), load(y, start), builder.load(total)), total)
    result = builder.load(total)
    lanes = _LANES
    while lanes > 1:
        lanes //= 2
        result = builder.fadd(half(result, range(lanes)), half(result, range(lanes, 2 * lanes)))
    return builder.extract_element(result, ir.Constant(i32, 0))


@intrinsic
def dot(typingctx: Any, x: Any, y: Any) -> Any:
    """The inner product of two contiguous float32 vectors, a multiple of 16 long."""
    signature = types.float32(x, y)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        arrays = [context.make_array(kind)(context, builder, arg) for kind, arg in zip(sig.args, args, strict=True)]
        length = builder.extract_value(arrays[0].shape, 0)
        return _inner_product(builder, arrays[0].data, arrays[1].data, length)

    return signature, generate


@intrinsic
def dot_of_rows(typingctx: Any, rows: Any, i: Any, j: Any) -> Any:
    """``dot(rows[i], rows[j])``, without the two views, whose counts of references cost as much as the product."""
    signature = types.float32(rows, i, j)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array = context.make_array(sig.args[0])(context, builder, args[0])
        width = builder.extract_value(array.shape, 1)
        x, y = (builder.gep(array.data, [builder.mul(arg, width)]) for arg in args[1:])
        return _inner_product(builder, x, y, width)

    return signature, generate


_block_112 = _block_sum(7)  # 100 hidden units, padded: 14 of the 16 registers of AVX2
_block_16 = _block_sum(1)


@njit
def sum_rows(out, bias, rows, indices, values, start, stop):
    """out = bias + Σ_{start≤i<stop} values[i] * rows[indices[i]]; the width is a multiple of 16."""
    width = rows.shape[1]
    j = 0
    while j + 112 <= width:
        _block_112(out, bias, rows, indices, values, start, stop, j)
        j += 112
    while j < width:
        _block_16(out, bias, rows, indices, values, start, stop, j)
        j += 16


@njit
def layer_views(theta, shape):
    """Views of ``theta``: W1, b1, W2, b2, W3, b3."""
    d, h1, h2, k = shape
    a = d * h1
    b = a + h1
    c = b + h1 * h2
    e = c + h2
    f = e + k * h2
    return (
        theta[:a].reshape(d, h1),
        theta[a:b],
        theta[b:c].reshape(h1, h2),
        theta[c:e],
        theta[e:f].reshape(k, h2),
        theta[f : f + k],
    )


@njit
def _forward(layers, indices, values, n, h1, active, active_values, h2, z):
    """Hidden activations and logits of one example; returns the number of active first-layer units.

    ``active[:m]`` and ``active_values[:m]`` list them; ``h1`` itself holds pre-activations.
    """
    W1, b1, W2, b2, W3, b3 = layers
    sum_rows(h1, b1, W1, indices, values, 0, n)
    m = 0
    for j in range(h1.size):  # without a branch: the processor cannot predict which units are active
        active[m] = j
        active_values[m] = h1[j]
        m += h1[j] > 0
    sum_rows(h2, b2, W2, active, active_values, 0, m)
    for j in range(h2.size):
        h2[j] = max(h2[j], np.float32(0))
    for c in range(z.size):
        z[c] = dot(h2, W3[c]) + b3[c]
    return m


@njit
def loss_gradient(z, label, rate):
    """Turn logits into ``rate`` times the gradient of the cross-entropy with respect to them, in place."""
    top = z[0]
    for c in range(1, z.size):
        top = max(top, z[c])
    total = np.float32(0)
    for c in range(z.size):
        z[c] = np.exp(z[c] - top)
        total += z[c]
    scale = rate / total
    for c in range(z.size):
        z[c] *= scale
    z[label] -= rate


@njit
def sgd_steps(theta, shape, stream, positions, rates):
    """One SGD step per example, in the order of ``positions``.

    Args:
        theta: [P] float32, updated in place.
        shape: (inputs, h1, h2, classes), hidden widths padded.
        stream: (pointers [N + 1], indices, values, labels [N]): the examples' non-zero inputs.
        positions: [B] examples of the stream.
        rates: [B] float32.
    """
    pointers, pixels, intensities, labels = stream
    layers = layer_views(theta, shape)
    W1, b1, W2, b2, W3, b3 = layers
    h1, h2 = np.empty(shape[1], np.float32), np.empty(shape[2], np.float32)
    d1, d2 = np.empty(shape[1], np.float32), np.empty(shape[2], np.float32)
    active, active_values = np.empty(shape[1], np.uint16), np.empty(shape[1], np.float32)
    z = np.empty(shape[3], np.float32)
    for s in range(positions.size):
        example = positions[s]
        start, stop = pointers[example], pointers[example + 1]
        indices, values = pixels[start:stop], intensities[start:stop]
        m = _forward(layers, indices, values, stop - start, h1, active, active_values, h2, z)
        loss_gradient(z, labels[example], rates[s])
        # One loop reads each weight for the backward pass and then updates it.
        d2[:] = 0
        for c in range(z.size):
            g = z[c]
            for j in range(d2.size):
                w = W3[c, j]
                d2[j] += g * w
                W3[c, j] = w - g * h2[j]
            b3[c] -= g
        for j in range(d2.size):
            d2[j] = d2[j] if h2[j] > 0 else np.float32(0)
            b2[j] -= d2[j]
        d1[:] = 0
        for t in range(m):
            i, v = active[t], active_values[t]
            row = W2[i]
            d1[i] = dot(row, d2)
            for j in range(d2.size):
                row[j] -= v * d2[j]
        for t in range(indices.size):
            i, v = indices[t], values[t]
            for j in range(d1.size):
                W1[i, j] -= v * d1[j]
        for j in range(d1.size):
            b1[j] -= d1[j]


@njit
def deltas(theta, shape, stream, positions, rates, h1s, h2s, d1s, d2s, zs):
    """The activations (h) and rate-weighted loss gradients (d, z) of each example, all at the same ``theta``."""
    pointers, pixels, intensities, labels = stream
    layers = layer_views(theta, shape)
    W2, W3 = layers[2], layers[4]
    active, active_values = np.empty(shape[1], np.uint16), np.empty(shape[1], np.float32)
    for s in range(positions.size):
        example = positions[s]
        start, stop = pointers[example], pointers[example + 1]
        h1, h2, d1, d2, z = h1s[s], h2s[s], d1s[s], d2s[s], zs[s]
        m = _forward(
            layers, pixels[start:stop], intensities[start:stop], stop - start, h1, active, active_values, h2, z
        )
        loss_gradient(z, labels[example], rates[s])
        d2[:] = 0
        for c in range(z.size):
            for j in range(d2.size):
                d2[j] += z[c] * W3[c, j]
        for j in range(d2.size):
            d2[j] = d2[j] if h2[j] > 0 else np.float32(0)
        h1[:] = 0
        d1[:] = 0
        for t in range(m):
            i = active[t]
            h1[i] = active_values[t]
            d1[i] = dot(W2[i], d2)


@njit
def subtract(theta, shape, stream, positions, h1s, h2s, d1s, d2s, zs):
    """theta -= the gradients that ``deltas`` prepared, summed over the examples."""
    pointers, pixels, intensities, _labels = stream
    W1, b1, W2, b2, W3, b3 = layer_views(theta, shape)
    for s in range(positions.size):
        example = positions[s]
        h1, h2, d1, d2, z = h1s[s], h2s[s], d1s[s], d2s[s], zs[s]
        for c in range(z.size):
            for j in range(h2.size):
                W3[c, j] -= z[c] * h2[j]
            b3[c] -= z[c]
        for i in range(h1.size):
            if h1[i] > 0:
                for j in range(d2.size):
                    W2[i, j] -= h1[i] * d2[j]
        for j in range(d2.size):
            b2[j] -= d2[j]
        for t in range(pointers[example], pointers[example + 1]):
            i, v = pixels[t], intensities[t]
            for j in range(d1.size):
                W1[i, j] -= v * d1[j]
        for j in range(d1.size):
            b1[j] -= d1[j]


@njit
def scratch(shape, n):
    """Working memory for the passes of ``n`` examples: activations h1 and h2, and gradients d1, d2 and z."""
    return (
        np.empty((n, shape[1]), np.float32),
        np.empty((n, shape[2]), np.float32),
        np.empty((n, shape[1]), np.float32),
        np.empty((n, shape[2]), np.float32),
        np.empty((n, shape[3]), np.float32),
    )


@njit
def sgd_step(theta, shape, stream, positions, rates):
    """One SGD step on the sum over ``positions`` of each example's loss times its rate. Arguments as ``sgd_steps``."""
    h1s, h2s, d1s, d2s, zs = scratch(shape, positions.size)
    deltas(theta, shape, stream, positions, rates, h1s, h2s, d1s, d2s, zs)
    subtract(theta, shape, stream, positions, h1s, h2s, d1s, d2s, zs)


@njit
def pulled_step(theta, shape, stream, positions, rates, stiffness, anchor):
    """``sgd_step`` plus the step on a quadratic penalty: theta -= stiffness * theta - anchor, both at the old theta.

    Args:
        stiffness: [P] float32, the learning rate times the penalty's second derivative.
        anchor: [P] float32, ``stiffness`` times the parameters at which the penalty is zero.
    """
    h1s, h2s, d1s, d2s, zs = scratch(shape, positions.size)
    deltas(theta, shape, stream, positions, rates, h1s, h2s, d1s, d2s, zs)
    for i in range(theta.size):
        theta[i] -= stiffness[i] * theta[i] - anchor[i]
    subtract(theta, shape, stream, positions, h1s, h2s, d1s, d2s, zs)


@njit
def sgd_step_each(theta, shape, stream, positions, starts, rates):
    """``sgd_step`` on each of several batches in turn.

    Args:
        positions: the examples of all batches, one batch after the other.
        starts: [batches + 1] the start of each batch in ``positions``.
        rates: as ``positions``.
    """
    for b in range(starts.size - 1):
        begin, end = starts[b], starts[b + 1]
        sgd_step(theta, shape, stream, positions[begin:end], rates[begin:end])


@njit
def pulled_step_each(theta, shape, stream, positions, rate, stiffness, anchor):
    """``pulled_step`` on each example in turn, all with the same ``rate`` [1] float32."""
    for s in range(positions.size):
        pulled_step(theta, shape, stream, positions[s : s + 1], rate, stiffness, anchor)


@njit
def gradient(theta, shape, stream, positions):
    """The gradient [P] of the mean loss over ``positions``."""
    h1s, h2s, d1s, d2s, zs = scratch(shape, positions.size)
    rates = np.full(positions.size, -1.0 / positions.size, np.float32)  # minus: the gradient is subtracted
    deltas(theta, shape, stream, positions, rates, h1s, h2s, d1s, d2s, zs)
    result = np.zeros_like(theta)
    subtract(result, shape, stream, positions, h1s, h2s, d1s, d2s, zs)
    return result


@njit
def interpolate(theta, before, rate):
    """theta = before + rate * (theta - before), the Reptile step, in place."""
    for i in range(theta.size):
        theta[i] = before[i] + (theta[i] - before[i]) * rate


@njit
def reptile(theta, shape, stream, batches, rates, step):
    """For each batch in turn: ``sgd_steps`` over it, then ``interpolate`` from the parameters before the batch.

    Args:
        batches: [S, B] examples.
        rates: [S, B] float32.
        step: the Reptile rate.
    """
    before = np.empty_like(theta)
    for b in range(batches.shape[0]):
        before[:] = theta
        sgd_steps(theta, shape, stream, batches[b], rates[b])
        interpolate(theta, before, step)


@njit
def reptile_each(theta, shape, stream, positions, widths, count, rate, step, outer, across):
    """``reptile`` on the batches of each of several arriving examples in turn, ``interpolate`` after each example.

    Args:
        positions: the batches of all arriving examples, one after the other.
        widths: the length of each batch, by arriving example.
        count: number of batches for each arriving example.
        rate: float32, the learning rate of all examples.
        step: the Reptile rate within batches.
        outer: the Reptile rate across the batches of an arriving example, used where ``across`` is true.
    """
    before = np.empty_like(theta)
    at = 0
    for e in range(widths.size):
        width = widths[e]
        batches = positions[at : at + count * width].reshape(count, width)
        at += count * width
        if across:
            before[:] = theta
        reptile(theta, shape, stream, batches, np.full((count, width), rate, np.float32), step)
        if across:
            interpolate(theta, before, outer)


@njit
def correct(theta, shape, stream, pixel_map, scored, folded):
    """Count the right answers among the first ``scored`` examples when their pixels are rearranged.

    Input ``i`` of the network gets pixel ``pixel_map[i]`` of the image, or 0 where that is negative. No image is
    rearranged: the rows of the first layer are added up at the places of the pixels instead, in ``folded``, an array
    [inputs, h1].
    """
    pointers, pixels, intensities, labels = stream
    W1, b1, W2, b2, W3, b3 = layer_views(theta, shape)
    folded[:] = 0
    for i in range(pixel_map.size):
        if pixel_map[i] >= 0:
            for j in range(W1.shape[1]):
                folded[pixel_map[i], j] += W1[i, j]
    layers = (folded, b1, W2, b2, W3, b3)
    h1, h2 = np.empty(shape[1], np.float32), np.empty(shape[2], np.float32)
    active, active_values = np.empty(shape[1], np.uint16), np.empty(shape[1], np.float32)
    z = np.empty(shape[3], np.float32)
    right = 0
    for s in range(scored):
        start, stop = pointers[s], pointers[s + 1]
        _forward(layers, pixels[start:stop], intensities[start:stop], stop - start, h1, active, active_values, h2, z)
        best = 0
        for c in range(1, z.size):
            if z[c] > z[best]:
                best = c
        right += best == labels[s]
    return right
