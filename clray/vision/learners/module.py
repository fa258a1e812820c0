"""A torch module in training: its optimizer, and the loss over the logits of each experience."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from clray.errors import DeclarationError
from clray.trial import Trial
from clray.vision.draws import Draws
from clray.vision.networks import NETWORKS
from clray.vision.networks.base import Network
from clray.vision.stream import Batch, Stream
from clray.vision.tag import Tag, TaskOptimizer

MASKED = -10e10
"""The value that the official codes of TAG put in place of other tasks' logits."""
_TESTS_AT_ONCE = 256


class ModuleLearner:
    """A torch module, its optimizer and the trial's stream, as methods use them.

    A loss is taken over the logits of the example's own experience. The official codes of TAG set the others to -1e11
    instead; exp(-1e11) is 0 in float32, so that the softmax has the same bits.

    Args:
        network: settings of the module.
        stream: the trial's stream, on its device.
        draws: the trial's random draws.
        plain: where the optimizer is TAG, use ``PlainTag``, the slow reference form.
    """

    def __init__(self, network: Network, stream: Stream, draws: Draws, plain: bool = False) -> None:
        self.stream, self.draws, self.plain = stream, draws, plain
        with draws.weights():
            module: Any = network.build(stream.shape, stream.outputs)
        self._channels_last = channels_last_is_safe(module)
        layout = torch.channels_last if self._channels_last else torch.contiguous_format
        self.module = module.to(stream.device).to(memory_format=layout)
        self._check_outputs(getattr(network, "name", type(network).__name__))
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        self.optimizer: torch.optim.Optimizer
        """The method sets it."""

    def _check_outputs(self, name: str) -> None:
        """Refuse a network that does not give one logit for each class of the stream, or has no ``features``.

        Raises:
            DeclarationError: it says what the network gives.
        """
        needed = self.stream.outputs
        if not callable(getattr(self.module, "features", None)):
            raise DeclarationError(
                f"model.name: {name}: its module must have a method features(x); BodyAndHead has one"
            )
        self.module.eval()
        with torch.no_grad():
            given = tuple(self.module(torch.zeros(2, *self.stream.shape, device=self.stream.device)).shape)
        self._train()
        if given != (2, needed):
            message = f"gives two images an output of shape {given}; (2, {needed}) is needed, a logit for each class"
            raise DeclarationError(f"model.name: {name} {message}")

    @staticmethod
    def check(trial: Trial, device: str) -> None:
        """Accept every trial: a module runs on any device."""

    @classmethod
    def of(cls, trial: Trial, stream: Stream, draws: Draws, device: str) -> ModuleLearner:
        """Make a trial's learner."""
        network = NETWORKS[trial.model["name"]](**trial.model)
        return cls(network, stream, draws, plain=trial.engine == "eager")

    @property
    def facts(self) -> dict[str, Any]:
        optimizer = type(self.optimizer)
        return {"engine": "fused" if optimizer is Tag else "eager", "optimizer": optimizer.__name__}

    def logits(self, x: Tensor) -> Tensor:
        """The logits [n, outputs], in training mode."""
        self._train()
        return self.module(self.laid_out(x))

    def features(self, x: Tensor) -> Tensor:
        """The input [n, width] of the module's last layer, in training mode."""
        self._train()
        return self.module.features(self.laid_out(x))

    def _train(self) -> None:
        if not self.module.training:
            self.module.train()

    def laid_out(self, x: Tensor) -> Tensor:
        """Images as the module takes them: in its layout."""
        return x.contiguous(memory_format=torch.channels_last) if self._channels_last else x

    # ------------------------------------------------------------------------------------------------------------------
    # Losses and steps

    def loss(self, logits: Tensor, y: Tensor, experience: int | None) -> Tensor:
        """The mean cross-entropy over an experience's own logits; over all logits where the experience is None."""
        begin, end = (0, self.stream.outputs) if experience is None else self.stream.experiences[experience].logits
        return cross_entropy(logits[:, begin:end], y - begin)

    def own_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """The ``loss`` of a batch of the stream."""
        return self.loss(logits, batch.y, batch.experience)

    def mixed_loss(self, logits: Tensor, y: Tensor, experiences: Tensor) -> Tensor:
        """The mean loss of examples from several experiences [n], each over the logits of its own experience."""
        ranges = [e.logits for e in self.stream.experiences]
        heads = torch.tensor(ranges, device=logits.device)[experiences]
        begin, widths = heads[:, 0], [end - begin for begin, end in ranges]
        columns = begin.unsqueeze(1) + torch.arange(max(widths), device=logits.device)
        if min(widths) == max(widths):
            own = logits.gather(1, columns)
        else:  # the row of a narrower head ends with foreign logits: they are left out of the softmax
            own = logits.gather(1, columns.clamp(max=logits.shape[1] - 1))
            own = own.masked_fill(columns >= heads[:, 1:], -torch.inf)
        return cross_entropy(own, y - begin)

    def loss_of(self, numbers: np.ndarray[Any, np.dtype[np.int64]]) -> Tensor:
        """The ``mixed_loss`` of the network on training examples, given their numbers [n]."""
        x, y = self.stream.examples(numbers)
        return self.mixed_loss(self.logits(x), y, self.stream.owners[self.stream.on_device(numbers)])

    def zero_grad(self) -> None:
        self.module.zero_grad()

    def step(self) -> None:
        """Take one step of the optimizer on the accumulated gradients."""
        self.optimizer.step()

    def gradient(self) -> Tensor:
        """A copy [P] of all parameters' gradients, one after the other."""
        return torch.cat([p.grad.flatten() for p in self.parameters if p.grad is not None])

    def set_gradient(self, gradient: Tensor) -> None:
        """Replace all parameters' gradients, in the layout of ``gradient()``."""
        begin = 0
        for p in self.parameters:
            if p.grad is not None:
                p.grad.copy_(gradient[begin : begin + p.numel()].view(p.shape))
                begin += p.numel()

    def begin_pass(self) -> None:
        if isinstance(self.optimizer, TaskOptimizer):
            self.optimizer.begin_epoch()

    def end_experience(self) -> None:
        if isinstance(self.optimizer, TaskOptimizer):
            self.optimizer.end_task()

    # ------------------------------------------------------------------------------------------------------------------
    # Evaluation

    @torch.no_grad()
    def correct(self, experience: int) -> int:
        """Count the right answers on an experience's test images, among the experience's own classes."""
        self.module.eval()
        self.draws.evaluation()
        own = self.stream.experiences[experience]
        begin, end = own.logits
        right = 0
        for start in range(0, len(own.tests), _TESTS_AT_ONCE):
            x, y = self.stream.tests(experience, start, start + _TESTS_AT_ONCE)
            right += int((self.module(self.laid_out(x))[:, begin:end].argmax(1) + begin == y).sum())
        return right

    def is_finite(self) -> bool:
        """True if all parameters, and all other values that the module keeps, are finite."""
        kept = [*self.module.parameters(), *self.module.buffers()]
        return bool(torch.stack([part.isfinite().all() for part in kept]).all())

    def state_dict(self) -> dict[str, Any]:
        return {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])


def channels_last_is_safe(module: torch.nn.Module) -> bool:
    """True where images and filters may be stored channels-last, the fastest layout for convolutions.

    On CPUs and GPUs this layout saves a third of the time of the reduced ResNet-18. But on CPUs without AVX-512 the
    backward pass of a strided 1x1 convolution with fewer than 8 input channels then writes outside its memory, which
    kills the process (oneDNN in torch 2.13, github.com/uxlfoundation/oneDNN/issues/6035). A first convolution gets the
    1 or 3 channels of an image, and is safe where it is larger than 1x1.
    """
    convolutions = [part for part in module.modules() if isinstance(part, torch.nn.Conv2d)]
    larger = [part for part in convolutions[:1] if part.kernel_size != (1, 1)]
    return bool(convolutions) and all(part.in_channels >= 8 for part in convolutions if part not in larger)
