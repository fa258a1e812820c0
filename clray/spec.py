"""What is declared: a sweep, the trials it stands for, and a reproduction with the numbers a paper published.

A declaration is a YAML file. Reading one gives a checked object or one error that names the file, the line, the key
and the allowed values. A trial's id is a hash of what determines its numbers, so that a trial is the same trial
whichever sweep, machine or launch it comes from.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from clray.documents import Declared, Document, UniqueKeyLoader, explain, one_of
from clray.errors import DeclarationError
from clray.metrics import METRICS
from clray.tracks import TRACKS, track

# --------------------------------------------------------------------------------------------------------------
# Where declarations live


def declared_root() -> Path:
    """The folder that holds ``sweeps/`` and ``reproduce/``: the checkout's own, or the copy inside the package."""
    package = Path(__file__).resolve().parent
    for root in (package.parent, package / "declared"):
        if (root / "sweeps").is_dir() and (root / "reproduce").is_dir():
            return root
    raise DeclarationError(f"{package}: this installation holds no sweeps/ and reproduce/: install clray again")


def sweep_names() -> list[str]:
    """The sweeps that ship with clray, as ``paper/name``."""
    root = declared_root() / "sweeps"
    return sorted(str(path.relative_to(root).with_suffix("")) for path in root.rglob("*.yaml"))


def reproduction_names() -> list[str]:
    """The reproductions that ship with clray."""
    return sorted(path.stem for path in (declared_root() / "reproduce").glob("*.yaml") if path.stem != "papers")


# --------------------------------------------------------------------------------------------------------------
# Sweeps and trials


class Resources(Declared):
    """What one trial asks of the machine. It never changes a number."""

    cpu: Annotated[float, Field(gt=0)] = 1
    gpu: Annotated[float, Field(ge=0)] = 0
    """Share of one GPU (1/k packs k trials), or a whole number of them. Asked for only where there is a GPU."""
    pack: Annotated[int, Field(ge=1)] = 1
    """Trials that one worker runs one after the other: more than 1 where a trial takes seconds."""

    @model_validator(mode="after")
    def _gpu_is_a_share_or_whole(self) -> Resources:
        if self.gpu > 1 and self.gpu != int(self.gpu):
            raise ValueError(f"gpu: above 1 it must be a whole number of GPUs (it is {self.gpu})")
        return self


class RandomOrders(Declared):
    """Task orders drawn at random, as ``{random: 5, seed: 0}``."""

    random: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)] = 0


Seed = Annotated[int, Field(ge=0)]

Precision = Literal["float32", "bfloat16"]
"""Of activations and products; weights and their updates are always float32. A track says which it has."""


class Trial(BaseModel):
    """One variant × seed × task order: everything that determines its numbers but the data itself, all of it resolved.

    ``benchmark``, ``model`` and ``hyperparameters`` hold every setting, defaults included.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    track: str
    benchmark: dict[str, Any]
    model: dict[str, Any]
    method: str
    hyperparameters: dict[str, Any]
    evaluate: Literal["after_task"] | int
    randomness: Literal["clray", "official"]
    engine: Literal["auto", "eager", "fused"]
    precision: Precision
    seed: int
    task_order: list[int] | None
    """None where the tasks come in the benchmark's own order."""

    @cached_property
    def declaration(self) -> str:
        """A hash of this declaration: the trial's name before it is known which data it will read."""
        return _digest(self.model_dump(mode="json"))

    def id(self, fingerprint: str) -> str:
        """The trial's id: a hash of its declaration and of the data it reads.

        Args:
            fingerprint: identifies the data set's content, as the track's ``data()`` tells it.
        """
        return _digest([self.declaration, fingerprint])


@dataclass(frozen=True)
class Cell:
    """A trial at its place in a sweep: the variant it belongs to, and the share of a machine it asks for."""

    variant: str
    trial: Trial
    resources: Resources


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Selection:
    """The part of a sweep that a command asked for, and what it changed: ``--quick --only --seeds --set``."""

    quick: bool = False
    only: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    set: tuple[str, ...] = ()

    @property
    def changes(self) -> tuple[str, ...]:
        """What makes the numbers another experiment than the declared one."""
        return (("--quick",) if self.quick else ()) + tuple(f"--set {item}" for item in self.set)

    @property
    def suffix(self) -> str:
        """Distinguishes the files made from this selection from those of the whole: empty for the whole."""
        name = "-quick" if self.quick else ""
        if self.only or self.seeds or self.set:
            name += "-" + _digest([self.only, self.seeds, self.set])[:6]
        return name


class Sweep(Declared):
    """All trials declared in one file."""

    version: Annotated[int, Field(ge=1)]
    """Bumped when the numbers of a finished sweep would change."""
    paper: str
    """A key of reproduce/papers.yaml."""
    title: str = ""
    track: str
    benchmark: dict[str, Any]
    model: dict[str, Any] = {}
    evaluate: Literal["after_task"] | Annotated[int, Field(ge=1)] = "after_task"
    """After each task, or also every N examples."""
    randomness: Literal["clray", "official"] = "clray"
    """``official`` draws every random number as the paper's own code does, seed by seed."""
    engine: Literal["auto", "eager", "fused"] = "auto"
    precision: Precision = "float32"
    seeds: Annotated[list[Seed], Field(min_length=1)]
    task_orders: RandomOrders | list[Literal["identity"] | list[int | str]] = ["identity"]
    """Each order a list of the tasks, from 0 or by name where the benchmark names them."""
    resources: Resources = Resources()
    variants: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    """By name: a method with its settings, and what it changes of ``benchmark``, ``model`` and ``resources``. Under
    ``grid``, axes of its own."""
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    """Axes crossed with every variant: a setting, dotted where it is not one of the method (``model.dropout``)."""
    metrics: Annotated[list[str], Field(min_length=1)] = ["RA", "LA", "BTI"]
    """The columns of the sweep's own table; they change no number."""
    quick: dict[str, Any] = {}
    """What ``--quick`` changes: keys of this file, and ``only`` with a list of variants."""

    _name: str = PrivateAttr("")
    _selection: Selection = PrivateAttr(Selection())
    _document: Any = PrivateAttr(None)

    @property
    def name(self) -> str:
        """``paper/name`` for a sweep that ships with clray, else the file's stem."""
        return self._name

    @property
    def selection(self) -> Selection:
        return self._selection

    @property
    def comparable(self) -> bool:
        """False where a flag made this another experiment than the declared one."""
        return not self._selection.changes

    def place(self, *keys: Any) -> str:
        return self._document.place(keys) if self._document else ".".join(map(str, keys))

    @model_validator(mode="after")
    def _check(self) -> Sweep:
        if self.track not in TRACKS:
            raise ValueError(f"track: {self.track!r} is not a track; {one_of(self.track, TRACKS)}")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: a seed stands twice in {self.seeds}")
        for name in self.metrics:
            if name not in METRICS:
                raise ValueError(f"metrics: {name!r} is not a metric; {one_of(name, METRICS)}")
        return self

    def keep(self, variants: dict[str, dict[str, Any]]) -> Sweep:
        """This sweep with these variants alone, as ``variant_settings`` gives them."""
        kept = self.model_copy(update={"variants": variants, "grid": {}})
        kept.__dict__.pop("cells", None)  # a copy takes what was computed for the original along
        return kept

    def variant_settings(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each variant with its settings, the axes of the grids crossed in, named ``variant@axis=value``.

        The last axis varies fastest; the sweep's axes stand before the variant's own.
        """
        for name, settings in self.variants.items():
            settings = dict(settings)
            axes = {**self.grid, **self._own_axes(name, settings.pop("grid", {}))}
            for values in itertools.product(*axes.values()):
                point = dict(zip(axes, values, strict=True))
                yield name + _suffix(point), at_point(settings, point)

    def _own_axes(self, variant: str, grid: Any) -> dict[str, list[Any]]:
        place = self.place("variants", variant, "grid")
        if not isinstance(grid, dict):
            raise DeclarationError(f"{place}: expected axes, such as {{lr: [0.1, 0.01]}}")
        for axis, choices in grid.items():
            if not isinstance(choices, list) or not choices:
                raise DeclarationError(f"{place}.{axis}: expected a list of values")
            if axis in self.grid:
                raise DeclarationError(f"{place}.{axis}: the sweep's own grid has this axis already")
        return grid

    @cached_property
    def cells(self) -> list[Cell]:
        """Every trial, in the order in which a table is read: variant, then task order, then seed.

        Raises:
            DeclarationError: a setting is unknown to the track, or has a value it does not take.
        """
        here = track(self.track)
        if self.precision not in here.PRECISIONS:
            known = one_of(self.precision, here.PRECISIONS)
            raise DeclarationError(f"{self.place('precision')}: {self.precision!r} is not for {self.track}; {known}")
        cells = []
        for name, settings in self.variant_settings():
            key = ("variants", name.split("@")[0])
            settings = dict(settings)
            method = settings.pop("method", None)
            if method is None:
                raise DeclarationError(f"{self.place(*key)}: a variant needs a method")
            resources = _merged(self.resources.model_dump(), settings.pop("resources", {}))
            declared = {
                "benchmark": _merged(self.benchmark, settings.pop("benchmark", {})),
                "model": _merged(self.model, settings.pop("model", {})),
                "method": method,
                "hyperparameters": settings,
            }
            try:
                resolved = here.resolve(declared)
                share = Resources(**resources)
            except SettingError as error:
                at = (*key, *error.keys) if error.section == "hyperparameters" else (error.section, *error.keys)
                raise DeclarationError(f"{self.place(*at)}: {error}") from None
            except ValidationError as error:
                raise explain(error, lambda keys, key=key: self.place(*key, "resources", *keys)) from None
            for order in self._orders(resolved["benchmark"].get("tasks")):
                for seed in self.seeds:
                    trial = Trial(
                        version=self.version,
                        track=self.track,
                        evaluate=self.evaluate,
                        randomness=self.randomness,
                        engine=self.engine,
                        precision=self.precision,
                        seed=seed,
                        task_order=order,
                        **resolved,
                    )
                    cells.append(Cell(name, trial, share))
        return cells

    def _orders(self, tasks: int | list[str] | None) -> list[list[int] | None]:
        names = tasks if isinstance(tasks, list) else []
        count = len(names) if isinstance(tasks, list) else tasks
        if isinstance(self.task_orders, RandomOrders):
            rng = np.random.default_rng(np.random.SeedSequence(self.task_orders.seed))
            return [rng.permutation(count or 0).tolist() for _ in range(self.task_orders.random)]
        orders: list[list[int] | None] = []
        for i, order in enumerate(self.task_orders):
            if order == "identity":
                orders.append(None)
                continue
            places = [names.index(task) if task in names else task for task in order]
            if count is not None and sorted(places, key=str) != sorted(range(count), key=str):
                wanted = f"each of {', '.join(names)}" if names else f"each of 0 … {count - 1}"
                raise DeclarationError(f"{self.place('task_orders', i)}: must be 'identity' or hold {wanted} once")
            # The benchmark's own order is one trial, whichever way it is written.
            orders.append(None if names and places == list(range(len(names))) else [int(place) for place in places])
        return orders


def _suffix(point: Mapping[str, Any]) -> str:
    """What a point of a grid adds to its variant's name."""
    return "".join(f"@{axis}={value}" for axis, value in point.items())


def at_point(settings: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """A variant's settings with a point of a grid laid on them: ``{"model.dropout": 0.1}`` goes into ``model``."""
    result = dict(settings)
    for axis, value in point.items():
        change: Any = value
        for key in reversed(axis.split(".")):
            change = {key: change}
        result = _merged(result, change)
    return result


class SettingError(Exception):
    """A setting that a track does not take: raised by its ``resolve``, given its place by the sweep.

    Attributes:
        section: ``benchmark``, ``model`` or ``hyperparameters``.
        keys: the path of keys below it.
    """

    def __init__(self, section: str, keys: Sequence[Any], message: str) -> None:
        super().__init__(message)
        self.section, self.keys = section, tuple(keys)


def check_settings(section: str, schema: type[BaseModel], values: Mapping[str, Any]) -> BaseModel:
    """``values`` as ``schema``, for a track's ``resolve``.

    Raises:
        SettingError: naming the first wrong key, and what would be right.
    """
    known = list(schema.model_fields)
    for key in values:
        if key not in known:
            raise SettingError(section, [key], f"not a setting of {section} here; {one_of(str(key), known)}")
    try:
        return schema(**values)
    except ValidationError as error:
        item = error.errors()[0]
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "missing":
            message = "this setting is missing"
        elif item["type"] != "value_error":
            message += f" (it is {item['input']!r})"
        raise SettingError(section, item["loc"], message) from None


def _merged(base: Mapping[str, Any], over: Any) -> dict[str, Any]:
    """``base`` with ``over`` laid on it, mappings key by key."""
    result = copy.deepcopy(dict(base))
    for key, value in dict(over).items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = _merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def _assign(data: dict[str, Any], item: str) -> None:
    """Apply one ``--set a.b.c=value`` to the content of a sweep file; the value is read as YAML."""
    name, equals, text = item.partition("=")
    keys = _keys(name, data.get("variants", {}))
    if not equals or not all(keys):
        raise DeclarationError(f"--set {item}: expected KEY=VALUE, such as benchmark.tasks=5")
    try:
        value = yaml.load(text, UniqueKeyLoader)
    except yaml.YAMLError:
        raise DeclarationError(f"--set {item}: the value is not valid YAML") from None
    if keys[0] not in Sweep.model_fields:
        raise DeclarationError(f"--set {item}: {one_of(keys[0], Sweep.model_fields)}")
    if keys[0] == "variants" and len(keys) > 1 and keys[1] not in data.get("variants", {}):
        raise DeclarationError(f"--set {item}: no variant {keys[1]!r}; {one_of(keys[1], data.get('variants', {}))}")
    node = data
    for key in keys[:-1]:
        inner = node.get(key, {})
        if not isinstance(inner, dict):
            raise DeclarationError(f"--set {item}: {key!r} holds no keys")
        node[key] = node = dict(inner)  # a copy: by an alias, YAML lets two keys hold one and the same mapping
    node[keys[-1]] = value


def _keys(name: str, variants: Any) -> list[str]:
    """The keys of a dotted name; a variant's own name may hold dots, too."""
    first, dot, rest = name.partition(".")
    if first != "variants" or not dot:
        return name.split(".")
    named = [known for known in variants if rest == known or rest.startswith(f"{known}.")]
    if not named:
        return name.split(".")
    variant = max(named, key=len)
    below = rest[len(variant) + 1 :]
    return [first, variant, *(below.split(".") if below else [])]


def find_sweep(name: str) -> Path:
    """The file of a sweep, given its path or its name among those that ship with clray.

    Raises:
        DeclarationError: there is neither.
    """
    shipped = declared_root() / "sweeps" / f"{name.removeprefix('sweeps/').removesuffix('.yaml')}.yaml"
    for path in (Path(name), shipped):
        if path.is_file():
            return path
    raise DeclarationError(f"{name}: no such sweep file, and no such sweep here; {one_of(name, sweep_names())}")


def load_sweep(name: str | Path, selection: Selection = Selection()) -> Sweep:
    """Read a sweep file and apply a selection to it.

    Raises:
        DeclarationError: naming file, line, key and the allowed values.
    """
    sweep, quick_only = _read_sweep(name, selection)
    only = selection.only or quick_only
    if only:
        chosen = dict(sweep.variant_settings())
        for variant in only:
            if variant not in chosen and variant not in sweep.variants:
                raise DeclarationError(f"{sweep.place()}: --only {variant}: no such variant; {one_of(variant, chosen)}")
        sweep = sweep.keep({n: s for n, s in chosen.items() if n in only or n.split("@")[0] in only})
    _ = sweep.cells  # so that a wrong setting is an error now
    return sweep


def variant_names(name: str | Path, selection: Selection = Selection()) -> list[str]:
    """The names of a sweep's variants and of the points of their grids, whichever of them are selected."""
    sweep, _ = _read_sweep(name, selection)
    return list(dict.fromkeys([*sweep.variants, *dict(sweep.variant_settings())]))


def _read_sweep(name: str | Path, selection: Selection) -> tuple[Sweep, tuple[str, ...]]:
    """A sweep with all its variants, not looked into yet; and those its quick form keeps, if that was asked for."""
    path = find_sweep(str(name))
    document = Document(path)
    data = document.data
    quick_only: tuple[str, ...] = ()
    if selection.quick:
        if not isinstance(data.get("quick"), dict):
            raise DeclarationError(f"{path}: --quick: this sweep declares no quick form (a key 'quick')")
        quick = dict(data["quick"])
        quick_only = tuple(quick.pop("only", ()))
        data = _merged(data, quick)
    if selection.set:
        data = copy.deepcopy(data)
        for item in selection.set:
            _assign(data, item)
    if selection.seeds:
        data = {**data, "seeds": list(selection.seeds)}
    try:
        sweep = Sweep(**data)
    except ValidationError as error:
        raise explain(error, document.place) from None
    shipped = (declared_root() / "sweeps").resolve()
    inside = path.resolve().is_relative_to(shipped)
    sweep._name = str(path.resolve().relative_to(shipped).with_suffix("")) if inside else path.stem
    sweep._selection, sweep._document = selection, document
    return sweep, quick_only


# --------------------------------------------------------------------------------------------------------------
# Reproductions

Known = Literal["paper", "authors", "second-hand", "recalled"]
"""How a published number is known: read in the paper, from the authors' logs, quoted by others, or recalled."""

SpreadKind = Literal["sd", "population sd", "sem", "95% interval", "unknown"]
"""What a published ± is. ``sd`` divides by n - 1, ``population sd`` by n (numpy's default)."""

_CLAIM = re.compile(r"^\s*([-+−]?\d+(?:\.\d+)?)\s*(?:±\s*(\d+(?:\.\d+)?|\?))?\s*$")


class Claim(Declared):
    """What a paper published for one cell, in per cent where the metric is a rate.

    In a file it may be short, ``89.56 ± 0.11`` (where the spread is not known ``"89.56 ± ?"``, in quotes), or a
    mapping of these keys.
    """

    mean: float
    spread: float | None = None
    kind: SpreadKind | None = None
    runs: Annotated[int, Field(ge=1)] | None = None
    source: str | None = None
    known: Known | None = None
    note: str = ""


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
        return {"mean": float(mean.replace("−", "-")), "spread": float(spread) if spread and spread != "?" else None}
    return value


ShortClaim = Annotated[Claim, BeforeValidator(_claim)]


class Row(Declared):
    """A row of a table: which variant fills it, and what was published for it."""

    label: str
    variant: str
    """The name of a variant of the table's sweep."""
    claims: dict[str, ShortClaim] = {}
    by_order: dict[str, ShortClaim] = {}
    """What was published for single task orders, in the table's first metric: keys of the table's ``orders``."""
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
    rows: Annotated[list[Row], Field(min_length=1)]

    @model_validator(mode="after")
    def _metrics_exist(self) -> Table:
        for name in [*self.metrics, *(metric for row in self.rows for metric in row.claims)]:
            if name not in METRICS:
                raise ValueError(f"{name!r} is not a metric; {one_of(name, METRICS)}")
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
    published: dict[str, Any]
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


def point_of(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The axes and values that ``variant@axis=value`` stands for, the values as they are declared in ``settings``."""
    point = {}
    for part in name.split("@")[1:]:
        axis = part.partition("=")[0]
        value: Any = settings
        for key in axis.split("."):
            value = value[key]
        point[axis] = value
    return point


class Searches(Declared):
    """Hyper-parameter searches in one sweep, each shown with what it selects beside the published choice.

    Of the points whose runs are complete, the one with the best mean is selected, the first one where several are best.
    """

    title: str
    sweep: str
    source: str
    """Where the grids and the published choices stand."""
    metric: str = "ACC"
    """What is selected by; the sweep says whether it is measured on validation data (``benchmark.validation``)."""
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
    """What the published ± is, unless a claim says otherwise."""
    known: Known
    """How the published numbers are known, unless a claim says otherwise."""
    margins: dict[str, Margin]
    """By metric."""
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

    def claim(self, table: Table, row: Row, metric: str) -> Claim | None:
        """The claim for a cell with this file's defaults filled in, or None where nothing was published."""
        claim = row.claims.get(metric)
        if claim is None:
            return None
        source = row.source or table.source
        defaults = {"kind": self.spread, "runs": self.runs, "known": self.known, "source": source}
        return claim.model_copy(update={k: v for k, v in defaults.items() if getattr(claim, k) is None})

    def sweeps(self, selection: Selection = Selection()) -> dict[str, Sweep]:
        """The sweeps that fill tables and searches, each with the variants that these name (with ``--only``, some)."""
        groups: list[Table | Searches] = [*self.tables, *self.searches]
        every = dict.fromkeys(row.variant for group in groups for row in group.rows)
        for variant in selection.only:
            if variant not in every:
                raise DeclarationError(f"--only {variant}: no row of {self.name} uses it; {one_of(variant, every)}")
        loaded = {}
        for name in dict.fromkeys(group.sweep for group in groups):
            sweep, _ = _read_sweep(name, selection)
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
    path = shipped if shipped.is_file() else Path(name)
    if not path.is_file():
        raise DeclarationError(f"{name}: no such reproduction; {one_of(str(name), reproduction_names())}")
    document = Document(path)
    try:
        reproduction = Reproduction(**document.data)
    except ValidationError as error:
        raise explain(error, document.place) from None
    reproduction._name = path.stem
    return reproduction


class Paper(Declared):
    """A paper, for the head of a report."""

    title: str
    authors: str
    venue: str
    arxiv: str
    code: str
    """The official code."""
    commit: str


def papers() -> dict[str, Paper]:
    """reproduce/papers.yaml by key."""
    document = Document(declared_root() / "reproduce" / "papers.yaml")
    try:
        return {key: Paper(**value) for key, value in document.data.items()}
    except ValidationError as error:
        raise explain(error, document.place) from None
