"""EWC on a language model, as in LAMOL's official code (``regularizers.py``), and corrected.

Elastic weight consolidation (Kirkpatrick et al. 2017) has a quadratic penalty on each parameter, whose importance Ω
grows with each task. In the official code the penalty acts inside the optimizer's step, and its anchor is always the
weights before the *first* task; ``clray.language.importance`` describes Ω. As shipped, the official ``ewc`` does not
run, because it uses class weights that do not exist; here it has those of the training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clray.language.consolidation import Consolidating, ConsolidationSettings
from clray.language.settings import TokenBudget

if TYPE_CHECKING:
    from clray.language.importance import Measure


class Ewc(Consolidating):
    """EWC: the importance is the squared gradient of the QA loss."""

    class Settings(ConsolidationSettings):
        token_budget: TokenBudget = 9744

    def measure(self) -> Measure:
        from clray.language.importance import ewc, ewc_by_example

        return ewc_by_example if self.settings.form == "corrected" else ewc
