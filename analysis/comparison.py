"""Our runs beside the published numbers: the comparison itself, which every form of a table is written from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clray.analysis.aggregate import Gathered, Order, Results, Runs, gather, read, select
from clray.analysis.verdict import Judgement, Outcome, Question, Sample, Variance, judge, published
from clray.loading import Paper, papers
from clray.metrics import METRICS
from clray.record import Record
from clray.reproduction import BenchmarkSpread, Claim, Margin, Reproduction, Row, Searches, SearchRow, Table
from clray.selection import Selection
from clray.store import Problem, Store
from clray.sweep import Sweep, point_of


@dataclass(frozen=True)
class OtherSource:
    """Another published number for a cell, and what can be said of ours beside it."""

    claim: Claim
    judgement: Judgement

    @property
    def dagger(self) -> str:
        return "†" if self.judgement.dagger else ""


@dataclass(frozen=True)
class ComparedCell:
    """One variant's one metric: ours, published, and what can be said of the two. Numbers are per cent.

    Attributes:
        runs: those that it is about: all of the variant's, or those of one task order.
        claim, margin: what was published, and the difference below which the two count as the same.
        order: the title of the one task order that it is about; empty where it is about all of them.
        derived: the metric follows from others of the table, so that its outcome is not counted beside theirs.
        others: by the name of a source, further published numbers for this cell.
    """

    metric: str
    runs: Runs
    claim: Claim | None
    margin: Margin | None
    judgement: Judgement
    order: str = ""
    derived: bool = False
    others: Mapping[str, OtherSource] = field(default_factory=dict)

    @property
    def values(self) -> Mapping[tuple[int, Order], float]:
        """Ours by seed and task order."""
        return self.runs.values(self.metric)

    @property
    def ours(self) -> Sample | None:
        """Their mean, standard deviation and number; None without any run."""
        return self.runs.sample(self.metric) if self.values else None

    @property
    def dagger(self) -> str:
        return "†" if self.judgement.dagger else ""

    @property
    def name(self) -> str:
        """The metric, and the task order where it is about one."""
        return f"{self.metric} {self.order}".rstrip()


@dataclass(frozen=True)
class ComparedRow:
    """A row of a table: one variant, with the runs behind it.

    Attributes:
        cells: by metric, over all runs.
        orders: by the title of a task order, the table's first metric over the runs of that order.
    """

    label: str
    variant: str
    note: str
    runs: Runs
    cells: Mapping[str, ComparedCell]
    orders: Mapping[str, ComparedCell] = field(default_factory=dict)


@dataclass(frozen=True)
class ComparedTable:
    """A published table beside ours, or a sweep's own table where nothing was published.

    Attributes:
        source: where it stands in the paper; empty for a sweep of one's own.
        sweep: the name of the sweep that fills it.
        metrics: its columns.
        orders: the titles of the task orders that have a column of their own, for the first metric.
        families: by name, how many published numbers can be tested and are corrected together.
        streams: how much the stream itself varies, where that was measured.
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
    orders: Sequence[str] = ()
    families: Mapping[str, int] = field(default_factory=dict)
    streams: BenchmarkSpread | None = None
    left_out: Sequence[str] = ()
    bars: Sequence[str] = ()

    @property
    def judged(self) -> bool:
        """Whether anything was published to compare with."""
        return any(cell.claim for _, cell in self.cells)

    @property
    def cells(self) -> list[tuple[ComparedRow, ComparedCell]]:
        """Row by row: each metric over all runs, then the first one order by order."""
        return [(row, cell) for row in self.rows for cell in [*row.cells.values(), *row.orders.values()]]

    @property
    def over_all(self) -> list[tuple[ComparedRow, ComparedCell]]:
        """The cells that are about all runs of a variant."""
        return [(row, cell) for row, cell in self.cells if not cell.order]

    @property
    def by_order(self) -> list[tuple[ComparedRow, ComparedCell]]:
        """The cells that are about one task order."""
        return [(row, cell) for row, cell in self.cells if cell.order]

    @property
    def stale(self) -> int:
        """How many of its runs other code made than the code here."""
        return len({run.id for row in self.rows for run in row.runs.runs if run.stale})

    @property
    def run_count(self) -> int:
        return len({run.id for row in self.rows for run in row.runs.runs})

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
        return sum(runs.complete for runs in self.points.values())

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
    store: Store | None = None
    """Where all this was read: a page also shows what trials have left beside their records."""
    arguments: str = ""
    """What was asked for, as a shell takes it; by default the name and the flags of the selection."""

    @property
    def commands(self) -> list[str]:
        """What runs the trials, and what prints these tables."""
        asked = self.arguments or " ".join([self.name, *shell_flags(self.selection)])
        run = "python -m clray.reproduce" if self.reproduction else "clray sweep"
        return [f"{verb} {asked}" for verb in (run, "clray table", "clray report")]

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
    name: str,
    sweeps: Mapping[str, Sweep],
    store: Store,
    reproduction: Reproduction | None = None,
    is_current: Callable[[Record], bool] | None = None,
) -> Comparison:
    """Put what the store holds of these sweeps beside what was published.

    Args:
        name: what the user asked for: a reproduction, or a sweep.
        sweeps: by the name under which the reproduction's tables know them, as ``Reproduction.sweeps`` gives them.
        store: read once.
        reproduction: without it there is one table a sweep, a row a variant, and nothing is judged.
        is_current: whether the code here made a record; the tables say how many runs other code made.
    """
    results = read(store, is_current)
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
    return Comparison(name, title, tables, results.problems, paper, reproduction, first.selection, searches, store)


def _sweep_table(sweep: Sweep, results: Results) -> ComparedTable:
    variants = [name for name, _ in sweep.variant_settings()]
    gathered = gather(sweep, variants, results)
    unjudged = Judgement("not judged", "no published number")
    rows = [
        ComparedRow(name, name, "", runs, {m: ComparedCell(m, runs, None, None, unjudged) for m in sweep.metrics})
        for name, runs in gathered.variants.items()
    ]
    return ComparedTable(sweep.title or sweep.name, "", sweep.name, sweep.metrics, rows, gathered)


def _compare(table: Table, sweep: Sweep, results: Results, reproduction: Reproduction) -> ComparedTable:
    table.check_orders(sweep)
    present = {name for name, _ in sweep.variant_settings()}
    gathered = gather(sweep, [row.variant for row in table.rows if row.variant in present], results)
    bars = _bars(sweep, gathered)
    # Rows that were not asked for are judged with the others: they belong to the families that tests are corrected for.
    posed = [_posed(row, table, gathered.variants.get(row.variant), sweep, reproduction) for row in table.rows]
    orders = [order for order in table.orders if any(cell.order == order and cell.runs for c in posed for cell in c)]
    questions = [q for cells in posed for cell in cells for q in cell.questions(bars)]
    judgements = iter(judge(questions))
    rows, left_out = [], []
    for row, cells in zip(table.rows, posed, strict=True):
        judged = [cell.judged(judgements) for cell in cells]
        if row.variant not in present:
            left_out.append(row.label)
            continue
        over_all = {cell.metric: cell for cell in judged if not cell.order}
        by_order = {cell.order: cell for cell in judged if cell.order in orders}
        rows.append(ComparedRow(row.label, row.variant, row.note, gathered.variants[row.variant], over_all, by_order))
    testable = [q.family for q in questions if q.claim is not None and published(q.claim) is not None]
    return ComparedTable(
        title=table.title,
        source=table.source,
        sweep=sweep.name,
        metrics=table.metrics,
        rows=rows,
        gathered=gathered,
        margins={m: reproduction.margins[m] for m in table.metrics if m in reproduction.margins},
        orders=orders,
        families=Counter(testable),
        streams=table.benchmark_sd,
        left_out=left_out,
        bars=bars if any(q.claim for q in questions) else [],
    )


@dataclass(frozen=True)
class _Posed:
    """A cell before it is judged. ``runs`` is None where the selection left its row or its order out.

    Attributes:
        claims: by source, the published numbers; the first one, of the source "", is the one that counts.
        family: of its tests; each other source has one of its own.
        stream: the part of the difference's variance that comes from the draw of the stream.
    """

    metric: str
    order: str
    runs: Runs | None
    claims: Mapping[str, Claim | None]
    margin: Margin | None
    derived: bool
    family: str
    stream: Variance | None

    def questions(self, bars: Sequence[str]) -> Iterator[Question]:
        """One for each source, the first source's first."""
        ours = self.runs.sample(self.metric) if self.runs else None
        barred = "not the published experiment" if bars else ""  # the label of the table says why
        if not barred and self.runs and self.runs.pooled:
            barred = "several runs of several task orders are no independent runs"
        margin = self.margin.points if self.margin else None
        for source, claim in self.claims.items():
            family = f"{self.family}, {source}" if source else self.family
            yield Question(ours, claim, margin, barred, self.stream, family)

    def judged(self, judgements: Iterator[Judgement]) -> ComparedCell:
        """With the judgements of its questions, which are the next ones."""
        runs = self.runs or Runs("", [], 0)
        found = {source: (claim, next(judgements)) for source, claim in self.claims.items()}
        claim, judgement = found.pop("")
        others = {source: OtherSource(c, j) for source, (c, j) in found.items() if c is not None}
        return ComparedCell(self.metric, runs, claim, self.margin, judgement, self.order, self.derived, others)


def _posed(row: Row, table: Table, runs: Runs | None, sweep: Sweep, reproduction: Reproduction) -> list[_Posed]:
    """A row's cells: each metric over all runs, then the first one order by order."""
    first = table.metrics[0]

    def posed(metric: str, order: str, runs: Runs | None, claims: Mapping[str, Claim | None]) -> _Posed:
        needed = METRICS[metric].computed_from
        derived = bool(needed) and set(needed) <= set(table.metrics)
        family = metric if table.family == "metric" or derived else "the table"
        margin = reproduction.margins.get(metric)
        return _Posed(metric, order, runs, claims, margin, derived, family, _stream(table, row, metric))

    cells = []
    for metric in table.metrics:
        elsewhere = {source: reproduction.claim(table, row, metric, source) for source in row.also}
        claims = {"": reproduction.claim(table, row, metric)} | {s: c for s, c in elsewhere.items() if c is not None}
        cells.append(posed(metric, "", runs, claims))
    trials = [cell.trial for cell in sweep.cells if cell.variant == row.variant] if table.orders else []
    places = {table.order_of(trial): trial.task_order for trial in trials}
    for order in table.orders:
        claim = reproduction.claim(table, row.at_order(order, first), first)
        place = places.get(order)
        of_order = runs.at(None if place is None else tuple(place)) if runs and order in places else None
        cells.append(posed(first, order, of_order, {"": claim}))
    return cells


def _stream(table: Table, row: Row, metric: str) -> Variance | None:
    """The variance of the difference between means on two draws of the stream: twice the variance between draws."""
    spread = table.benchmark_sd
    sd = spread.variants.get(row.variant, {}).get(metric) if spread else None
    return Variance(2 * sd**2, spread.draws - 1) if spread and sd is not None else None


def _bars(sweep: Sweep, gathered: Gathered) -> list[str]:
    """What makes this another experiment than the declared one."""
    return [*sweep.selection.changes, *(gathered.data.bars if gathered.data else [])]


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


def tally(cells: Iterable[ComparedCell]) -> tuple[Counter[Outcome], Counter[Outcome]]:
    """How often each outcome stands: against numbers read in the paper, and against all others, kept apart.

    A cell whose metric follows from others of the table is not counted.
    """
    read_there: Counter[Outcome] = Counter()
    others: Counter[Outcome] = Counter()
    for cell in cells:
        if cell.claim is not None and not cell.derived:
            (others if cell.judgement.dagger else read_there)[cell.judgement.outcome] += 1
    return read_there, others
