"""A-GEM (Chaudhry 2019, arXiv 1812.00420), as TAG's repository runs it (``existing_methods/agem.py``).

A ring for every class keeps the last ``memories_per_class`` images. Where the gradient g points against the mean
gradient r of a batch of past tasks' memories, it becomes g - (g.r / r.r) r; the optimizer then steps on that. The
official code passes every batch through the network once more than needed, and memories in training mode: batch
normalisation's running means move two or three times a step, so that A-GEM differs from the other methods on the
first task already.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clray.vision.learner import Batch, TaskMethod
from clray.vision.optimizers import OptimizerSettings
from clray.vision.ranges import PerClass


class ClassRings:
    """The last images of every task's every class, by their indices in the task; -1 where none has come."""

    def __init__(self, tasks: int, classes: int, capacity: int) -> None:
        self.indices: NDArray[np.int64] = np.full((tasks, classes, capacity), -1, np.int64)
        self.pointers: NDArray[np.int64] = np.zeros((tasks, classes), np.int64)

    def add(self, task: int, classes: list[int], indices: list[int]) -> None:
        for label, index in zip(classes, indices, strict=True):
            self.indices[task, label, self.pointers[task, label]] = index
            self.pointers[task, label] = (self.pointers[task, label] + 1) % self.indices.shape[2]

    def of(self, tasks: list[int]) -> tuple[Tensor, Tensor]:
        """Tasks [m] and indices [m] of all images kept of these tasks."""
        kept = self.indices[tasks].reshape(len(tasks), -1)
        owners = np.repeat(np.asarray(tasks, np.int64), kept.shape[1])
        filled = kept.ravel() >= 0
        return torch.from_numpy(owners[filled]), torch.from_numpy(kept.ravel()[filled])


class AGem(TaskMethod):
    """Each step avoids, to first order, adding to the mean loss of a batch of memories."""

    class Settings(OptimizerSettings):
        memories_per_class: PerClass
        """Images of each class of each task."""

    def __init__(self, settings: Settings, learner: Any) -> None:
        super().__init__(settings, learner)
        stream = learner.stream
        classes = max(end - begin for begin, end in stream.heads)
        self.memory = ClassRings(stream.task_count, classes, settings.memories_per_class)
        self.tasks: list[int] = []
        """Tasks seen, in order; the last one is being learned."""

    def observe(self, batch: Batch) -> None:
        learner, task = self.learner, batch.task
        learner.forward(batch.x)
        if task not in self.tasks:
            self.tasks.append(task)
        self.memory.add(task, (batch.y - learner.stream.heads[task][0]).tolist(), batch.indices.tolist())
        reference = self._reference()
        learner.zero_grad()
        learner.loss(learner.forward(batch.x), batch.y, task).backward()
        if reference is not None:
            gradient = learner.gradient()
            product = torch.dot(gradient, reference)
            if product < 0:
                learner.set_gradient(gradient - product / torch.dot(reference, reference) * reference)
        learner.step()

    def _reference(self) -> Tensor | None:
        """[P] the mean gradient of a batch of past tasks' memories."""
        learner = self.learner
        if len(self.tasks) < 2:
            return None
        tasks, indices = self.memory.of(self.tasks[:-1])
        if len(tasks) >= self.settings.batch:
            chosen = learner.randomness.choice(len(tasks), self.settings.batch)
            tasks, indices = tasks[chosen], indices[chosen]
        device = learner.stream.device
        x, y = learner.stream.mixed_batch(tasks.to(device), indices.to(device))
        learner.zero_grad()
        learner.mixed_loss(learner.forward(x), y, tasks).backward()
        return learner.gradient()

    def state_dict(self) -> dict[str, Any]:
        return {
            "tasks": self.tasks,
            "indices": torch.from_numpy(self.memory.indices.copy()),
            "pointers": torch.from_numpy(self.memory.pointers.copy()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.tasks = list(state["tasks"])
        self.memory.indices = state["indices"].numpy().copy()
        self.memory.pointers = state["pointers"].numpy().copy()
