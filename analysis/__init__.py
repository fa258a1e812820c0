"""Our runs beside the published numbers: the comparison, and its forms for terminals, papers, pages and programs.

This package reads the results store and judges each cell. It never trains, and importing it loads neither torch nor ray
nor wandb. ``gather`` turns records into runs, ``verdict`` holds the statistics, ``comparison`` puts ours beside the
published numbers, ``plots`` draws, and ``report`` writes the page.

Every form shows the same: each cell ours and published, with its ± and number of runs, the difference with its
interval, and the verdict. The notes name the data, the missing runs, the margins, and the correction of the tests.
"""

from clray.analysis.comparison import Comparison, compare, shell_flags
from clray.analysis.export_data import to_csv, to_json
from clray.analysis.export_text import to_latex, to_markdown
from clray.analysis.terminal import to_terminal

__all__ = ["Comparison", "compare", "shell_flags", "to_csv", "to_json", "to_latex", "to_markdown", "to_terminal"]
