"""Our runs beside the published numbers: the comparison from which every form of a table is written."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from clray.analysis.gather import (
    Gathered,
    Results,
    gather,
    not_comparable_because,
    not_comparable_warning,
    read,
    results_of,
)
from clray.analysis.protocols import Protocols, at_choices, protocols_of
from clray.analysis.runs import Order, Run, Runs, order_of
from clray.analysis.searches import ComparedSearches, compare_searches
from clray.analysis.verdict import CellInput, Judgement, Outcome, Sample, Variance, judge, published
from clray.errors import DeclarationError
from clray.grid import setting_text
from clray.loading import Paper, papers
from clray.metrics import METRICS
from clray.record import Record
from clray.reproduction import BenchmarkSpread, Claim, Margin, Reproduction, Row, Table
from clray.selection import Selection
from clray.store import Problem, Store
from clray.sweep import Sweep

Shown = Literal["own", "reference", "both"]
"""The runs that a table shows: those of the store, those that ship with clray, or the latter beside the former."""

NOTHING_CHOSEN = "nothing, as a run of each setting diverged or lacks the metric"

NOT_YET = Judgement("not judged")
"""The judgement of a cell before it is judged."""


@dataclass(frozen=True)
class OtherClaim:
    """A further published number for a cell, and the verdict on our runs against it."""

    claim: Claim
    judgement: Judgement

    @property
    def dagger(self) -> str:
        return "†" if self.judgement.dagger else ""


@dataclass(frozen=True)
class ComparedCell:
    """One metric of one variant: our runs, the published number, and the verdict. Numbers are per cent.

    Attributes:
        runs: all runs of the variant, or those of one task order. They are judged.
        claim: the published number; None where there is none.
        margin: the equivalence margin: two means closer than this count as equal.
        order: the title of the task order that the cell is about; empty where it is about all orders.
        derived: the metric follows from others of the table, so its outcome is not counted beside theirs.
        uncounted: the reason why the outcomes of the row are not counted; empty if they are.
        others: further published numbers for this cell, by the name of their source.
        reference: the reference runs of the variant, where the table shows them beside the judged ones.
    """

    metric: str
    runs: Runs
    claim: Claim | None
    margin: Margin | None
    judgement: Judgement
    order: str = ""
    derived: bool = False
    uncounted: str = ""
    others: Mapping[str, OtherClaim] = field(default_factory=dict)
    reference: Runs | None = None

    @property
    def values(self) -> Mapping[tuple[int, Order], float]:
        """Our values by seed and task order."""
        return self.runs.values(self.metric)

    @property
    def ours(self) -> Sample | None:
        """The mean, standard deviation and number of our runs; None without any run."""
        return self.runs.sample(self.metric) if self.values else None

    @property
    def counted(self) -> bool:
        """True if the outcome counts in the sums of the table and of the paper."""
        return not self.derived and not self.uncounted

    @property
    def dagger(self) -> str:
        return "†" if self.judgement.dagger else ""

    @property
    def name(self) -> str:
        """The metric, followed by the task order where the cell is about one."""
        return f"{self.metric} {self.order}".rstrip()


@dataclass(frozen=True)
class ComparedRow:
    """A row of a table: one variant, with the runs behind it.

    Attributes:
        cells: a cell over all runs for each metric, by the metric.
        orders: a cell of the table's first metric for each task order, by the order's title.
        point: the point of the variant's grid that a tuning phase chose; empty for a variant without a grid.
    """

    label: str
    variant: str
    note: str
    runs: Runs
    cells: Mapping[str, ComparedCell]
    orders: Mapping[str, ComparedCell] = field(default_factory=dict)
    point: str = ""

    @property
    def filled_by(self) -> str:
        """The variant of the sweep, or the point of its grid, whose runs these are."""
        return self.point or self.variant


@dataclass(frozen=True)
class ComparedTable:
    """A published table beside ours, or a sweep's own table where nothing was published.

    Attributes:
        source: the table's place in the paper; empty for a sweep without a paper.
        sweep: the name of the sweep that fills the table.
        metrics: the columns.
        orders: the titles of the task orders that have a column of their own, for the first metric.
        families: the number of testable published numbers in each family of tests, by the family's name.
        streams: the variation between draws of the stream; None where it was not measured.
        left_out: the labels of rows that the selection did not ask for.
        not_comparable_because: the reasons why it is another experiment than the published one; empty where it is not.
        shown: the runs that it shows.
        reference: the reference runs beside the judged ones, where it shows both.
        ships_reference: reference runs of this table ship with clray.
        curriculum: the distances between the tasks' classes that the sweep declares, by the name of the features.
        protocols: the ways of choosing the settings, where the sweep has a tuning phase.
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
    not_comparable_because: Sequence[str] = ()
    shown: Shown = "own"
    reference: Gathered | None = None
    ships_reference: bool = False
    curriculum: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    protocols: Protocols | None = None

    @property
    def judged(self) -> bool:
        """True where there is a published number to compare with."""
        return any(cell.claim for _, cell in self.cells)

    @property
    def cells(self) -> list[tuple[ComparedRow, ComparedCell]]:
        """All cells, row by row: each metric over all runs, then the first metric order by order."""
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
        """The number of its runs that other code made than the code here."""
        return len({run.id for run in self.runs if run.stale})

    @property
    def runs(self) -> list[Run]:
        """The runs behind its numbers: those of its rows, and those of both phases where settings were chosen."""
        found = [run for row in self.rows for run in row.runs.runs]
        return list({run.id: run for run in [*found, *(self.protocols.runs if self.protocols else [])]}.values())

    @property
    def shipped_runs(self) -> Sequence[Run]:
        """The reference runs that it shows."""
        if self.shown == "own":
            return []
        return (self.reference or self.gathered).runs

    @property
    def warning(self) -> str:
        """The label of a table that shows another experiment than the declared one; empty where it does not.

        Where numbers were published, it says that they must not be compared.
        """
        if self.not_comparable_because and not self.judged:
            return f"ANOTHER EXPERIMENT THAN THE DECLARED ONE ({', '.join(self.not_comparable_because)})"
        return not_comparable_warning(self.not_comparable_because)


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
    """The store that was read. A report also shows the artifacts in it."""
    arguments: str = ""
    """The command's arguments as typed in a shell; by default the name and the flags of the selection."""
    shown: Shown = "own"
    searched: bool = False
    """True for the settings that ``clray search`` chose."""
    against: str = ""
    """The variant that a report compares the others with; by default the first one of a table."""

    @property
    def commands(self) -> list[str]:
        """The commands that run the trials and that print these tables."""
        asked = self.arguments or " ".join([self.name, *shell_flags(self.selection)])
        run = "python -m clray.reproduce" if self.reproduction else "clray search" if self.searched else "clray sweep"
        if self.searched:
            return [f"{run} {asked}"]
        records = "" if self.shown == "own" else f" --records {self.shown}"
        against = f" --against {shlex.quote(self.against)}" if self.against else ""
        return [f"{run} {asked}", f"clray table {asked}{records}", f"clray report {asked}{records}{against}"]

    @property
    def differences(self) -> Sequence[str]:
        return self.reproduction.differences if self.reproduction else ()


def shell_flags(selection: Selection) -> Iterator[str]:
    """The selection as command-line flags."""
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
    store: Store | None,
    reproduction: Reproduction | None = None,
    is_current: Callable[[Record], bool] | None = None,
    reference: Sequence[Record] = (),
    shown: Shown | None = None,
) -> Comparison:
    """Put what the store holds of these sweeps beside what was published.

    Args:
        name: the reproduction or the sweep that the user asked for.
        sweeps: the sweeps by the names that the reproduction's tables use, as ``Reproduction.sweeps`` gives them.
        store: the results; it is read once. None for reference runs alone.
        reproduction: without it each sweep has one table with a row a variant, and nothing is judged.
        is_current: tells if the code here made a record; the tables count the runs that other code made.
        reference: the reference runs that ship with clray (``clray.reference_runs``).
        shown: the runs to show; by default those of the store, and where it has none the reference runs.
    """
    own = read(store, is_current) if store else results_of([])
    shipped = results_of(reference, is_current)
    if shown is None:
        shown = "own" if _has_any(own, sweeps) or not _has_any(shipped, sweeps) else "reference"
    results = replace(shipped, problems=own.problems) if shown == "reference" else own
    first = next(iter(sweeps.values()))
    searches: list[ComparedSearches] = []
    if reproduction is None:
        beside = shipped if shown == "both" else None
        tables = [
            replace(
                sweep_table(sweep, results, beside=beside),
                protocols=_protocols(sweep, results),
                shown=shown,
                ships_reference=_has_any(shipped, {sweep.name: sweep}),
            )
            for sweep in sweeps.values()
        ]
    else:
        tables = [
            compared
            for table in reproduction.tables
            if table.sweep in sweeps
            and (compared := _compare(table, sweeps[table.sweep], results, reproduction, shipped, shown)).rows
        ]
        searches = [
            searched
            for group in reproduction.searches
            if group.sweep in sweeps and (searched := compare_searches(group, sweeps[group.sweep], results)).rows
        ]
    title = reproduction.title if reproduction else (first.title or name)
    paper = reproduction.cited if reproduction else papers().get(first.paper)
    kept = None if shown == "reference" else store  # the artifacts of reference runs do not ship
    return Comparison(
        name, title, tables, results.problems, paper, reproduction, first.selection, searches, kept, shown=shown
    )


def _protocols(sweep: Sweep, results: Results) -> Protocols | None:
    """The ways of choosing a sweep's settings; None without a tuning phase, and where flags made the phases overlap."""
    if sweep.tuning is None:
        return None
    try:
        return protocols_of(sweep, results)
    except DeclarationError:
        return None


def _has_any(results: Results, sweeps: Mapping[str, Sweep]) -> bool:
    """True where there is a finished or begun run of one of these sweeps."""
    declared = {cell.trial.declaration for sweep in sweeps.values() for cell in sweep.cells}
    return any(declaration in declared for declaration in (*results.finished, *results.running))


def sweep_table(
    sweep: Sweep,
    results: Results,
    labels: Mapping[str, str] | None = None,
    metrics: Sequence[str] = (),
    beside: Results | None = None,
) -> ComparedTable:
    """A table of a sweep without published numbers: a row a variant.

    Args:
        labels: the variants to show, each with its label; by default all of them, by their names.
        metrics: the columns; by default those that the sweep declares.
        beside: the reference runs that stand beside them.
    """
    labels = labels or {name: name for name, _ in sweep.variant_settings()}
    metrics = metrics or sweep.metrics
    gathered = gather(sweep, list(labels), results)
    reference = gather(sweep, list(labels), beside) if beside else None
    unjudged = Judgement("not judged", "no published number")

    def cells(name: str, runs: Runs) -> dict[str, ComparedCell]:
        other = reference.variants[name] if reference else None
        return {m: ComparedCell(m, runs, None, None, unjudged, reference=other) for m in metrics}

    rows = [ComparedRow(labels[name], name, "", runs, cells(name, runs)) for name, runs in gathered.variants.items()]
    title, distances = sweep.title or sweep.name, sweep.curriculum
    return ComparedTable(title, "", sweep.name, metrics, rows, gathered, reference=reference, curriculum=distances)


def _compare(
    table: Table, sweep: Sweep, results: Results, reproduction: Reproduction, shipped: Results, shown: Shown
) -> ComparedTable:
    filling, tuned = _filling(table, sweep, reproduction)
    # Before the sweep itself: each may have chosen another point for a variant.
    beside, other = at_choices(sweep, filling, shipped) if tuned and shown == "both" else (sweep, None)
    sweep, protocols = at_choices(sweep, filling, results) if tuned else (sweep, None)
    gathered = gather(sweep, list(filling), results)
    reference = gather(beside, list(filling), shipped) if shown == "both" else None
    reasons = not_comparable_because(sweep, gathered)
    # Rows that were not asked for are judged with the others: they belong to the families that tests are corrected for.
    cells = [_cells(row, table, gathered.variants.get(row.variant), sweep, reproduction) for row in table.rows]
    inputs = [
        _inputs(table, row, cell, bool(reasons))
        for row, of_row in zip(table.rows, cells, strict=True)
        for cell in of_row
    ]
    judgements = iter(judge([one for of_cell in inputs for one in of_cell]))
    orders = [o for o in table.orders if any(cell.order == o and cell.runs.expected for c in cells for cell in c)]
    rows, left_out = [], []
    for row, of_row in zip(table.rows, cells, strict=True):
        judged = [_judged(cell, judgements) for cell in of_row]
        if row.variant not in filling:
            left_out.append(row.label)
            continue
        over_all = {cell.metric: cell for cell in judged if not cell.order}
        if reference:
            judged = [_beside(cell, reference.variants[row.variant], table, beside) for cell in judged]
            over_all = {cell.metric: cell for cell in judged if not cell.order}
        by_order = {cell.order: cell for cell in judged if cell.order in orders}
        point, note = _chosen(row, protocols, other) if row.variant in tuned else ("", row.note)
        runs = gathered.variants[row.variant]
        rows.append(ComparedRow(row.label, row.variant, note, runs, over_all, by_order, point))
    claims = [one for of_cell in inputs for one in of_cell if one.claim is not None]
    return ComparedTable(
        title=table.title,
        source=table.source,
        sweep=sweep.name,
        metrics=table.metrics,
        rows=rows,
        gathered=gathered,
        margins={m: reproduction.margins[m] for m in table.metrics if m in reproduction.margins},
        orders=orders,
        families=Counter(one.family for one in claims if one.claim and published(one.claim) is not None),
        streams=table.benchmark_sd,
        left_out=left_out,
        not_comparable_because=reasons,
        shown=shown,
        reference=reference,
        ships_reference=_has_any(shipped, {sweep.name: sweep}),
        curriculum=sweep.curriculum,
        protocols=protocols,
    )


def _filling(
    table: Table, sweep: Sweep, reproduction: Reproduction
) -> tuple[dict[str, Sequence[str]], Collection[str]]:
    """The variants of the rows that were asked for, each with the variants of the sweep that may fill it; and those
    among them whose setting a tuning phase chooses."""
    every = dict(sweep.variant_settings())
    found: dict[str, Sequence[str]] = {}
    tuned = set()
    for row in table.rows:
        points = row.filling(every)
        if points and reproduction.is_tuned(row, every, sweep.selection):
            tuned.add(row.variant)
        if row.variant in every or row.variant in tuned:
            found[row.variant] = points
    return found, tuned


def _chosen(row: Row, protocols: Protocols | None, reference: Protocols | None) -> tuple[str, str]:
    """The point that a tuning phase chose for a row, empty where it chose none, and the row's note with the choice."""

    def text(found: Protocols) -> str:
        choice = found.chosen(row.variant)
        if choice.point:
            return setting_text(choice.setting)
        return "nothing yet, as tuning runs are missing" if row.variant in found.unfinished else NOTHING_CHOSEN

    assert protocols is not None
    notes = [row.note, f"chosen in the tuning phase: {text(protocols)}"]
    notes += [f"reference: {text(reference)}"] if reference else []
    return protocols.chosen(row.variant).point or "", "; ".join(filter(None, notes))


def _beside(cell: ComparedCell, reference: Runs, table: Table, sweep: Sweep) -> ComparedCell:
    """The cell with the reference runs that stand beside its own."""
    if not cell.order:
        return replace(cell, reference=reference)
    trials = [c.trial for c in sweep.cells if c.variant == reference.variant]
    places = {table.order_of(trial): trial.task_order for trial in trials}
    return replace(cell, reference=reference.at(order_of(places[cell.order])) if cell.order in places else None)


def _cells(row: Row, table: Table, runs: Runs | None, sweep: Sweep, reproduction: Reproduction) -> list[ComparedCell]:
    """A row's cells, not yet judged: each metric over all runs, then the first metric order by order.

    Args:
        runs: None where the selection left the row out.
    """
    first = table.metrics[0]
    nothing = Runs("", [], 0)

    def cell(metric: str, runs: Runs | None, claim: Claim | None, order: str = "") -> ComparedCell:
        needed = METRICS[metric].computed_from
        derived = bool(needed) and set(needed) <= set(table.metrics)
        margin = reproduction.margins.get(metric)
        return ComparedCell(metric, runs or nothing, claim, margin, NOT_YET, order, derived, row.uncounted)

    cells = []
    for metric in table.metrics:
        claims = {source: reproduction.claim(table, row, metric, source) for source in row.also}
        others = {source: OtherClaim(claim, NOT_YET) for source, claim in claims.items() if claim is not None}
        cells.append(replace(cell(metric, runs, reproduction.claim(table, row, metric)), others=others))
    trials = [cell.trial for cell in sweep.cells if cell.variant == row.variant] if table.orders else []
    places = {table.order_of(trial): trial.task_order for trial in trials}
    for order in table.orders:
        claim = reproduction.claim(table, row.at_order(order, first), first)
        of_order = runs.at(order_of(places[order])) if runs and order in places else None
        cells.append(cell(first, of_order, claim, order))
    return cells


def _inputs(table: Table, row: Row, cell: ComparedCell, blocked: bool) -> list[CellInput]:
    """The input of the cell's verdict, and one for each further published number.

    Each further source of numbers has a family of tests of its own.
    """
    reason = "not the published experiment" if blocked else ""  # the label of the table says why
    if not reason and cell.runs.pooled:
        reason = "several runs of several task orders are no independent runs"
    ours = cell.runs.sample(cell.metric) if cell.runs.expected else None
    margin = cell.margin.points if cell.margin else None
    stream = _stream(table, row, cell.metric)
    family = cell.metric if table.family == "metric" or cell.derived else "the table"
    if cell.uncounted:
        family += ", rows that are not counted"
    main = CellInput(ours, cell.claim, margin, reason, stream, family)
    return [main, *(replace(main, claim=o.claim, family=f"{family}, {source}") for source, o in cell.others.items())]


def _judged(cell: ComparedCell, judgements: Iterator[Judgement]) -> ComparedCell:
    """The cell with the judgements of its inputs, which are the next ones."""
    judgement = next(judgements)
    others = {source: replace(other, judgement=next(judgements)) for source, other in cell.others.items()}
    return replace(cell, judgement=judgement, others=others)


def _stream(table: Table, row: Row, metric: str) -> Variance | None:
    """The part of the difference's variance that comes from the draw of the stream: twice the variance between draws.

    None where the variance between draws was not measured.
    """
    spread = table.benchmark_sd
    sd = spread.variants.get(row.variant, {}).get(metric) if spread else None
    return Variance(2 * sd**2, spread.draws - 1) if spread and sd is not None else None


def tally(cells: Iterable[ComparedCell]) -> tuple[Counter[Outcome], Counter[Outcome]]:
    """Count the outcomes: first those against numbers read in the paper, then those against all other numbers.

    A cell is not counted if its metric follows from others of the table, or its row is declared so.
    """
    read_there: Counter[Outcome] = Counter()
    others: Counter[Outcome] = Counter()
    for cell in cells:
        if cell.claim is not None and cell.counted:
            (others if cell.judgement.dagger else read_there)[cell.judgement.outcome] += 1
    return read_there, others
