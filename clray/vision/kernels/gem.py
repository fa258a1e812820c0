"""GEM's steps on a perceptron with two hidden layers, in compiled code (Lopez-Paz & Ranzato 2017).

A step needs the product of its gradient with the gradient on every past task's memory, and where a product is negative
the gradients themselves, for the quadratic program. What makes that fast:

- A layer's weight gradient is d aᵀ for its input a. So the product of two examples' gradients is (d·d')(a·a' + 1),
  summed over the layers, and no gradient is formed for it.
- A step without a violated constraint subtracts lr x dᵀ from the first layer. So the pre-activations of all memories
  are kept, and each changes by a multiple of d: an update of rank one, instead of a pass through the largest layer.
- The products x·x' with an arriving image are added up over its non-zero pixels, from lists of the memories that share
  each of them.
- Where gradients are formed, the rows of one input are formed for all tasks together, and enter the program's matrix
  while they are in the processor's nearest cache.

Arguments of all functions here:

    theta, shape, stream: as in ``kernels.mlp``.
    turned: [h2, h1] the second layer's weights, transposed, for the backward pass.
    memories: [tasks, m] examples of the stream: the memory of each past task.
    shares: [tasks, m] float32: what each memory's loss counts in its task's mean; 0 for a place without a memory.
    columns: ``by_input`` of the memories.
    passes: ``new_passes``: pre-activations and the latest forward and backward pass of each memory, for its task's mean
        loss.
    own: ``mlp.scratch(shape, 1)``: the pass of the arriving example, for its own loss.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from clray.vision.kernels.mlp import (
    aligned,
    deltas,
    dot,
    dot_of_rows,
    layer_views,
    loss_gradient,
    njit,
    subtract,
    sum_rows,
)

_TOGETHER = 32
"""Memories that go through a layer together."""


@njit
def by_input(stream, memories, inputs):
    """The non-zero inputs of the memories, listed by input instead of by example.

    There is one list for each input and task that have an entry, in the order of inputs, then tasks.

    Returns:
        The first list of each input [inputs + 1], the task of each list [lists], the start of each list [lists + 1],
        and its entries: the memories, numbered through all tasks, and their values.
    """
    pointers, pixels, intensities, _labels = stream
    tasks, size = memories.shape
    counts = np.zeros((inputs, tasks), np.int64)
    for k in range(tasks):
        for example in memories[k]:
            for t in range(pointers[example], pointers[example + 1]):
                counts[pixels[t], k] += 1
    lists = np.count_nonzero(counts)
    first, tasks_of, starts = np.zeros(inputs + 1, np.int64), np.empty(lists, np.int64), np.zeros(lists + 1, np.int64)
    free = np.empty_like(counts)
    n = 0
    for i in range(inputs):
        for k in range(tasks):
            if counts[i, k]:
                free[i, k] = starts[n]
                tasks_of[n] = k
                starts[n + 1] = starts[n] + counts[i, k]
                n += 1
        first[i + 1] = n
    members, values = np.empty(starts[lists], np.uint32), np.empty(starts[lists], np.float32)
    for k in range(tasks):
        for s in range(size):
            example = memories[k, s]
            for t in range(pointers[example], pointers[example + 1]):
                at = free[pixels[t], k]
                members[at], values[at] = k * size + s, intensities[t]
                free[pixels[t], k] += 1
    return first, tasks_of, starts, members, values


def new_passes(shape: tuple[int, int, int, int], n: int) -> tuple[Any, ...]:
    """Room for ``n`` memories: pre-activations, products x·x', gradients d1, activations h2, gradients d2 and z."""
    _inputs, h1, h2, classes = shape
    return aligned(n, h1), aligned(n), aligned(n, h1), aligned(n, h2), aligned(n, h2), aligned(n, classes)


@njit
def preactivations(theta, shape, stream, memories, passes):
    """Compute the first layer's pre-activations of all memories anew."""
    pointers, pixels, intensities, _labels = stream
    W1, b1 = layer_views(theta, shape)[:2]
    pre = passes[0]
    size = memories.shape[1]
    for s in range(memories.size):
        example = memories[s // size, s % size]
        start, stop = pointers[example], pointers[example + 1]
        sum_rows(pre[s], b1, W1, pixels, intensities, start, stop)


@njit
def turn(theta, shape, turned):
    """Copy the second layer's weights into ``turned``."""
    W2 = layer_views(theta, shape)[2]
    for i in range(W2.shape[0]):
        for j in range(W2.shape[1]):
            turned[j, i] = W2[i, j]


@njit
def _overlap(stream, columns, example, overlaps):
    """The product of the example's image with that of each memory, into ``overlaps``."""
    pointers, pixels, intensities, _labels = stream
    first, _tasks, starts, members, values = columns
    overlaps[:] = 0
    for t in range(pointers[example], pointers[example + 1]):
        i, v = pixels[t], intensities[t]
        for k in range(starts[first[i]], starts[first[i + 1]]):
            overlaps[members[k]] += values[k] * v


@njit
def _above_zero(numbers, tested, places, values):
    """List the places at which ``tested`` is above zero, and the ``numbers`` there. Returns how many there are."""
    m = 0
    for j in range(tested.size):  # without a branch: the processor cannot predict which units are active
        places[m] = j
        values[m] = numbers[j]
        m += tested[j] > 0
    return m


@njit
def _pass_memories(theta, turned, shape, stream, memories, shares, passes):
    """Forward and backward passes of all memories from their pre-activations, each for its task's mean loss.

    Some memories go through one layer before they go through the next, so that a layer's weights stay near.
    """
    labels = stream[3]
    _W1, _b1, W2, b2, W3, b3 = layer_views(theta, shape)
    pre, _overlaps, d1s, h2s, d2s, zs = passes
    size = memories.shape[1]
    widest = max(shape[1], shape[2])
    places, values = np.empty(widest, np.uint16), np.empty(widest, np.float32)
    zero1, zero2 = np.zeros(shape[1], np.float32), np.zeros(shape[2], np.float32)
    classes = np.arange(shape[3]).astype(np.uint16)
    for begin in range(0, memories.size, _TOGETHER):
        end = min(begin + _TOGETHER, memories.size)
        for s in range(begin, end):
            h2 = h2s[s]
            m = _above_zero(pre[s], pre[s], places, values)
            sum_rows(h2, b2, W2, places, values, 0, m)
            for j in range(h2.size):
                h2[j] = max(h2[j], np.float32(0))
        for s in range(begin, end):
            h2, d2, z = h2s[s], d2s[s], zs[s]
            for c in range(z.size):
                z[c] = dot(h2, W3[c]) + b3[c]
            loss_gradient(z, labels[memories[s // size, s % size]], shares[s // size, s % size])
            sum_rows(d2, zero2, W3, classes, z, 0, z.size)
            for j in range(d2.size):
                d2[j] = d2[j] if h2[j] > 0 else np.float32(0)
        for s in range(begin, end):
            d1, a = d1s[s], pre[s]
            m = _above_zero(d2s[s], h2s[s], places, values)
            sum_rows(d1, zero1, turned, places, values, 0, m)
            for j in range(d1.size):
                d1[j] = d1[j] if a[j] > 0 else np.float32(0)


@njit
def _products(memories, passes, own, active, products):
    """The product of each task's mean gradient with the arriving example's, into ``products`` [tasks] float64."""
    pre, overlaps, d1s, h2s, d2s, zs = passes
    h1, h2, d1, d2, z = own[0][0], own[1][0], own[2][0], own[3][0], own[4][0]
    size = memories.shape[1]
    m = 0
    for j in range(h1.size):
        active[m] = j
        m += h1[j] > 0
    for k in range(memories.shape[0]):
        total = 0.0
        for s in range(k * size, (k + 1) * size):
            h_h = np.float32(1)
            a = pre[s]
            for t in range(m):
                h_h += max(a[active[t]], np.float32(0)) * h1[active[t]]
            z_z = np.float32(0)
            for c in range(z.size):
                z_z += zs[s, c] * z[c]
            total += dot(d1s[s], d1) * (overlaps[s] + 1)
            total += dot(d2s[s], d2) * h_h
            total += z_z * (dot(h2s[s], h2) + 1)
        products[k] = total


@njit
def plain_step(theta, turned, shape, stream, example, passes, own, lr):
    """One SGD step on the example [1] whose pass is in ``own``; the memories' pre-activations follow it."""
    pre, overlaps = passes[0], passes[1]
    h1s, h2s, d1s, d2s, zs = own
    change1, change2 = lr * d1s, lr * d2s
    subtract(theta, shape, stream, example, h1s, h2s, change1, change2, lr * zs)
    h1, d1, d2 = h1s[0], change1[0], change2[0]
    for j in range(d2.size):
        if d2[j] != 0:
            row = turned[j]
            for i in range(h1.size):
                row[i] -= h1[i] * d2[j]
    for n in range(pre.shape[0]):
        row, factor = pre[n], overlaps[n] + 1
        for j in range(d1.size):
            row[j] -= factor * d1[j]


@njit
def steps(theta, turned, shape, stream, arriving, memories, shares, columns, passes, own, lr, products):
    """Plain SGD steps on the arriving examples in turn, up to the first one that violates a constraint.

    Args:
        arriving: [n] examples of the stream.
        lr: float32, the learning rate.
        products: [tasks] float64; receives the last example's products.

    Returns:
        The number of steps made. Where it is less than n, the next example violates a constraint, or a number is not
        finite; ``passes``, ``own`` and ``products`` are then of that example.
    """
    h1s, h2s, d1s, d2s, zs = own
    active = np.empty(shape[1], np.uint16)
    one = np.ones(1, np.float32)
    for s in range(arriving.size):
        example = arriving[s : s + 1]
        deltas(theta, shape, stream, example, one, h1s, h2s, d1s, d2s, zs)
        _overlap(stream, columns, arriving[s], passes[1])
        _pass_memories(theta, turned, shape, stream, memories, shares, passes)
        _products(memories, passes, own, active, products)
        for k in range(products.size):
            if not products[k] >= 0:
                return s
        plain_step(theta, turned, shape, stream, example, passes, own, lr)
    return arriving.size


@njit
def form(shape, memories, columns, passes, rows, others, gram):
    """Form the gradient of each task's mean loss, and the matrix of their products.

    Args:
        rows: [lists, h1]; receives the first layer's rows, one for each list of ``columns``.
        others: [tasks, r]; receives the other layers' parts, in the order of ``theta``, r being their size rounded up
            to a multiple of 16.
        gram: [tasks, tasks] float64; receives the products.
    """
    gram[:] = 0
    _form_first(shape, columns, passes, rows, gram)
    _form_others(shape, memories, passes, others, gram)
    for k in range(gram.shape[0]):
        for other in range(k):
            gram[other, k] = gram[k, other]


@njit
def _form_first(shape, columns, passes, rows, gram):
    """The first layer's part of ``form``, which is added to the lower triangle of ``gram``."""
    d1s = passes[2]
    first, tasks, starts, members, values = columns
    zero = np.zeros(shape[1], np.float32)
    for i in range(shape[0]):
        for n in range(first[i], first[i + 1]):
            sum_rows(rows[n], zero, d1s, members, values, starts[n], starts[n + 1])
            for other in range(first[i], n + 1):
                gram[tasks[n], tasks[other]] += dot_of_rows(rows, n, other)


@njit
def _form_others(shape, memories, passes, others, gram):
    """The other layers' part of ``form``."""
    pre, _overlaps, d1s, h2s, d2s, zs = passes
    tasks, size = memories.shape
    zero1, zero2 = np.zeros(shape[1], np.float32), np.zeros(shape[2], np.float32)
    everyone, ones = np.arange(size).astype(np.uint32), np.ones(size, np.float32)
    active, active_values = np.empty(size, np.uint32), np.empty(size, np.float32)
    for k in range(tasks):
        begin, end = k * size, (k + 1) * size
        a, d1, h2, d2, z = pre[begin:end], d1s[begin:end], h2s[begin:end], d2s[begin:end], zs[begin:end]
        b1, W2, b2, W3, b3 = _other_views(others[k], shape)
        sum_rows(b1, zero1, d1, everyone, ones, 0, size)
        sum_rows(b2, zero2, d2, everyone, ones, 0, size)
        for i in range(shape[1]):
            m = 0
            for s in range(size):
                active[m] = s
                active_values[m] = a[s, i]
                m += a[s, i] > 0
            sum_rows(W2[i], zero2, d2, active, active_values, 0, m)
        for c in range(shape[3]):
            b3[c] = 0
            for s in range(size):
                active_values[s] = z[s, c]
                b3[c] += z[s, c]
            sum_rows(W3[c], zero2, h2, everyone, active_values, 0, size)
        for other in range(k + 1):
            gram[k, other] += dot_of_rows(others, k, other)


@njit
def _other_views(flat, shape):
    """Views of all parameters but the first layer's weights: b1, W2, b2, W3, b3."""
    _inputs, h1, h2, k = shape
    b, c = h1 + h1 * h2, h1 + h1 * h2 + h2
    e = c + k * h2
    return flat[:h1], flat[h1:b].reshape(h1, h2), flat[b:c], flat[c:e].reshape(k, h2), flat[e : e + k]


@njit
def projected_step(theta, turned, shape, stream, example, memories, columns, passes, own, rows, others, weights, lr):
    """One SGD step along the example's gradient plus a weighted sum of the tasks' gradients.

    Args:
        example: [1] the arriving example.
        rows, others: the gradients, as ``form`` left them.
        weights: [tasks] float32.
        lr: float32.
    """
    h1s, h2s, d1s, d2s, zs = own
    first, tasks_of = columns[0], columns[1]
    W1 = layer_views(theta, shape)[0]
    rates = -lr * weights[tasks_of]
    everyone = np.arange(rows.shape[0]).astype(np.uint32)
    for i in range(shape[0]):
        sum_rows(W1[i], W1[i], rows, everyone, rates, first[i], first[i + 1])
    rest = theta[shape[0] * shape[1] :]
    change = np.empty(others.shape[1], np.float32)
    sum_rows(change, np.zeros_like(change), others, everyone, -lr * weights, 0, weights.size)
    for j in range(rest.size):
        rest[j] += change[j]
    subtract(theta, shape, stream, example, h1s, h2s, lr * d1s, lr * d2s, lr * zs)
    turn(theta, shape, turned)
    preactivations(theta, shape, stream, memories, passes)
