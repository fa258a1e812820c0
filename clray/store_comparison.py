"""Compares two results stores trial by trial: what each of them lacks, and where the measurements of a trial differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clray.equal_code import is_equal
from clray.metrics import Measurement
from clray.record import Record, bits
from clray.reproduction import Tolerance
from clray.store import Problem
from clray.verification import Agreement, agreement, compare, size_of


@dataclass(frozen=True)
class Change:
    """A measurement that differs between two runs of a trial.

    Attributes:
        measured: the measurement of the first run; of the second one where the first lacks it.
        one, other: the two values; None where a run lacks the measurement.
        size: see ``clray.verification.Difference``.
    """

    measured: Measurement
    one: float | None
    other: float | None
    size: float

    def words(self, names: tuple[str, str]) -> str:
        """The change for a line of text.

        Args:
            names: of the two runs.
        """
        m = self.measured
        place = f"{m.metric} on task {m.eval_task + 1} after {m.trained_tasks} tasks, {m.step} examples"
        if self.one is None or self.other is None:
            return f"{place}, only in {names[self.one is None]}"
        return f"{place}: {self.one:.6g} in {names[0]}, {self.other:.6g} in {names[1]}, {self.size:.4g} points apart"

    def to_json(self) -> dict[str, Any]:
        """The change as plain data; a value or a size that is no finite number is a text, which JSON has."""
        m = self.measured
        place = {"metric": m.metric, "eval_task": m.eval_task, "trained_tasks": m.trained_tasks, "step": m.step}
        return place | {"a": _plain(self.one), "b": _plain(self.other), "points": _plain(self.size)}


def _plain(value: float | None) -> Any:
    return value if value is None or value - value == 0 else str(value)


@dataclass(frozen=True)
class Compared:
    """Two records of one trial, compared.

    Attributes:
        id, variant, sweep, seed, task_order: of the trial; the labels are those of the first record.
        agreement: of all measurements.
        changed: the number of measurements whose bits differ, or that only one of the runs has.
        measurements: the number of measurements of both runs together.
        first: the earliest of the changes, by the number of examples learned.
        largest: the largest of the changes.
        statuses: the two statuses, where they differ.
        made_by: what made the two records, as far as it differs: by name, the two values.
    """

    id: str
    variant: str
    sweep: str
    seed: int
    task_order: list[int] | None
    agreement: Agreement
    changed: int
    measurements: int
    first: Change | None = None
    largest: Change | None = None
    statuses: tuple[str, str] | None = None
    made_by: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For a line of text."""
        order = "" if self.task_order is None else f" order {'-'.join(map(str, self.task_order))}"
        return f"{self.variant} seed {self.seed}{order}"

    def words(self, names: tuple[str, str] = ("A", "B")) -> str:
        """The agreement, the changes, and what made the two records, as one line.

        Args:
            names: of the two runs.
        """
        parts: list[str] = [self.agreement]
        if self.statuses:
            parts.append(f"{self.statuses[0]} in {names[0]} and {self.statuses[1]} in {names[1]}")
        if self.changed:
            parts.append(f"{self.changed} of {self.measurements} measurements")
        elif self.agreement != "same bits" and not self.statuses:
            parts.append("the same measurements in another order, or some of them twice")
        if self.largest:
            parts.append(f"the largest difference: {self.largest.words(names)}")
        if self.first and self.largest and self.first.measured != self.largest.measured:
            parts.append(f"the first: {self.first.words(names)}")
        if self.made_by:
            parts.append("made by " + ", ".join(f"{what} {a} and {b}" for what, (a, b) in self.made_by.items()))
        return "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "sweep": self.sweep,
            "variant": self.variant,
            "seed": self.seed,
            "task_order": self.task_order,
            "agreement": self.agreement,
            "changed": self.changed,
            "measurements": self.measurements,
            "first": self.first and self.first.to_json(),
            "largest": self.largest and self.largest.to_json(),
            "statuses": self.statuses,
            "made_by": self.made_by,
        }


def compared(one: Record, other: Record, tolerance: Tolerance | None = None) -> Compared:
    """Compare two records of one trial.

    Args:
        tolerance: without it only the same bits agree.
    """
    changes = _changes(one.measurements, other.measurements)
    statuses = None if one.status == other.status else (one.status, other.status)
    judged = agreement(compare(one.measurements, other.measurements, tolerance), tolerance)
    return Compared(
        id=one.id,
        variant=one.variant,
        sweep=one.sweep,
        seed=one.trial.seed,
        task_order=one.trial.task_order,
        agreement="different" if statuses else judged,
        changed=len(changes),
        measurements=len({_place(m) for m in (*one.measurements, *other.measurements)}),
        first=min(changes, key=lambda c: (c.measured.step, c.measured.trained_tasks), default=None),
        largest=max(changes, key=lambda c: c.size, default=None),
        statuses=statuses,
        made_by=_made_by(one.provenance, other.provenance),
    )


def _place(measured: Measurement) -> tuple[Any, ...]:
    return tuple(measured[:-1])


def _changes(one: Sequence[Measurement], other: Sequence[Measurement]) -> list[Change]:
    """The measurements whose bits differ, and those that only one of the runs has, in the order of the first run."""
    if bits(one) == bits(other):
        return []
    here, there = ({_place(m): m for m in measured} for measured in (one, other))
    found = []
    for place in {**here, **there}:
        a, b = here.get(place), there.get(place)
        if a is None or b is None:
            lacking = a or b
            assert lacking is not None
            found.append(Change(lacking, a and a.value, b and b.value, float("inf")))
        elif bits([a]) != bits([b]):
            found.append(Change(a, a.value, b.value, size_of(a.value, b.value)))
    return found


def _made_by(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Name what made two records, as far as it differs. Code that is known to give the same bits counts as the same."""
    found: dict[str, tuple[str, str]] = {}

    def look(name: str, a: Any, b: Any) -> None:
        if a != b:
            found[name] = (str(a or "unknown"), str(b or "unknown"))

    if not is_equal(one.get("code"), other.get("code")):
        look("code", one.get("code"), other.get("code"))
    for name in ("clray", "python", "engine", "device"):
        look(name, one.get(name), other.get(name))
    packages = [facts.get("packages") or {} for facts in (one, other)]
    if all(isinstance(versions, Mapping) for versions in packages):
        for name in sorted(packages[0].keys() | packages[1].keys()):
            look(name, *(versions.get(name) for versions in packages))
    machines = [facts.get("machine") or {} for facts in (one, other)]
    for name in ("processor", "gpu"):
        look(name, *(machine.get(name) for machine in machines))
    return found


@dataclass(frozen=True)
class StoresCompared:
    """Two stores, compared.

    Attributes:
        only_a, only_b: the finished trials that only one of them has.
        both: the finished trials that both have, in the order of sweep, variant and seed.
        problems: files that cannot be read, of both stores.
    """

    only_a: list[Record]
    only_b: list[Record]
    both: list[Compared]
    problems: list[Problem]

    @property
    def different(self) -> list[Compared]:
        return [one for one in self.both if one.agreement == "different"]

    def count(self, agreement: Agreement) -> int:
        """The number of trials that agree in this way."""
        return sum(one.agreement == agreement for one in self.both)


def compare_stores(
    a: tuple[Sequence[Record], Sequence[Problem]],
    b: tuple[Sequence[Record], Sequence[Problem]],
    tolerance_of: Callable[[Record], Tolerance | None],
    wanted: Callable[[Record], bool] = lambda record: True,
) -> StoresCompared:
    """Compare the finished trials of two stores.

    Args:
        a, b: what ``Store.records`` returns.
        tolerance_of: the tolerance for a trial; None where only the same bits agree.
        wanted: trials that it refuses are passed over.
    """
    here, there = ({record.id: record for record in records if wanted(record)} for records, _ in (a, b))

    def ordered(ids: set[str], records: Mapping[str, Record]) -> list[Record]:
        def key(record: Record) -> Any:
            return record.sweep, record.variant, record.trial.seed, record.id

        return sorted((records[one] for one in ids), key=key)

    return StoresCompared(
        only_a=ordered(here.keys() - there.keys(), here),
        only_b=ordered(there.keys() - here.keys(), there),
        both=[compared(r, there[r.id], tolerance_of(r)) for r in ordered(here.keys() & there.keys(), here)],
        problems=[*a[1], *b[1]],
    )
