"""Multitask: all tasks are learned together as one, as an upper bound for methods that learn them in turn.

LAMOL's official ``multitask``: the training sets are concatenated, with only the QA loss.
"""

from __future__ import annotations

from clray.language.methods.base import LanguageMethod
from clray.language.settings import TokenBudget, TrainingSettings


class Multitask(LanguageMethod):
    """Multitask learning: one training for all tasks."""

    merged = True

    class Settings(TrainingSettings):
        token_budget: TokenBudget = 18838
