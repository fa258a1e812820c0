"""Our runs beside the published numbers: the comparison, and its forms for terminals, papers, pages and programs.

Every form says the same: each cell ours and published with its ± and number of runs, the difference with its interval
and the verdict; and with them the data that was used, what is missing, the margins, and how the tests were corrected.
"""

from clray.analysis.comparison import Comparison, compare, shell_flags
from clray.analysis.markup import latex, markdown
from clray.analysis.plain import csv, json
from clray.analysis.terminal import text

__all__ = ["Comparison", "compare", "csv", "json", "latex", "markdown", "shell_flags", "text"]
