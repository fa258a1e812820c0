"""Fine-tuning: each task learned in turn, and nothing done against forgetting (LAMOL's official ``finetune``)."""

from __future__ import annotations

from clray.language.learner import LanguageMethod, TokenBudget, TrainingSettings


class Finetune(LanguageMethod):
    """The QA loss alone."""

    class Settings(TrainingSettings):
        token_budget: TokenBudget = 18838
