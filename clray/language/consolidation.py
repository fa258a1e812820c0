"""The common part of EWC and MAS: a quadratic penalty on each parameter, weighted by its importance.

Nothing here loads torch until a task begins, so that a sweep is planned quickly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from clray.language.methods.base import LanguageMethod
from clray.language.settings import TrainingSettings

if TYPE_CHECKING:
    from clray.language.importance import Importance, Measure
    from clray.language.losses import Batch


class ConsolidationSettings(TrainingSettings):
    """The settings of training, and those of the penalty."""

    strength: Annotated[float, Field(ge=0, le=1e7)] = 1.0
    """λ of the penalty (official ``--reg_lambda``)."""
    form: Literal["as_coded", "corrected"] = "as_coded"
    """The importance as in the official code, or corrected: see ``clray.language.importance``."""


class Consolidating(LanguageMethod):
    """A method that measures the importance of each parameter in another pass over a learned task's batches."""

    consolidates = True

    def __init__(self, settings: Any, learner: Any) -> None:
        super().__init__(settings, learner)
        self.importance: Importance | None = None
        """None before the first task's training, whose first weights are the first anchor."""

    def measure(self) -> Measure:
        """The function that measures the importance in the form of the settings."""
        raise NotImplementedError

    def begin(self, task: int) -> None:
        from clray.language.importance import Importance

        if self.importance is None:
            refreshed = self.settings.form == "corrected"
            self.importance = Importance(self.learner.model, self.measure(), refreshed)

    def penalty(self) -> Any:
        assert self.importance is not None
        return self.importance.penalty(self.learner.model, self.settings.strength)

    def consolidate(self, batch: Batch) -> None:
        assert self.importance is not None
        learner = self.learner
        # The official code leaves dropout on in this pass.
        learner.model.train(self.settings.form == "as_coded")
        with (
            learner.drawing(f"dropout of importance {learner.updates} {self.importance.examples}"),
            learner.computing(),
        ):
            self.importance.add(learner.model, batch, learner.weights)

    def end(self, task: int) -> None:
        assert self.importance is not None
        self.importance.end(self.learner.model)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.importance is None else {"importance": self.importance.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:
            self.begin(0)
            assert self.importance is not None
            self.importance.load_state_dict(state["importance"])
