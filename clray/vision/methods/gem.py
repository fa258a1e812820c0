"""Gradient episodic memory (Lopez-Paz & Ranzato 2017), as MER's repository runs it.

Each task keeps its last ``memories_per_task`` examples. Before a step the gradient on every past task's memory is
taken; where the current gradient g points against any of them, it is replaced by g + Gᵀ v, with v from GEM's
quadratic program (``clray.optim.gem_multipliers``). Where none is violated the step is plain SGD, and ``margin``
has no effect. Batch size is 1 here, while GEM's own paper used 10.

Table 6 of Riemer (2019) also has GEM with a reservoir for all tasks. The repository has no code of it; here each past
task's constraint is the mean loss on those of its examples that the reservoir holds at that moment, if it holds any.

``learners/constraints.py`` holds what differs between the engines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from clray.errors import DeclarationError
from clray.optim import gem_multipliers
from clray.trial import later
from clray.vision.memory import Reservoir, Ring
from clray.vision.methods import base
from clray.vision.ranges import Count, Rate, Weight

if TYPE_CHECKING:
    from clray.vision.learners.constraints import Constraints
    from clray.vision.learners.perceptron import PerceptronLearner
    from clray.vision.stream import Numbers


class Gem(base.PerceptronMethod):
    """One SGD step on each example, along the direction nearest to its gradient that violates no task's constraint."""

    class Settings(base.Settings):
        lr: Rate
        """Learning rate, constant."""
        memories_per_task: Count
        """Examples kept of each task: its last ones."""
        margin: Weight
        """``memory_strength`` in the code: the lower bound on the multipliers v."""
        memory: Literal["ring", "reservoir"] = later("ring")
        """``reservoir``: one for all tasks, of ``memories_per_task`` times the number of tasks."""
        ridge: Weight = later(0.0)
        """Added to the diagonal of the quadratic program's matrix: GEM's authors take 1e-3, MER's copy has none."""

    def __init__(self, settings: Any, learner: PerceptronLearner) -> None:
        super().__init__(settings, learner)
        self.net = learner.net(settings.lr)
        tasks = len(self.stream.experiences)
        self.memories: Ring | Reservoir
        if settings.memory == "ring":
            self.memories = Ring(tasks, settings.memories_per_task, shared_pointer=True)
        else:
            self.memories = Reservoir(tasks * settings.memories_per_task, learner.draws, law="mer")
        self._past: Constraints | None = None
        """The constraints from the past tasks' memories."""
        self._made_for: int = 0
        """The task at whose beginning they were made."""
        self._made_of: list[Numbers] = []
        """The memories that they were made of, a task each."""
        self._left: list[Numbers] = []
        """Those of them that are still stored."""

    @classmethod
    def further_seconds(cls, settings: Any, examples: float, tasks: int) -> float:
        return examples * (0.2e-3 + tasks / 2 * settings.memories_per_task * 3.5e-6)

    def learn(self, numbers: Numbers) -> None:
        learned = 0
        for task, part in self.by_experience(numbers):
            if task != self._made_for:
                self._made_for = task
                self._constrain(self._memories_before(task))
            for some, forgotten in self._stored(task, part):
                if forgotten is not None:
                    self._forget(forgotten)
                self._learn(some, learned)
                learned += len(some)

    def _learn(self, part: Numbers, learned: int) -> None:
        """Learn from consecutive examples of a task, after ``learned`` ones of the same call."""
        past = self._past
        if past is None:
            self.net.step_each(part[:, None])
            return
        while (steps := past.steps(part)) < len(part):
            number, learned = int(part[steps]), learned + steps
            past.projected_step(number, self._multipliers(past, number, learned))
            part, learned = part[steps + 1 :], learned + 1

    def _stored(self, task: int, part: Numbers) -> list[tuple[Numbers, int | None]]:
        """Store a task's examples.

        Returns:
            The same examples in parts, and the past task's example that had to go when the part's first one came.
        """
        if isinstance(self.memories, Ring):
            for number in part.tolist():
                self.memories.add(task, number)
            return [(part, None)]
        parts: list[tuple[Numbers, int | None]] = []
        begin, forgotten = 0, None
        for i, number in enumerate(part.tolist()):
            replaced = self.memories.add(number)
            if replaced is not None and self.stream.owner[replaced] != task:
                if i > begin:
                    parts.append((part[begin:i], forgotten))
                begin, forgotten = i, replaced
        return [*parts, (part[begin:], forgotten)]

    def _memories_before(self, task: int) -> list[Numbers]:
        """The stored examples of each task before this one that has any."""
        if isinstance(self.memories, Ring):
            return list(self.memories.numbers[:task])
        stored = self.memories.numbers
        owners = self.stream.owner[stored]
        return [stored[owners == before] for before in range(task) if (owners == before).any()]

    def _constrain(self, memories: list[Numbers]) -> None:
        from clray.vision.learners.constraints import constraints

        self._made_of, self._left = memories, list(memories)
        self._past = constraints(self.net, memories) if memories else None

    def _forget(self, number: int) -> None:
        """Take an example out of its task's constraint. A task without an example has no constraint."""
        row = next(row for row, memory in enumerate(self._left) if number in memory)
        self._left[row] = self._left[row][self._left[row] != number]
        if not len(self._left[row]):
            self._constrain(self._left[:row] + self._left[row + 1 :])
        elif self._past is not None:
            self._past.forget(number)

    def _multipliers(self, past: Constraints, number: int, learned: int) -> NDArray[np.float64]:
        """The multipliers v, one for each past task, for the step on the example with this number."""
        try:
            return gem_multipliers(*past.program(), self.settings.margin, self.settings.ridge)
        except FloatingPointError as error:
            raise base.StepNotFinite(str(error), learned) from None
        except ValueError as error:
            task = int(self.stream.owner[number])
            raise DeclarationError(f"gem: at example {number + 1}, in task {task + 1}: {error}") from None

    def state_dict(self) -> dict[str, Any]:
        past = {"made_for": self._made_for, "made_of": self._made_of, "left": self._left}
        own = {} if self._past is None else self._past.state_dict()
        return super().state_dict() | {"memories": self.memories.state_dict(), "past": past | own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.memories.load_state_dict(state["memories"])
        past = state["past"]
        self._made_for = past["made_for"]
        self._constrain([np.asarray(memory) for memory in past["made_of"]])
        self._left = [np.asarray(memory) for memory in past["left"]]
        if self._past is not None:
            for number in set(_all(self._made_of)) - set(_all(self._left)):
                self._past.forget(number)
            self._past.load_state_dict(past)


def _all(memories: list[Numbers]) -> list[int]:
    return [number for memory in memories for number in memory.tolist()]
