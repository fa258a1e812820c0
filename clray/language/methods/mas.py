"""MAS on a language model, as in LAMOL's official code (``regularizers.py``), and corrected.

Memory aware synapses (Aljundi et al. 2018) has EWC's penalty with an importance that needs no correct answers: the
change of the norm of the model's output. The output is the probabilities of an answer's first token.
"""

from __future__ import annotations

from clray.language.consolidation import Consolidating, ConsolidationSettings
from clray.language.importance import mas, mas_by_example
from clray.language.learner import TokenBudget


class Mas(Consolidating):
    """MAS: the importance is the gradient of the norm of the output."""

    class Settings(ConsolidationSettings):
        token_budget: TokenBudget = 5846

    measures = {"as_coded": mas, "corrected": mas_by_example}
