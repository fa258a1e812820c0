"""LAMOL: language modeling for lifelong language learning (Sun, Ho and Lee 2020, arXiv 1909.03329).

The model learns to answer and, by the LM loss, to write whole examples: context, question and answer after a generation
token. Before a new task it writes pseudo-samples of the earlier tasks, and learns them again with the new one. As in
the official code (``utils.py``, ``create_extra_data``), the number of pseudo-samples is a share of the *new* task's
size, divided among the earlier tasks; a sample without exactly one ``__ans__`` is dropped and not replaced.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from clray.language.methods.base import GENERATE, LanguageMethod
from clray.language.settings import TrainingSettings


class Lamol(LanguageMethod):
    """LAMOL: replay of pseudo-samples that the model writes."""

    class Settings(TrainingSettings):
        gamma: Annotated[float, Field(ge=0, le=100)] = 0.2
        """γ: the number of pseudo-samples before a task, as a share of its training examples. With 0 there are none,
        but the LM loss stays."""
        tokens: Literal["shared", "task"] = "shared"
        """``shared``: all tasks have the same generation token (the paper's GEN); ``task``: each has its own (TASK,
        official ``--add_task_tokens``)."""
        samples: Literal["generated", "real"] = "generated"
        """``real``: real examples of earlier tasks instead, drawn with replacement (official ``--real_sample``)."""
        lm_lambda: Annotated[float, Field(gt=0, le=1e30)] = 0.25
        """λ: the weight of the LM loss."""

    def __init__(self, settings: Settings, learner: object) -> None:
        super().__init__(settings, learner)  # type: ignore[arg-type]
        self.lm_lambda = settings.lm_lambda

    def generation_token(self, task: str) -> str:
        return GENERATE if self.settings.tokens == "shared" else f"__{task}__"

    def samples_wanted(self, task: int) -> list[int]:
        if self.settings.samples == "real" or not task:
            return []
        count = self._replayed(task)
        return [earlier for earlier in range(task) for _ in range(count // task)]

    def real_samples(self, task: int) -> list[tuple[int, int]]:
        if self.settings.samples == "generated" or not task:
            return []
        return [(earlier, self._replayed(task) // task) for earlier in range(task)]

    def _replayed(self, task: int) -> int:
        return math.ceil(len(self.learner.tasks[task].train) * self.settings.gamma)
