"""Our runs beside the published numbers: the comparison, and its forms for terminals, papers, pages and programs.

Every form says the same: each cell ours and published with its ± and number of runs, the difference with its interval
and the verdict; and with them the data that was used, what is missing, the margins, and how the tests were corrected.
"""

from __future__ import annotations

import csv as csv_format
import io
import json as json_format
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.aggregate import Gathered, Order, Results, Runs, gather, known_metrics, read, select
from analysis.verdict import ALPHA, OUTCOMES, POWER, Judgement, Outcome, Question, Sample, interval, judge, published
from clray.metrics import METRICS
from clray.results import Problem, Store
from clray.spec import (
    Claim,
    Margin,
    Paper,
    Reproduction,
    Row,
    Searches,
    SearchRow,
    Selection,
    Sweep,
    Table,
    papers,
    point_of,
)

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.text import Text


# --------------------------------------------------------------------------------------------------------------
# The comparison


@dataclass(frozen=True)
class ComparedCell:
    """One variant's one metric: ours, published, and what can be said of the two. Numbers are per cent.

    Attributes:
        values: ours by seed and task order.
        ours: their mean, standard deviation and number; None without any run.
    """

    metric: str
    values: Mapping[tuple[int, Order], float]
    ours: Sample | None
    claim: Claim | None
    margin: Margin | None
    judgement: Judgement

    @property
    def dagger(self) -> str:
        return "†" if self.judgement.dagger else ""


@dataclass(frozen=True)
class ComparedRow:
    """A row of a table: one variant, with the runs behind it."""

    label: str
    variant: str
    note: str
    runs: Runs
    cells: Mapping[str, ComparedCell]


@dataclass(frozen=True)
class ComparedTable:
    """A published table beside ours, or a sweep's own table where ``claims`` is zero.

    Attributes:
        source: where it stands in the paper; empty for a sweep of one's own.
        sweep: the name of the sweep that fills it.
        metrics: its columns.
        claims: how many of its published numbers can be tested; the tests are corrected for all of them.
        left_out: labels of rows that this selection did not ask for.
        bars: what makes it another experiment than the published one; empty where it is comparable.
    """

    title: str
    source: str
    sweep: str
    metrics: Sequence[str]
    rows: Sequence[ComparedRow]
    gathered: Gathered
    margins: Mapping[str, Margin] = field(default_factory=dict)
    claims: int = 0
    left_out: Sequence[str] = ()
    bars: Sequence[str] = ()

    @property
    def judged(self) -> bool:
        """Whether anything was published to compare with."""
        return any(cell.claim for row in self.rows for cell in row.cells.values())

    @property
    def cells(self) -> list[tuple[ComparedRow, ComparedCell]]:
        return [(row, row.cells[metric]) for row in self.rows for metric in self.metrics]

    @property
    def warning(self) -> str:
        """The label of a table whose numbers must not be held against the paper; empty where they may."""
        return _warning(self.bars)


@dataclass(frozen=True)
class ComparedSearch:
    """A hyper-parameter search: what it selects, and what the paper chose.

    Attributes:
        points: the runs of each point of the grid, in grid order.
        settings: the axes and values of each point.
        selected: the point with the best mean so far; None while none is complete.
        published: the published choice, by axis.
        there: the runs of the published choice, which may lie beside the grid; None where nothing declares them.
        in_grid: whether the published choice is a point of the grid.
    """

    label: str
    variant: str
    note: str
    metric: str
    points: Mapping[str, Runs]
    settings: Mapping[str, Mapping[str, Any]]
    selected: str | None
    published: Mapping[str, Any]
    there: Runs | None
    in_grid: bool

    @property
    def complete(self) -> int:
        """How many points have all their runs."""
        return sum(not runs.missing for runs in self.points.values())

    @property
    def agrees(self) -> bool | None:
        """Whether the whole grid selects the published choice; None while points are missing."""
        if self.selected is None or self.complete < len(self.points):
            return None
        return dict(self.settings[self.selected]) == dict(self.published)


@dataclass(frozen=True)
class ComparedSearches:
    """The searches of one sweep. ``bars`` as in ``ComparedTable``."""

    title: str
    source: str
    sweep: str
    metric: str
    rows: Sequence[ComparedSearch]
    gathered: Gathered
    validation: bool
    left_out: Sequence[str] = ()
    bars: Sequence[str] = ()

    @property
    def warning(self) -> str:
        return _warning(self.bars)


def _warning(bars: Sequence[str]) -> str:
    return f"NOT COMPARABLE WITH THE PAPER ({', '.join(bars)})" if bars else ""


@dataclass(frozen=True)
class Comparison:
    """All tables and searches of a reproduction, or of sweeps without one."""

    name: str
    title: str
    tables: Sequence[ComparedTable]
    problems: Sequence[Problem]
    paper: Paper | None = None
    reproduction: Reproduction | None = None
    selection: Selection = field(default_factory=Selection)
    searches: Sequence[ComparedSearches] = ()

    @property
    def commands(self) -> list[str]:
        """What runs the trials, and what prints these tables."""
        asked = " ".join(shell_flags(self.selection))
        run = f"python -m clray.reproduce {self.name}" if self.reproduction else f"clray sweep {self.name}"
        return [f"{verb} {asked}".rstrip() for verb in (run, f"clray table {self.name}", f"clray report {self.name}")]

    @property
    def differences(self) -> Sequence[str]:
        return self.reproduction.differences if self.reproduction else ()


def shell_flags(selection: Selection) -> Iterator[str]:
    """The selection as it is typed."""
    import shlex

    if selection.quick:
        yield "--quick"
    for variant in selection.only:
        yield f"--only {shlex.quote(variant)}"
    if selection.seeds:
        yield "--seeds " + ",".join(map(str, selection.seeds))
    for item in selection.set:
        yield f"--set {shlex.quote(item)}"


def compare(
    name: str, sweeps: Mapping[str, Sweep], store: Store, reproduction: Reproduction | None = None
) -> Comparison:
    """Put what the store holds of these sweeps beside what was published.

    Args:
        name: what the user asked for: a reproduction, or a sweep.
        sweeps: by the name under which the reproduction's tables know them, as ``Reproduction.sweeps`` gives them.
        store: read once.
        reproduction: without it there is one table a sweep, a row a variant, and nothing is judged.
    """
    results = read(store)
    first = next(iter(sweeps.values()))
    searches: list[ComparedSearches] = []
    if reproduction is None:
        tables = [_sweep_table(sweep, results) for sweep in sweeps.values()]
    else:
        tables = [
            compared
            for table in reproduction.tables
            if table.sweep in sweeps and (compared := _compare(table, sweeps[table.sweep], results, reproduction)).rows
        ]
        searches = [
            searched
            for group in reproduction.searches
            if group.sweep in sweeps and (searched := _search(group, sweeps[group.sweep], results)).rows
        ]
    title = reproduction.title if reproduction else (first.title or name)
    paper = papers().get(reproduction.paper if reproduction else first.paper)
    return Comparison(name, title, tables, results.problems, paper, reproduction, first.selection, searches)


def _sweep_table(sweep: Sweep, results: Results) -> ComparedTable:
    variants = [name for name, _ in sweep.variant_settings()]
    gathered = gather(sweep, variants, results)
    unjudged = Judgement("not judged", "no published number")
    rows = [
        ComparedRow(name, name, "", runs, {m: _cell(m, runs, None, None, unjudged) for m in sweep.metrics})
        for name, runs in gathered.variants.items()
    ]
    return ComparedTable(sweep.title or sweep.name, "", sweep.name, sweep.metrics, rows, gathered)


def _compare(table: Table, sweep: Sweep, results: Results, reproduction: Reproduction) -> ComparedTable:
    present = {name for name, _ in sweep.variant_settings()}
    gathered = gather(sweep, [row.variant for row in table.rows if row.variant in present], results)
    bars = _bars(sweep, gathered)
    # Rows that were not asked for are judged with the others: they belong to the family that tests are corrected for.
    places = [(row, metric) for row in table.rows for metric in table.metrics]
    questions = [_question(row, metric, table, gathered, reproduction, bars) for row, metric in places]
    judgements = iter(judge(questions))
    rows, left_out = [], []
    for row in table.rows:
        judged = {metric: next(judgements) for metric in table.metrics}
        if row.variant not in present:
            left_out.append(row.label)
            continue
        runs, cells = gathered.variants[row.variant], {}
        for metric, judgement in judged.items():
            claim, margin = reproduction.claim(table, row, metric), reproduction.margins.get(metric)
            cells[metric] = _cell(metric, runs, claim, margin, judgement)
        rows.append(ComparedRow(row.label, row.variant, row.note, runs, cells))
    return ComparedTable(
        title=table.title,
        source=table.source,
        sweep=sweep.name,
        metrics=table.metrics,
        rows=rows,
        gathered=gathered,
        margins={m: reproduction.margins[m] for m in table.metrics if m in reproduction.margins},
        claims=sum(q.claim is not None and published(q.claim) is not None for q in questions),
        left_out=left_out,
        bars=bars if any(q.claim for q in questions) else [],
    )


def _bars(sweep: Sweep, gathered: Gathered) -> list[str]:
    """What makes this another experiment than the declared one."""
    embedded = gathered.data is not None and gathered.data.embedded
    return [*sweep.selection.changes, *(["embedded data"] if embedded else [])]


def _search(group: Searches, sweep: Sweep, results: Results) -> ComparedSearches:
    variants = dict(sweep.variant_settings())
    gathered = gather(sweep, list(variants), results)
    asked = [row for row in group.rows if row.points(variants)]
    return ComparedSearches(
        title=group.title,
        source=group.source,
        sweep=sweep.name,
        metric=group.metric,
        rows=[_search_row(row, group.metric, variants, gathered) for row in asked],
        gathered=gathered,
        validation=all(cell.trial.benchmark.get("validation") for cell in sweep.cells),
        left_out=[row.label for row in group.rows if row not in asked],
        bars=_bars(sweep, gathered),
    )


def _search_row(
    row: SearchRow, metric: str, variants: Mapping[str, dict[str, Any]], gathered: Gathered
) -> ComparedSearch:
    points = {name: gathered.variants[name] for name in row.points(variants)}
    published = row.published_point(variants)
    return ComparedSearch(
        label=row.label,
        variant=row.variant,
        note=row.note,
        metric=metric,
        points=points,
        settings={name: point_of(name, variants[name]) for name in points},
        selected=select(points, metric),
        published=row.published,
        there=gathered.variants[published] if published else None,
        in_grid=published in points,
    )


def _question(
    row: Row, metric: str, table: Table, gathered: Gathered, reproduction: Reproduction, bars: Sequence[str]
) -> Question:
    runs = gathered.variants.get(row.variant)
    margin = reproduction.margins.get(metric)
    ours = runs.sample(metric) if runs else None
    barred = "not the published experiment" if bars else ""  # the label of the table says why
    return Question(ours, reproduction.claim(table, row, metric), margin.points if margin else None, barred)


def _cell(metric: str, runs: Runs, claim: Claim | None, margin: Margin | None, judgement: Judgement) -> ComparedCell:
    values = runs.values(metric)
    return ComparedCell(metric, values, runs.sample(metric) if values else None, claim, margin, judgement)


def tally(cells: Iterable[ComparedCell]) -> tuple[Counter[Outcome], Counter[Outcome]]:
    """How often each outcome stands: against numbers read in the paper, and against all others, kept apart."""
    read_there: Counter[Outcome] = Counter()
    others: Counter[Outcome] = Counter()
    for cell in cells:
        if cell.claim is not None:
            (others if cell.judgement.dagger else read_there)[cell.judgement.outcome] += 1
    return read_there, others


def summary(cells: Iterable[ComparedCell]) -> str:
    """The outcomes in words, those against numbers that nobody read in the paper apart and with a dagger."""
    parts = []
    for counts, dagger in zip(tally(cells), ("", "†"), strict=True):
        if total := counts.total():
            words = {"differs": "differ" if counts["differs"] != 1 else "differs"}
            rest = [f"{counts[o]} {words.get(o, o)}{dagger}" for o in OUTCOMES[1:] if counts[o]]
            first = [f"{counts['reproduced']} of {total} reproduced{dagger}"] if counts["not judged"] < total else []
            parts.append(", ".join(first + rest))
    return "; ".join(parts)


# --------------------------------------------------------------------------------------------------------------
# Words and numbers that all forms share

KINDS = {
    "sd": "standard deviation",
    "population sd": "population standard deviation (over n, compared as that over n - 1)",
    "sem": "standard error of the mean",
    "95% interval": "95% interval",
    "unknown": "spread of unknown kind",
}


SOURCES = {"authors": "from the authors' logs", "second-hand": "quoted by others", "recalled": "recalled"}


def number(value: float, sign: bool = False) -> str:
    """Two decimals with a true minus; never minus zero."""
    if math.isnan(value):
        return "?"
    text = f"{value:+.2f}" if sign else f"{value:.2f}"
    if float(text) == 0:
        text = "0.00"
    return text.replace("-", "−")


def ours_text(row: ComparedRow, cell: ComparedCell) -> str:
    """``53.41 ± 1.20 (5)``, with a double dagger where one of the runs has collapsed."""
    if cell.ours is None:
        return "–"
    spread = f" ± {number(cell.ours.sd)}" if cell.ours.n > 1 else ""
    return f"{number(cell.ours.mean)}{spread} ({cell.ours.n}){'‡' if row.runs.suspects else ''}"


def published_text(cell: ComparedCell, kind: bool = False) -> str:
    """``53.38 ± 1.53 (5)†``; with ``kind``, what the ± is."""
    claim = cell.claim
    if claim is None:
        return "–"
    spread = "?" if claim.spread is None else number(claim.spread) + (f" {claim.kind}" if kind else "")
    return f"{number(claim.mean)} ± {spread} ({claim.runs}){cell.dagger}"


def difference_text(cell: ComparedCell) -> str:
    """``+0.03 [−1.95, +2.01]``."""
    j = cell.judgement
    if j.difference is None:
        return ""
    ends = f" [{number(j.interval[0], True)}, {number(j.interval[1], True)}]" if j.interval else ""
    return number(j.difference, True) + ends


def verdict_text(cell: ComparedCell) -> str:
    return "" if cell.claim is None else cell.judgement.outcome + cell.dagger


def published_kinds(table: ComparedTable) -> list[str]:
    """The kinds of the published ± in a table."""
    claims = [cell.claim for _, cell in table.cells if cell.claim and cell.claim.spread is not None]
    return list(dict.fromkeys(claim.kind or "unknown" for claim in claims))


def notes(table: ComparedTable) -> list[tuple[str, str]]:
    """What a reader must know beside the numbers, as pairs of a key and a sentence."""
    lines = [("runs", _runs_note(table)), ("±", _spread_note(table))]
    lines += _missing_notes(table)
    lines += [("left out", f"not asked for: {'; '.join(table.left_out)}")] if table.left_out else []
    lines += _store_notes(table.gathered)
    lines += _collapsed_notes(table)
    if table.judged:
        lines += _judging_notes(table)
    lines += [("note", f"{row.label}: {row.note}") for row in table.rows if row.note]
    lines += [("note", f"{where}: {text}") for text, where in _claim_notes(table).items()]
    return lines


def _store_notes(gathered: Gathered) -> list[tuple[str, str]]:
    aside = [("data", f"left aside: {other}, which has {other.records} of the runs") for other in gathered.aside]
    return aside + [("code", mixture) for mixture in gathered.mixed_code]


def _runs_note(table: ComparedTable) -> str:
    expected, finished = sum(r.runs.expected for r in table.rows), sum(len(r.runs.runs) for r in table.rows)
    half = sum(r.runs.half_done for r in table.rows)
    text = f"{finished} of {expected} finished" + (f", {half} half-done" if half else "")
    return text + (f", on {table.gathered.data}" if table.gathered.data else "")


def _missing_notes(table: ComparedTable) -> list[tuple[str, str]]:
    untouched = [r.label for r in table.rows if not r.runs.runs and not r.runs.half_done]
    lines = [("missing", f"not begun: {'; '.join(untouched)}")] if untouched else []
    begun = [r for r in table.rows if r.runs.missing and r.label not in untouched]
    return lines + [("missing", f"{row.label}: {row.runs.counted}, {row.runs.absent}") for row in begun]


def _spread_note(table: ComparedTable) -> str:
    text = "per cent; ours: mean ± standard deviation over runs (number of runs)"
    if not table.judged:
        return text
    kinds = " or ".join(KINDS[kind] for kind in published_kinds(table)) or "spread"
    return f"{text}; published: mean ± {kinds} (number of runs); difference: ours less published, 95% Welch interval"


def _collapsed_notes(table: ComparedTable) -> list[tuple[str, str]]:
    return [
        (
            "‡",
            f"{row.label}: seed {', '.join(str(r.seed) for r in row.runs.suspects)} collapsed to guessing "
            f"({number(table.gathered.chance)} before training), and is part of the mean",
        )
        for row in table.rows
        if row.runs.suspects
    ]


def _judging_notes(table: ComparedTable) -> list[tuple[str, str]]:
    lines = []
    if not table.bars:
        lines += [("margin", f"{name} ±{margin.points:g}: {margin.reason}") for name, margin in table.margins.items()]
        tests = (
            f"equal within the margin, or different, each at level {ALPHA:g} corrected for the table's {table.claims} "
            f"claims by Holm's method; the intervals are not corrected; runs are counted for a chance of {POWER:.0%}"
        )
        if any(cell.judgement.limit is not None for _, cell in table.cells):
            tests += (
                "; undecidable: at the corrected level the published runs alone leave more open than there is to "
                "decide, however many of ours are added"
            )
        lines.append(("tests", tests))
    known = dict.fromkeys(cell.claim.known for _, cell in table.cells if cell.claim and cell.judgement.dagger)
    if known:
        words = " or ".join(SOURCES[k] for k in known if k in SOURCES)
        lines.append(("†", f"{words}: not read in the paper, so the verdict is on the number as we have it"))
    return lines


def _claim_notes(table: ComparedTable) -> dict[str, str]:
    """Remarks on published numbers, each with the cells it is about."""
    return _grouped((row, cell, cell.claim.note) for row, cell in table.cells if cell.claim and cell.claim.note)


def undecided(table: ComparedTable) -> dict[str, str]:
    """Why cells are inconclusive or not judged, each reason with the cells it is about."""
    return _grouped(
        (row, cell, cell.judgement.reason if cell.judgement.limit is None else "undecidable, their runs leave open")
        for row, cell in table.cells
        if cell.claim and cell.judgement.outcome in ("inconclusive", "not judged")
    )


def _grouped(items: Iterable[tuple[ComparedRow, ComparedCell, str]]) -> dict[str, str]:
    """By text, the cells it belongs to: ``GEM RA, LA; MER BTI ±0.53``."""
    by_text: dict[str, dict[str, list[str]]] = {}
    for row, cell, text in items:
        limit = cell.judgement.limit
        metric = cell.metric + (f" ±{number(limit)}" if limit is not None else "")
        by_text.setdefault(text, {}).setdefault(row.label, []).append(metric)
    return {text: "; ".join(f"{r} {', '.join(m)}" for r, m in rows.items()) for text, rows in by_text.items()}


def heading(table: ComparedTable | ComparedSearches) -> str:
    return f"{table.title} ({table.source})" if table.source else table.title


def column_titles(table: ComparedTable) -> tuple[str, str, str, str]:
    kinds = published_kinds(table)
    published = f"published ± {kinds[0]} (n)" if len(kinds) == 1 else "published (n)"
    return "ours ± sd (n)", published, "difference", "verdict"


# --------------------------------------------------------------------------------------------------------------
# Searches, in words and numbers


def setting_text(point: Mapping[str, Any]) -> str:
    """``b 5, lr 0.0005``: the last part of an axis's name is enough to know it."""
    return ", ".join(f"{axis.rpartition('.')[2]} {_plain(value)}" for axis, value in point.items())


def _plain(value: Any) -> str:
    return np.format_float_positional(value, trim="0") if isinstance(value, float) else str(value)


def search_lines(group: ComparedSearches) -> tuple[list[str], list[list[str]]]:
    """Head and body of the printed searches: for each a line of what it selects, and one of the published choice."""
    body = []
    for row in group.rows:
        points = f"of {len(row.points)} points"
        if row.complete < len(row.points):
            points = f"{row.complete} {points} so far"
        chosen = row.points[row.selected] if row.selected else None
        setting = setting_text(row.settings[row.selected]) if row.selected else "–"
        body += [
            [row.label, "selected", setting, _mean_text(chosen, group.metric), points],
            ["", "published", setting_text(row.published), _mean_text(row.there, group.metric), _place_text(row)],
        ]
    return ["search", "", "setting", f"{group.metric} ± sd (n)", ""], body


def _mean_text(runs: Runs | None, metric: str) -> str:
    values = runs.values(metric) if runs else {}
    if runs is None or not values:
        return "–"
    ours = runs.sample(metric)
    return number(ours.mean) + (f" ± {number(ours.sd)}" if ours.n > 1 else "") + f" ({ours.n})"


def _place_text(row: ComparedSearch) -> str:
    """Where the published choice lies."""
    if not row.in_grid:
        return "not in the grid"
    return "selected here too" if row.agrees else "in the grid"


def search_notes(group: ComparedSearches) -> list[tuple[str, str]]:
    """What a reader must know beside the searches, as pairs of a key and a sentence."""
    every = group.gathered.variants.values()
    finished, expected = sum(len(v.runs) for v in every), sum(v.expected for v in every)
    half = sum(v.half_done for v in every)
    runs = f"{finished} of {expected} finished" + (f", {half} half-done" if half else "")
    data = group.gathered.data
    measured = "validation data held out of each task's training data" if group.validation else "the test data"
    lines = [
        ("runs", runs + (f", on {data}" if data else "")),
        ("±", f"per cent, measured on {measured}; mean ± standard deviation over runs (number of runs)"),
        (
            "selected",
            f"the point with the best mean {group.metric}, the first in grid order where several are best; "
            "points that lack runs take no part",
        ),
    ]
    lines += [("left out", f"not asked for: {'; '.join(group.left_out)}")] if group.left_out else []
    lines += _store_notes(group.gathered)
    return lines + [("note", f"{row.label}: {row.note}") for row in group.rows if row.note]


# --------------------------------------------------------------------------------------------------------------
# Terminal

STYLES: Mapping[Outcome, str] = {
    "reproduced": "green",
    "differs": "bold red",
    "inconclusive": "yellow",
    "not judged": "dim",
}


def text(comparison: Comparison) -> RenderableType:
    """The comparison for a ``rich`` console, laid out for its width: 80 columns suffice."""
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
        parts += [Text(""), _TerminalTable(table), Text("")]
    for group in comparison.searches:
        parts += [Text(""), Text(heading(group), style="bold")]
        if group.warning:
            parts.append(Text(group.warning, style="bold red reverse"))
        parts += [Text(""), _search_grid(group), Text(""), _notes_grid(search_notes(group)), Text("")]
    if comparison.problems:
        parts.append(Text(f"{len(comparison.problems)} files of the store could not be used:", style="yellow"))
        parts += [Text(f"  {problem}") for problem in comparison.problems]
    return Group(*parts)


def paper_line(paper: Paper) -> str:
    first = paper.authors.split(",")[0]
    return f"{first + ' et al.' if ',' in paper.authors else first}, {paper.venue}, arXiv {paper.arxiv}"


class _TerminalTable:
    """A table that measures the console before it lays itself out."""

    def __init__(self, table: ComparedTable) -> None:
        self.table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        lines = notes(self.table)
        if not self.table.judged:
            yield _matrix_grid(self.table)
        elif options.max_width >= 120:
            yield _wide_grid(self.table)
        else:
            yield from _narrow_lines(self.table, options.max_width)
            lines[:0] = [("why", f"{reason}: {where}") for reason, where in undecided(self.table).items()]
        yield Text("")
        yield _notes_grid(lines)


def _notes_grid(lines: Sequence[tuple[str, str]]) -> RenderableType:
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


def _matrix_grid(table: ComparedTable) -> RenderableType:
    """One line a variant, one column a metric: a table without published numbers."""
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(box=None, padding=(0, 3, 0, 0), header_style="dim", pad_edge=False)
    grid.add_column("")
    for metric in table.metrics:
        grid.add_column(metric, justify="right", no_wrap=True)
    for row in table.rows:
        grid.add_row(Text(row.label), *(Text(ours_text(row, row.cells[m])) for m in table.metrics))
    return grid


def _wide_grid(table: ComparedTable) -> RenderableType:
    """One line a cell, with the reason of its verdict."""
    from rich.table import Table as Grid
    from rich.text import Text

    ours, published, difference, verdict = column_titles(table)
    grid = Grid(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    grid.add_column("", no_wrap=True)
    grid.add_column("", no_wrap=True)
    for title in (ours, published, difference):
        grid.add_column(title, justify="right", no_wrap=True)
    grid.add_column(verdict, no_wrap=True)
    grid.add_column("", style="dim", min_width=20)
    several = len(published_kinds(table)) > 1
    for row in table.rows:
        for i, metric in enumerate(table.metrics):
            cell = row.cells[metric]
            values = ours_text(row, cell), published_text(cell, several), difference_text(cell)
            reason = cell.judgement.reason if cell.claim else ""
            grid.add_row(Text("" if i else row.label), metric, *map(Text, values), _verdict(cell), Text(reason))
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
    """A line a variant, below it a line a cell; a cell takes two where the terminal is narrower than its line."""
    from rich.text import Text

    several = len(published_kinds(table)) > 1
    body = [(ours_text(r, c), published_text(c, several), difference_text(c)) for r, c in table.cells]
    titles = column_titles(table)
    names = max(len(m) for m in table.metrics) + 2
    widths = [max(len(line[i]) for line in [titles[:3], *body]) for i in range(3)]
    longest = max(len(verdict_text(cell)) for _, cell in table.cells)
    gap = 2 if names + sum(widths) + longest + 8 <= width else 1
    folded = names + sum(widths) + longest + 4 * gap > width

    def line(name: str, columns: Sequence[str], verdict: Text) -> Text:
        cells = "".join(" " * gap + column.rjust(w) for column, w in zip(columns[:2], widths, strict=False))
        last = columns[2].rjust(widths[2]) + " " * gap
        start = Text(name.ljust(names) + cells)
        return start.append("\n" + " " * (names + gap) if folded else " " * gap).append(last).append_text(verdict)

    head = line("", titles, Text(titles[3]))
    head.stylize("dim")
    yield head
    rows = iter(body)
    for row in table.rows:
        counted = Text(f"  {row.runs.counted}" if row.runs.missing else "", style="yellow")
        yield Text.assemble((row.label, "bold"), counted)
        for metric in table.metrics:
            yield line(f"  {metric}", next(rows), _verdict(row.cells[metric]))


# --------------------------------------------------------------------------------------------------------------
# Markdown and LaTeX


def markdown(comparison: Comparison) -> str:
    """The comparison as GitHub's Markdown."""
    parts = [f"## {_md(comparison.title)}"]
    if comparison.paper:
        parts.append(f"{_md(comparison.paper.title)}. {_md(paper_line(comparison.paper))}.")
    parts.append("\n".join(f"    {command}" for command in comparison.commands[:2]))
    for table in comparison.tables:
        parts.append(f"### {_md(heading(table))}")
        if table.warning:
            parts.append(f"**{_md(table.warning)}**")
        if table.judged:
            parts.append(summary(cell for _, cell in table.cells) + ".")
        parts.append(_pipes(*_lines(table)))
        parts.append("\n".join(f"- {key}: {_md(sentence)}" for key, sentence in notes(table)))
    for group in comparison.searches:
        parts.append(f"### {_md(heading(group))}")
        if group.warning:
            parts.append(f"**{_md(group.warning)}**")
        parts.append(_pipes(*search_lines(group)))
        parts.append("\n".join(f"- {key}: {_md(sentence)}" for key, sentence in search_notes(group)))
    if comparison.problems:
        parts.append("### Files that could not be used")
        parts.append("\n".join(f"- `{problem.path}`: {_md(problem.reason)}" for problem in comparison.problems))
    return "\n\n".join(parts) + "\n"


def _lines(table: ComparedTable) -> tuple[list[str], list[list[str]]]:
    """Head and body of the printed table: a line a cell, or a line a variant where nothing was published."""
    if not table.judged:
        return ["method", *table.metrics], [
            [row.label, *(ours_text(row, row.cells[m]) for m in table.metrics)] for row in table.rows
        ]
    several = len(published_kinds(table)) > 1
    body = [
        [
            row.label if cell.metric == table.metrics[0] else "",
            cell.metric,
            ours_text(row, cell),
            published_text(cell, several),
            difference_text(cell),
            verdict_text(cell),
            cell.judgement.reason if cell.claim else "",
        ]
        for row, cell in table.cells
    ]
    return ["method", "metric", *column_titles(table), ""], body


def _pipes(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    numbers = ("ours ± sd (n)", "difference", *METRICS)
    right = [title in numbers or title.startswith("published") or title.endswith(" ± sd (n)") for title in head]
    rule = ["---:" if one else "---" for one in right]
    return "\n".join("| " + " | ".join(map(_md, line)) + " |" for line in [head, rule, *body])


def _md(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


_LATEX = {
    "\\": r"\textbackslash{}",
    **{c: "\\" + c for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "−": "$-$",
    "±": r"$\pm$",
    "–": "--",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
    "…": r"\ldots{}",
    "×": r"$\times$",
}


def tex(text: str) -> str:
    """``text`` with everything escaped that LaTeX would read as a command."""
    return "".join(_LATEX.get(character, character) for character in text)


def latex(comparison: Comparison) -> str:
    """The comparison as LaTeX tables; the preamble needs ``\\usepackage{booktabs}``."""
    parts = [f"% {comparison.commands[1]} --format latex", r"% needs \usepackage{booktabs}"]
    for table in comparison.tables:
        head, body = _lines(table)
        if table.judged:  # the reasons are too long for a printed table: they stay with the other forms
            head, body = head[:-1], [line[:-1] for line in body]
        columns = "llrrrl" if table.judged else "l" + "r" * len(table.metrics)
        caption = ". ".join(filter(None, [table.warning, heading(table), summary(c for _, c in table.cells)]))
        parts += _latex_table(columns, head, body, caption, notes(table))
    for group in comparison.searches:
        caption = ". ".join(filter(None, [group.warning, heading(group)]))
        parts += _latex_table("lllrl", *search_lines(group), caption, search_notes(group))
    return "\n".join(parts) + "\n"


def _latex_table(
    columns: str, head: Sequence[str], body: Sequence[Sequence[str]], caption: str, remarks: Sequence[tuple[str, str]]
) -> list[str]:
    foot = r" \\ ".join(f"{tex(key)}: {tex(sentence)}." for key, sentence in remarks)
    return [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{tex(caption + '.')}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(map(tex, head)) + r" \\",
        r"\midrule",
        *(" & ".join(map(tex, line)) + r" \\" for line in body),
        r"\bottomrule",
        r"\end{tabular}",
        rf"\par\footnotesize\raggedright {foot}",
        r"\end{table}",
    ]


# --------------------------------------------------------------------------------------------------------------
# For programs


def cell_data(table: ComparedTable, row: ComparedRow, cell: ComparedCell) -> dict[str, Any]:
    """One cell as plain data: numbers in per cent, None for what there is not."""
    ours, claim, judged = cell.ours, cell.claim, cell.judgement
    low, high = (interval(ours) if ours else None) or (None, None)
    return {
        "table": table.title,
        "sweep": table.sweep,
        "label": row.label,
        "variant": row.variant,
        "metric": cell.metric,
        "ours_mean": ours.mean if ours else None,
        "ours_sd": ours.sd if ours and ours.n > 1 else None,
        "ours_runs": ours.n if ours else 0,
        "expected_runs": row.runs.expected,
        "ours_low": low,
        "ours_high": high,
        "published_mean": claim.mean if claim else None,
        "published_spread": claim.spread if claim else None,
        "published_kind": claim.kind if claim else None,
        "published_runs": claim.runs if claim else None,
        "published_known": claim.known if claim else None,
        "published_source": claim.source if claim else None,
        "difference": judged.difference,
        "difference_low": judged.interval[0] if judged.interval else None,
        "difference_high": judged.interval[1] if judged.interval else None,
        "margin": cell.margin.points if cell.margin and claim else None,
        "p_difference": judged.p_difference,
        "p_equivalence": judged.p_equivalence,
        "verdict": judged.outcome,
        "reason": judged.reason,
        "runs_that_decide": judged.runs,
        "comparable": not table.bars,
        "data": str(table.gathered.data) if table.gathered.data else None,
        "collapsed_seeds": [r.seed for r in row.runs.suspects],
        "trials": [r.id for r in row.runs.runs if cell.metric in r.metrics],
    }


def search_data(group: ComparedSearches) -> list[dict[str, Any]]:
    """A line a point of each grid, and one for a published choice beside it; numbers in per cent."""
    lines = []
    for row in group.rows:
        shown = [(runs, row.settings[name], name) for name, runs in row.points.items()]
        if row.there is not None and not row.in_grid:
            shown.append((row.there, row.published, row.there.variant))
        for runs, setting, name in shown:
            ours = runs.sample(group.metric)
            lines.append(
                {
                    "search": group.title,
                    "sweep": group.sweep,
                    "label": row.label,
                    "variant": name,
                    "setting": setting_text(setting),
                    "in_grid": name in row.points,
                    "selected": name == row.selected,
                    "published": dict(setting) == dict(row.published),
                    "metric": group.metric,
                    "validation": group.validation,
                    "ours_mean": ours.mean if ours.n else None,
                    "ours_sd": ours.sd if ours.n > 1 else None,
                    "ours_runs": ours.n,
                    "expected_runs": runs.expected,
                    "comparable": not group.bars,
                    "data": str(group.gathered.data) if group.gathered.data else None,
                    "trials": [r.id for r in runs.runs if group.metric in r.metrics],
                }
            )
    return lines


def csv(comparison: Comparison) -> str:
    """One line a cell; lists are separated by spaces, what there is not is empty.

    Searches have columns of their own, so where there are both they follow below an empty line: a line a point.
    """
    cells = [cell_data(table, row, cell) for table in comparison.tables for row, cell in table.cells]
    points = [line for group in comparison.searches for line in search_data(group)]
    return "\n".join(_csv(rows) for rows in (cells, points) if rows)


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv_format.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for data in rows:
        writer.writerow({key: " ".join(map(str, v)) if isinstance(v, list) else v for key, v in data.items()})
    return out.getvalue()


def json(comparison: Comparison) -> str:
    """Everything, for programs: numbers in per cent, ``null`` for what there is not."""
    paper = comparison.paper.model_dump() if comparison.paper else None
    content = {
        "name": comparison.name,
        "title": comparison.title,
        "paper": paper,
        "commands": comparison.commands,
        "differences": list(comparison.differences),
        "problems": [{"path": p.path, "reason": p.reason} for p in comparison.problems],
        "tables": [_table_data(table) for table in comparison.tables],
        "searches": [_searches_data(group) for group in comparison.searches],
    }
    return json_format.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _table_data(table: ComparedTable) -> dict[str, Any]:
    read_there, others = tally(cell for _, cell in table.cells)
    gathered = table.gathered
    return {
        "title": table.title,
        "source": table.source,
        "sweep": table.sweep,
        "comparable": not table.bars,
        "not_comparable_because": list(table.bars),
        "metrics": known_metrics(table.metrics),
        "margins": {metric: margin.model_dump() for metric, margin in table.margins.items()},
        "claims_tested_together": table.claims,
        "outcomes": {"read in the paper": dict(read_there), "known otherwise": dict(others)},
        "data": str(gathered.data) if gathered.data else None,
        "data_left_aside": [{"data": str(d), "records": d.records} for d in gathered.aside],
        "mixed_code": list(gathered.mixed_code),
        "notes": [f"{key}: {sentence}" for key, sentence in notes(table)],
        "cells": [
            cell_data(table, row, cell)
            | {"values": [{"seed": s, "task_order": o, "value": v} for (s, o), v in cell.values.items()]}
            for row, cell in table.cells
        ],
        "missing": {row.variant: [{"seed": s, "task_order": o} for s, o in row.runs.missing] for row in table.rows},
    }


def _searches_data(group: ComparedSearches) -> dict[str, Any]:
    points = search_data(group)
    return {
        "title": group.title,
        "source": group.source,
        "sweep": group.sweep,
        "metric": group.metric,
        "validation": group.validation,
        "comparable": not group.bars,
        "not_comparable_because": list(group.bars),
        "data": str(group.gathered.data) if group.gathered.data else None,
        "notes": [f"{key}: {sentence}" for key, sentence in search_notes(group)],
        "rows": [
            {
                "label": row.label,
                "variant": row.variant,
                "selected": dict(row.settings[row.selected]) if row.selected else None,
                "published": dict(row.published),
                "published_in_grid": row.in_grid,
                "selects_the_published": row.agrees,
                "points": len(row.points),
                "complete": row.complete,
                "results": [line for line in points if line["label"] == row.label],
            }
            for row in group.rows
        ],
    }
