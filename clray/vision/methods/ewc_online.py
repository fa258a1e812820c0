"""EWC with one running Fisher information (TAG's ``existing_methods/ewc.py``), as coded there and as intended.

The penalty is ``strength * sum F (p - p*)^2``, without a factor of one half, p* the parameters at the end of the last
task. The gradient of the penalty alone is clipped to norm 100; then the gradient of the loss is added.

``as_coded``, after task t (from 1): F <- (F + t g^2) / (t + 1) with g the gradient of the mean loss of 200 images, in
evaluation mode, under the mask of task t + 1. So the true class is masked, F measures how the network sorts old
images into the next task's classes, and after the last task every logit is masked.

``intended``: the task's own mask, the mean of the squared gradients of single images, and a running mean over tasks,
F <- ((t - 1) F + f) / t.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from clray.vision.methods import base
from clray.vision.optimizers import OptimizerSettings
from clray.vision.ranges import Count, Weight

if TYPE_CHECKING:
    from torch import Tensor

    from clray.vision.learners.module import ModuleLearner
    from clray.vision.stream import Batch

_CLIP = 100.0


class EwcOnline(base.ModuleMethod):
    """Each step also pulls parameters to their last task's values, in proportion to their Fisher information."""

    class Settings(OptimizerSettings):
        strength: Weight
        """Lambda, the weight of the penalty."""
        fisher: Literal["as_coded", "intended"] = "as_coded"
        fisher_images: Count = 200
        """Training images of a task that its Fisher information is estimated from."""
        needs_boundaries: ClassVar[bool] = True
        """The penalty is computed where a task ends."""

    def __init__(self, settings: Any, learner: ModuleLearner) -> None:
        import torch

        super().__init__(settings, learner)
        self.fisher = [torch.zeros_like(p) for p in learner.parameters]
        self.anchor = [p.detach().clone() for p in learner.parameters]
        self.finished = 0

    def add_gradients(self, batch: Batch) -> None:
        import torch

        parameters, strength = self.learner.parameters, self.settings.strength
        for p, fisher, anchor in zip(parameters, self.fisher, self.anchor, strict=True):
            p.grad = 2 * strength * fisher * (p.detach() - anchor)
        torch.nn.utils.clip_grad_norm_(parameters, _CLIP)

    def end(self, experience: int) -> None:
        learner, stream = self.learner, self.stream
        self.finished += 1
        t = self.finished
        learner.module.eval()
        own = stream.experiences[experience].examples
        order = self.draws.order(f"Fisher information {t}", len(own), shuffled=True)
        x, y = stream.examples(own[order[: self.settings.fisher_images]])
        if self.settings.fisher == "as_coded":
            squares = self._squares_as_coded(x, y, experience)
            self.fisher = [(f + t * s) / (t + 1) for f, s in zip(self.fisher, squares, strict=True)]
        else:
            squares = self._mean_squares(x, y, experience)
            self.fisher = [((t - 1) * f + s) / t for f, s in zip(self.fisher, squares, strict=True)]
        self.anchor = [p.detach().clone() for p in learner.parameters]
        super().end(experience)

    def _squares_as_coded(self, x: Tensor, y: Tensor, experience: int) -> list[Tensor]:
        import torch
        from torch.nn.functional import cross_entropy

        from clray.vision.learners.module import MASKED

        logits = self.learner.module(x)
        own = self.stream.experiences[experience].logits
        begin, end = own[1], own[1] + own[1] - own[0]  # the next block of logits
        if own != (0, self.stream.outputs):
            with torch.no_grad():  # in place: the gradient still flows through the overwritten logits
                logits[:, :begin] = MASKED
                logits[:, end:] = MASKED
        gradients = torch.autograd.grad(cross_entropy(logits, y), self.learner.parameters)
        return [g**2 for g in gradients]

    def _mean_squares(self, x: Tensor, y: Tensor, experience: int) -> list[Tensor]:
        import torch

        total = [torch.zeros_like(p) for p in self.learner.parameters]
        for i in range(len(y)):
            loss = self.learner.loss(self.learner.module(x[i : i + 1]), y[i : i + 1], experience)
            for sum_, g in zip(total, torch.autograd.grad(loss, self.learner.parameters), strict=True):
                sum_.add_(g**2)
        return [sum_ / len(y) for sum_ in total]

    def state_dict(self) -> dict[str, Any]:
        return {"fisher": self.fisher, "anchor": self.anchor, "finished": self.finished}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = self.stream.device
        self.fisher = [f.to(device) for f in state["fisher"]]
        self.anchor = [a.to(device) for a in state["anchor"]]
        self.finished = state["finished"]
