"""What all methods of the vision track have. Nothing here loads torch, so that a sweep is planned quickly.

The loop (``clray.vision.trial``) calls ``begin`` before every pass over an experience, ``observe`` with every batch and
``end`` after an experience's last pass; ``visits`` says which experiences come when. Where a benchmark hides boundaries
neither ``begin`` nor ``end`` is called, and ``batch.experience`` is None.
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


class Settings(BaseModel):
    """The base of every method's hyper-parameters: unknown ones are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Method:
    """A method: how a learner learns from the batches of a stream.

    Args:
        settings: an object of the class's ``Settings``.
        learner: what is trained; ``learner.stream`` and ``learner.draws`` are the trial's.
    """

    Settings: ClassVar[type[BaseModel]]
    learner_kind: ClassVar[Literal["perceptron", "module"]]
    """The kind of learner that the method trains: ``clray.vision.learners``."""
    in_bulk: ClassVar[bool] = False
    """The loop calls ``learn`` with all examples until the next stop, instead of ``observe`` with each."""

    def __init__(self, settings: Any, learner: Any) -> None:
        self.settings, self.learner = settings, learner
        self.stream, self.draws = learner.stream, learner.draws

    @property
    def batch_size(self) -> int:
        """Examples in a batch."""
        return 1

    def visits(self) -> list[int]:
        """The experiences in the order in which they are visited."""
        return list(range(len(self.stream.experiences)))

    def begin(self, experience: int) -> None:
        """A pass over an experience begins."""

    def observe(self, batch: Batch) -> None:
        """Learn from a batch.

        Raises:
            FloatingPointError: a number that a step needs is not finite, and its text says which. The trial then ends
                as diverged.
        """
        raise NotImplementedError

    def end(self, experience: int) -> None:
        """An experience's last pass is over."""

    def correct(self, experience: int) -> int:
        """How many of an experience's test images get the right answer, whether it has been learned or not."""
        raise NotImplementedError

    def is_finite(self) -> bool:
        """No weight is infinite or not a number; otherwise the trial ends as diverged."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """All that a continuation needs beside the trial's draws: tensors, arrays, numbers, texts, lists, mappings.

        An array comes back as a tensor.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class ModuleMethod(Method):
    """A method on a torch module: plain training with an optimizer, of which a method changes what it must."""

    learner_kind = "module"
    passes: ClassVar[float] = 1.0
    """What a step costs, compared with one of plain training. For plans."""

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
        """Learn from a batch: gradients of the loss, and of what the method adds to it, then a step."""
        learner = self.learner
        logits = learner.logits(batch.x)
        learner.zero_grad()
        self.add_gradients(batch)
        learner.own_loss(logits, batch).backward()
        learner.step()

    def add_gradients(self, batch: Batch) -> None:
        """Add the gradient of what a method has beside the batch's own loss."""

    def end(self, experience: int) -> None:
        self.learner.end_experience()

    def correct(self, experience: int) -> int:
        return self.learner.correct(experience)

    def is_finite(self) -> bool:
        return self.learner.is_finite()


class PerceptronMethod(Method):
    """A method on perceptrons (``learner.net``), which learns from one example at a time.

    ``learn`` takes all examples that arrive until the next stop, so that an engine can learn from them in one call.
    However they are cut, it must make the same draws and end with the same bits. A method that cannot do that sets
    ``in_bulk = False`` and has ``observe``.
    """

    learner_kind = "perceptron"
    in_bulk = True

    learner: PerceptronLearner
    net: Net
    """The network, for methods that have one."""

    @classmethod
    def gradients(cls, settings: Any) -> float:
        """Gradients of single examples that an arriving example takes, for plans."""
        return 1.0

    @classmethod
    def further_seconds(cls, settings: Any, examples: float, tasks: int) -> float:
        """Seconds that a trial takes beside its gradients and evaluations, for plans."""
        return 0.0

    def observe(self, batch: Batch) -> None:
        self.learn(batch.numbers)

    def learn(self, numbers: Numbers) -> None:
        """Learn from each of these examples in turn."""
        raise NotImplementedError

    def by_experience(self, numbers: Numbers) -> list[tuple[int, Numbers]]:
        """Arriving examples, cut where they begin to belong to another experience: (experience, examples) each."""
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
