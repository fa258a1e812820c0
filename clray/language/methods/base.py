"""The base of all methods of the language track. Nothing here loads torch, so that a sweep is planned quickly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from clray.language.settings import TrainingSettings

if TYPE_CHECKING:
    from clray.language.learner import Learner
    from clray.language.losses import Batch

GENERATE = "__gen__"
"""The token that every pseudo-sample begins with, where tasks share one."""


class LanguageMethod:
    """The interface of a method. The methods of this class are called in the order of their definition."""

    Settings: ClassVar[type[TrainingSettings]]
    merged = False
    """True to learn all tasks together as one."""
    lm_lambda: float | None = None
    """The weight of the LM loss; None for no LM loss."""

    def __init__(self, settings: Any, learner: Learner) -> None:
        self.settings, self.learner = settings, learner

    def generation_token(self, task: str) -> str:
        """The token that the task's examples begin with."""
        return GENERATE

    def samples_wanted(self, task: int) -> list[int]:
        """The pseudo-samples to write before a task is learned: for each, the index of the task that it imitates.

        Args:
            task: the index of the task to be learned, in the order of learning.
        """
        return []

    def real_samples(self, task: int) -> list[tuple[int, int]]:
        """The real examples to learn again with a task: the index of each earlier task, and their number."""
        return []

    def begin(self, task: int) -> None:
        """Called when a task's training begins."""

    def penalty(self) -> Any:
        """The penalty of the optimizer, see ``clray.language.optimizers``; None for none."""
        return None

    def project(self) -> None:
        """Change the clipped gradients before the optimizer's step."""

    consolidates = False
    """True to call ``consolidate`` on every batch of a task after its training."""

    def consolidate(self, batch: Batch) -> None:
        """Process a batch of the task just learned once more."""

    def end(self, task: int) -> None:
        """Called when a task is learned."""

    def state_dict(self) -> dict[str, Any]:
        """The state of the method, without the learner's."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
