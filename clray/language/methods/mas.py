"""MAS on a language model, as LAMOL's official code has it (``regularizers.py``), and as it was meant.

Memory aware synapses (Aljundi et al. 2018) are EWC's springs, with a strength that needs no right answers: how much the
size of the model's output would change. The output is the probabilities of an answer's first token.
"""

from __future__ import annotations

from clray.language.consolidation import Consolidating, ConsolidationSettings
from clray.language.importance import mas, mas_by_example
from clray.language.learner import TokenBudget


class Mas(Consolidating):
    """A parameter matters as the gradient of the output's size says."""

    class Settings(ConsolidationSettings):
        token_budget: TokenBudget = 5846

    measures = {"as_coded": mas, "corrected": mas_by_example}
