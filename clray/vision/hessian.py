"""The shape of the loss around a network's weights: the largest eigenvalues of its Hessian, and how far it moved.

Stable SGD (Mirzadeh 2020, arXiv 2006.06958) shows both in Fig. 3. Its official code
(github.com/imirzadeh/stable-continual-learning @be4049c) computes the eigenvalues once for each task, right after its
last epoch. It uses the mean cross-entropy of the network in eval mode on that task's test images, in batches of 256.
The defaults here do the same as that code:

- its ``external_libs/hessian_eigenthings`` averages the products of the batches with equal weights, so that an image
  in a short last batch weighs more (``weighting: batches``). The mean over images is ``weighting: examples``;
- it runs 18 steps of power iteration for each of 3 eigenvalues and ends before convergence. Lanczos on the same
  weights gives values that differ by about one per cent;
- it never measures the displacement that the paper's figure shows. Here the displacement is the Frobenius norm over
  all parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from clray.vision.ranges import Count

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Weighting = Literal["batches", "examples"]

_CHUNK = 1024  # images; larger chunks are no faster
_CHUNK_BYTES = 2**28  # that the graph of one chunk may hold
_KEPT_BYTES = 2**30  # that all graphs together may hold between products


class Curvature(BaseModel):
    """The settings of the Hessian's measurement after each task."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    eigenvalues: Annotated[int, Field(ge=1, le=1000)] = 3
    solver: Literal["power_iteration", "lanczos"] = "power_iteration"
    """``power_iteration``: 18 steps each, as the official code; ``lanczos``: converged."""
    images: Count | None = None
    """The task's first so many test images; None for all."""
    batch: Count = 256
    """Images a batch. It sets how much an image weighs where ``weighting`` is ``batches``, nothing else."""
    weighting: Weighting = "batches"
    """``batches`` counts every batch alike, as the official code; ``examples`` counts every image alike."""


# --------------------------------------------------------------------------------------------------------------
# Hessian times vector


def image_weights(images: int, batch: int, weighting: Weighting) -> NDArray[np.float64]:
    """The weight of each image's cross-entropy in the loss whose Hessian is taken: [images], with the sum 1.

    A mean over batches of the means over their images is a weighted sum over images. So it can be computed in pieces of
    any size, whatever the batches are.
    """
    if weighting == "examples":
        return np.full(images, 1 / images)
    starts = np.arange(0, images, batch)
    sizes = np.minimum(batch, images - starts)
    return np.repeat(1 / (len(starts) * sizes), sizes)


class HessianProduct:
    """The Hessian of a module's cross-entropy times a vector.

    The module is read, never written: it is evaluated in eval mode with copies of its parameters and buffers, and its
    modes are as they were when the constructor returns. Later changes to it do not reach this object.

    The weights never change, so the graph of the gradient is built once by ``torch.autograd``, and a product is one
    backward pass through it. On one core, with the MLP 784-100-100-10 and 10,000 images, a product takes 77 ms in
    chunks of 1024 and 90 ms in batches of 256. It takes 150 ms where the gradient is built anew for every product, as
    the official code does, 200 to 290 ms by ``torch.func.jvp`` of the gradient, and 80 to 94 ms by
    ``torch.func.linearize`` after seconds of tracing. Graphs that would hold more than a gigabyte are built anew for
    every product.

    Args:
        module: any module that maps x to logits, where in eval mode an image's logits depend on no other image.
        x: inputs [n, …] of the module, of its dtype, on its device.
        y: labels [n].
        batch: images a batch, see ``image_weights``.
        weighting: give equal weights to batches or to examples.
        head: a function applied to the outputs before the softmax, such as selecting the columns of one task.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        x: Tensor,
        y: Tensor,
        batch: int = 256,
        weighting: Weighting = "batches",
        head: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        import torch

        assert len(x) == len(y) > 0, f"{len(x)} inputs, {len(y)} labels"
        self._copies = {n: p.detach().clone().requires_grad_() for n, p in module.named_parameters()}
        self._buffers = {n: b.detach().clone() for n, b in module.named_buffers()}
        self._parameters = list(self._copies.values())
        self._module, self._head = module, head
        first = self._parameters[0]
        self.dtype, self.device = first.dtype, first.device
        self.size = sum(p.numel() for p in self._parameters)
        """The number of parameters, which is the length of a vector. A vector has the order of ``parameters()``."""
        weights = torch.from_numpy(image_weights(len(x), batch, weighting)).to(self.device, self.dtype)
        held = self._held_bytes(x[:16], y[:16], weights[:16]) / len(x[:16])
        # Chunks of one batch round the sums as the official code does. This can decide when power iteration stops.
        most = batch if weighting == "batches" else _CHUNK
        chunk = int(min(most, max(1, _CHUNK_BYTES // held)))
        self._chunks = list(zip(x.split(chunk), y.split(chunk), weights.split(chunk), strict=True))
        self._kept = list(self._gradients()) if held * len(x) <= _KEPT_BYTES else None

    def __call__(self, vector: Tensor) -> Tensor:
        """``H v`` [size] for ``v`` [size]."""
        import torch

        total = torch.zeros_like(vector)
        for gradient in self._gradients() if self._kept is None else self._kept:
            parts = torch.autograd.grad(
                gradient,
                self._parameters,
                vector,
                retain_graph=self._kept is not None,
                allow_unused=True,
                materialize_grads=True,
            )
            total += _flat(parts)
        return total

    def _gradients(self) -> Iterator[Tensor]:
        """Each chunk's share of the gradient [size], with its graph."""
        return (self._gradient(*chunk) for chunk in self._chunks)

    def _gradient(self, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        import torch

        with _eval_mode(self._module):
            outputs = torch.func.functional_call(self._module, (self._copies, self._buffers), (x,))
        if self._head is not None:
            outputs = self._head(outputs)
        loss = torch.nn.functional.cross_entropy(outputs, y, reduction="none") @ weights
        found = torch.autograd.grad(
            loss, self._parameters, create_graph=True, allow_unused=True, materialize_grads=True
        )
        return _flat(found)

    def _held_bytes(self, x: Tensor, y: Tensor, weights: Tensor) -> int:
        """The memory that the graph of the gradient holds beside the parameters."""
        import torch

        held: dict[int, int] = {}

        def count(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
            return tensor.detach()

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            gradient = self._gradient(x, y, weights)
        known = {p.untyped_storage().data_ptr() for p in (x, y, weights, *self._parameters, gradient)}
        return max(1, sum(size for pointer, size in held.items() if pointer not in known))


@contextmanager
def _eval_mode(module: torch.nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _flat(tensors: Iterable[Tensor]) -> Tensor:
    import torch

    return torch.cat([tensor.reshape(-1) for tensor in tensors])


# --------------------------------------------------------------------------------------------------------------
# Eigenvalues

Product = Callable[["Tensor"], "Tensor"]
"""A symmetric matrix times a vector [size]."""


def top_eigenvalues_by_power_iteration(
    product: Product,
    size: int,
    count: int = 3,
    steps: int = 18,
    tolerance: float = 1e-5,
    *,
    generator: torch.Generator,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> list[float]:
    """Power iteration with deflation as ``external_libs/hessian_eigenthings`` of the official Stable SGD code does it.

    The following details change the numbers, since 18 steps end before convergence:

    - the first vector is uniform on [0, 1) in every component, and is not normalised. So the estimate of the first
      step does not estimate an eigenvalue, and is used by the stopping rule only, unless ``steps`` is 1;
    - a step is one product: the estimate is ``v·Hv`` for the step's input vector v, and its output vector is ``Hv``
      normalised. So the stored vector is one step ahead of the estimate;
    - it stops when the estimate changed by less than ``tolerance`` of itself, or after ``steps`` products;
    - an eigenpair (λ, v) is deflated by subtracting ``λ v (v·x)`` from every later product. The search for the next
      pair starts from that same ``v``, which the deflation cancels except for the error of an unconverged pair;
    - the results are the eigenvalues largest in magnitude, with their signs, sorted in descending order; they need
      not be found in that order;
    - a vector that the matrix maps to zero ends the search with the eigenvalue 0.

    The official code draws from torch's global generator, and draws more than it uses: ``size`` normal numbers for
    each eigenpair, and one 64-bit integer for each pass over the data (by the loader). Neither changes the result, but
    a program that reproduces its later random numbers has to draw them too.

    Args:
        product: a symmetric matrix times a vector of ``dtype`` on ``device``.
        size: the number of its rows.
        count: how many eigenvalues.
        generator: draws the first vector, in float32.
        dtype: float32 by default.
    """
    import torch

    vector = torch.rand(size, generator=generator, device=generator.device).to(device, dtype)
    found: list[tuple[float, Tensor]] = []
    for _ in range(min(count, size)):
        value = 0.0
        for _ in range(steps):
            image = product(vector)
            for eigenvalue, eigenvector in found:
                image = image - eigenvalue * eigenvector.dot(vector) * eigenvector
            before, value = value, float(vector.dot(image))
            length = image.norm()
            if length == 0:
                value, vector = 0.0, image
                break
            vector = image / length
            if value != 0 and abs((value - before) / value) < tolerance:
                break
        found.append((value, vector))
    return sorted((value for value, _ in found), reverse=True)


def top_eigenvalues_by_lanczos(
    product: Product,
    size: int,
    count: int = 3,
    tolerance: float = 1e-4,
    *,
    generator: torch.Generator,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> list[float]:
    """The algebraically largest eigenvalues, descending: implicitly restarted Lanczos (ARPACK, through SciPy).

    Args:
        product: a symmetric matrix times a vector of ``dtype`` on ``device``.
        size: the number of its rows; more than ``count``.
        count: how many eigenvalues.
        tolerance: the largest ``‖Hv - λv‖ / |λ|`` of an eigenpair (λ, v). The relative error of λ is at most that, and
            of the order of its square where eigenvalues are well apart.
        generator: draws the first vector: normal, in float32.
        dtype: float32 by default.

    Raises:
        FloatingPointError: a product is not finite.
        scipy.sparse.linalg.ArpackNoConvergence: ten products for every row were not enough.
    """
    import torch
    from scipy.sparse.linalg import LinearOperator, eigsh

    def apply(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        image = product(torch.from_numpy(vector.reshape(-1)).to(device, dtype or torch.float32))
        if not image.isfinite().all():
            raise FloatingPointError("the Hessian times a vector is not finite")
        return image.to("cpu", torch.float64).numpy()

    start = torch.randn(size, generator=generator, device=generator.device).to("cpu", torch.float64).numpy()
    operator = LinearOperator((size, size), matvec=apply, dtype=np.float64)
    values = eigsh(operator, count, which="LA", v0=start, tol=tolerance, return_eigenvectors=False)
    return sorted((float(value) for value in values), reverse=True)


def measure(
    module: torch.nn.Module,
    x: Tensor,
    y: Tensor,
    settings: Curvature,
    generator: torch.Generator,
    head: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, float]:
    """The largest eigenvalues of a task's Hessian: ``eigenvalue_1`` (the largest) to ``eigenvalue_k``.

    All are NaN where the loss or its derivatives are not finite: the network has diverged.

    Args:
        module: see ``HessianProduct``.
        x: the task's test images, as the module takes them.
        y: their labels.
        generator: draws the solver's first vector.
        head: see ``HessianProduct``.
    """
    chosen = slice(settings.images)
    product = HessianProduct(module, x[chosen], y[chosen], settings.batch, settings.weighting, head)
    powers = settings.solver == "power_iteration"
    solve = top_eigenvalues_by_power_iteration if powers else top_eigenvalues_by_lanczos
    wanted = settings.eigenvalues
    try:
        values = solve(product, product.size, wanted, generator=generator, dtype=product.dtype, device=product.device)
    except FloatingPointError:
        values = []
    if len(values) < wanted or not np.isfinite(values).all():
        values = [float("nan")] * wanted
    return {f"eigenvalue_{i + 1}": value for i, value in enumerate(values)}


# --------------------------------------------------------------------------------------------------------------
# Displacement


def norm(parameters: Iterable[Tensor]) -> float:
    """The Frobenius norm of all parameters together."""
    return math.sqrt(sum(float(p.detach().double().square().sum()) for p in parameters))


def displacement(parameters: Iterable[Tensor], origin: Iterable[Tensor]) -> float:
    """The distance of the parameters from their earlier values: ``‖w - o‖`` over all of them together.

    Both must have the same shapes in the same order. ``origin`` must hold copies, since parameters change in place.
    """
    return norm(p.detach().double() - o.detach().double() for p, o in zip(parameters, origin, strict=True))


def relative_displacement(parameters: Iterable[Tensor], origin: Iterable[Tensor]) -> float:
    """The displacement divided by the norm of the earlier parameters: ``‖w - o‖ / ‖o‖``."""
    origin = list(origin)
    return displacement(parameters, origin) / norm(origin)
