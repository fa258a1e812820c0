"""The optimizer and the schedule of LAMOL's code: AdamW as in pytorch_transformers 1.2.0, a rate by examples seen.

This AdamW is not torch's: ε is added to √v before its bias is corrected, so that ε has about 30 times the effect in the
first step, and the weight decay follows the step. The penalty of EWC and MAS is applied between the two
(``regularizers.py`` of Sun, Ho and Lee 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

UNDECAYED = ("bias", "LayerNorm.bias", "LayerNorm.weight")
"""Parameters with one of these in their names have no weight decay. GPT-2's ``ln_1.weight`` has none of them."""


@dataclass(frozen=True)
class Penalty:
    """A penalty that pulls parameters towards anchors: strength · Ω · (θ - anchor)².

    Attributes:
        strength: λ.
        terms: Ω and the anchor of each penalised parameter, both with the parameter's shape.
    """

    strength: float
    terms: Mapping[Parameter, tuple[Tensor, Tensor]]


def parameter_groups(model: Module, weight_decay: float) -> list[dict[str, Any]]:
    """The parameters with and without weight decay, separated by their names as in the official code."""
    decayed: list[Parameter] = []
    others: list[Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (others if any(part in name for part in UNDECAYED) else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


class AdamW(torch.optim.Optimizer):
    """θ ← θ - lr √(1-β₂ᵗ)/(1-β₁ᵗ) · m/(√v + ε), then θ ← θ - 2 lr λ Ω (θ - anchor), then θ ← θ - lr · decay · θ.

    Args:
        groups: parameters, or groups of them as from ``parameter_groups``.
        penalty: λ, Ω and anchors; None for no penalty.
        plain: True for separate operations; by default one kernel processes each parameter, with the same result apart
            from rounding.
    """

    def __init__(
        self,
        groups: Iterable[Any],
        lr: float = 6.25e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-4,
        weight_decay: float = 0.0,
        penalty: Penalty | None = None,
        plain: bool = False,
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "steps": 0})
        self.penalty, self.plain = penalty, plain

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Make one update; parameters without a gradient do not change."""
        if closure is not None:
            raise ValueError("this AdamW takes no closure")
        for group in self.param_groups:
            parameters: list[Any] = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._step(group, parameters)

    def _step(self, group: dict[str, Any], parameters: list[Any]) -> None:
        for p in parameters:
            if not self.state[p]:
                self.state[p] = {"m": torch.zeros_like(p), "v": torch.zeros_like(p)}
        gradients = [p.grad for p in parameters]
        m, v = ([self.state[p][name] for p in parameters] for name in ("m", "v"))
        group["steps"] += 1
        lr, decay, pulled = group["lr"], group["weight_decay"], self._pulled(parameters)
        # torch's kernel divides by 1 - lr · decay.
        plain = self.plain or lr * decay == 1 or parameters[0].device.type not in ("cpu", "cuda")
        update = _plain_update if plain else _fused_update
        update(parameters, gradients, m, v, group, 0.0 if pulled else decay)
        if pulled:
            assert self.penalty is not None
            held, omegas, anchors = pulled
            away: Any = torch._foreach_sub(held, anchors)
            torch._foreach_addcmul_(held, omegas, away, value=-2 * lr * self.penalty.strength)
            torch._foreach_mul_(parameters, 1 - lr * decay)

    def _pulled(self, parameters: list[Any]) -> tuple[list[Any], list[Any], list[Any]] | None:
        """The penalised parameters, their Ω and their anchors."""
        if self.penalty is None:
            return None
        held = [p for p in parameters if p in self.penalty.terms]
        terms = [self.penalty.terms[p] for p in held]
        return (held, [omega for omega, _ in terms], [anchor for _, anchor in terms]) if held else None


def _plain_update(
    parameters: list[Any],
    gradients: list[Any],
    m: list[Tensor],
    v: list[Tensor],
    group: dict[str, Any],
    decay: float,
) -> None:
    (beta1, beta2), t, lr = group["betas"], group["steps"], group["lr"]
    torch._foreach_mul_(m, beta1)
    torch._foreach_add_(m, gradients, alpha=1 - beta1)
    torch._foreach_mul_(v, beta2)
    torch._foreach_addcmul_(v, gradients, gradients, value=1 - beta2)
    below = torch._foreach_add(torch._foreach_sqrt(v), group["eps"])
    torch._foreach_addcdiv_(parameters, m, below, value=-lr * math.sqrt(1 - beta2**t) / (1 - beta1**t))
    torch._foreach_mul_(parameters, 1 - lr * decay)


def _fused_update(
    parameters: list[Any],
    gradients: list[Any],
    m: list[Tensor],
    v: list[Tensor],
    group: dict[str, Any],
    decay: float,
) -> None:
    """Make the step with torch's kernel, which corrects √v before ε is added, and decays before the step.

    So it gets ε/√(1-β₂ᵗ) as ε, and lr (1 - lr · decay) as the rate.
    """
    (beta1, beta2), t, lr = group["betas"], group["steps"], group["lr"]
    kept = 1 - lr * decay
    steps = torch.full((), t, dtype=torch.float32, device=parameters[0].device)
    torch._fused_adamw_(
        parameters,
        gradients,
        m,
        v,
        [],
        [steps] * len(parameters),
        lr=lr * kept,
        beta1=beta1,
        beta2=beta2,
        weight_decay=decay / kept,
        eps=group["eps"] / math.sqrt(1 - beta2**t),
        amsgrad=False,
        maximize=False,
    )


class Schedule:
    """A learning rate that rises from zero and then falls to about zero at the end of the last epoch.

    It counts examples, not updates: the official code steps the scheduler once for every example of a batch.

    Args:
        optimizer: its rate is set now and at every ``step``; None to compute only the numbers.
        examples: the number of examples of an epoch, with replayed ones.
        warmup: the share of one epoch in which the rate rises.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | None,
        lr: float,
        examples: int,
        epochs: int,
        warmup: float = 0.005,
    ) -> None:
        self.optimizer, self.start = optimizer, lr
        self.rise, self.end = int(warmup * examples), examples * epochs
        self.seen = 0
        """The number of examples learned from."""
        self._set()

    def lr(self, seen: int) -> float:
        """The learning rate of an update after ``seen`` examples."""
        if seen <= self.rise and self.rise:
            return self.start * seen / self.rise
        return max(0.0, self.start * (self.end - (seen - self.rise)) / self.end)

    def step(self, count: int) -> None:
        """Count further examples, and set the rate."""
        self.seen += count
        self._set()

    def _set(self) -> None:
        for group in self.optimizer.param_groups if self.optimizer else []:
            group["lr"] = self.lr(self.seen)

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]
        self._set()
