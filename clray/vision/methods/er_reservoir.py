"""Experience replay from a reservoir (Chaudhry 2019, "ER-Reservoir"), as TAG's repository runs it.

The memory has ``memories_per_class`` places for every class of the data set, filled by reservoir sampling from the
stream, the current task included. From the second task on each step adds the mean loss of as many memories as a full
batch has images, drawn without replacement before the batch is offered to the memory, in a pass of their own.

As coded, a batch's places are drawn at once, from [0, n) with n the images seen before the batch: the textbook's n
grows with every image.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clray.vision.learner import Batch, TaskMethod
from clray.vision.optimizers import OptimizerSettings
from clray.vision.ranges import PerClass
from clray.vision.task_randomness import TaskRandomness


class BatchReservoir:
    """A sample of the stream, by task and index in the task."""

    def __init__(self, capacity: int, randomness: TaskRandomness) -> None:
        self.capacity, self._randomness = capacity, randomness
        self.tasks = torch.empty(0, dtype=torch.int64)
        self.indices = torch.empty(0, dtype=torch.int64)
        self.seen = 0

    def __len__(self) -> int:
        return len(self.tasks)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Tasks and indices of ``count`` memories, none twice; all, where there are fewer."""
        if len(self) < count:
            return self.tasks, self.indices
        chosen = self._randomness.choice(len(self), count)
        return self.tasks[chosen], self.indices[chosen]

    def add(self, task: int, indices: Tensor) -> None:
        """Offer the memory a batch."""
        room = min(self.capacity - len(self), len(indices))
        if room:
            self.tasks = torch.cat([self.tasks, torch.full((room,), task)])
            self.indices = torch.cat([self.indices, indices[:room]])
            self.seen += room
            indices = indices[room:]
        if len(indices):
            slots = self._randomness.below(self.seen, len(indices))
            self.seen += len(indices)
            for slot, index in zip(slots.tolist(), indices.tolist(), strict=True):
                if slot < self.capacity:
                    self.tasks[slot], self.indices[slot] = task, index


class ErReservoir(TaskMethod):
    """Each step also learns from a batch of memories, with the same weight."""

    class Settings(OptimizerSettings):
        memories_per_class: PerClass
        """Places in memory for each class of the data set: 1 makes 100 for CIFAR-100."""

    def __init__(self, settings: Settings, learner: Any) -> None:
        super().__init__(settings, learner)
        self.memory = BatchReservoir(settings.memories_per_class * learner.stream.label_classes, learner.randomness)
        self.tasks: list[int] = []

    def add_gradients(self, batch: Batch) -> None:
        learner = self.learner
        if batch.task not in self.tasks:
            self.tasks.append(batch.task)
        if len(self.tasks) > 1:
            tasks, indices = self.memory.draw(self.settings.batch)
            device = learner.stream.device
            x, y = learner.stream.mixed_batch(tasks.to(device), indices.to(device))
            learner.mixed_loss(learner.forward(x), y, tasks).backward()
        self.memory.add(batch.task, batch.indices.cpu())

    def state_dict(self) -> dict[str, Any]:
        memory = self.memory
        return {"tasks": self.tasks, "memory": [memory.tasks, memory.indices], "seen": memory.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.tasks = list(state["tasks"])
        self.memory.tasks, self.memory.indices = (part.clone() for part in state["memory"])
        self.memory.seen = state["seen"]
