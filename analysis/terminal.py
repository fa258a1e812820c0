"""A comparison for the terminal, with a layout for the terminal's width."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from clray.analysis.blocks import blocks
from clray.analysis.comparison import ComparedCell, ComparedSearches, ComparedTable, Comparison
from clray.analysis.formatting import (
    column_titles,
    heading,
    matrix_texts,
    matrix_titles,
    notes,
    number_texts,
    paper_line,
    search_lines,
    search_notes,
    stale_text,
    summary,
    undecided,
    verdict_text,
)
from clray.analysis.orders import Block
from clray.analysis.verdict import Outcome
from clray.store import Problem

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table as Grid
    from rich.text import Text

STYLES: Mapping[Outcome, str] = {
    "reproduced": "green",
    "consistent": "cyan",
    "differs": "bold red",
    "inconclusive": "yellow",
    "not judged": "dim",
}


def to_terminal(comparison: Comparison) -> RenderableType:
    """The comparison as a ``rich`` renderable, with a layout for the console's width; 80 columns are enough."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(comparison.title, style="bold")]
    if comparison.paper:
        parts.append(Text(f"{comparison.paper.title}\n{paper_line(comparison.paper)}", style="dim"))
    parts.append(Text(comparison.commands[0], style="cyan"))
    for table in comparison.tables:
        parts += [Text(""), Text(heading(table), style="bold")]
        if table.warning:
            parts.append(Text(table.warning, style="bold red reverse"))
        if table.judged:
            parts.append(Text(summary(cell for _, cell in table.cells)))
        if stale := stale_text(table):
            parts.append(Text(stale, style="yellow"))
        parts += [Text(""), _TerminalTable(table), Text("")]
    for group in comparison.searches:
        parts += [Text(""), Text(heading(group), style="bold")]
        if group.warning:
            parts.append(Text(group.warning, style="bold red reverse"))
        parts += [Text(""), _search_grid(group), Text(""), notes_grid(search_notes(group)), Text("")]
    return Group(*parts, *problem_lines(comparison.problems))


def problem_lines(problems: Sequence[Problem]) -> list[Text]:
    """The files of the store that could not be used, a line each after a heading; nothing where there is none."""
    from rich.text import Text

    if not problems:
        return []
    first = Text(f"{len(problems)} files of the store could not be used:", style="yellow")
    return [first, *(Text(f"  {problem}") for problem in problems)]


class _TerminalTable:
    """A table whose layout depends on the console's width."""

    def __init__(self, table: ComparedTable) -> None:
        self.table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        lines = notes(self.table)
        if not self.table.judged:
            yield from _matrix_grids(self.table, console, options.max_width)
        elif options.max_width >= max(120, _width_of_wide(self.table, console)):
            yield _wide_grid(self.table)
        else:
            yield from _narrow_lines(self.table, options.max_width)
            lines[:0] = [("why", f"{reason}: {where}") for reason, where in undecided(self.table.over_all).items()]
        yield Text("")
        yield notes_grid(lines)
        for block in blocks(self.table):
            yield Text("")
            yield Text(block.title, style="bold")
            yield from _block_grid(block, console, options)
            yield Text("")
            yield notes_grid(block.notes)


def _block_grid(block: Block, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
    """The block as a table where it fits. Else numbers alone are split over several tables, and where a method has
    several lines, each column becomes a line."""
    from rich.measure import Measurement
    from rich.table import Table as Grid
    from rich.text import Text

    def grid(head: Sequence[str], columns: str) -> Grid:
        made = Grid(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
        for title, side in zip(head, columns, strict=True):
            made.add_column(Text(title), justify="right" if side == "r" else "left", overflow="fold")
        return made

    wide = grid(block.head, block.columns)
    for line in block.body:
        wide.add_row(Text(line[0], style="bold"), *map(_outcome, line[1:]))
    needed = Measurement.get(console, options.update(max_width=10_000), wide).maximum
    if needed > options.max_width and set(block.columns[1:]) == {"r"}:

        def some(columns: Sequence[int]) -> Grid:
            found = grid([block.head[0], *(block.head[1 + i] for i in columns)], "l" + "r" * len(columns))
            for line in block.body:
                found.add_row(Text(line[0], style="bold"), *(_outcome(line[1 + i]) for i in columns))
            return found

        yield from _split(some, len(block.head) - 1, console, options.max_width)
        return
    if needed <= options.max_width or block.head[1]:
        yield wide
        return
    kinds = list(dict.fromkeys(line[1] for line in block.body))
    narrow = grid(["", *kinds], "l" + "r" * len(kinds))
    methods: dict[str, dict[str, Sequence[str]]] = {}
    method = ""
    for line in block.body:
        method = line[0] or method
        methods.setdefault(method, {})[line[1]] = line[2:]
    for label, lines in methods.items():
        narrow.add_row(Text(label, style="bold"))
        for i, title in enumerate(block.head[2:]):
            narrow.add_row(Text(f"  {title}"), *(_outcome(lines[kind][i] if kind in lines else "") for kind in kinds))
    yield narrow


def _outcome(text: str) -> Text:
    from rich.text import Text

    return Text(text, style=STYLES.get(text.strip("()†"), ""))  # type: ignore[call-overload]


def notes_grid(lines: Sequence[tuple[str, str]]) -> RenderableType:
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    previous = ""
    for key, sentence in lines:
        grid.add_row(Text("" if key == previous else key), Text(sentence))
        previous = key
    return grid


def _verdict(cell: ComparedCell) -> Text:
    from rich.text import Text

    return Text(verdict_text(cell), style=STYLES[cell.judgement.outcome])


_REASON = 20
"""The least width of the column with the reasons."""


def _width_of_wide(table: ComparedTable, console: Console) -> int:
    """The width below which the wide grid would lose letters."""
    from rich.measure import Measurement

    grid = _wide_grid(table, with_reasons=False)
    return Measurement.get(console, console.options.update(max_width=10_000), grid).maximum + _REASON + 2


def _matrix_grids(table: ComparedTable, console: Console, width: int) -> Iterator[RenderableType]:
    """A table without published numbers: a line for each variant, a column for each metric.

    Where the columns do not fit beside each other, the first ones that do are a grid, and the others follow below it.
    """
    columns = len(matrix_titles(table))
    yield from _split(lambda some: _matrix_grid(table, some), columns, console, width)


def _split(
    grid: Callable[[Sequence[int]], Grid], columns: int, console: Console, width: int
) -> Iterator[RenderableType]:
    """The grid of all columns where it fits into the width; else several, each with as many columns as fit."""
    from rich.measure import Measurement
    from rich.text import Text

    rest = list(range(columns))
    while rest:
        taken = len(rest)
        while taken > 1:
            found = grid(rest[:taken])
            if Measurement.get(console, console.options.update(max_width=10_000), found).maximum <= width:
                break
            taken -= 1
        yield grid(rest[:taken])
        rest = rest[taken:]
        if rest:
            yield Text("")


def _matrix_grid(table: ComparedTable, columns: Sequence[int]) -> Grid:
    """The lines of a table without published numbers, with some of its columns."""
    from rich.table import Table as Grid
    from rich.text import Text

    titles = matrix_titles(table)
    grid = Grid(box=None, padding=(0, 3, 0, 0), header_style="dim", pad_edge=False)
    grid.add_column("", overflow="fold")
    for column in columns:
        grid.add_column(titles[column], justify="right", no_wrap=True)
    for row in table.rows:
        texts = matrix_texts(table, row)
        grid.add_row(Text(row.label), *(Text(texts[column]) for column in columns))
    return grid


def _wide_grid(table: ComparedTable, with_reasons: bool = True) -> Grid:
    """A line for each cell, with the reason of its verdict."""
    from rich.table import Table as Grid
    from rich.text import Text

    *numbers, verdict = column_titles(table)
    grid = Grid(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    grid.add_column("", no_wrap=True)
    grid.add_column("", no_wrap=True)
    for title in numbers:
        grid.add_column(title, justify="right", no_wrap=True)
    grid.add_column(verdict, no_wrap=True)
    if with_reasons:
        grid.add_column("", style="dim", min_width=_REASON)
    for row in table.rows:
        for i, metric in enumerate(table.metrics):
            cell = row.cells[metric]
            values = number_texts(table, cell)
            line = [Text("" if i else row.label), Text(metric), *map(Text, values), _verdict(cell)]
            grid.add_row(*line, *([Text(cell.judgement.reason if cell.claim else "")] if with_reasons else []))
        if row is not table.rows[-1]:
            grid.add_row("")
    return grid


def _search_grid(group: ComparedSearches) -> RenderableType:
    from rich.table import Table as Grid
    from rich.text import Text

    head, body = search_lines(group)
    grid = Grid(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for i, title in enumerate(head):
        grid.add_column(title, justify="right" if i == 3 else "left", overflow="fold", no_wrap=i in (1, 3))
    for line in body:
        grid.add_row(Text(line[0], style="bold"), *map(Text, line[1:]))
    return grid


def _narrow_lines(table: ComparedTable, width: int) -> Iterator[Text]:
    """A line for each variant, and below it a line for each cell; a cell takes two lines in a narrow terminal."""
    from rich.text import Text

    body = [number_texts(table, cell) for _, cell in table.over_all]
    *titles, verdict_title = column_titles(table)
    names = max(len(m) for m in table.metrics) + 2
    widths = [max(map(len, column)) for column in zip(titles, *body, strict=True)]
    longest = max(len(verdict_text(cell)) for _, cell in table.over_all)
    gap = 2 if names + sum(widths) + longest + 2 * (len(widths) + 1) <= width else 1
    folded = names + sum(widths) + longest + (len(widths) + 1) * gap > width

    def line(name: str, columns: Sequence[str], verdict: Text) -> Text:
        cells = "".join(" " * gap + column.rjust(w) for column, w in zip(columns[:-1], widths, strict=False))
        last = columns[-1].rjust(widths[-1]) + " " * gap
        start = Text(name.ljust(names) + cells)
        return start.append("\n" + " " * (names + gap) if folded else " " * gap).append(last).append_text(verdict)

    head = line("", titles, Text(verdict_title))
    head.stylize("dim")
    yield head
    rows = iter(body)
    for row in table.rows:
        counted = Text(f"  {row.runs.counted}" if not row.runs.complete else "", style="yellow")
        yield Text.assemble((row.label, "bold"), counted)
        for metric in table.metrics:
            yield line(f"  {metric}", next(rows), _verdict(row.cells[metric]))
