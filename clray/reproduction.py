"""Reproduction files: the numbers that a paper published, and the sweeps that compute the same tables."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError, model_validator

from clray.documents import Declared, Document, dotted, explain, is_there, misread, one_of, shorter, shown
from clray.errors import DeclarationError
from clray.grid import at_point, point_of
from clray.loading import Paper, Reader, declared_root, find_sweep, papers, read_sweep, reproduction_names
from clray.metrics import METRICS
from clray.phases import NAME_ENDS, tuning_phase
from clray.selection import Selection, named_by
from clray.sweep import Sweep
from clray.trial import Trial

Known = Literal["paper", "authors", "second-hand", "recalled"]
"""The source of a published number: the paper, the authors' logs, a quotation by others, or memory."""

SpreadKind = Literal[
    "sd", "population sd", "sem", "population sem", "95% interval", "1.96 sem", "2 population sem", "unknown"
]
"""The kind of a published ±. ``sd`` divides by n - 1, ``population sd`` by n (numpy's default); ``sem`` and
``population sem`` are these divided by the square root of n. ``95% interval`` is the half-width of a t interval,
``1.96 sem`` that of a normal interval, and ``2 population sem`` two population standard errors."""

_CLAIM = re.compile(r"^\s*([-+−]?\d+(?:\.\d+)?)\s*(?:±\s*(\d+(?:\.\d+)?|\?))?\s*$")


def evaluations(sweeps: Mapping[str, Sweep]) -> dict[str, Sweep]:
    """The sweeps of a reproduction without the tuning phases among them."""
    return {name: sweep for name, sweep in sweeps.items() if not name.endswith(NAME_ENDS)}


def tuning_phases(sweeps: Mapping[str, Sweep], name: str) -> list[Sweep]:
    """The tuning phase of a sweep of this name, if it is among some sweeps."""
    return [sweeps[name + NAME_ENDS]] if name + NAME_ENDS in sweeps else []


class Claim(Declared):
    """A number that a paper published for one cell, in per cent where the metric is a rate.

    A file writes it in a short form, ``89.56 ± 0.11`` (``"89.56 ± ?"``, in quotes, where the spread is not known), or
    as a mapping of these keys.
    """

    mean: Annotated[float, Field(allow_inf_nan=False)]
    spread: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    decimals: Annotated[int, Field(ge=-3, le=12)] | None = None
    """The number of decimal places of the printed mean; by default that of the number in the file. YAML drops the last
    zero of a plain number, so ``53.40`` is written with its spread, in quotes, or with ``decimals: 2``."""
    kind: SpreadKind | None = None
    runs: Annotated[int, Field(ge=1)] | None = None
    source: str | None = None
    known: Known | None = None
    note: str = ""

    @model_validator(mode="before")
    @classmethod
    def _count_decimals(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("decimals") is None:
            # A paper prints a mean and its spread with equally many decimals, so the larger of their counts is taken.
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
    """A row of a table: the variant that fills it, and the numbers that were published for it."""

    label: str
    variant: str
    """The name of a variant of the table's sweep. Where the sweep has a tuning phase, a variant with a grid: the row
    shows the point that the tuning phase chooses."""
    claims: dict[str, ShortClaim] = {}
    also: dict[str, dict[str, ShortClaim]] = {}
    """The numbers published elsewhere for the same cells, by source (a key of the file's ``sources``) and metric."""
    by_order: dict[str, ShortClaim] = {}
    """The numbers published for single task orders, in the table's first metric, by a key of the table's ``orders``."""
    source: str = ""
    """The place of this row's numbers, if it is more exact than the table's source."""
    note: str = ""
    uncounted: str = ""
    """The reason why the row's verdicts are shown and not counted, such as settings that the paper's authors took back,
    settings that were searched for these very numbers, or cells that count elsewhere. Empty: they are counted."""

    def filling(self, variants: Iterable[str]) -> list[str]:
        """Those among a sweep's variants that fill this row: its own, or all points of its grid; none where there is
        neither."""
        return filling(self.variant, list(variants))

    def at_order(self, order: str, metric: str) -> Row:
        """A copy of this row whose only claim is the number published for one task order, if there is one."""
        return self.model_copy(update={"claims": {metric: self.by_order[order]} if order in self.by_order else {}})


class Margin(Declared):
    """The difference below which two means count as the same, in per cent points, and why."""

    points: Annotated[float, Field(gt=0)]
    reason: str


class Tolerance(Declared):
    """The largest difference from a reference run that ``clray verify`` accepts, and the reason why it is not 0."""

    points: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """For a fraction, such as an accuracy: per cent points."""
    percent: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """For other values, such as an eigenvalue: per cent of the value. By default the number of ``points``."""
    reason: str

    def allowed(self, fraction: bool) -> float:
        """The largest difference of a fraction, or of another value."""
        return self.points if fraction or self.percent is None else self.percent


class Source(Declared):
    """Another place where numbers for the same cells were published, such as the authors' own re-runs."""

    source: str
    """The place of the numbers, such as a page, a table or a file of logs."""
    runs: Annotated[int, Field(ge=1)] | None = None
    """By default, ``runs``, ``spread`` and ``known`` of a source are those of the file."""
    spread: SpreadKind | None = None
    known: Known | None = None


class BenchmarkSpread(Declared):
    """The standard deviations of metrics between random draws of the stream itself, as they were measured.

    The published runs are on one draw of the stream, and clray's runs on another. So the variance of the difference of
    the two means includes twice the variance between draws, and more training seeds do not make this part smaller.
    """

    draws: Annotated[int, Field(ge=2)]
    """The number of draws from which the standard deviations were computed."""
    reason: str
    """The way in which they were measured, or the place that describes it."""
    variants: dict[str, dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]]
    """The standard deviation between draws, in per cent points, by variant and metric."""


class Table(Declared):
    """A published table, or the part of one that one sweep fills."""

    title: str
    sweep: str
    source: str
    """The place of the table in the paper."""
    metrics: Annotated[list[str], Field(min_length=1)]
    orders: dict[str, Literal["identity"] | Annotated[list[int | str], Field(min_length=1)]] = {}
    """The task orders that have a column of their own for the first metric, by the column's title. Each is one of the
    sweep's ``task_orders``, written in the same way."""
    family: Literal["metric", "table"] = "metric"
    """The family of tests that are corrected together: the tests of one metric, or all tests of the table."""
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
    def _rows_are_told_apart(self) -> Table:
        seen: set[str] = set()
        for i, row in enumerate(self.rows):
            if row.label in seen:
                raise ValueError(
                    f"rows.{i}: another row has the label {row.label!r}; allowed: each label once in a table"
                )
            seen.add(row.label)
        return self

    @model_validator(mode="after")
    def _rows_share_no_grid(self) -> Table:
        for i, row in enumerate(self.rows):
            if points := points_of(row.variant, [other.variant for other in self.rows]):
                raise ValueError(
                    f"rows.{i}: {row.variant!r} is shown at the point that the tuning phase chooses, and another row "
                    f"has its point {points[0]!r}; allowed: one of the two"
                )
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
        """The title of the task order of a trial; None where that order is not in ``orders``."""
        tasks = trial.benchmark.get("tasks") or []
        own: list[int | str] = list(tasks) if isinstance(tasks, list) else list(range(tasks))

        def named(order: Sequence[int | str]) -> list[int | str]:
            return [own[task] if isinstance(task, int) and 0 <= task < len(own) else task for task in order]

        runs = own if trial.task_order is None else named(trial.task_order)
        orders = {label: own if order == "identity" else named(order) for label, order in self.orders.items()}
        return next((label for label, order in orders.items() if order == runs), None)

    def wrong_order(self, sweep: Sweep) -> str | None:
        """The first label of ``orders`` whose order no trial of the sweep has.

        None where there is none, or where a flag has changed the sweep: it need not have all orders then.
        """
        found = {self.order_of(cell.trial) for cell in sweep.cells}
        return next((label for label in self.orders if label not in found and sweep.comparable), None)


class SearchRow(Declared):
    """One hyper-parameter search: the variant that has the grid, and the values that the paper chose."""

    label: str
    variant: str
    """A variant of the sweep that has a grid."""
    published: dict[str, bool | int | float | str]
    """The published choice: a value for each axis of the grid. The grid need not contain this point."""
    note: str = ""

    def points(self, variants: Mapping[str, Any]) -> list[str]:
        """The names of the grid's points among the variants of a sweep, in grid order."""
        return points_of(self.variant, variants)

    def published_point(self, variants: Mapping[str, dict[str, Any]]) -> str | None:
        """The variant that has the published settings, whether in the grid or not; None where there is none."""
        points = self.points(variants)
        if not points:
            return None
        wanted = at_point(variants[points[0]], self.published)
        return next((name for name, settings in variants.items() if settings == wanted), None)


def points_of(variant: str, variants: Iterable[str]) -> list[str]:
    """The names of the points of a variant's grid, in grid order."""
    return [name for name in variants if name.startswith(f"{variant}@")]


def filling(variant: str, variants: Sequence[str]) -> list[str]:
    """The variant itself where a sweep has it, else the points of its grid, if there are any."""
    return [variant] if variant in variants else points_of(variant, variants)


class Searches(Declared):
    """Hyper-parameter searches in one sweep. Each is shown with the point that it selects and the published choice.

    A search selects the point with the best mean among those whose runs are complete; among equals, the first.
    """

    title: str
    sweep: str
    source: str
    """The place of the grids and of the published choices."""
    metric: str = "ACC"
    """The metric by which points are selected. ``benchmark.validation`` in the sweep says on which data."""
    rows: Annotated[list[SearchRow], Field(min_length=1)]

    @model_validator(mode="after")
    def _metric_exists(self) -> Searches:
        if self.metric not in METRICS:
            raise ValueError(f"metric: {self.metric!r} is not a metric; {one_of(self.metric, METRICS)}")
        return self


class Reproduction(Declared):
    """Published tables and searches, and the sweeps that fill them."""

    version: Annotated[int, Field(ge=1)]
    paper: str | Paper
    """A key of reproduce/papers.yaml, or the paper itself: title, authors, venue, code."""
    title: str
    runs: Annotated[int, Field(ge=1)]
    """The number of runs behind each published number, unless a claim says otherwise."""
    spread: SpreadKind
    """The kind of the published ±, unless a claim says otherwise."""
    known: Known
    """The source of the published numbers, unless a claim says otherwise."""
    margins: dict[str, Margin]
    """The margin of each metric."""
    sources: dict[str, Source] = {}
    """Other places where numbers for the same cells were published. The verdict compares with the first place, a row's
    ``claims``. The results of the same tests for the other places are shown beside it."""
    tolerance: Tolerance | None = None
    """The tolerance of ``clray verify``. Without it, ``clray verify`` accepts only the same bits."""
    findings: list[str] = []
    """The findings from the reference runs, as sentences for the page about them."""
    differences: list[str] = []
    """The differences between the settings in the paper and in its script, and the choice of this reproduction."""
    tables: list[Table] = []
    searches: list[Searches] = []
    quick: list[str] = []
    """The variants whose rows ``--quick`` runs, where it need not run all of them to show that everything works."""

    _document: Document | None = PrivateAttr(None)

    @property
    def name(self) -> str:
        """The file's name without its ending. A file ``table.yaml`` has the name of its folder before it: several
        methods may have one, whose pages must not overwrite each other."""
        if self._document is None:
            return ""
        path = self._document.path.resolve()
        return f"{path.parent.name}-table".removeprefix("-") if path.name == "table.yaml" else path.stem

    @property
    def cited(self) -> Paper:
        """The paper."""
        return self.paper if isinstance(self.paper, Paper) else papers()[self.paper]

    def place(self, *keys: Any) -> str:
        """The place that declares a path of keys, and the path itself, as text for a message."""
        return self._document.place(keys) if self._document else dotted(keys)

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

    @property
    def groups(self) -> dict[str, Sequence[Table | Searches]]:
        """Its tables and searches, by the key that declares them."""
        return {"tables": self.tables, "searches": self.searches}

    @property
    def sweep_names(self) -> list[str]:
        """The sweeps that fill it: names of those that ship with clray, and paths of files."""
        return list(dict.fromkeys(group.sweep for groups in self.groups.values() for group in groups))

    def sweeps(self, selection: Selection = Selection(), read: Reader = read_sweep) -> dict[str, Sweep]:
        """The sweeps that fill the tables and searches. Each has only the variants that these need.

        With ``--only``, a sweep has only the variants that belong to the variants named by the flag; the quick form has
        those of ``quick``.

        Args:
            read: reads a sweep's file; ``functools.cache(read_sweep)`` where several reproductions use the same sweep.
        """
        groups = [group for some in self.groups.values() for group in some]
        every = dict.fromkeys(row.variant for group in groups for row in group.rows)
        for where, variants in (("--only", selection.only), (self.place("quick") + ":", self.quick)):
            for variant in variants:
                if not named_by(variant, every):
                    raise DeclarationError(
                        f"{where} {shorter(variant)}: no row of {self.name} uses it; {one_of(variant, every)}"
                    )
        loaded: dict[str, Sweep] = {}
        for name in self.sweep_names:
            sweep, _ = read(name, selection)
            present = dict(sweep.variant_settings())
            wanted = [
                (row, variant)
                for group in groups
                if group.sweep == name
                for row in group.rows
                for variant in self._filling(row, name, sweep, present)
            ]
            chosen = [variant for row, variant in wanted if self._is_asked(row, selection)]
            tuned = [v for row, v in wanted if self.is_tuned(row, present, selection)]
            if tuned:  # before the evaluation, since its trials run first
                loaded[name + NAME_ENDS] = tuning_phase(
                    sweep.with_variants({v: present[v] for v in dict.fromkeys(tuned)})
                )
            if chosen:
                loaded[name] = sweep.with_variants({v: present[v] for v in dict.fromkeys(chosen)})
                _ = loaded[name].cells  # so that a wrong setting is an error now
        for i, table in enumerate(self.tables):
            if table.sweep in loaded and (wrong := table.wrong_order(sweep := loaded[table.sweep])):
                place = self.place("tables", i, "orders", wrong)
                raise DeclarationError(f"{place}: not a task order of {sweep.name}; allowed: {sweep.task_orders}")
        return loaded

    def _keys(self, row: Row | SearchRow) -> tuple[Any, ...]:
        """The path of keys that declares a row in the file."""
        return next(
            (key, i, "rows", j)
            for key, groups in self.groups.items()
            for i, group in enumerate(groups)
            for j, other in enumerate(group.rows)
            if other is row
        )

    def _is_asked(self, row: Row | SearchRow, selection: Selection) -> bool:
        asked = selection.only or (self.quick if selection.quick else ())
        return not asked or any(named_by(item, [row.variant]) for item in asked)

    def is_tuned(self, row: Row | SearchRow, variants: Collection[str], selection: Selection) -> bool:
        """True for a row of a table that is asked for and whose setting a tuning phase chooses.

        Args:
            variants: those of its sweep.
        """
        return isinstance(row, Row) and row.variant not in variants and self._is_asked(row, selection)

    def _filling(
        self, row: Row | SearchRow, name: str, sweep: Sweep, present: Mapping[str, dict[str, Any]]
    ) -> list[str]:
        """The variants of a sweep that a row needs."""
        where = f"{self.place(*self._keys(row), 'variant')}: {row.variant!r} is not a variant of {name}"
        if isinstance(row, Row):
            filling = row.filling(present)
            if not filling or (filling != [row.variant] and sweep.tuning is None):
                grids = (v.partition("@")[0] for v in present if "@" in v) if sweep.tuning else ()
                raise DeclarationError(f"{where}; {one_of(row.variant, dict.fromkeys([*present, *grids]))}")
            return filling
        points = row.points(present)
        if not points:
            searched = dict.fromkeys(name.split("@")[0] for name in present if "@" in name)
            raise DeclarationError(f"{where} with a grid; {one_of(row.variant, searched)}")
        axes = point_of(points[0], present[points[0]])
        if set(row.published) != set(axes):
            where = self.place(*self._keys(row), "published")
            raise DeclarationError(f"{where}: expected a value for each axis of the grid: {', '.join(axes)}")
        published = row.published_point(present)
        return points + ([published] if published and published not in points else [])


def load_reproduction(name: str | Path) -> Reproduction:
    """Read a reproduction file.

    Args:
        name: its name among those that ship with clray, or its path; a ``Path`` is a path, whatever its name.

    Raises:
        DeclarationError: the file is wrong; the message names the file, the line, the key and the allowed values.
    """
    shipped = declared_root() / "reproduce" / f"{str(name).removesuffix('.yaml')}.yaml"
    path = shipped if os.path.isfile(shipped) and not isinstance(name, Path) else Path(name)
    if not str(name) or not is_there(path):
        known = one_of(str(name), reproduction_names(), "clray list")
        raise DeclarationError(f"{shorter(name) or repr(name)}: no such reproduction; {known}")
    document = Document(path)
    if "variants" in document.data and "tables" not in document.data:
        known = one_of(str(name), reproduction_names(), "clray list")
        raise DeclarationError(f"{path}: it is a sweep, and a reproduction is needed; {known}")
    data = _with_paths_of_sweeps(document)
    try:
        reproduction = Reproduction(**data)
    except ValidationError as error:
        raise explain(error, document.place, data) from None
    for keys, problem in misread(data, reproduction.model_dump()):
        raise DeclarationError(f"{document.place(keys)}: {problem}")
    _refers_to_something(reproduction, document)
    reproduction._document = document
    return reproduction


def _with_paths_of_sweeps(document: Document) -> dict[str, Any]:
    """A reproduction file's content. A sweep that is named by a file's path beside it gets the path from here."""
    data = copy.deepcopy(document.data)
    for key in ("tables", "searches"):
        groups = data.get(key)
        for group in groups if isinstance(groups, list) else []:
            name = group.get("sweep") if isinstance(group, dict) else None
            if isinstance(name, str) and name.endswith(".yaml") and (document.path.parent / name).is_file():
                group["sweep"] = str(document.path.parent / name)
    return data


def _refers_to_something(reproduction: Reproduction, document: Document) -> None:
    """Check that the paper and the sweeps that a reproduction names exist."""
    if isinstance(reproduction.paper, str) and reproduction.paper not in (known := papers()):
        place = document.place(["paper"])
        raise DeclarationError(
            f"{place}: {shown(reproduction.paper)} is not in papers.yaml; {one_of(reproduction.paper, known)}"
        )
    for key, groups in reproduction.groups.items():
        for i, group in enumerate(groups):
            try:
                Document(find_sweep(group.sweep))
            except DeclarationError as error:
                raise DeclarationError(f"{document.place([key, i, 'sweep'])}: {error}") from None
