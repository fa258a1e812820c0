"""clray from Python: the functions that ``import clray`` offers, and the objects that they return.

The commands of ``clray`` print the same objects. Errors of wrong input are ``clray.errors.ClrayError``, each with one
message that names the place and what is allowed.
"""

from clray.api.results import Results, load
from clray.api.running import TrialsFailed, run
from clray.api.shown import Comparisons, Leaderboard, Table
from clray.api.tables import compare, leaderboard, table

__all__ = [
    "Comparisons",
    "Leaderboard",
    "Results",
    "Table",
    "TrialsFailed",
    "compare",
    "leaderboard",
    "load",
    "run",
    "table",
]
