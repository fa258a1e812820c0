"""The benchmark of the language track: question answering tasks, one after the other."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from clray.documents import one_of
from clray.language.examples import Example, TaskData
from clray.language.tasks import TASKS
from clray.registry import Registry
from clray.settings import BenchmarkSeed, TrialSettings

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]


class TextStream(TrialSettings):
    """Tasks of ``clray.language.tasks``, in the order in which they are learned."""

    name: Literal["text-stream"] = "text-stream"
    tasks: Annotated[list[str], Field(min_length=1)]
    train_per_task: Count | None = None
    """The number of training examples of a task, drawn with ``seed``; all where it has no more."""
    test_per_task: Count | None = None
    """The number of its test examples, drawn in the same way; dialogues: the first turns, without gaps."""
    seed: BenchmarkSeed = 0

    @model_validator(mode="after")
    def _tasks_are_known(self) -> TextStream:
        for task in self.tasks:
            if task not in TASKS:
                raise ValueError(f"tasks: {task!r} is not a task; {one_of(task, TASKS)}")
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks: a task stands twice in {self.tasks}")
        return self

    def taken(self, data: dict[str, TaskData]) -> list[TaskData]:
        """The part of each task's data that the settings select, in the benchmark's own order."""
        return [self._taken(data[task]) for task in self.tasks]

    def _taken(self, data: TaskData) -> TaskData:
        dialogue = TASKS[data.name].metric == "joint_goal_em"
        test = data.test[: self.test_per_task] if dialogue else self._drawn(data.test, self.test_per_task, 1)
        return data._replace(train=self._drawn(data.train, self.train_per_task, 0), test=test)

    def _drawn(self, examples: list[Example], count: int | None, purpose: int) -> list[Example]:
        if count is None or count >= len(examples):
            return examples
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(purpose,)))
        return [examples[i] for i in np.sort(rng.choice(len(examples), count, replace=False))]


BENCHMARKS: Registry[TextStream] = Registry(
    "clray.language",
    {"text-stream": "benchmarks:TextStream"},
    base="clray.language.benchmarks:TextStream",
    group="clray.benchmarks",
)
