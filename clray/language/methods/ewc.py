"""EWC on a language model, as LAMOL's official code has it (``regularizers.py``), and as it was meant.

Elastic weight consolidation (Kirkpatrick et al. 2017) holds every parameter by a spring whose strength Ω grows with
each task. In the official code the spring acts inside the optimizer's step, and its anchor is the weights before the
*first* task, always; what Ω is made of is told in ``clray.language.importance``. As shipped the official ``ewc`` does
not run, because the class weights that it names do not exist: here it has those of the training.
"""

from __future__ import annotations

from clray.language.consolidation import Consolidating, ConsolidationSettings
from clray.language.importance import ewc, ewc_by_example
from clray.language.learner import TokenBudget


class Ewc(Consolidating):
    """A parameter matters as the QA loss's squared gradient says."""

    class Settings(ConsolidationSettings):
        token_budget: TokenBudget = 9744

    measures = {"as_coded": ewc, "corrected": ewc_by_example}
