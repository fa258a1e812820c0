"""The base classes of the vision track's methods. This module does not load torch, so that planning a sweep is fast.

The loop (``clray.vision.trial``) calls ``begin`` before every pass over an experience, ``observe`` with every batch and
``end`` after an experience's last pass; ``visits`` gives the order of the experiences. Where a benchmark hides
boundaries the loop calls neither ``begin`` nor ``end``, and ``batch.experience`` is None.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import torch

    from clray.vision.learners.module import ModuleLearner
    from clray.vision.learners.perceptron import Net, PerceptronLearner
    from clray.vision.stream import Batch, Numbers


LearnerKind = Literal["perceptron", "module", "incremental"]
"""The kinds of learners: ``clray.vision.learners``."""


class Settings(BaseModel):
    """The base of every method's hyper-parameters: unknown ones are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StepNotFinite(FloatingPointError):
    """A number that a step needs is not finite. ``learned`` examples of the same call were learned before that step."""

    def __init__(self, what: str, learned: int) -> None:
        super().__init__(what)
        self.learned = learned


class Method:
    """A method: how a learner learns from the batches of a stream.

    Args:
        settings: an object of the class's ``Settings``.
        learner: the learner to train; it holds the trial's ``stream`` and ``draws``.
    """

    Settings: ClassVar[type[BaseModel]]
    learner_kind: ClassVar[LearnerKind]
    """The kind of learner that the method trains."""
    in_bulk: ClassVar[bool] = False
    """The loop calls ``learn`` with all examples until the next stop, instead of ``observe`` with each."""

    def __init__(self, settings: Any, learner: Any) -> None:
        self.settings, self.learner = settings, learner
        self.stream, self.draws = learner.stream, learner.draws

    @property
    def batch_size(self) -> int:
        """The number of examples in a batch."""
        return 1

    def visits(self) -> list[int]:
        """The experiences in the order in which they are visited."""
        return list(range(len(self.stream.experiences)))

    def begin(self, experience: int) -> None:
        """Prepare for a pass over an experience. The loop calls this before each pass."""

    def observe(self, batch: Batch) -> None:
        """Learn from a batch.

        Raises:
            FloatingPointError: a number that a step needs is not finite; the error's text names it. The trial then ends
                as diverged.
        """
        raise NotImplementedError

    def end(self, experience: int) -> None:
        """Finish an experience. The loop calls this after the last pass over it."""

    def correct(self, experience: int) -> int:
        """Count the right answers on an experience's test images, also where it has not been learned yet."""
        raise NotImplementedError

    def counts(self, group: int) -> dict[str, int]:
        """Count the right answers on a group of test images (``Stream.groups``), by the name of the measurement."""
        return {"accuracy": self.correct(group)}

    def is_finite(self) -> bool:
        """True if all weights are finite; otherwise the trial ends as diverged."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """The state that a continuation needs besides the trial's draws: tensors, arrays, numbers, texts, lists,
        mappings.

        An array comes back as a tensor.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class ModuleMethod(Method):
    """A method on a torch module: plain training with an optimizer. A subclass overrides the parts that it changes."""

    learner_kind: ClassVar[LearnerKind] = "module"
    passes: ClassVar[float] = 1.0
    """The cost of a step, relative to a step of plain training. For plans."""

    learner: ModuleLearner

    def __init__(self, settings: Any, learner: ModuleLearner) -> None:
        super().__init__(settings, learner)
        learner.optimizer = self.make_optimizer()

    @property
    def batch_size(self) -> int:
        return self.settings.batch

    def make_optimizer(self) -> torch.optim.Optimizer:
        return self.settings.make(self.learner.parameters, self.learner.plain)

    def begin(self, experience: int) -> None:
        self.learner.begin_pass()

    def observe(self, batch: Batch) -> None:
        """Learn from a batch: take a step along the gradients of the loss and of the method's additional terms."""
        learner = self.learner
        logits = learner.logits(batch.x)
        learner.zero_grad()
        self.add_gradients(batch)
        learner.own_loss(logits, batch).backward()
        learner.step()

    def add_gradients(self, batch: Batch) -> None:
        """Add the gradients of the terms that a method adds to the batch's own loss."""

    def end(self, experience: int) -> None:
        self.learner.end_experience()

    def correct(self, experience: int) -> int:
        return self.learner.correct(experience)

    def is_finite(self) -> bool:
        return self.learner.is_finite()


class PerceptronMethod(Method):
    """A method on perceptrons (``learner.net``), which learns from one example at a time.

    ``learn`` takes all examples that arrive until the next stop, so that an engine can learn from them in one call. It
    must make the same draws and end with the same bits however the examples are divided among calls. A method that
    cannot do that sets ``in_bulk = False`` and has ``observe``.
    """

    learner_kind = "perceptron"
    in_bulk = True

    learner: PerceptronLearner
    net: Net
    """The network, for methods that have one."""

    @classmethod
    def gradients(cls, settings: Any) -> float:
        """The number of single-example gradients that each arriving example takes; for plans."""
        return 1.0

    @classmethod
    def further_seconds(cls, settings: Any, examples: float, tasks: int) -> float:
        """The seconds that a trial takes besides its gradients and evaluations; for plans."""
        return 0.0

    def observe(self, batch: Batch) -> None:
        self.learn(batch.numbers)

    def learn(self, numbers: Numbers) -> None:
        """Learn from each of these examples in turn.

        Raises:
            StepNotFinite: a number that a step needs is not finite. The trial then ends as diverged.
        """
        raise NotImplementedError

    def by_experience(self, numbers: Numbers) -> list[tuple[int, Numbers]]:
        """Divide arriving examples into consecutive parts of one experience each, as (experience, examples)."""
        owner = self.stream.owner
        parts = np.split(numbers, np.flatnonzero(np.diff(owner[numbers])) + 1)
        return [(int(owner[part[0]]), part) for part in parts if len(part)]

    def correct(self, experience: int) -> int:
        return self.net.correct(experience)

    def is_finite(self) -> bool:
        return self.net.is_finite()

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.net.weights()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load(state["weights"])
