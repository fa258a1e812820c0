"""The settings of training that all methods of the language track have. Nothing here loads torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clray.settings import TrialSettings

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
