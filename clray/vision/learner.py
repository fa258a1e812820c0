"""What methods on task-incremental benchmarks share: a network, its optimizer, and the loss under each task's mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from clray.vision.networks import Network
from clray.vision.tag import TaskOptimizer
from clray.vision.task_benchmarks import TaskStream
from clray.vision.task_randomness import TaskRandomness

MASKED = -10e10
"""What the official codes put in place of the logits of other tasks."""


@dataclass(frozen=True)
class Batch:
    """A minibatch of one task.

    Attributes:
        task: as the stream numbers it.
        indices: [n] int64, which of the task's training images they are.
        x: [n, C, H, W] float32.
        y: [n] int64, logits' indices.
    """

    task: int
    indices: Tensor
    x: Tensor
    y: Tensor


class Learner:
    """A network in training.

    Other tasks' logits are left out of a loss, which equals the official codes' filling them with -1e11 to the last
    bit of a softmax: exp(-1e11) is zero.
    """

    def __init__(self, network: Network, stream: TaskStream, randomness: TaskRandomness, plain: bool = False) -> None:
        """``plain``: of TAG the form that is obviously right."""
        self.stream, self.randomness, self.plain = stream, randomness, plain
        with randomness.weights():
            module = network.build(stream.shape, stream.outputs)
        self._channels_last = _channels_last_is_safe(module)
        layout = torch.channels_last if self._channels_last else torch.contiguous_format
        self.module = module.to(stream.device).to(memory_format=layout)  # type: ignore[call-overload]
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        self.optimizer: torch.optim.Optimizer
        """Set by the method."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, outputs], in training mode."""
        if not self.module.training:
            self.module.train()
        return self.module(self._laid_out(x))

    def _laid_out(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last) if self._channels_last else x

    def loss(self, logits: Tensor, y: Tensor, task: int) -> Tensor:
        """Mean cross-entropy over a task's own logits."""
        begin, end = self.stream.heads[task]
        return cross_entropy(logits[:, begin:end], y - begin)

    def mixed_loss(self, logits: Tensor, y: Tensor, tasks: Tensor) -> Tensor:
        """The same for examples of several tasks [n], each under its own task's mask."""
        heads = torch.tensor(self.stream.heads, device=logits.device)[tasks.to(logits.device)]
        begin, widths = heads[:, 0], [end - begin for begin, end in self.stream.heads]
        columns = begin.unsqueeze(1) + torch.arange(max(widths), device=logits.device)
        if min(widths) == max(widths):
            own = logits.gather(1, columns)
        else:  # a narrower head's row ends with logits that are not its own: they get no share of the softmax
            own = logits.gather(1, columns.clamp(max=logits.shape[1] - 1))
            own = own.masked_fill(columns >= heads[:, 1:], -torch.inf)
        return cross_entropy(own, y - begin)

    def begin_epoch(self) -> None:
        if isinstance(self.optimizer, TaskOptimizer):
            self.optimizer.begin_epoch()

    def end_task(self) -> None:
        if isinstance(self.optimizer, TaskOptimizer):
            self.optimizer.end_task()

    def zero_grad(self) -> None:
        self.module.zero_grad()

    def step(self) -> None:
        """One step of the optimizer on the gradients that have been added up."""
        self.optimizer.step()

    def gradient(self) -> Tensor:
        """[P] a copy of all parameters' gradients, one after the other."""
        return torch.cat([p.grad.flatten() for p in self.parameters if p.grad is not None])

    def set_gradient(self, gradient: Tensor) -> None:
        """Replace all parameters' gradients, in the layout of ``gradient()``."""
        begin = 0
        for p in self.parameters:
            if p.grad is not None:
                p.grad.copy_(gradient[begin : begin + p.numel()].view(p.shape))
                begin += p.numel()

    def flat_parameters(self) -> Tensor:
        """[P] a copy of all parameters."""
        return torch.cat([p.detach().flatten() for p in self.parameters])

    @torch.no_grad()
    def accuracy(self, task: int, batch: int = 256) -> float:
        """The fraction of a task's test images that the network gets right among the task's own classes."""
        self.module.eval()
        self.randomness.evaluation()
        begin, end = self.stream.heads[task]
        count, right = len(self.stream.test.members[task]), 0
        for indices in torch.arange(count, device=self.stream.device).split(batch):
            x, y = self.stream.batch(task, indices, "test")
            right += int((self.module(self._laid_out(x))[:, begin:end].argmax(1) + begin == y).sum())
        return right / count

    def state_dict(self) -> dict[str, Any]:
        return {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])


def _channels_last_is_safe(module: torch.nn.Module) -> bool:
    """Whether images and filters may be laid out with their channels last, the fastest layout for convolutions.

    On CPUs and GPUs it takes a third off the time of the reduced ResNet-18. But on CPUs without AVX-512 the backward
    pass of a strided 1x1 convolution with fewer than 8 input channels then writes outside its memory, which ends the
    process (oneDNN in torch 2.13, github.com/uxlfoundation/oneDNN/issues/6035). A first convolution sees the 1 or 3
    channels of an image, and is safe where it is larger than 1x1.
    """
    convolutions = [part for part in module.modules() if isinstance(part, torch.nn.Conv2d)]
    larger = [part for part in convolutions[:1] if part.kernel_size != (1, 1)]
    return bool(convolutions) and all(part.in_channels >= 8 for part in convolutions if part not in larger)


class TaskMethod:
    """The base of methods on task-incremental benchmarks: plain training, of which a method changes what it must.

    The loop calls ``begin_epoch`` before every pass, ``observe`` with every minibatch, ``end_task`` after a task's last
    pass; ``schedule`` says which tasks come when.
    """

    Settings: Any

    def __init__(self, settings: Any, learner: Learner) -> None:
        self.settings, self.learner = settings, learner
        learner.optimizer = self.make_optimizer()

    def make_optimizer(self) -> torch.optim.Optimizer:
        return self.settings.make(self.learner.parameters, self.learner.plain)

    def schedule(self) -> list[int]:
        """The tasks in the order in which they are visited."""
        return list(range(self.learner.stream.task_count))

    def begin_epoch(self, task: int) -> None:
        self.learner.begin_epoch()

    def observe(self, batch: Batch) -> None:
        """Learn from a minibatch: gradients of the loss, and of what the method adds to it, then a step.

        Raises:
            FloatingPointError: a number that a step needs is not finite, and its text says which. The trial then ends
                as diverged.
        """
        learner = self.learner
        logits = learner.forward(batch.x)
        learner.zero_grad()
        self.add_gradients(batch)
        learner.loss(logits, batch.y, batch.task).backward()
        learner.step()

    def add_gradients(self, batch: Batch) -> None:
        """Add the gradient of what a method has beside the batch's own loss."""

    def end_task(self, task: int) -> None:
        self.learner.end_task()

    def state_dict(self) -> dict[str, Any]:
        """What the method keeps beside the learner."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
