"""Gradient episodic memory (Lopez-Paz & Ranzato 2017), as MER's repository runs it.

Each task keeps its last ``memories_per_task`` examples. Before a step the gradient on every past task's memory is
taken; where the current gradient g points against any of them, it is replaced by g + Gᵀ v, with v from GEM's
quadratic program (``clray.optim.gem_multipliers``). Where none is violated the step is plain SGD, and ``margin``
has no effect. Batch size is 1 here, while GEM's own paper used 10.

``learners/constraints.py`` holds what differs between the engines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clray.errors import DeclarationError
from clray.optim import gem_multipliers
from clray.trial import later
from clray.vision.memory import Ring
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
        """Examples kept of each task."""
        margin: Weight
        """``memory_strength`` in the code: the lower bound on the multipliers v."""
        ridge: Weight = later(0.0)
        """Added to the diagonal of the quadratic program's matrix: GEM's authors take 1e-3, MER's copy has none."""

    def __init__(self, settings: Any, learner: PerceptronLearner) -> None:
        super().__init__(settings, learner)
        self.net = learner.net(settings.lr)
        self.memories = Ring(len(self.stream.experiences), settings.memories_per_task, shared_pointer=True)
        """Each task's last examples; a task has filled its row when the next one begins."""
        self._past: Constraints | None = None
        """The constraints from the past tasks' memories, which change with the task only."""

    @classmethod
    def further_seconds(cls, settings: Any, examples: float, tasks: int) -> float:
        return examples * (0.2e-3 + tasks / 2 * settings.memories_per_task * 3.5e-6)

    def learn(self, numbers: Numbers) -> None:
        learned = 0
        for task, part in self.by_experience(numbers):
            for number in part.tolist():
                self.memories.add(task, number)
            if task == 0:
                self.net.step_each(part[:, None])
                learned += len(part)
                continue
            past = self._constraints(task)
            while (steps := past.steps(part)) < len(part):
                number, learned = int(part[steps]), learned + steps
                past.projected_step(number, self._multipliers(past, number, learned))
                part, learned = part[steps + 1 :], learned + 1
            learned += steps

    def _constraints(self, tasks: int) -> Constraints:
        from clray.vision.learners.constraints import constraints

        if self._past is None or len(self._past) != tasks:
            self._past = constraints(self.net, self.memories.numbers[:tasks])
        return self._past

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
        past = {} if self._past is None else {"tasks": len(self._past)} | self._past.state_dict()
        return super().state_dict() | {"memories": self.memories.state_dict(), "past": past}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.memories.load_state_dict(state["memories"])
        self._past = None
        if state["past"]:
            self._constraints(state["past"]["tasks"]).load_state_dict(state["past"])
