"""A sweep: all trials that one file declares, by crossing variants with grids, seeds and task orders."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PrivateAttr, ValidationError

from clray import own_code
from clray.axes import Axis, Distribution, Search, drawn_points
from clray.documents import MOST_DEPTH, Declared, dotted, expected, one_of, shorter, shown
from clray.errors import DeclarationError
from clray.grid import MOST_TRIALS, alike, at_point, merged, named, repeated, wrong_point_name
from clray.limits import NO_LIMITS, Limits, bytes_of
from clray.metrics import METRICS
from clray.own_code import OwnCodeError
from clray.resources import Resources, resources_of
from clray.selection import Origin, Selection
from clray.task_orders import MOST_PLACES, MOST_TASKS_OF_ALL, Order, RandomOrders, Seed
from clray.tracks import TRACKS, track
from clray.trial import Precision, SettingError, Trial

if TYPE_CHECKING:
    from clray.track_interface import Track

MOST_NAME = 200
"""The most characters of a variant's name as it is declared."""


@dataclass(frozen=True)
class Cell:
    """A trial at its place in a sweep: the variant it belongs to, and the share of a machine it asks for."""

    variant: str
    trial: Trial
    resources: Resources
    keep: tuple[str, ...] = field(default=(), kw_only=True)
    """The things that its sweep asks to keep of it, besides its record."""


class Tuning(Declared):
    """How ``clray tune`` chooses a point of each variant's grid. The sweep itself is the evaluation; this is what
    differs in the tuning phase before it, whose classes and images must be others."""

    metric: str = "ACC"
    """The metric that chooses."""
    first_tasks: Annotated[int, Field(ge=1)] | None = None
    """Also show what is chosen after so many tasks of the evaluated streams."""
    benchmark: dict[str, Any] = {}
    """The changes to ``benchmark``, such as the classes to tune on."""
    seeds: Annotated[list[Seed], Field(min_length=1)]
    """The seeds of the tuning phase, none of which is a seed of the evaluation."""
    common_images: Annotated[int, Field(ge=0)] = 0
    """So many images may be in both phases. CIFAR-100 has one image in class 26 and again in class 79."""


class Sweep(Declared):
    """All trials declared in one file."""

    version: Annotated[int, Field(ge=1)]
    """A number that is raised when the numbers of a finished sweep would change."""
    paper: str = ""
    """A key of reproduce/papers.yaml; left out where the sweep belongs to none of these papers."""
    title: Annotated[str, Field(max_length=500)] = ""
    track: str
    benchmark: dict[str, Any]
    model: dict[str, Any] = {}
    evaluate: Literal["after_task"] | Annotated[int, Field(ge=1)] = "after_task"
    """Measure after each task, or also every N examples."""
    randomness: Literal["clray", "official"] = "clray"
    """``official`` draws every random number as the paper's own code does, seed by seed."""
    engine: Literal["auto", "eager", "fused"] = "auto"
    precision: Precision = "float32"
    seeds: Annotated[list[Seed], Field(min_length=1)]
    task_orders: RandomOrders | Annotated[list[Order], Field(min_length=1)] | Literal["all"] = ["identity"]
    """Each order a list of the tasks, from 0 or by name where the benchmark names them; or ``{random: N}``, or ``all``
    for every order that there is."""
    resources: Resources = Resources()
    variants: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    """By name: a method with its settings, and its changes to ``benchmark``, ``model`` and ``resources``. ``grid``
    holds axes of its own."""
    grid: dict[str, Axis] = {}
    """Axes crossed with every variant: a setting, dotted where it is not one of the method (``model.dropout``), and a
    list of its values, or a distribution (``clray.axes``) from which ``search`` says how many are drawn."""
    search: Search | None = None
    """The search over axes with distributions; ``clray search`` chooses a point, and runs it with ``seeds``."""
    metrics: Annotated[list[str], Field(min_length=1)] = ["RA", "LA", "BTI"]
    """The columns of the sweep's own table; they change no number."""
    curriculum: dict[str, list[list[Annotated[float, Field(ge=0)]]]] = {}
    """The distances between the tasks' classes, a row a task, by the name of the features that they are of: then the
    sweep's own table shows the score of each task order beside what was measured (``clray.analysis.curriculum``).
    They change no number."""
    keep: list[str] = []
    """The things that a trial leaves in the store beside its record: ``weights``, of its networks after the last task.
    It changes no number and no id."""
    tuning: Tuning | None = None
    """The tuning phase of ``clray tune``; ``clray sweep`` does not run it."""
    quick: dict[str, Any] = {}
    """The changes of ``--quick``: keys of this file, and ``only`` with a list of variants."""

    _name: str = PrivateAttr("")
    _selection: Selection = PrivateAttr(Selection())
    _source: Origin | None = PrivateAttr(None)
    _resolved: dict[str, list[Cell]] = PrivateAttr(default_factory=dict)
    """The trials of each variant that was resolved; the copies of ``with_variants`` share them."""

    @property
    def name(self) -> str:
        """``paper/name`` for a sweep that ships with clray, else the file's stem, or a ``sweep.yaml``'s folder."""
        return self._name

    @property
    def selection(self) -> Selection:
        return self._selection

    @property
    def comparable(self) -> bool:
        """False where a flag made this another experiment than the declared one."""
        return not self._selection.changes

    def place(self, *keys: Any) -> str:
        """The place that declares a path of keys, and the path itself, as text for a message."""
        return self._source.place(keys) if self._source else dotted(keys)

    def _wrong(self, keys: Sequence[Any], problem: str) -> DeclarationError:
        place = self.place(*keys)
        return DeclarationError(f"{place}: {problem}" if place else problem)

    def look_over(self, papers: Collection[str]) -> None:
        """Check the file as a whole. Settings that depend on the track are checked when ``cells`` are made.

        Args:
            papers: the keys of papers.yaml.

        Raises:
            DeclarationError: the file is wrong.
        """
        if self.track not in TRACKS:
            raise self._wrong(["track"], f"{shown(self.track)} is not a track; {one_of(self.track, TRACKS)}")
        if self.paper and self.paper not in papers:
            unknown = f"{shown(self.paper)} is not in papers.yaml; {one_of(self.paper, papers)}"
            raise self._wrong(["paper"], f"{unknown}; leave the key out where the sweep is of none of these papers")
        if twice := repeated(self.seeds):
            raise self._wrong(["seeds"], f"a seed stands twice: {twice[0]}")
        for i, name in enumerate(self.metrics):
            if name not in METRICS:
                raise self._wrong(["metrics", i], f"{shown(name)} is not a metric; {one_of(name, METRICS)}")
        if twice := repeated(self.metrics):
            raise self._wrong(["metrics"], f"a metric stands twice: {twice[0]}")
        self._check_search()
        self._check_curriculum()
        if self.tuning and self.tuning.metric not in METRICS:
            metric = self.tuning.metric
            raise self._wrong(["tuning", "metric"], f"{shown(metric)} is not a metric; {one_of(metric, METRICS)}")
        if self.tuning and (twice := repeated(self.tuning.seeds)):
            raise self._wrong(["tuning", "seeds"], f"a seed stands twice: {twice[0]}")
        for variant, settings in self.variants.items():
            if problem := _wrong_name(variant):
                raise self._wrong(["variants", variant], f"{problem} in the name of a variant")
            for section in ("benchmark", "model", "resources"):  # before the settings of a grid are added
                if not isinstance(settings.get(section, {}), Mapping):
                    raise self._wrong(["variants", variant, section], _no_section(section, settings[section]))
        self._count_trials()

    def _check_search(self) -> None:
        if self.search is None:
            return
        if (metric := self.search.metric) not in METRICS:
            raise self._wrong(["search", "metric"], f"{shown(metric)} is not a metric; {one_of(metric, METRICS)}")
        if twice := repeated(self.search.seeds):
            raise self._wrong(["search", "seeds"], f"a seed stands twice: {twice[0]}")

    def _check_curriculum(self) -> None:
        tasks = self.benchmark.get("tasks")
        for name, rows in self.curriculum.items():
            if not isinstance(tasks, int) or len(rows) != tasks or any(len(row) != tasks for row in rows):
                raise self._wrong(["curriculum", name], f"expected a row of distances for each task (tasks: {tasks})")
            for i, row in enumerate(rows):
                if row[i] != 0 or not any(row) or any(row[j] != rows[j][i] for j in range(i)):
                    problem = "zero from a task to itself, the same in both directions, and not zero to all"
                    raise self._wrong(["curriculum", name, i], f"distances must be {problem}")

    def _count_trials(self) -> None:
        """Check, before any trial is made, that there are not too many."""
        points = 0
        for settings in self.variants.values():
            own = settings.get("grid")
            axes = [*self.grid.values(), *(own.values() if isinstance(own, dict) else ())]
            drawn = any(not isinstance(axis, list) for axis in axes)
            samples = self.search.samples if self.search and drawn else 1
            points += samples * math.prod(len(choices) for choices in axes if isinstance(choices, list))
        orders = self._order_count()
        trials = points * orders * len(self.seeds)
        if trials > MOST_TRIALS:
            raise self._wrong(
                [],
                f"this sweep has {trials:,} trials: {points:,} variants and points of their grids × {orders:,} "
                f"task orders × {len(self.seeds):,} seeds; allowed: at most {MOST_TRIALS:,}",
            )

    def _order_count(self, tasks: int = 1) -> int:
        """The number of task orders.

        Args:
            tasks: how many tasks there are; only ``all`` depends on it.
        """
        if self.task_orders == "all":
            return math.factorial(tasks)
        return self.task_orders.random if isinstance(self.task_orders, RandomOrders) else len(self.task_orders)

    def with_variants(self, variants: dict[str, dict[str, Any]]) -> Sweep:
        """This sweep with these variants alone, as ``variant_settings`` gives them; no variant is resolved twice."""
        kept = self.model_copy(update={"variants": variants, "grid": {}})
        kept.__dict__.pop("cells", None)  # else the copy would keep the cells of the original
        return kept

    def with_named_variants(self, variants: dict[str, dict[str, Any]]) -> Sweep:
        """As ``with_variants``, for settings under other names than those that they have here."""
        kept = self.with_variants(variants)
        kept._resolved = {}  # it is kept by name, and shared with the original
        return kept

    def with_whole_variants(self, names: Collection[str]) -> Sweep:
        """This sweep with these variants alone, each with its grid."""
        kept = self.model_copy(update={"variants": {n: of for n, of in self.variants.items() if n in names}})
        kept.__dict__.pop("cells", None)
        return kept

    def tuning_phase(self) -> Sweep:
        """The tuning phase of ``tuning`` as a sweep: the same variants on other classes, with other seeds.

        Raises:
            DeclarationError: a setting of it is not accepted.
        """
        assert self.tuning is not None
        return self._phase("tuning", self.tuning.benchmark, self.tuning.seeds)

    def choosing_phase(self) -> Sweep:
        """The runs of ``search`` that choose, as a sweep: the same variants and points, with the seeds of ``search``.

        Raises:
            DeclarationError: a setting of it is not accepted.
        """
        assert self.search is not None
        phase = self._phase("search", self.search.benchmark, self.search.seeds)
        phase._name += ", search"  # so that its runs are not taken for those of the result
        return phase

    def _phase(self, key: str, benchmark: Mapping[str, Any], seeds: Sequence[int]) -> Sweep:
        """This sweep with changes that one of its keys declares."""
        phase = self.model_copy(update={"benchmark": merged(self.benchmark, benchmark), "seeds": list(seeds)})
        phase.__dict__.pop("cells", None)
        phase._resolved = {}
        try:
            _ = phase.cells  # so that a wrong setting is an error now
        except DeclarationError as error:
            raise self._wrong([key], f"in the {key} phase: {error}") from None
        return phase

    def limits_of(self, cell: Cell) -> Limits:
        """The time and memory that a trial of this sweep may take, and the places that declare them."""
        hours, memory = cell.resources.hours, cell.resources.memory
        if hours is None and memory is None:
            return NO_LIMITS
        places = (self.place(*self._setting(cell.variant, "resources", key)) for key in ("hours", "memory"))
        return Limits(hours, None if memory is None else bytes_of(memory), *places)

    def distributions(self, variant: str) -> dict[str, Distribution]:
        """The axes of a variant that have distributions."""
        axes = self._axes(variant, self.variants[variant])
        return {axis: values for axis, values in axes.items() if isinstance(values, Distribution)}

    def points(self, variant: str, axes: Mapping[str, list[Any] | Distribution]) -> Iterator[dict[str, Any]]:
        """The points of a variant's axes; the last one varies fastest, and drawn points vary slowest.

        With ``algorithm: optuna`` these are the points before the first suggestion.
        """
        drawn = {axis: values for axis, values in axes.items() if isinstance(values, Distribution)}
        place = ("variants", variant, "grid")
        if drawn and self.search is None:
            axis = next(iter(drawn))
            at = (*place, axis) if axis not in self.grid else ("grid", axis)
            raise self._wrong(at, "a distribution needs a key search, such as search: {samples: 30}")
        samples: list[dict[str, Any]] = [{}]
        if drawn and self.search:
            count = self.search.samples
            if self.search.algorithm == "optuna":
                count = min(count, self.search.startup)
                if listed := next((axis for axis in axes if axis not in drawn), None):
                    at = ("grid", listed) if listed in self.grid else (*place, listed)
                    allowed = f"allowed: {listed}: {{choice: […]}}"
                    raise self._wrong(at, f"with algorithm: optuna, each axis is a distribution; {allowed}")
            try:
                samples = drawn_points(drawn, self.search, variant, count)
            except ValueError as error:
                raise self._wrong(("search", "samples"), f"{variant}: {error}") from None
        listed_values = [[None] if axis in drawn else values for axis, values in axes.items()]
        for sample in samples:
            for values in itertools.product(*listed_values):
                yield {**dict(zip(axes, values, strict=True)), **sample}

    def variant_settings(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each variant with its settings, the axes of the grids crossed in, named ``variant@axis=value``.

        The last axis varies fastest; the sweep's axes stand before the variant's own.
        """
        for name, settings in self.variants.items():
            axes = self._axes(name, settings)
            settings = {key: value for key, value in settings.items() if key != "grid"}
            seen = set()
            for point in self.points(name, axes):
                full = named(name, point)
                if problem := "two points have it" if full in seen else wrong_point_name(full):
                    place = ("variants", name, *(["grid"] if "grid" in self.variants[name] else []))
                    raise self._wrong(place, f"{problem}: the name {shown(full)} of a grid point")
                seen.add(full)
                yield full, at_point(settings, point)

    def _axes(self, variant: str, settings: Mapping[str, Any]) -> dict[str, list[Any] | Distribution]:
        """The axes that a variant is crossed with: the sweep's before its own.

        Raises:
            DeclarationError: an axis is not valid, or two points of the grid have the same name.
        """
        own, at = settings.get("grid", {}), ("variants", variant, "grid")
        if not isinstance(own, dict):
            raise self._wrong(at, "expected axes, such as {lr: [0.1, 0.01]}")
        axes: dict[str, list[Any] | Distribution] = dict(self.grid)
        for axis, choices in own.items():
            if axis in self.grid:
                raise self._wrong((*at, axis), "the sweep's own grid has this axis already")
            axes[axis] = self._values((*at, axis), choices)
        for axis, values in axes.items():
            place = (*at, axis) if axis in own else ("grid", axis)
            if len(axis.split(".")) > MOST_DEPTH:
                raise self._wrong(place, f"an axis has at most {MOST_DEPTH} keys")
            if above := [other for other in axes if axis.startswith(f"{other}.")]:
                raise self._wrong(place, f"the axis {above[0]!r} sets it already; allowed: one axis a setting")
            choices = values if isinstance(values, list) else values.choice or []
            if twice := repeated([alike(choice) for choice in choices]):
                raise self._wrong(place, f"a value stands twice: {shorter(twice[0])}")
            if twice := repeated([str(choice) for choice in choices]):
                raise self._wrong(place, f"two values have one name, {shown(twice[0])}: their points would, too")
        return axes

    def _values(self, at: tuple[Any, ...], declared: Any) -> list[Any] | Distribution:
        """The values of a variant's own axis, or their distribution."""
        if isinstance(declared, dict):
            try:
                return Distribution(**declared)
            except (ValidationError, TypeError) as error:
                if isinstance(error, ValidationError):
                    item = error.errors(include_url=False)[0]
                    message = expected(item)
                    at = (*at, *item["loc"][:1])
                    if item["type"] == "extra_forbidden":
                        message = f"no such distribution; allowed: {', '.join(Distribution.model_fields)}"
                else:
                    message = f"no such distribution; allowed: {', '.join(Distribution.model_fields)}"
                raise self._wrong(at, message) from None
        if not isinstance(declared, list) or not declared:
            raise self._wrong(at, "expected a list of values, or a distribution such as {log_uniform: [0.001, 1]}")
        return declared

    @cached_property
    def cells(self) -> list[Cell]:
        """Every trial, in the order in which a table is read: variant, then task order, then seed.

        Raises:
            DeclarationError: the track does not know a setting, or does not accept its value.
        """
        here = track(self.track)
        if self.precision not in here.PRECISIONS:
            known = one_of(self.precision, here.PRECISIONS)
            raise DeclarationError(f"{self.place('precision')}: {self.precision!r} is not for {self.track}; {known}")
        self._check_keep(here)
        cells: list[Cell] = []
        for name, settings in self.variant_settings():
            if name not in self._resolved:
                self._resolved[name] = self._cells_of(name, dict(settings), here)
            cells += self._resolved[name]
        return cells

    def _check_keep(self, here: Track) -> None:
        for i, what in enumerate(self.keep):
            if what not in here.KEEPS:
                known = one_of(what, here.KEEPS) if here.KEEPS else "leave the key out"
                raise self._wrong(["keep", i], f"{shown(what)} is nothing that trials of {self.track} keep; {known}")
        if twice := repeated(self.keep):
            raise self._wrong(["keep"], f"it stands twice: {twice[0]}")

    def _cells_of(self, name: str, settings: dict[str, Any], here: Track) -> list[Cell]:
        """The trials of a variant.

        Args:
            settings: the variant's; its sections are taken out of them.
            here: the sweep's track.
        """
        shared = {name: getattr(self, name) for name in Trial.model_fields if name in type(self).model_fields}
        for key in ("version", "track", "benchmark", "model"):
            del shared[key]
        resources = self._section(name, "resources", settings, self.resources.model_dump())
        declared = {
            "benchmark": self._section(name, "benchmark", settings, self.benchmark),
            "model": self._section(name, "model", settings, self.model),
            "method": self._method(name, settings),
            "hyperparameters": settings,
            **shared,
            "seeds": self.seeds,
            "task_orders": self.task_orders,
        }
        try:
            resolved = here.resolve(declared)
            share = resources_of(resources)
        except OwnCodeError as error:  # the class is there and is of another kind
            raise self._wrong(("variants", name.split("@")[0]), str(error)) from None
        except SettingError as error:
            section = () if error.section == "hyperparameters" else (error.section,)
            raise self._wrong(self._setting(name, *section, *error.keys), str(error)) from None
        cells = []
        for order in self._orders(name, resolved["benchmark"].get("tasks")):
            for seed in self.seeds:
                trial = Trial(version=self.version, track=self.track, seed=seed, task_order=order, **shared, **resolved)
                cells.append(Cell(name, trial, share, keep=tuple(self.keep)))
        return cells

    def _section(self, name: str, section: str, settings: dict[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
        """The sweep's ``benchmark``, ``model`` or ``resources``, changed by a variant's own.

        Args:
            settings: the variant's; the section is taken out of them.
        """
        over = settings.pop(section, {})
        if not isinstance(over, Mapping):
            raise self._wrong(self._setting(name, section), _no_section(section, over))
        both = merged(base, over)
        if section != "resources" and not isinstance(both.get("name", ""), str):
            problem = f"expected a name (it is {shown(both['name'])})"
            raise self._wrong(self._setting(name, section, "name"), problem)
        if section != "resources" and "name" in both:
            both["name"] = self._found(both["name"], self._setting(name, section, "name"))
        return both

    def _method(self, name: str, settings: dict[str, Any]) -> str:
        """The name of a variant's method, taken out of its settings."""
        method = settings.pop("method", None)
        if method is None:
            raise self._wrong(("variants", name.split("@")[0]), "a variant needs a method")
        if not isinstance(method, str):
            raise self._wrong(self._setting(name, "method"), f"expected the name of a method (it is {shown(method)})")
        return self._found(method, self._setting(name, "method"))

    def _found(self, reference: str, keys: Sequence[Any]) -> str:
        """The name that a trial holds of a method, benchmark or network: of one of clray's own the name as it is, of a
        class of the user's own one that leads to it.

        Args:
            keys: where it is declared.
        """
        if reference.endswith(".py"):
            problem = f"{shown(reference)} names no class; expected FILE.py:CLASS, such as {reference}:Mine"
            raise self._wrong(keys, problem)
        if not own_code.is_reference(reference):
            return reference
        folder = self._source.folder(keys) if self._source else Path()
        try:
            return own_code.declared(reference, folder)
        except OwnCodeError as error:
            raise self._wrong(keys, str(error)) from error

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
        if self.task_orders == "all" and count > MOST_TASKS_OF_ALL:
            problem = f"all: {name} has {count:,} tasks; allowed: at most {MOST_TASKS_OF_ALL}, or {{random: N}}"
            raise self._wrong(["task_orders"], problem)
        orders = self._order_count(count)
        if orders * count > MOST_PLACES:
            problem = f"{orders:,} orders × {count:,} tasks; allowed: at most {MOST_PLACES:,}"
            raise self._wrong(["task_orders"], problem)
        if self.task_orders == "all":
            trials = orders * len(self.seeds) * sum(1 for _ in self.variant_settings())
            if trials > MOST_TRIALS:
                problem = f"all: {count} tasks have {orders:,} orders, and this sweep {trials:,} trials; "
                raise self._wrong(["task_orders"], f"{problem}allowed: at most {MOST_TRIALS:,}")
            every = [list(order) for order in itertools.permutations(range(count))]
            # The benchmark's own order is the first one, and one trial, whichever way it is declared.
            return [None, *every[1:]]
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


def _wrong_name(name: str) -> str | None:
    """The mistake in a variant's name; None without one."""
    if not name.strip():
        return "there are no letters"
    if len(name) > MOST_NAME:
        return f"there are {len(name):,} characters, more than {MOST_NAME},"
    odd = next((character for character in name if character in "/@" or not character.isprintable()), None)
    if odd is None:
        return None
    why = ", which makes the names of grid points," if odd == "@" else ""
    return f"the character {shown(odd)} is not allowed{why}"
