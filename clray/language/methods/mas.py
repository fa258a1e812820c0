"""MAS on a language model, as in LAMOL's official code (``regularizers.py``), and corrected.

Memory aware synapses (Aljundi et al. 2018) has EWC's penalty with an importance that needs no correct answers: the
change of the norm of the model's output. The output is the probabilities of an answer's first token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clray.language.consolidation import Consolidating, ConsolidationSettings
from clray.language.settings import TokenBudget

if TYPE_CHECKING:
    from clray.language.importance import Measure


class Mas(Consolidating):
    """MAS: the importance is the gradient of the norm of the output."""

    class Settings(ConsolidationSettings):
        token_budget: TokenBudget = 5846

    def measure(self) -> Measure:
        from clray.language.importance import mas, mas_by_example

        return mas_by_example if self.settings.form == "corrected" else mas
