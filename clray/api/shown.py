"""Tables that show themselves: as text on a terminal, as HTML in a notebook, as data for programs."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clray.output import finite, json_text, to_json

if TYPE_CHECKING:
    import pandas
    from rich.console import RenderableType

    from clray.analysis.against import Compared
    from clray.analysis.comparison import Comparison
    from clray.analysis.leaderboard import Board
    from clray.store import Problem

WIDTH = 140
"""The columns of text in a notebook: as many as the widest form of a table needs."""
_HTML = '<pre style="white-space:pre;overflow-x:auto;line-height:1.25">{code}</pre>'


class Shown:
    """The base of the tables: each form shows what the command of the same name prints."""

    def to_terminal(self) -> RenderableType:
        """The table for a console of ``rich``, which lays it out for its width."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, as the command's JSON has it. Numbers are in per cent, None is a missing value."""
        raise NotImplementedError

    def to_json(self) -> str:
        """``to_dict`` as one JSON document."""
        return to_json(self.to_dict())

    def __str__(self) -> str:
        """The text that the command prints, for the terminal's width, without colours."""
        return self._rendered(shutil.get_terminal_size((WIDTH, 24)).columns, html=False)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """The same text with its colours, for a notebook."""
        return self._rendered(WIDTH, html=True)

    def _rendered(self, width: int, html: bool) -> str:
        from clray.console import PlainConsole

        # A notebook's kernel asks all programs for colours (FORCE_COLOR): the text has none all the same.
        console = PlainConsole(io.StringIO(), width=width, record=html, force_terminal=False, no_color=not html)
        console.print(self.to_terminal())
        if html:
            return console.export_html(inline_styles=True, code_format=_HTML)
        text: str = console.file.getvalue()  # type: ignore[attr-defined]
        return "\n".join(line.rstrip() for line in text.splitlines()).rstrip("\n")


@dataclass(frozen=True, repr=False)
class Table(Shown):
    """Our numbers beside the published ones: ``clray.table`` returns it, ``clray table`` prints it.

    Attributes:
        comparison: the tables with their rows, cells and verdicts, and the runs behind them.
    """

    comparison: Comparison

    def to_terminal(self) -> RenderableType:
        from clray import analysis

        return analysis.to_terminal(self.comparison)

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.to_json())
        return found

    def to_json(self) -> str:
        from clray import analysis

        return json_text(analysis.to_json(self.comparison))

    def to_markdown(self) -> str:
        from clray import analysis

        return analysis.to_markdown(self.comparison)

    def to_latex(self) -> str:
        from clray import analysis

        return analysis.to_latex(self.comparison)

    def to_csv(self) -> str:
        from clray import analysis

        return analysis.to_csv(self.comparison)

    def to_pandas(self) -> pandas.DataFrame:
        """A row for each cell: one metric of one variant, and with ``order`` the same of one task order.

        The columns are those of ``clray table --format csv``: ``table``, ``sweep``, ``label``, ``variant``, ``metric``,
        ``ours_mean``, ``ours_sd``, ``ours_runs``, ``published_mean``, ``published_spread``, ``difference``,
        ``verdict`` and more; docs/python.md has all of them. Means, ± and differences are in per cent.

        Raises:
            PandasMissing: pandas is not installed.
        """
        from clray.analysis.export_data import cell_data
        from clray.api.frames import frame_of_rows

        tables = self.comparison.tables
        rows = [cell_data(table, row, cell) for table in tables for row, cell in table.cells]
        units = "ours_*, reference_*, published_*, difference*: per cent"
        return frame_of_rows(rows, _CELL_NUMBERS, _CELL_COUNTS, units=units)


@dataclass(frozen=True, repr=False)
class Comparisons(Shown):
    """Variants against each other: ``clray.compare`` returns it, ``clray compare`` prints it.

    Attributes:
        name: the reproduction or sweep.
        found: for each sweep its variants and their comparisons.
        problems: the files of the store that could not be used.
    """

    name: str
    found: Sequence[Compared]
    problems: Sequence[Problem] = ()

    def to_terminal(self) -> RenderableType:
        from clray.analysis import against_forms

        return against_forms.to_terminal(self.found, self.problems)

    def to_dict(self) -> dict[str, Any]:
        from clray.analysis import against_forms

        data: dict[str, Any] = finite(against_forms.to_data(self.name, self.found, self.problems))
        return data

    def to_pandas(self) -> pandas.DataFrame:
        """A row for each comparison of two variants in one metric.

        Among the columns are ``sweep``, ``metric``, ``variant``, ``against``, ``difference`` (the variant's mean minus
        the other's, in points) with its 95% ``interval_low`` and ``interval_high``, ``p_corrected`` (Holm),
        ``probability_of_improvement``, ``verdict`` (``better``, ``worse``, ``not decided``) and ``further``, the
        number of further seeds that would decide.

        Raises:
            PandasMissing: pandas is not installed.
        """
        from clray.api.frames import frame_of_rows

        rows = [_with_ends(row) for row in self.to_dict()["comparisons"]]
        units = "difference, interval, standard_error: points"
        return frame_of_rows(rows, _COMPARISON_NUMBERS, _COMPARISON_COUNTS, units=units)


@dataclass(frozen=True, repr=False)
class Leaderboard(Shown):
    """Methods ranked on each benchmark: ``clray.leaderboard`` returns it, ``clray leaderboard`` prints it.

    Attributes:
        metric: the metric that ranks.
        boards: a leaderboard for each benchmark.
        problems: the files of the store that could not be used.
    """

    metric: str
    boards: Sequence[Board]
    problems: Sequence[Problem] = ()

    def to_terminal(self) -> RenderableType:
        from clray.analysis import leaderboard_forms

        return leaderboard_forms.to_terminal(self.boards, self.metric, self.problems)

    def to_dict(self) -> dict[str, Any]:
        from clray.analysis import leaderboard_forms

        problems = [str(problem) for problem in self.problems]
        data: dict[str, Any] = finite(leaderboard_forms.to_data(self.boards, self.metric, problems))
        return data

    def to_pandas(self) -> pandas.DataFrame:
        """A row for each entry, best first; entries without a rank have no run yet.

        The columns are ``board`` (from 0), ``benchmark``, ``rank``, ``worst_rank`` (another one where the differences
        around it are not decided), ``label``, ``variant``, ``sweep``, ``source`` (``own``, ``reference``,
        ``published``), ``mean``, ``spread`` and ``spread_kind``, ``runs``, ``citation`` and ``place``. Per cent.

        Raises:
            PandasMissing: pandas is not installed.
        """
        from clray.api.frames import frame_of_rows

        rows = [
            {"board": i, "benchmark": board["benchmark"].get("benchmark.name", ""), "metric": self.metric}
            | {key: entry.get(key) for key in _ENTRY}
            for i, board in enumerate(self.to_dict()["leaderboards"])
            for entry in board["entries"]
        ]
        columns = ("board", "benchmark", "metric", *_ENTRY)
        return frame_of_rows(rows, _ENTRY_NUMBERS, _ENTRY_COUNTS, columns, units="mean, spread: per cent")


_CELL_NUMBERS = (
    "ours_mean", "ours_sd", "ours_low", "ours_high", "reference_mean", "reference_sd", "published_mean",
    "published_spread", "difference", "difference_low", "difference_high", "margin", "p_difference", "p_equivalence",
    "prediction_half_width",
)  # fmt: skip
_CELL_COUNTS = ("published_runs", "runs_that_decide")
_COMPARISON_NUMBERS = (
    "difference", "interval_low", "interval_high", "standard_error", "degrees_of_freedom", "p", "p_corrected",
    "probability_of_improvement", "probability_interval_low", "probability_interval_high",
)  # fmt: skip
_COMPARISON_COUNTS = ("pairs", "runs_without_partner", "further")
_ENTRY_NUMBERS = ("mean", "spread")
_ENTRY_COUNTS = ("rank", "worst_rank", "runs")
_ENTRY = (
    "rank", "worst_rank", "label", "variant", "sweep", "source", "mean", "spread", "spread_kind", "runs", "citation",
    "place",
)  # fmt: skip


def _with_ends(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row in which intervals are two columns each."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if key in ("interval", "probability_interval"):
            flat[f"{key}_low"], flat[f"{key}_high"] = value or (None, None)
        else:
            flat[key] = value
    return flat
