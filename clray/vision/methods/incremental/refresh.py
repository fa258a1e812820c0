"""Refresh learning (Wang et al., ICLR 2024): unlearn the batch a little before each step. A wrapper.

The code of its authors has it for DER++ only; ``refresh_er``, which wraps ER, is ours, as the paper describes it.
Before a step, every tensor of parameters w moves by

    delta * (|w| g / |g| + 0.001 noise) / (1 + 0.001 F)

where g is the gradient of the batch's cross-entropy, so that its loss rises, noise is standard normal, |.| is the
length of the tensor and F its diagonal Fisher information. The code finds g by a step of size 0.01 of a copy of the
network, in training mode; the size cancels, and the copy's running statistics are thrown away.

At the end of a task, F becomes 1e-5 F plus the mean over the task's examples of p(y|x) (d log p(y|x) / dw)^2: it is
nearly that of the last task alone. As the damping is 0.001 F, F changes a parameter by less than float32 can show.
Where boundaries are hidden it stays 0. That code takes F on images one by one in training mode; here it is in
evaluation mode, in batches, which is another number only with batch normalisation.

The code sets a weight decay of 1e-4 that DER++ does not have: ``weight_decay`` is 1e-4 here by default, so that a sweep
can declare both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clray.vision.methods.incremental.base import ReplayMethod
from clray.vision.methods.incremental.der import Derpp
from clray.vision.methods.incremental.er import Er
from clray.vision.ranges import Weight

if TYPE_CHECKING:
    from torch import Tensor

    from clray.vision.learners.incremental import IncrementalLearner
    from clray.vision.stream import Batch

_DELTA, _NOISE, _DAMPING, _KEPT = 1e-5, 1e-3, 1e-3, 1e-5
_GRADIENTS_AT_ONCE = 2**24
"""Numbers in the gradients of examples that are computed together."""


class Refresh(ReplayMethod):
    """Moves the parameters up the loss of the batch before the step of the method that it wraps."""

    def __init__(self, settings: Any, learner: IncrementalLearner) -> None:
        import torch

        super().__init__(settings, learner)
        self.fisher = {name: torch.zeros_like(p) for name, p in learner.module.named_parameters() if p.requires_grad}

    def step(self, batch: Batch) -> None:
        self.unlearn(batch)
        super().step(batch)

    def unlearn(self, batch: Batch) -> None:
        import torch
        from torch.nn.functional import cross_entropy

        learner, noise = self.learner, self.noise()
        loss = cross_entropy(learner.logits_aside(self.augmented(batch.x, "stream")), batch.y)
        gradients = torch.autograd.grad(loss, learner.parameters, allow_unused=True)
        with torch.no_grad():
            pairs = zip(learner.parameters, gradients, noise, self.fisher.values(), strict=True)
            for p, gradient, random, fisher in pairs:
                if gradient is None:  # of a part that the loss does not use
                    continue
                up = gradient * (p.norm() / (gradient.norm() + 1e-20))
                p += self.settings.delta * (up + _NOISE * random) / (1 + _DAMPING * fisher)

    def noise(self) -> list[Tensor]:
        """Standard normal numbers for each tensor of parameters."""
        import numpy as np
        import torch

        sizes = [p.numel() for p in self.learner.parameters]
        drawn = self.draws.keyed(f"refresh noise {self.steps}").standard_normal(sum(sizes), np.float32)
        parts = torch.from_numpy(drawn).to(self.stream.device).split(sizes)
        return [part.view(p.shape) for part, p in zip(parts, self.learner.parameters, strict=True)]

    def end(self, experience: int) -> None:
        super().end(experience)
        numbers = self.stream.experiences[experience].examples
        each = sum(fisher.numel() for fisher in self.fisher.values())
        for fisher in self.fisher.values():
            fisher *= _KEPT
        at_once = max(1, _GRADIENTS_AT_ONCE // each)
        for begin in range(0, len(numbers), at_once):
            x, y = self.stream.examples(numbers[begin : begin + at_once])
            for name, squared in self.squared_gradients(x, y).items():
                self.fisher[name] += squared / len(numbers)

    def squared_gradients(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The sum over images of p(y|x) (d log p(y|x) / dw)^2, for each tensor of parameters."""
        import torch
        from torch.func import functional_call, grad_and_value, vmap

        module = self.learner.module.eval()
        weights = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}

        def log_probability(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            logits = functional_call(module, weights, (x.unsqueeze(0),))
            return logits.log_softmax(1).gather(1, y.view(1, 1)).squeeze()

        x = self.learner.laid_out(x)
        gradients, values = vmap(grad_and_value(log_probability), (None, 0, 0))(weights, x, y)
        return {name: torch.tensordot(values.exp(), g.square(), 1) for name, g in gradients.items()}

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"fisher": self.fisher}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        for name, fisher in self.fisher.items():
            fisher.copy_(state["fisher"][name])


class RefreshDerpp(Refresh, Derpp):
    """DER++ with refresh learning, as in the authors' code."""

    class Settings(Derpp.Settings):
        weight_decay: Weight = 1e-4
        delta: Weight = _DELTA
        """The length of the move before each step, as a share of the parameters' length."""

    passes = 4.5


class RefreshEr(Refresh, Er):
    """ER with refresh learning."""

    class Settings(Er.Settings):
        weight_decay: Weight = 1e-4
        delta: Weight = _DELTA
        """As in ``RefreshDerpp``."""

    passes = 3.5
