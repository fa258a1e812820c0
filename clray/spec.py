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
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from clray.documents import (
    MOST_DEPTH,
    Declared,
    Document,
    Wrong,
    dotted,
    explain,
    is_there,
    keys_of,
    misread,
    one_of,
    read_value,
    shorter,
    shown,
)
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

MOST_TRIALS = 100_000
"""Of a sweep: variants, points of their grids, task orders and seeds multiplied."""
MOST_PLACES = 2_000_000
"""Of all task orders of a variant together: orders times tasks."""
MOST_NAME = 200
"""Characters of a variant's name as it is declared."""
MOST_POINT_NAME = 1000
"""Characters of a variant's name with the axes of its grids."""


class Resources(Declared):
    """What one trial asks of the machine. It never changes a number."""

    cpu: Annotated[float, Field(gt=0, le=10_000)] = 1
    gpu: Annotated[float, Field(ge=0, le=1_000)] = 0
    """Share of one GPU (1/k packs k trials), or a whole number of them. Asked for only where there is a GPU."""
    pack: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = 1
    """Trials that one worker runs one after the other: more than 1 where a trial takes seconds."""

    @model_validator(mode="after")
    def _can_be_asked_for(self) -> Resources:
        for name, share in (("cpu", self.cpu), ("gpu", self.gpu)):
            if 0 < share < 0.0001:
                raise ValueError(f"{name}: {share} is too little; Ray counts in steps of 0.0001")
        if self.gpu > 1 and self.gpu != int(self.gpu):
            raise ValueError(f"gpu: above 1 it must be a whole number of GPUs (it is {self.gpu})")
        return self


Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""What every generator takes, numpy's older one included."""


class RandomOrders(Declared):
    """Task orders drawn at random, as ``{random: 5, seed: 0}``; they differ from each other."""

    random: Annotated[int, Field(ge=1, le=MOST_TRIALS)]
    seed: Seed = 0

    def draw(self, tasks: int) -> list[list[int]]:
        """The orders of so many tasks; one that was drawn before is drawn again.

        Raises:
            ValueError: so many tasks do not have so many orders.
        """
        there_are = math.factorial(min(tasks, 20))
        if self.random > there_are:
            raise ValueError(f"{tasks} tasks have no more than {there_are} different orders (random is {self.random})")
        rng = np.random.default_rng(np.random.SeedSequence(self.seed))
        drawn: dict[tuple[int, ...], None] = {}
        while len(drawn) < self.random:
            drawn[tuple(rng.permutation(tasks).tolist())] = None
        return [list(order) for order in drawn]


Order = Literal["identity"] | list[int | str]

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


class Origin:
    """Where the values of a sweep stand: in its file, in the file's quick form, or in a flag.

    Args:
        document: the file.
        selection: the flags.
        flags: for each flag that changed something, the path of keys that it changed and the flag as it was typed.
    """

    def __init__(self, document: Document, selection: Selection, flags: Sequence[tuple[tuple[str, ...], str]]) -> None:
        self._document, self._quick, self._flags = document, selection.quick, list(flags)

    def has(self, keys: Sequence[Any]) -> bool:
        """Whether a path of keys was declared."""
        return bool(
            any(tuple(keys[: len(at)]) == at for at, _ in self._flags)
            or (self._quick and self._document.has(("quick", *keys)))
            or self._document.has(keys)
        )

    def place(self, keys: Sequence[Any]) -> str:
        """A path of keys, after the flag or the line of the file that declares it."""
        for at, flag in reversed(self._flags):
            if tuple(keys[: len(at)]) == at:
                return f"{flag}: {dotted(keys)}"
        if self._quick and keys and self._document.has(("quick", *keys)):
            return self._document.place(("quick", *keys))
        return self._document.place(keys)


class Sweep(Declared):
    """All trials declared in one file."""

    version: Annotated[int, Field(ge=1)]
    """Bumped when the numbers of a finished sweep would change."""
    paper: str = ""
    """A key of reproduce/papers.yaml; left out where the sweep is of none of these papers."""
    title: Annotated[str, Field(max_length=500)] = ""
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
    task_orders: RandomOrders | Annotated[list[Order], Field(min_length=1)] = ["identity"]
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
    _source: Origin | None = PrivateAttr(None)

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
        """Where a path of keys was declared, and the path itself."""
        return self._source.place(keys) if self._source else dotted(keys)

    def _wrong(self, keys: Sequence[Any], problem: str) -> DeclarationError:
        place = self.place(*keys)
        return DeclarationError(f"{place}: {problem}" if place else problem)

    def look_over(self) -> None:
        """See that the file makes sense as a whole; what a track takes is seen when ``cells`` are made.

        Raises:
            DeclarationError: it does not.
        """
        if self.track not in TRACKS:
            raise self._wrong(["track"], f"{shown(self.track)} is not a track; {one_of(self.track, TRACKS)}")
        if self.paper and self.paper not in (known := papers()):
            unknown = f"{shown(self.paper)} is not in papers.yaml; {one_of(self.paper, known)}"
            raise self._wrong(["paper"], f"{unknown}; leave the key out where the sweep is of none of these papers")
        if twice := _twice(self.seeds):
            raise self._wrong(["seeds"], f"a seed stands twice: {twice[0]}")
        for i, name in enumerate(self.metrics):
            if name not in METRICS:
                raise self._wrong(["metrics", i], f"{shown(name)} is not a metric; {one_of(name, METRICS)}")
        if twice := _twice(self.metrics):
            raise self._wrong(["metrics"], f"a metric stands twice: {twice[0]}")
        for variant, settings in self.variants.items():
            if problem := _wrong_name(variant):
                raise self._wrong(["variants", variant], f"{problem} in the name of a variant")
            for section in ("benchmark", "model", "resources"):  # before a grid is laid on them
                if not isinstance(settings.get(section, {}), Mapping):
                    raise self._wrong(["variants", variant, section], _no_section(section, settings[section]))
        self._count_trials()

    def _count_trials(self) -> None:
        """See, before any is made, that there are not too many trials."""
        points = 0
        for settings in self.variants.values():
            own = settings.get("grid")
            axes = [*self.grid.values(), *(own.values() if isinstance(own, dict) else ())]
            points += math.prod(len(choices) for choices in axes if isinstance(choices, list))
        orders = self.task_orders.random if isinstance(self.task_orders, RandomOrders) else len(self.task_orders)
        trials = points * orders * len(self.seeds)
        if trials > MOST_TRIALS:
            raise self._wrong(
                [],
                f"this sweep stands for {trials:,} trials: {points:,} variants and points of their grids × {orders:,} "
                f"task orders × {len(self.seeds):,} seeds; allowed: at most {MOST_TRIALS:,}",
            )

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
            axes = self._axes(name, settings)
            settings = {key: value for key, value in settings.items() if key != "grid"}
            seen = set()
            for values in itertools.product(*axes.values()):
                point = dict(zip(axes, values, strict=True))
                full = name + _suffix(point)
                if problem := "two points have it" if full in seen else _wrong_point_name(full):
                    place = ("variants", name, *(["grid"] if "grid" in self.variants[name] else []))
                    raise self._wrong(place, f"{problem}: the name {shown(full)} of a grid point")
                seen.add(full)
                yield full, at_point(settings, point)

    def _axes(self, variant: str, settings: Mapping[str, Any]) -> dict[str, list[Any]]:
        """The axes that a variant is crossed with: the sweep's before its own.

        Raises:
            DeclarationError: an axis is none, or two points of the grid cannot be told apart.
        """
        own, at = settings.get("grid", {}), ("variants", variant, "grid")
        if not isinstance(own, dict):
            raise self._wrong(at, "expected axes, such as {lr: [0.1, 0.01]}")
        for axis, choices in own.items():
            if not isinstance(choices, list) or not choices:
                raise self._wrong((*at, axis), "expected a list of values")
            if axis in self.grid:
                raise self._wrong((*at, axis), "the sweep's own grid has this axis already")
        axes = {**self.grid, **own}
        for axis, choices in axes.items():
            place = (*at, axis) if axis in own else ("grid", axis)
            if len(axis.split(".")) > MOST_DEPTH:
                raise self._wrong(place, f"an axis has at most {MOST_DEPTH} keys")
            if above := [other for other in axes if axis.startswith(f"{other}.")]:
                raise self._wrong(place, f"the axis {above[0]!r} sets it already; allowed: one axis a setting")
            if twice := _twice([_alike(choice) for choice in choices]):
                raise self._wrong(place, f"a value stands twice: {shorter(twice[0])}")
            if twice := _twice([str(choice) for choice in choices]):
                raise self._wrong(place, f"two values have one name, {shown(twice[0])}: their points would, too")
        return axes

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
            settings = dict(settings)
            resources = self._section(name, "resources", settings, self.resources.model_dump())
            declared = {
                "benchmark": self._section(name, "benchmark", settings, self.benchmark),
                "model": self._section(name, "model", settings, self.model),
                "method": self._method(name, settings),
                "hyperparameters": settings,
                "evaluate": self.evaluate,
                "randomness": self.randomness,
                "engine": self.engine,
                "precision": self.precision,
                "seeds": self.seeds,
                "task_orders": self.task_orders,
            }
            try:
                resolved = here.resolve(declared)
                share = _resources(resources)
            except SettingError as error:
                section = () if error.section == "hyperparameters" else (error.section,)
                raise self._wrong(self._setting(name, *section, *error.keys), str(error)) from None
            for order in self._orders(name, resolved["benchmark"].get("tasks")):
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

    def _section(self, name: str, section: str, settings: dict[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
        """The sweep's ``benchmark``, ``model`` or ``resources`` with a variant's own laid on it.

        Args:
            settings: the variant's; the section is taken out of them.
        """
        over = settings.pop(section, {})
        if not isinstance(over, Mapping):
            raise self._wrong(self._setting(name, section), _no_section(section, over))
        merged = _merged(base, over)
        if section != "resources" and not isinstance(merged.get("name", ""), str):
            problem = f"expected a name (it is {shown(merged['name'])})"
            raise self._wrong(self._setting(name, section, "name"), problem)
        return merged

    def _method(self, name: str, settings: dict[str, Any]) -> str:
        """The name of a variant's method, taken out of its settings."""
        method = settings.pop("method", None)
        if method is None:
            raise self._wrong(("variants", name.split("@")[0]), "a variant needs a method")
        if not isinstance(method, str):
            raise self._wrong(self._setting(name, "method"), f"expected the name of a method (it is {shown(method)})")
        return method

    def _setting(self, name: str, *keys: Any) -> tuple[Any, ...]:
        """The path of keys at which a setting of a variant was declared.

        Args:
            name: the variant's, with the axes of its grids.
            keys: where the setting stands among the settings of a variant.
        """
        variant, *axes = name.split("@")
        of_sweep = keys[0] not in ("method", "grid") and keys[0] in Sweep.model_fields
        tried: list[tuple[Any, ...]] = [("variants", variant, *keys)]
        for axis in (part.partition("=")[0] for part in axes):
            above, below = f"{dotted(keys)}.", f"{axis}."
            if above.startswith(below) or below.startswith(above):
                tried += [("variants", variant, "grid", axis), ("grid", axis)]
        tried += [keys] if of_sweep else []
        if self._source:
            for path in tried:
                if self._source.has(path):
                    return path
        return keys if of_sweep else tried[0]

    def _orders(self, name: str, tasks: int | list[str] | None) -> list[list[int] | None]:
        """The orders in which a variant's tasks come; None is the benchmark's own.

        Args:
            tasks: how many there are, or their names; None where they have no order.
        """
        if not isinstance(self.task_orders, RandomOrders) and self.task_orders == ["identity"]:
            return [None]
        if tasks is None:
            problem = f"{name} has no tasks that could be ordered; allowed: leave task_orders out"
            raise self._wrong(["task_orders"], problem)
        count = len(tasks) if isinstance(tasks, list) else tasks
        orders = self.task_orders.random if isinstance(self.task_orders, RandomOrders) else len(self.task_orders)
        if orders * count > MOST_PLACES:
            problem = f"{orders:,} orders × {count:,} tasks; allowed: at most {MOST_PLACES:,}"
            raise self._wrong(["task_orders"], problem)
        if isinstance(self.task_orders, RandomOrders):
            try:
                return list(self.task_orders.draw(count))
            except ValueError as error:
                raise self._wrong(["task_orders", "random"], str(error)) from None
        return self._listed_orders(self.task_orders, tasks if isinstance(tasks, list) else [], count)

    def _listed_orders(self, listed: Sequence[Any], names: list[str], count: int) -> list[list[int] | None]:
        orders: list[list[int] | None] = []
        seen: dict[tuple[int, ...], int] = {}
        for i, order in enumerate(listed):
            places = range(count) if order == "identity" else [names.index(t) if t in names else t for t in order]
            if len(places) != count or set(places) != set(range(count)):
                wanted = f"each of {', '.join(names)}" if names else f"each of 0 … {count - 1}"
                raise self._wrong(["task_orders", i], f"must be 'identity' or hold {wanted} once")
            if (first := seen.setdefault(tuple(places), i)) != i:
                raise self._wrong(["task_orders", i], f"the same order as number {first + 1}; allowed: each order once")
            # The benchmark's own order is one trial, whichever way it is written.
            own = order == "identity" or (names and places == list(range(count)))
            orders.append(None if own else [int(place) for place in places])
        return orders


def _no_section(section: str, value: Any) -> str:
    return f"expected settings, such as {'{cpu: 1}' if section == 'resources' else '{name: …}'} (it is {shown(value)})"


def _resources(declared: Mapping[str, Any]) -> Resources:
    """A variant's share of a machine.

    Raises:
        SettingError: there can be no such share.
    """
    try:
        share = Resources(**declared)
    except ValidationError as error:
        item = error.errors(include_url=False)[0]
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] != "value_error":
            message += f" (it is {shown(item['input'])})"
        raise SettingError("resources", item["loc"], message) from None
    for keys, problem in misread(declared, share.model_dump()):
        raise SettingError("resources", keys, problem)
    return share


def gpu_share(asked: float | None) -> float | None:
    """A share of a GPU as ``--gpu`` asks for it, under the rule for ``resources.gpu``.

    Raises:
        DeclarationError: there can be no such share.
    """
    if asked is not None:
        try:
            _resources({"gpu": asked})
        except SettingError as error:
            raise DeclarationError(f"--gpu {asked}: {error}") from None
    return asked


def _wrong_name(name: str) -> str | None:
    """What is wrong with a variant's name, if something is."""
    if not name.strip():
        return "there are no letters"
    if len(name) > MOST_NAME:
        return f"there are {len(name):,} characters, more than {MOST_NAME},"
    odd = next((character for character in name if character in "/@" or not character.isprintable()), None)
    if odd is None:
        return None
    why = ", which makes the names of grid points," if odd == "@" else ""
    return f"the character {shown(odd)} is not allowed{why}"


def _wrong_point_name(name: str) -> str | None:
    """What is wrong with the name of a grid's point, if something is."""
    if len(name) > MOST_POINT_NAME:
        return f"more than {MOST_POINT_NAME:,} characters"
    odd = next((character for character in name if not character.isprintable()), None)
    return None if odd is None else f"the character {shown(odd)} is not allowed"


def _twice(values: Sequence[Any]) -> list[Any]:
    """Those that stand there more than once."""
    seen: set[Any] = set()
    return [value for value in values if value in seen or seen.add(value)]  # type: ignore[func-returns-value]


def _alike(value: Any) -> str:
    """The same text for values that are equal: 1 and 1.0 are, 1 and true are not."""

    def plain(part: Any) -> Any:
        if isinstance(part, float) and part.is_integer():
            return int(part)
        if isinstance(part, Mapping):
            return {key: plain(inner) for key, inner in part.items()}
        return [plain(inner) for inner in part] if isinstance(part, list) else part

    return json.dumps(plain(value), sort_keys=True, default=str, ensure_ascii=False)


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
        section: ``benchmark``, ``model`` or ``hyperparameters``, or another key of the sweep, such as ``evaluate``.
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
        checked = schema(**values)
    except ValidationError as error:
        item = error.errors(include_url=False)[0]
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "missing":
            message = "this setting is missing"
        elif item["type"] != "value_error":
            message += f" (it is {shown(item['input'])})"
        raise SettingError(section, keys_of(item, values), message) from None
    for keys, problem in misread(values, checked.model_dump()):
        raise SettingError(section, keys, problem)
    return checked


def later(default: Any) -> Any:
    """The default of a settings field that was added when trials of its schema had already been run.

    While the field has this default it is left out of a trial's declaration, so that adding it changes no trial's id.
    So the default must do exactly what was done before there was the field.
    """
    return Field(default, json_schema_extra={"later": True})


def declared_settings(settings: BaseModel) -> dict[str, Any]:
    """Settings as plain data for a trial's declaration: all of them, of ``later`` ones those that were changed."""
    plain = settings.model_dump(mode="json")
    for name, field in type(settings).model_fields.items():
        value, extra = getattr(settings, name), field.json_schema_extra
        if isinstance(extra, dict) and extra.get("later") and value == field.default:
            del plain[name]
        elif isinstance(value, BaseModel):
            plain[name] = declared_settings(value)
    return plain


def _merged(base: Mapping[str, Any], over: Any) -> dict[str, Any]:
    """``base`` with ``over`` laid on it, mappings key by key."""
    result = copy.deepcopy(dict(base))
    for key, value in dict(over).items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = _merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def _assign(data: dict[str, Any], item: str) -> tuple[str, ...]:
    """Apply one ``--set a.b.c=value`` to the content of a sweep file; the value is read as YAML. Returns the keys."""
    name, equals, text = item.partition("=")
    flag = f"--set {shorter(item)}"
    variants = data.get("variants")
    variants = variants if isinstance(variants, dict) else {}
    keys = _keys(name, variants)
    if not equals or not all(keys):
        raise DeclarationError(f"{flag}: expected KEY=VALUE, such as benchmark.tasks=5")
    if len(keys) > MOST_DEPTH:
        raise DeclarationError(f"{flag}: {len(keys)} keys; allowed: at most {MOST_DEPTH}")
    try:
        value = read_value(text)
    except Wrong as error:
        raise DeclarationError(f"{flag}: {error}") from None
    if keys[0] not in Sweep.model_fields:
        raise DeclarationError(f"{flag}: {one_of(keys[0], Sweep.model_fields)}")
    if keys[0] == "quick":
        raise DeclarationError(f"{flag}: the quick form stays as it is declared; set the key itself beside --quick")
    if keys[0] == "variants" and len(keys) > 1 and keys[1] not in variants:
        raise DeclarationError(f"{flag}: no variant {shown(keys[1])}; {one_of(keys[1], variants)}")
    node = data
    for key in keys[:-1]:
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise DeclarationError(f"{flag}: {shown(key)} holds no keys")
    node[keys[-1]] = value
    return tuple(keys)


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
        if os.path.isfile(path):
            return path
    if name and is_there(Path(name)):
        return Path(name)  # a folder or a pipe, or one may not look: who reads it is told
    problem = f"no such sweep file, and no such sweep here; {one_of(name, sweep_names())}"
    raise DeclarationError(f"{shorter(name) or repr(name)}: {problem}")


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
                said = f"--only {shorter(variant)}" if selection.only else f"quick.only: {shown(variant)}"
                place = sweep.place() if selection.only else sweep.place("quick", "only").rpartition(": ")[0]
                raise DeclarationError(f"{place}: {said}: no such variant; {one_of(variant, chosen)}")
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
        if "quick" not in data:
            raise DeclarationError(f"{path}: --quick: this sweep declares no quick form (a key 'quick')")
        data, quick_only = _quick_form(document)
    flags: list[tuple[tuple[str, ...], str]] = []
    if selection.set:
        data = copy.deepcopy(data)
        flags += [(_assign(data, item), f"--set {shorter(item)}") for item in selection.set]
    if selection.seeds:
        data = {**data, "seeds": list(selection.seeds)}
        flags.append((("seeds",), shorter("--seeds " + ",".join(map(str, selection.seeds)))))
    sweep = _checked(data, Origin(document, selection, flags))
    if data.get("quick") and not selection.quick:
        quick = Selection(quick=True)
        _checked(_quick_form(document)[0], Origin(document, quick, ()))  # so that a mistake there is an error now
    shipped = (declared_root() / "sweeps").resolve()
    inside = path.resolve().is_relative_to(shipped)
    sweep._name = str(path.resolve().relative_to(shipped).with_suffix("")) if inside else path.stem
    sweep._selection = selection
    return sweep, quick_only


def _checked(data: dict[str, Any], source: Origin) -> Sweep:
    """A sweep file's content as a sweep that makes sense as a whole."""
    try:
        sweep = Sweep(**data)
    except ValidationError as error:
        raise explain(error, source.place, data) from None
    for keys, problem in misread(data, sweep.model_dump()):
        raise DeclarationError(f"{source.place(keys)}: {problem}")
    sweep._source = source
    sweep.look_over()
    return sweep


def _quick_form(document: Document) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A file's content with its quick form laid on it, and the variants that this keeps; none where it keeps all.

    Raises:
        DeclarationError: the quick form is none.
    """
    quick = document.data["quick"]
    allowed = [*(field for field in Sweep.model_fields if field != "quick"), "only"]
    if not isinstance(quick, dict):
        raise DeclarationError(f"{document.place(['quick'])}: expected keys of this file, such as {{seeds: [0]}}")
    for key in quick:
        if key not in allowed:
            place = document.place(["quick", key])
            raise DeclarationError(f"{place}: not a key that --quick can change; {one_of(key, allowed)}")
    quick = dict(quick)
    only = quick.pop("only", None)
    if "only" in document.data["quick"] and not (
        isinstance(only, list) and only and all(isinstance(name, str) for name in only)
    ):
        place = document.place(["quick", "only"])
        raise DeclarationError(f"{place}: expected a list of variants, such as [first, second] (it is {shown(only)})")
    return _merged(document.data, quick), tuple(only or ())


# --------------------------------------------------------------------------------------------------------------
# Reproductions

Known = Literal["paper", "authors", "second-hand", "recalled"]
"""How a published number is known: read in the paper, from the authors' logs, quoted by others, or recalled."""

SpreadKind = Literal["sd", "population sd", "sem", "population sem", "95% interval", "1.96 sem", "unknown"]
"""What a published ± is. ``sd`` divides by n - 1, ``population sd`` by n (numpy's default); ``sem`` and ``population
sem`` are these over the root of n. ``95% interval`` is the half-width of a t interval, ``1.96 sem`` of a normal one."""

_CLAIM = re.compile(r"^\s*([-+−]?\d+(?:\.\d+)?)\s*(?:±\s*(\d+(?:\.\d+)?|\?))?\s*$")


class Claim(Declared):
    """What a paper published for one cell, in per cent where the metric is a rate.

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


class Source(Declared):
    """Another place where numbers for the same cells were published, such as the authors' own re-runs."""

    source: str
    """Where it stands."""
    runs: Annotated[int, Field(ge=1)] | None = None
    """These three are the file's own unless the source has others."""
    spread: SpreadKind | None = None
    known: Known | None = None


class BenchmarkSpread(Declared):
    """How much a metric varies between draws of the stream itself, as it was measured.

    The published runs are of one draw and ours of another. So the variance of their difference has twice this variance
    as a part of its own, which no number of training seeds makes smaller.
    """

    draws: Annotated[int, Field(ge=2)]
    """Draws of the stream that the standard deviations were computed from."""
    reason: str
    """How they were measured."""
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
    """Which tests are corrected together: those of one metric, or all of the table."""
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
    sources: dict[str, Source] = {}
    """Other places where numbers for the same cells were published. The verdict is against the first one, a row's
    ``claims``; what the same tests say of the others stands beside it."""
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
        return {key: Paper.model_validate(value) for key, value in document.data.items()}
    except ValidationError as error:
        raise explain(error, document.place) from None
