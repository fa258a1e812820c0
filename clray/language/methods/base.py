"""The base of all methods of the language track. Nothing here loads torch, so that a sweep is planned quickly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from clray.settings import TrialSettings

if TYPE_CHECKING:
    from clray.language.learner import Learner
    from clray.language.losses import Batch

GENERATE = "__gen__"
"""The token that every pseudo-sample begins with, where tasks share one."""

TokenBudget = Annotated[int, Field(ge=1, le=1_000_000_000)]
"""The most tokens of a batch, with padding; every method has its own default."""


class TrainingSettings(TrialSettings):
    """The settings of training. Names and defaults are those of the official ``settings.py``, except ``epochs``."""

    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 9
    """The paper's number; the code's default is 3."""
    lr: Annotated[float, Field(gt=0, le=1e30)] = 6.25e-5
    weight_decay: Annotated[float, Field(ge=0, le=1e6)] = 0.01
    eps: Annotated[float, Field(gt=0, le=1e30)] = 1e-4
    clip: Annotated[float, Field(gt=0, le=1e30)] = 1.0
    """The largest norm of the gradient."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.005
    """The share of an epoch in which the learning rate rises from zero."""
    answer_weight: Annotated[float, Field(gt=0, le=1e30)] = 5.0
    """The weight of the class ``__ans__`` (and ``__sep__``) in the losses; every other class has weight 1."""
    batching: Literal["as_coded", "bucketed"] = "as_coded"
    """``as_coded``: batches in the epoch's order, limited by size or budget; ``bucketed``: rows of similar length."""
    token_budget: TokenBudget = 11368
    """The most tokens of a batch, with padding; in the code it depends on the GPU's memory and on the method."""
    min_batch: Annotated[int, Field(ge=1, le=10_000_000)] = 4
    min_steps: Annotated[int, Field(ge=1, le=1_000_000_000)] = 1500
    """A batch has at most ``max(examples // min_steps, min_batch)`` examples."""
    use_sep: bool = False
    """True to put ``__sep__`` between context and question."""
    top_k: Annotated[int, Field(ge=1, le=10_000_000)] = 20
    """Tokens of pseudo-samples are drawn from so many of the most likely ones."""
    answer_top_k: Annotated[int, Field(ge=1, le=10_000_000)] = 20
    """Tokens of test answers are drawn in the same way, as the code does by default; 1 is greedy."""
    temperature: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0


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
