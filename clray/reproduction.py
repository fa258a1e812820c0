"""A reproduction: the numbers that a paper published, beside the sweeps that fill its tables."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError, model_validator

from clray.documents import Declared, Document, explain, is_there, misread, one_of, shorter, shown
from clray.errors import DeclarationError
from clray.loading import Reader, declared_root, find_sweep, papers, read_sweep, reproduction_names
from clray.metrics import METRICS
from clray.selection import Selection
from clray.sweep import Sweep, at_point, point_of
from clray.trial import Trial

Known = Literal["paper", "authors", "second-hand", "recalled"]
"""The source of a published number: the paper, the authors' logs, a quotation by others, or memory."""

SpreadKind = Literal["sd", "population sd", "sem", "population sem", "95% interval", "1.96 sem", "unknown"]
"""The kind of a published ±. ``sd`` divides by n - 1, ``population sd`` by n (numpy's default); ``sem`` and
``population sem`` are these over the root of n. ``95% interval`` is the half-width of a t interval, ``1.96 sem`` that
of a normal one."""

_CLAIM = re.compile(r"^\s*([-+−]?\d+(?:\.\d+)?)\s*(?:±\s*(\d+(?:\.\d+)?|\?))?\s*$")


class Claim(Declared):
    """A number that a paper published for one cell, in per cent where the metric is a rate.

    In a file it may be short, ``89.56 ± 0.11`` (where the spread is not known ``"89.56 ± ?"``, in quotes), or a
    mapping of these keys.
    """

    mean: Annotated[float, Field(allow_inf_nan=False)]
    spread: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    decimals: Annotated[int, Field(ge=-3, le=12)] | None = None
    """Decimal places that were printed of the mean; by default those that the file gives. YAML drops a last zero of a
    plain number, so ``53.40`` is written with its spread, in quotes, or with ``decimals: 2``."""
    kind: SpreadKind | None = None
    runs: Annotated[int, Field(ge=1)] | None = None
    source: str | None = None
    known: Known | None = None
    note: str = ""

    @model_validator(mode="before")
    @classmethod
    def _count_decimals(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("decimals") is None:
            # A paper prints mean and spread with the same digits, so the longer of two plain numbers counts.
            written = [values.get(key) for key in ("mean", "spread")]
            numbers = [n for n in written if isinstance(n, int | float) and not isinstance(n, bool)]
            found = [places for n in numbers if (places := _decimals(str(n))) is not None]
            return {**values, "decimals": max(found, default=None)}
        return values


def _decimals(number: str) -> int | None:
    """The decimal places of a printed number; None where it is printed in another way, as with an exponent."""
    whole, _, places = number.partition(".")
    return len(places) if whole.lstrip("+-−").isdigit() and (places.isdigit() or not places) else None


def _claim(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"mean": value}
    if isinstance(value, str):
        match = _CLAIM.match(value)
        if not match:
            raise ValueError(
                f"{value!r}: expected a number, 'MEAN ± SPREAD' or a mapping; {one_of('', Claim.model_fields)}"
            )
        mean, spread = match.groups()
        known = float(spread) if spread and spread != "?" else None
        return {"mean": float(mean.replace("−", "-")), "spread": known, "decimals": _decimals(mean)}
    return value


ShortClaim = Annotated[Claim, BeforeValidator(_claim)]


class Row(Declared):
    """A row of a table: which variant fills it, and what was published for it."""

    label: str
    variant: str
    """The name of a variant of the table's sweep."""
    claims: dict[str, ShortClaim] = {}
    also: dict[str, dict[str, ShortClaim]] = {}
    """By source (a key of the file's ``sources``) and metric, what was published elsewhere for the same cells."""
    by_order: dict[str, ShortClaim] = {}
    """The numbers published for single task orders, in the table's first metric: keys of the table's ``orders``."""
    source: str = ""
    """Where this row's numbers stand, if that is more exact than the table's source."""
    note: str = ""

    def at_order(self, order: str, metric: str) -> Row:
        """This row with what was published for one task order as its only claim."""
        return self.model_copy(update={"claims": {metric: self.by_order[order]} if order in self.by_order else {}})


class Margin(Declared):
    """The difference below which two means count as the same, in per cent points, and why."""

    points: Annotated[float, Field(gt=0)]
    reason: str


class Tolerance(Declared):
    """The difference up to which ``clray verify`` takes a measurement for the reference run's, and why not 0.

    It is in per cent points for a fraction, such as an accuracy, else in per cent of the value.
    """

    points: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    reason: str


class Source(Declared):
    """Another place where numbers for the same cells were published, such as the authors' own re-runs."""

    source: str
    """Where it stands."""
    runs: Annotated[int, Field(ge=1)] | None = None
    """These three are the file's own unless the source has others."""
    spread: SpreadKind | None = None
    known: Known | None = None


class BenchmarkSpread(Declared):
    """The standard deviations of metrics between draws of the stream itself, as they were measured.

    The published runs are of one draw and ours of another. So the variance of their difference has twice this variance
    as a part of its own, which no number of training seeds makes smaller.
    """

    draws: Annotated[int, Field(ge=2)]
    """Draws of the stream that the standard deviations were computed from."""
    reason: str
    """The place or the way in which they were measured."""
    variants: dict[str, dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]]
    """The standard deviation between draws, in per cent points, by variant and metric."""


class Table(Declared):
    """A published table, or the part of one that one sweep fills."""

    title: str
    sweep: str
    source: str
    """Where it stands in the paper."""
    metrics: Annotated[list[str], Field(min_length=1)]
    orders: dict[str, Literal["identity"] | Annotated[list[int | str], Field(min_length=1)]] = {}
    """Task orders that have a column of their own for the first metric, by the column's title: each one of the
    sweep's ``task_orders``, written as there."""
    family: Literal["metric", "table"] = "metric"
    """The tests that are corrected together: those of one metric, or all of the table."""
    benchmark_sd: BenchmarkSpread | None = None
    rows: Annotated[list[Row], Field(min_length=1)]

    @model_validator(mode="after")
    def _metrics_exist(self) -> Table:
        named = [metric for row in self.rows for claims in (row.claims, *row.also.values()) for metric in claims]
        for name in [*self.metrics, *named]:
            if name not in METRICS:
                raise ValueError(f"{name!r} is not a metric; {one_of(name, METRICS)}")
        if len(set(self.metrics)) != len(self.metrics):
            raise ValueError(f"metrics: a metric stands twice in {self.metrics}; allowed: each metric once")
        for name in named:
            if name not in self.metrics:
                raise ValueError(f"{name!r} has a claim and no column here; {one_of(name, self.metrics)}")
        return self

    @model_validator(mode="after")
    def _spreads_are_of_its_cells(self) -> Table:
        variants = list(dict.fromkeys(row.variant for row in self.rows))
        for variant, by_metric in (self.benchmark_sd.variants if self.benchmark_sd else {}).items():
            if variant not in variants:
                raise ValueError(f"benchmark_sd.variants: {variant!r} fills no row; {one_of(variant, variants)}")
            for metric in by_metric:
                if metric not in self.metrics:
                    place = f"benchmark_sd.variants.{variant}"
                    raise ValueError(f"{place}: {metric!r} is no column here; {one_of(metric, self.metrics)}")
        return self

    @model_validator(mode="after")
    def _orders_are_told_apart(self) -> Table:
        seen: dict[str, str] = {}
        for label, order in self.orders.items():
            if order != "identity" and len(set(order)) != len(order):
                raise ValueError(f"orders.{label}: a task stands twice in {order}; allowed: each task once")
            if (first := seen.setdefault(str(order), label)) != label:
                raise ValueError(f"orders.{label}: the same order as {first!r}; allowed: one title an order")
        for i, row in enumerate(self.rows):
            for label in row.by_order:
                if label not in self.orders:
                    allowed = one_of(label, self.orders) if self.orders else "allowed: none, as it has no 'orders'"
                    raise ValueError(f"rows.{i}.by_order: {label!r} is not an order of this table; {allowed}")
        return self

    def order_of(self, trial: Trial) -> str | None:
        """The title of the order that a trial runs; None where it is none of ``orders``."""
        tasks = trial.benchmark.get("tasks") or []
        own: list[int | str] = list(tasks) if isinstance(tasks, list) else list(range(tasks))

        def named(order: Sequence[int | str]) -> list[int | str]:
            return [own[task] if isinstance(task, int) and 0 <= task < len(own) else task for task in order]

        runs = own if trial.task_order is None else named(trial.task_order)
        orders = {label: own if order == "identity" else named(order) for label, order in self.orders.items()}
        return next((label for label, order in orders.items() if order == runs), None)

    def check_orders(self, sweep: Sweep) -> None:
        """See that the sweep runs each of ``orders``; a sweep that a flag has changed need not.

        Raises:
            DeclarationError: naming the order, and those that the sweep has.
        """
        found = {self.order_of(cell.trial) for cell in sweep.cells}
        for label in self.orders:
            if label not in found and sweep.comparable:
                place = f"table {self.title!r}: orders.{label}"
                raise DeclarationError(f"{place}: not a task order of {sweep.name}; allowed: {sweep.task_orders}")


class SearchRow(Declared):
    """One hyper-parameter search: the variant whose grid it is, and what the paper chose."""

    label: str
    variant: str
    """A variant of the sweep that has a grid."""
    published: dict[str, bool | int | float | str]
    """The published choice, a value for each axis of the grid; it need not be a point of it."""
    note: str = ""

    def points(self, variants: Mapping[str, Any]) -> list[str]:
        """The names of the grid's points among the variants of a sweep, in grid order."""
        return [name for name in variants if name.startswith(f"{self.variant}@")]

    def published_point(self, variants: Mapping[str, dict[str, Any]]) -> str | None:
        """The variant, on the grid or beside it, that has the published settings; None where none was declared."""
        points = self.points(variants)
        if not points:
            return None
        wanted = at_point(variants[points[0]], self.published)
        return next((name for name, settings in variants.items() if settings == wanted), None)


class Searches(Declared):
    """Hyper-parameter searches in one sweep, each shown with what it selects beside the published choice.

    Of the points whose runs are complete, the one with the best mean is selected, the first one where several are best.
    """

    title: str
    sweep: str
    source: str
    """Where the grids and the published choices stand."""
    metric: str = "ACC"
    """The metric to select by; the sweep says if it is measured on validation data (``benchmark.validation``)."""
    rows: Annotated[list[SearchRow], Field(min_length=1)]

    @model_validator(mode="after")
    def _metric_exists(self) -> Searches:
        if self.metric not in METRICS:
            raise ValueError(f"metric: {self.metric!r} is not a metric; {one_of(self.metric, METRICS)}")
        return self


class Reproduction(Declared):
    """A published table beside the sweeps that fill it."""

    version: Annotated[int, Field(ge=1)]
    paper: str
    title: str
    runs: Annotated[int, Field(ge=1)]
    """Runs behind each published number, unless a claim says otherwise."""
    spread: SpreadKind
    """The kind of the published ±, unless a claim says otherwise."""
    known: Known
    """The source of the published numbers, unless a claim says otherwise."""
    margins: dict[str, Margin]
    """By metric."""
    sources: dict[str, Source] = {}
    """Other places where numbers for the same cells were published. The verdict is against the first one, a row's
    ``claims``; what the same tests say of the others stands beside it."""
    tolerance: Tolerance | None = None
    """For ``clray verify``; without it only the same bits agree."""
    findings: list[str] = []
    """What the reference runs show, in sentences for the page about them."""
    differences: list[str] = []
    """Where the paper's flags and the script's differ, and which this reproduction runs."""
    tables: list[Table] = []
    searches: list[Searches] = []

    _name: str = PrivateAttr("")

    @property
    def name(self) -> str:
        return self._name

    @model_validator(mode="after")
    def _shows_something(self) -> Reproduction:
        if not self.tables and not self.searches:
            raise ValueError("tables: a reproduction needs at least one table or search")
        return self

    @model_validator(mode="after")
    def _names_refer_to_something(self) -> Reproduction:
        columns = [*(m for table in self.tables for m in table.metrics), *(group.metric for group in self.searches)]
        metrics = list(dict.fromkeys(columns))
        for metric in self.margins:
            if metric not in metrics:
                raise ValueError(f"margins: {metric!r} is no column of a table here; {one_of(metric, metrics)}")
        for i, table in enumerate(self.tables):
            for j, row in enumerate(table.rows):
                for source in row.also:
                    if source not in self.sources:
                        allowed = one_of(source, self.sources) if self.sources else "allowed: none, without 'sources'"
                        raise ValueError(f"tables.{i}.rows.{j}.also: {source!r} is not one of 'sources'; {allowed}")
        return self

    def claim(self, table: Table, row: Row, metric: str, source: str = "") -> Claim | None:
        """The claim for a cell with this file's defaults filled in, or None where nothing was published.

        Args:
            source: one of ``sources``; by default the first place, the row's own claims.
        """
        claim = (row.also.get(source, {}) if source else row.claims).get(metric)
        if claim is None:
            return None
        if source:
            other = self.sources[source]
            defaults = {
                "kind": other.spread or self.spread,
                "runs": other.runs or self.runs,
                "known": other.known or self.known,
                "source": other.source,
            }
        else:
            where = row.source or table.source
            defaults = {"kind": self.spread, "runs": self.runs, "known": self.known, "source": where}
        return claim.model_copy(update={k: v for k, v in defaults.items() if getattr(claim, k) is None})

    def sweeps(self, selection: Selection = Selection(), read: Reader = read_sweep) -> dict[str, Sweep]:
        """The sweeps that fill tables and searches, each with the variants that these name (with ``--only``, some).

        Args:
            read: reads a sweep's file; ``functools.cache(read_sweep)`` where several reproductions use the same sweep.
        """
        groups: list[Table | Searches] = [*self.tables, *self.searches]
        every = dict.fromkeys(row.variant for group in groups for row in group.rows)
        for variant in selection.only:
            if variant not in every:
                raise DeclarationError(f"--only {variant}: no row of {self.name} uses it; {one_of(variant, every)}")
        loaded = {}
        for name in dict.fromkeys(group.sweep for group in groups):
            sweep, _ = read(name, selection)
            present = dict(sweep.variant_settings())
            wanted = [
                (row.variant, variant)
                for group in groups
                if group.sweep == name
                for row in group.rows
                for variant in self._filling(row, name, present)
            ]
            chosen = [v for of, v in wanted if not selection.only or of in selection.only]
            if chosen:
                loaded[name] = sweep.keep({v: present[v] for v in dict.fromkeys(chosen)})
                _ = loaded[name].cells
        for table in self.tables:
            if table.sweep in loaded:
                table.check_orders(loaded[table.sweep])
        return loaded

    def _filling(self, row: Row | SearchRow, sweep: str, present: Mapping[str, dict[str, Any]]) -> list[str]:
        """The variants of a sweep that a row needs."""
        where = f"reproduce/{self.name}.yaml: {row.variant!r} is not a variant of {sweep}"
        if isinstance(row, Row):
            if row.variant not in present:
                raise DeclarationError(f"{where}; {one_of(row.variant, present)}")
            return [row.variant]
        points = row.points(present)
        if not points:
            searched = dict.fromkeys(name.split("@")[0] for name in present if "@" in name)
            raise DeclarationError(f"{where} with a grid; {one_of(row.variant, searched)}")
        axes = point_of(points[0], present[points[0]])
        if set(row.published) != set(axes):
            where = f"reproduce/{self.name}.yaml: {row.label}: published"
            raise DeclarationError(f"{where}: expected a value for each axis of the grid: {', '.join(axes)}")
        published = row.published_point(present)
        return points + ([published] if published and published not in points else [])


def load_reproduction(name: str | Path) -> Reproduction:
    """Read a reproduction file, given its name among those that ship with clray, or its path.

    Raises:
        DeclarationError: naming file, line, key and the allowed values.
    """
    shipped = declared_root() / "reproduce" / f"{str(name).removesuffix('.yaml')}.yaml"
    path = shipped if os.path.isfile(shipped) else Path(name)
    if not str(name) or not is_there(path):
        known = one_of(str(name), reproduction_names())
        raise DeclarationError(f"{shorter(name) or repr(name)}: no such reproduction; {known}")
    document = Document(path)
    try:
        reproduction = Reproduction(**document.data)
    except ValidationError as error:
        raise explain(error, document.place, document.data) from None
    for keys, problem in misread(document.data, reproduction.model_dump()):
        raise DeclarationError(f"{document.place(keys)}: {problem}")
    _refers_to_something(reproduction, document)
    reproduction._name = path.stem
    return reproduction


def _refers_to_something(reproduction: Reproduction, document: Document) -> None:
    """See that the paper and the sweeps that a reproduction names are there."""
    if reproduction.paper not in (known := papers()):
        place = document.place(["paper"])
        raise DeclarationError(
            f"{place}: {shown(reproduction.paper)} is not in papers.yaml; {one_of(reproduction.paper, known)}"
        )
    every: dict[str, Sequence[Table | Searches]] = {"tables": reproduction.tables, "searches": reproduction.searches}
    for key, groups in every.items():
        for i, group in enumerate(groups):
            try:
                Document(find_sweep(group.sweep))
            except DeclarationError as error:
                raise DeclarationError(f"{document.place([key, i, 'sweep'])}: {error}") from None
