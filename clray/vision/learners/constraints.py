"""GEM's constraints on a perceptron's steps, from the memories of past tasks (Lopez-Paz & Ranzato 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from clray.vision.kernels import gem, mlp
from clray.vision.learners.perceptron import EagerPerceptron, Net
from clray.vision.learners.perceptron_fused import FusedPerceptron
from clray.vision.stream import Numbers


class Constraints(Protocol):
    """The memories of past tasks as constraints on a network's steps.

    A step along g violates a task's constraint if g points against the gradient of the mean loss on its memory.
    """

    def __len__(self) -> int:
        """The number of tasks."""
        ...

    def steps(self, numbers: Numbers) -> int:
        """One SGD step per example, in this order, up to the first step that would violate a constraint.

        Returns:
            The number of steps made. Where it is less than the number of examples, the next one violates a constraint,
            or its product with a task's gradient is not finite.
        """
        ...

    def program(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The products of the tasks' gradients with each other [t, t] and with the gradient of the example [t].

        The example is the one before which ``steps`` stopped.
        """
        ...

    def projected_step(self, number: int, multipliers: NDArray[np.float64]) -> None:
        """One SGD step along the example's gradient plus the tasks' gradients times ``multipliers`` [t].

        Call it after ``program``.
        """
        ...

    def forget(self, number: int) -> None:
        """Take an example out of its task's memory, where others are left."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The state that cannot be computed again with the same bits from the parameters and the memories."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def constraints(net: Net, memories: Sequence[Numbers]) -> Constraints:
    """The constraints on a network from the memories of past tasks, in the form of the network's engine.

    Args:
        net: the network.
        memories: the examples of each task, at least one.
    """
    if isinstance(net, FusedPerceptron):
        return FusedConstraints(net, memories)
    assert isinstance(net, EagerPerceptron)
    return EagerConstraints(net, memories)


class EagerConstraints:
    """The constraints by autograd, one task after the other: see ``Constraints``."""

    def __init__(self, net: EagerPerceptron, memories: Sequence[Numbers]) -> None:
        self._net, self._memories = net, list(memories)
        self._past: Any = None
        """The gradients [t, P] on the memories, at the example before which ``steps`` stopped."""
        self._own: Any = None
        """That example's gradient [P]."""

    def __len__(self) -> int:
        return len(self._memories)

    def _gradient(self, numbers: Any) -> Any:
        return torch.cat([g.reshape(-1) for g in self._net.gradients(self._net.losses(numbers).mean())])

    def steps(self, numbers: Numbers) -> int:
        for i, number in enumerate(numbers.tolist()):
            self._past = torch.stack([self._gradient(memory) for memory in self._memories])
            self._own = self._gradient([number])
            if not bool((self._past @ self._own >= 0).all()):
                return i
            self._update(self._own)
        return len(numbers)

    def program(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        gram, products = (self._past.double() @ other.double() for other in (self._past.T, self._own))
        return gram.cpu().numpy(), products.cpu().numpy()

    def projected_step(self, number: int, multipliers: NDArray[np.float64]) -> None:
        self._update(self._own + self._past.T @ torch.from_numpy(multipliers).to(self._past))

    def _update(self, gradient: Any) -> None:
        parameters = self._net.parameters
        parts = gradient.split([p.numel() for p in parameters])
        self._net.update([part.view_as(p) for part, p in zip(parts, parameters, strict=True)])

    def forget(self, number: int) -> None:
        self._memories = [memory[memory != number] for memory in self._memories]

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class FusedConstraints:
    """The constraints on the fused kernels: see ``Constraints`` and ``kernels/gem.py``."""

    def __init__(self, net: FusedPerceptron, memories: Sequence[Numbers]) -> None:
        (inputs, h1, h2, classes), tasks = net.shape, len(memories)
        self._net = net
        self._memories, self._shares = _with_shares(memories)
        self._columns = gem.by_input(net.examples, self._memories, inputs)
        self._passes = gem.new_passes(net.shape, self._memories.size)
        self._own = mlp.scratch(net.shape, 1)
        self._products = np.zeros(tasks)
        self._turned = mlp.aligned(h2, h1)
        others = h1 + h1 * h2 + h2 + classes * h2 + classes
        self._rows = mlp.aligned(len(self._columns[1]), h1)
        self._others = mlp.aligned(tasks, -(-others // mlp.PAD) * mlp.PAD)
        gem.turn(net.theta, net.shape, self._turned)
        gem.preactivations(net.theta, net.shape, net.examples, self._memories, self._passes)

    def __len__(self) -> int:
        return len(self._memories)

    def steps(self, numbers: Numbers) -> int:
        net = self._net
        return int(
            gem.steps(
                net.theta, self._turned, net.shape, net.examples, numbers, self._memories, self._shares,
                self._columns, self._passes, self._own, np.float32(net.lr), self._products,
            )
        )  # fmt: skip

    def program(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        gram = np.empty((len(self), len(self)))
        gem.form(
            self._net.shape, self._memories, self._columns, self._passes, self._rows, self._others, gram
        )  # fmt: skip
        return gram, self._products

    def projected_step(self, number: int, multipliers: NDArray[np.float64]) -> None:
        net = self._net
        gem.projected_step(
            net.theta, self._turned, net.shape, net.examples, np.array([number]), self._memories, self._columns,
            self._passes, self._own, self._rows, self._others, multipliers.astype(np.float32), np.float32(net.lr),
        )  # fmt: skip

    def forget(self, number: int) -> None:
        task = int(np.flatnonzero(((self._memories == number) & (self._shares > 0)).any(1))[0])
        shares = self._shares[task]
        left = (shares > 0) & (self._memories[task] != number)
        shares[...] = np.where(left, np.float32(1.0 / left.sum()), np.float32(0))

    def state_dict(self) -> dict[str, Any]:
        return {"preactivations": self._passes[0].copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._passes[0][...] = state["preactivations"]


def _with_shares(memories: Sequence[Numbers]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Memories [tasks, m] and their shares [tasks, m]; a shorter one is filled up with examples that do not count."""
    sizes = [len(memory) for memory in memories]
    filled = np.empty((len(memories), max(sizes)), np.int64)
    shares = np.zeros(filled.shape, np.float32)
    for row, share, memory in zip(filled, shares, memories, strict=True):
        row[...] = np.resize(memory, len(row))
        share[: len(memory)] = 1.0 / len(memory)
    return filled, shares
