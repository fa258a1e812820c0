"""The importance of each parameter for a task, for EWC and MAS: as in LAMOL's official code, and corrected.

The official code (``regularizers.py`` of Sun, Ho and Lee 2020) makes another pass over a task's minibatches after the
task is learned. EWC (Kirkpatrick et al. 2017) takes the square of a whole *minibatch's* gradient of the QA loss,
divided by its examples; a Fisher information would use the gradients of single examples. MAS (Aljundi et al. 2018)
takes the absolute value of a minibatch's gradient of the mean square of the probabilities at ``__ans__``, divided in
the same way. Both are divided by the task's examples and added to the importance from earlier tasks. The anchor stays
at the weights before the first task.

Corrected: the mean over single examples of the squared gradient of the answer's log-likelihood (EWC), or of the
absolute gradient of the squared norm of the probabilities (MAS). The anchor is the weights after the last task.

The caller turns dropout on or off by ``model.train()``; in the official code it is on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from clray.errors import CheckpointError
from clray.language.losses import Batch, answer_logits, fused
from clray.language.optimizers import Penalty

Sums = dict[str, Tensor]
"""The sum for each parameter, by the parameter's name."""
Measure = Callable[[Any, Batch, Tensor, Sums], None]
"""Adds a minibatch's contribution to the sums; gradients are zero afterwards."""


def ewc(model: Any, batch: Batch, weights: Tensor, sums: Sums) -> None:
    """Add the square of the minibatch's QA gradient divided by its number of examples."""
    qa, _ = fused(model, batch, weights, None)
    _add(model, qa / batch.count, sums, squared=True)


def ewc_by_example(model: Any, batch: Batch, weights: Tensor, sums: Sums) -> None:
    """Add the square of each example's gradient of its answer's log-likelihood."""
    for row in _examples(batch):
        qa, _ = fused(model, row, weights, None)
        targets = torch.tensor([token for token in row.Y[0] if token >= 0], device=weights.device)
        _add(model, qa * weights[targets].sum(), sums, squared=True)


def mas(model: Any, batch: Batch, weights: Tensor, sums: Sums) -> None:
    """Add the absolute gradient of the mean square of p at ``__ans__`` over the minibatch, divided by its examples."""
    chances = answer_logits(model, batch).float().softmax(1)
    _add(model, chances.square().mean() / batch.count, sums, squared=False)


def mas_by_example(model: Any, batch: Batch, weights: Tensor, sums: Sums) -> None:
    """Add the absolute value of each example's gradient of |p|² at ``__ans__``."""
    for row in _examples(batch):
        _add(model, answer_logits(model, row).float().softmax(1).square().sum(), sums, squared=False)


def _examples(batch: Batch) -> list[Batch]:
    return [Batch(*([rows] for rows in example)) for example in zip(*batch, strict=True)]


def _add(model: Any, loss: Tensor, sums: Sums, squared: bool) -> None:
    model.zero_grad(set_to_none=False)
    loss.backward()
    named = [(sums[name], p.grad) for name, p in model.named_parameters() if p.grad is not None]
    into, gradients = [total for total, _ in named], [gradient for _, gradient in named]
    with torch.no_grad():
        if squared:
            torch._foreach_addcmul_(into, gradients, gradients)
        else:
            torch._foreach_add_(into, torch._foreach_abs(gradients))
    model.zero_grad(set_to_none=False)


class Importance:
    """The importance Ω and the anchors of a model's parameters, from task to task.

    Args:
        model: the model before the first task; its weights are the first anchor.
        measure: one of this module's functions.
        refreshed: True where the anchor moves to the weights after every task (corrected), False where it stays.
    """

    def __init__(self, model: Any, measure: Measure, refreshed: bool) -> None:
        self.measure, self.refreshed = measure, refreshed
        self.anchor = _weights(model)
        self.omega: Sums = {}
        """Ω by the parameter's name; empty before the first task has ended."""
        self.sums: Sums = {}
        self.examples = 0
        """The number of examples in this task's pass so far."""

    def add(self, model: Any, batch: Batch, weights: Tensor) -> None:
        """Add a minibatch of the task just learned."""
        if not self.sums:
            self.sums = {name: torch.zeros_like(p) for name, p in _parameters(model)}
        self.measure(model, batch, weights, self.sums)
        self.examples += batch.count

    def end(self, model: Any) -> None:
        """End the pass: divide its sums by the number of examples and add them to Ω."""
        self._follow(model)
        for name, total in self.sums.items():
            total /= max(self.examples, 1)
            self.omega[name] = self.omega[name] + total if name in self.omega else total
        if self.refreshed:
            self.anchor = _weights(model)
        self.sums, self.examples = {}, 0

    def penalty(self, model: Any, strength: float) -> Penalty | None:
        """The penalty for the optimizer of the next task; None before the first task has ended, when all Ω are zero."""
        if not self.omega:
            return None
        self._follow(model)
        return Penalty(strength, {p: (self.omega[name], self.anchor[name]) for name, p in _parameters(model)})

    def _follow(self, model: Any) -> None:
        """Extend Ω and the anchors by the rows of new tokens, with Ω = 0 and the rows' own values as anchors."""
        for name, p in _parameters(model):
            if name not in self.anchor:
                self.anchor[name] = p.detach().clone()
            known = len(self.anchor[name])
            if known < len(p):
                self.anchor[name] = torch.cat([self.anchor[name], p.detach()[known:]])
            if self.omega:
                omega = self.omega.get(name, p.new_empty(0, *p.shape[1:]))
                if len(omega) < len(p):
                    self.omega[name] = torch.cat([omega, omega.new_zeros(len(p) - len(omega), *p.shape[1:])])

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("anchor", "omega", "sums", "examples")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = next(iter(self.anchor.values())).device
        for name in ("anchor", "omega", "sums"):
            if state[name] and state[name].keys() != self.anchor.keys():
                raise CheckpointError(f"{name}: the checkpoint holds other parameters than this model has")
            setattr(self, name, {key: value.to(device) for key, value in state[name].items()})
        self.examples = state["examples"]


def _parameters(model: Any) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def _weights(model: Any) -> Sums:
    return {name: p.detach().clone() for name, p in _parameters(model)}
