"""TAG, task-based accumulated gradients (Malviya 2022, arXiv 2105.05155), as torch optimizers for any network.

TAG keeps, for every task, a first moment M and a second moment V of the gradient. A parameter's step is divided by
the root of a weighted sum of all tasks' second moments. The less a past task's gradients agree with those of the
present task, the larger its weight, and the smaller the steps of the parameters that it uses. The official code
(github.com/pranshu28/TAG @187d4df) computes for each parameter tensor, with its gradient g and the present task t::

    M_t <- 0.9 M_t + 0.1 g
    V_t <- beta2 V_t + (1 - beta2) g²                      (rmsprop: beta2 0.99, adam: 0.999; adagrad: V_t + g²)
    alpha_s = exp(-b cos(M_t, M_s))  for s < t             M_s as it was when task s ended
    alpha_t = exp(-b), on the first task 1
    D = sqrt(sum over s <= t of alpha_s V_s)
    p <- p - lr g / (D + eps)                              (adam: bias-corrected M_t in place of g, D too)

Differences from the paper's text: eps is added outside the root, the first task's alpha is 1, no alpha is normalised,
and adam's bias correction counts the batches of an epoch and divides the moments of past tasks as well.

``Tag`` keeps the moments of all tasks as one matrix (tasks x parameters) and reads it once a step, in matrix-vector
products. ``PlainTag`` computes the formulas above tensor by tensor and task by task: it is the slow reference form.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

Base = Literal["rmsprop", "adagrad", "adam"]

_BETA1 = 0.9
_BETA2 = {"rmsprop": 0.99, "adagrad": 1.0, "adam": 0.999}


class TaskOptimizer(torch.optim.Optimizer):
    """The part that both forms share: the number of the present task, and the position in its epoch.

    Call ``begin_epoch()`` at the start of every epoch (only adam's bias correction uses it) and ``end_task()`` at the
    end of a task. All parameters need a gradient at every step.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, b: float = 5.0, base: Base = "rmsprop", eps: float = 1e-8
    ) -> None:
        """
        Args:
            params: parameter tensors, or groups of them with an ``lr`` each.
            lr: learning rate.
            b: how strongly agreement between tasks changes alpha: ``b`` in the paper's equation (searched from 1 to 7).
            base: the optimizer whose second moment each task keeps.
            eps: added to the root.

        Raises:
            ValueError: a number is out of its range, or the base is unknown.
        """
        if base not in _BETA2:
            raise ValueError(f"base: {base!r} is none of {', '.join(_BETA2)}")
        if lr <= 0 or eps <= 0 or b < 0:
            raise ValueError(f"lr and eps must be positive and b not negative: lr={lr}, eps={eps}, b={b}")
        super().__init__(params, {"lr": lr})
        self.b, self.base, self.eps = b, base, eps
        self.tasks = 0
        """Tasks that are over."""
        self.batches = 0
        """Steps taken in this epoch."""
        self.tensors: list[Tensor] = [p for group in self.param_groups for p in group["params"]]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add tensors that are trained from now on, as with any torch optimizer, at any time.

        They are treated as if their gradient had been zero at every step so far: past tasks do not change their steps,
        and adam's bias correction continues to count the batches of the epoch.
        """
        super().add_param_group(param_group)
        if hasattr(self, "tensors"):  # torch's constructor calls this too, before ``tensors`` exists
            self.tensors += self.param_groups[-1]["params"]
            self._make_room()

    @property
    def alphas(self) -> Tensor:
        """The weights of the last step [tasks + 1, tensors]; those of the present task are in the last row."""
        raise NotImplementedError

    def begin_epoch(self) -> None:
        self.batches = 0

    def end_task(self) -> None:
        """Store the present task's moments, and begin the next task's."""
        self.tasks += 1
        self.batches = 0

    def _make_room(self) -> None:
        """Add moments of zero for those of ``tensors``, the last ones, that have none yet."""
        raise NotImplementedError

    def _update(self) -> None:
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step along the gradients that the parameters hold."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for p in self.tensors:
            if p.grad is None:
                raise RuntimeError("TAG: a parameter has no gradient: give the optimizer only those that are learned")
        self._update()
        self.batches += 1
        return loss

    def _corrections(self) -> tuple[float, float]:
        """Adam's bias corrections of M and of V; 1 for the others."""
        if self.base != "adam":
            return 1.0, 1.0
        return 1.0 - _BETA1 ** (self.batches + 1), 1.0 - _BETA2["adam"] ** (self.batches + 1)

    @property
    def _rates(self) -> list[float]:
        return [group["lr"] for group in self.param_groups for _ in group["params"]]


class Tag(TaskOptimizer):
    """TAG with all moments in one matrix: it holds (2 tasks + 2) x parameters numbers, and a step reads them once."""

    def __init__(
        self, params: Iterable[Any], lr: float, b: float = 5.0, base: Base = "rmsprop", eps: float = 1e-8
    ) -> None:
        super().__init__(params, lr, b, base, eps)
        device = self.tensors[0].device
        self._first = self._second = torch.zeros(0, device=device)
        self._directions = torch.zeros((0, 0), device=device)
        """[tasks, parameters]: the first moments of the tasks that are over, every tensor of norm 1."""
        self._seconds = torch.zeros((0, 0), device=device)
        """[tasks, parameters]: their second moments."""
        self._alphas = torch.ones((1, 0), device=device)
        self._make_room()

    def _make_room(self) -> None:
        ends = list(itertools.accumulate(p.numel() for p in self.tensors))
        self._spans = [slice(end - p.numel(), end) for end, p in zip(ends, self.tensors, strict=True)]
        """The slice of each tensor's numbers among all."""
        new = (0, ends[-1] - len(self._first))
        self._first, self._second = pad(self._first, new), pad(self._second, new)
        self._directions, self._seconds = pad(self._directions, new), pad(self._seconds, new)
        self._alphas = pad(self._alphas, (0, len(self.tensors) - self._alphas.shape[1]), value=1.0)
        self._gradient, self._denominator = torch.zeros((2, ends[-1]), device=self._first.device)
        self._gradients = self._pieces(self._gradient)
        self._firsts = [self._first[span] for span in self._spans]
        self._steps = self._pieces(self._denominator)

    def _pieces(self, flat: Tensor) -> list[Tensor]:
        """Each tensor's part of a flat array, as a view in the tensor's shape."""
        return [flat[span].view(p.shape) for span, p in zip(self._spans, self.tensors, strict=True)]

    @property
    def alphas(self) -> Tensor:
        return self._alphas

    def _update(self) -> None:
        g = self._gradient
        torch._foreach_copy_(self._gradients, [p.grad for p in self.tensors if p.grad is not None])
        self._first.mul_(_BETA1).add_(g, alpha=1 - _BETA1)
        if self.base == "adagrad":
            self._second.addcmul_(g, g)
        else:
            beta2 = _BETA2[self.base]
            self._second.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        denominator = self._denominator
        if self.tasks:
            self._alphas = self._agreement()
            past, present = self._alphas[:-1].t().contiguous(), math.exp(-self.b)
            for i, span in enumerate(self._spans):
                torch.mv(self._seconds[:, span].t(), past[i], out=denominator[span])
            denominator.add_(self._second, alpha=present).sqrt_()
        else:
            torch.sqrt(self._second, out=denominator)
        first, second = self._corrections()
        denominator.div_(math.sqrt(second)).add_(self.eps)
        torch.div(self._first / first if self.base == "adam" else g, denominator, out=denominator)
        if len(rates := {*self._rates}) == 1:
            torch._foreach_add_(self.tensors, self._steps, alpha=-rates.pop())
        else:
            for p, step, lr in zip(self.tensors, self._steps, self._rates, strict=True):
                p.add_(step, alpha=-lr)

    def _norms(self) -> Tensor:
        """The norm [tensors] of the present task's first moments; infinite if it is zero or too small to be squared."""
        norms = torch.stack(list(torch._foreach_norm(self._firsts)))
        return norms.masked_fill_(norms == 0, torch.inf)

    def _agreement(self) -> Tensor:
        """alpha [tasks + 1, tensors]. A zero first moment agrees with nothing (the official code divides by zero)."""
        pairs = zip(self._spans, self._firsts, strict=True)
        products = torch.stack([torch.mv(self._directions[:, span], m) for span, m in pairs], dim=1)
        cosines = products / self._norms()
        return torch.exp(-self.b * torch.cat([cosines, torch.ones_like(cosines[:1])]))

    @torch.no_grad()
    def end_task(self) -> None:
        super().end_task()
        direction = torch.cat([m / norm for m, norm in zip(self._firsts, self._norms(), strict=True)])
        self._directions = torch.cat([self._directions, direction.unsqueeze(0)])
        self._seconds = torch.cat([self._seconds, self._second.unsqueeze(0)])
        self._first.zero_()
        self._second.zero_()

    def state_dict(self) -> dict[str, Any]:
        return {
            "tasks": self.tasks,
            "batches": self.batches,
            "lrs": [group["lr"] for group in self.param_groups],
            "first": self._first.clone(),
            "second": self._second.clone(),
            "directions": self._directions,
            "seconds": self._seconds,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["first"].shape != self._first.shape:
            raise ValueError("TAG: this state belongs to a network of other sizes")
        self.tasks, self.batches = state_dict["tasks"], state_dict["batches"]
        for group, lr in zip(self.param_groups, state_dict["lrs"], strict=True):
            group["lr"] = lr
        self._first.copy_(state_dict["first"])
        self._second.copy_(state_dict["second"])
        self._directions = state_dict["directions"].to(self._first.device)
        self._seconds = state_dict["seconds"].to(self._first.device)


class PlainTag(TaskOptimizer):
    """TAG computed tensor by tensor and task by task, as the module's docstring writes it."""

    def __init__(
        self, params: Iterable[Any], lr: float, b: float = 5.0, base: Base = "rmsprop", eps: float = 1e-8
    ) -> None:
        super().__init__(params, lr, b, base, eps)
        self._first: list[Tensor] = []
        self._second: list[Tensor] = []
        self._past: list[tuple[list[Tensor], list[Tensor]]] = []
        """For every finished task, by tensor: the first moment as a unit vector, and the second moment."""
        self._alphas: list[Tensor] = []
        self._make_room()

    def _make_room(self) -> None:
        new = self.tensors[len(self._first) :]
        for moments in (self._first, self._second, *itertools.chain(*self._past)):
            moments += [torch.zeros_like(p) for p in new]
        rows = len(self._alphas[0]) if self._alphas else 1
        self._alphas += [torch.ones(rows, device=p.device) for p in new]

    @property
    def alphas(self) -> Tensor:
        return torch.stack(self._alphas, dim=1)

    def _update(self) -> None:
        rates = self._rates
        for i, p in enumerate(self.tensors):
            g = p.grad
            assert g is not None
            self._first[i] = _BETA1 * self._first[i] + (1 - _BETA1) * g
            if self.base == "adagrad":
                self._second[i] = self._second[i] + g**2
            else:
                beta2 = _BETA2[self.base]
                self._second[i] = beta2 * self._second[i] + (1 - beta2) * g**2
            alphas = [torch.exp(-self.b * torch.sum(_unit(self._first[i]) * unit[i])) for unit, _ in self._past]
            alphas.append(torch.tensor(math.exp(-self.b) if self.tasks else 1.0, device=p.device))
            self._alphas[i] = torch.stack(alphas)
            moments = [second[i] for _, second in self._past] + [self._second[i]]
            total = sum((alpha * moment for alpha, moment in zip(alphas, moments, strict=True)), torch.zeros_like(p))
            first, second = self._corrections()
            numerator = self._first[i] / first if self.base == "adam" else g
            p -= rates[i] * numerator / (torch.sqrt(total) / math.sqrt(second) + self.eps)

    def end_task(self) -> None:
        super().end_task()
        self._past.append(([_unit(m) for m in self._first], self._second))
        self._first = [torch.zeros_like(p) for p in self.tensors]
        self._second = [torch.zeros_like(p) for p in self.tensors]

    def state_dict(self) -> dict[str, Any]:
        return {
            "tasks": self.tasks,
            "batches": self.batches,
            "lrs": [group["lr"] for group in self.param_groups],
            "first": list(self._first),
            "second": list(self._second),
            "past": [[list(units), list(seconds)] for units, seconds in self._past],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if [m.shape for m in state_dict["first"]] != [p.shape for p in self.tensors]:
            raise ValueError("TAG: this state belongs to a network of other sizes")
        self.tasks, self.batches = state_dict["tasks"], state_dict["batches"]
        for group, lr in zip(self.param_groups, state_dict["lrs"], strict=True):
            group["lr"] = lr
        device = self.tensors[0].device
        self._first = [m.to(device) for m in state_dict["first"]]
        self._second = [v.to(device) for v in state_dict["second"]]
        self._past = [([u.to(device) for u in us], [v.to(device) for v in vs]) for us, vs in state_dict["past"]]


def _unit(moment: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(moment)
    return moment / norm if norm > 0 else moment
