"""Multitask: all tasks learned together as one, which no method that sees them in turn is expected to beat.

LAMOL's official ``multitask``: the training sets put one behind the other, the QA loss alone.
"""

from __future__ import annotations

from clray.language.learner import LanguageMethod, TokenBudget, TrainingSettings


class Multitask(LanguageMethod):
    """One training for all tasks."""

    merged = True

    class Settings(TrainingSettings):
        token_budget: TokenBudget = 18838
