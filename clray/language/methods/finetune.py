"""Fine-tuning: the tasks are learned in turn, without anything against forgetting (LAMOL's ``finetune``)."""

from __future__ import annotations

from clray.language.methods.base import LanguageMethod
from clray.language.settings import TokenBudget, TrainingSettings


class Finetune(LanguageMethod):
    """Fine-tuning with only the QA loss."""

    class Settings(TrainingSettings):
        token_budget: TokenBudget = 18838
