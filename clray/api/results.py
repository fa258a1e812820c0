"""The trials of a results store, or the reference runs that ship with clray, as an object to select from."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Never

from clray.api.arguments import Names, Place, Seeds, metrics_of, names, opened, seeds_of, uri
from clray.documents import one_of, shorter
from clray.errors import DeclarationError
from clray.metrics import METRICS
from clray.output import counted
from clray.record import Record

if TYPE_CHECKING:
    import pandas

    from clray.store import Problem

STATUSES = ("finished", "diverged", "running")
SOURCES = ("own", "reference")
UNITS = "metrics: per cent (points for differences such as BTI); seconds: wall time"
"""The units of ``Results.to_pandas``, which its frame keeps in ``attrs["units"]``."""
MEASURED = "value: as measured, a fraction (0 to 1) where the metric is a rate; step: training examples seen"
"""The units of ``Results.measurements``."""


@dataclass(frozen=True)
class Results:
    """Trials with all that was measured: ``clray.load`` and ``clray.run`` return them.

    Iteration gives their records, ``len()`` their number, and ``+`` joins two of them; of a trial that both have, the
    first one's record is taken.

    Attributes:
        records: the record of each trial (``clray.record.Record``), by sweep, variant, seed and task order.
        problems: the files of the store that could not be used, each with the reason.
        metrics: the metrics that ``to_pandas`` shows; None for all that were measured.
        reference: the ids of the trials that ship with clray.
    """

    records: tuple[Record, ...] = ()
    problems: tuple[Problem, ...] = ()
    metrics: tuple[str, ...] | None = None
    reference: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __add__(self, other: Results) -> Results:
        if not isinstance(other, Results):
            return NotImplemented
        known = {record.id for record in self.records}
        new = [record for record in other.records if record.id not in known]
        return replace(
            self,
            records=_in_order([*self.records, *new]),
            problems=(*self.problems, *other.problems),
            reference=self.reference | (other.reference - known),
        )

    def __repr__(self) -> str:
        """One line: how many trials of which sweeps, and what could not be read."""
        counts = Counter(record.sweep for record in self.records)
        words = ", ".join(f"{count} of {sweep or 'no sweep'}" for sweep, count in counts.items())
        shipped = sum(record.id in self.reference for record in self.records)
        more = f"; {shipped} ship with clray" if shipped else ""
        more += f"; {len(self.problems)} files could not be used (.problems)" if self.problems else ""
        return f"<{counted(len(self), 'trial')}{f': {words}' if words else ''}{more}>"

    def _repr_html_(self) -> str | None:
        """The frame of ``to_pandas`` in a notebook; None, which shows the line of ``repr``, where pandas is missing."""
        from clray.api.frames import PandasMissing

        try:
            return self.to_pandas()._repr_html_()
        except PandasMissing:
            return None

    # -- selecting ---------------------------------------------------------------------------------------------

    def select(
        self,
        *,
        variant: Names | None = None,
        metric: Names | None = None,
        method: Names | None = None,
        seed: Seeds | None = None,
        sweep: Names | None = None,
        track: Names | None = None,
        benchmark: Names | None = None,
        status: Names | None = None,
        source: Names | None = None,
        id: Names | None = None,  # noqa: A002
        **unknown: Never,
    ) -> Results:
        """The trials that fit every key that is given; each takes one value or several.

        Args:
            variant: the variant's name in its sweep; a name of a variant with a grid takes all its points.
            metric: published metrics, such as ``ACC``: the columns of ``to_pandas``. It leaves out no trial.
            method: the method's name.
            seed: the trial's seed.
            sweep: the name of the sweep, such as ``mer/rotations``.
            track: ``vision``, ``episodes`` or ``language``.
            benchmark: the benchmark's name.
            status: ``finished``, ``diverged`` or ``running``.
            source: ``own`` or ``reference``.
            id: the trial's id.

        Raises:
            DeclarationError: there is no such key, no such metric, or no trial here has such a name. A seed, a
                status or a source that none has is no error: the result is empty.
        """
        if unknown:
            key = next(iter(unknown))
            raise DeclarationError(f"select({shorter(key)}=…): no such key; {one_of(key, KEYS)}")
        asked: dict[str, Collection[Any]] = {
            "variant": names(variant, "variant"), "method": names(method, "method"), "sweep": names(sweep, "sweep"),
            "track": names(track, "track"), "benchmark": names(benchmark, "benchmark"), "id": names(id, "id"),
            "status": _among(status, "status", STATUSES), "source": _among(source, "source", SOURCES),
            "seed": seeds_of(seed),
        }  # fmt: skip
        given = {"variant": variant, "method": method, "sweep": sweep, "track": track, "benchmark": benchmark,
                 "id": id, "status": status, "source": source, "seed": seed}  # fmt: skip
        kept = list(self.records)
        for key, values in asked.items():
            if given[key] is not None:
                self._require_known(key, values)
                kept = [record for record in kept if self._fits(record, key, values)]
        shown = self.metrics if metric is None else tuple(metrics_of(metric, "metric="))
        return replace(self, records=tuple(kept), metrics=shown)

    def _value(self, record: Record, key: str) -> Any:
        if key == "source":
            return "reference" if record.id in self.reference else "own"
        return _VALUES[key](record)

    def _fits(self, record: Record, key: str, values: Collection[Any]) -> bool:
        value = self._value(record, key)
        return value in values or (key == "variant" and "@" in value and value.partition("@")[0] in values)

    def _require_known(self, key: str, values: Collection[Any]) -> None:
        """Refuse a name that no trial here has: it is most likely a typing error."""
        if key in ("seed", "status", "source"):
            return
        there = list(dict.fromkeys(self._value(record, key) for record in self.records))
        for value in values:
            if not any(self._fits(record, key, (value,)) for record in self.records):
                known = one_of(value, there) if there else "there is no trial in these results"
                raise DeclarationError(f"select({key}={shorter(repr(value))}): no trial here has it; {known}")

    # -- data frames -------------------------------------------------------------------------------------------

    def to_pandas(self) -> pandas.DataFrame:
        """A row for each trial.

        The columns are ``id``, ``track``, ``sweep``, ``variant``, ``method``, ``benchmark``, ``seed``, ``task_order``
        (``identity`` where the tasks come in the benchmark's own order, else ``2-0-1``), ``data`` (the data set's name)
        and ``data_source`` (``embedded`` for the digits that replace MNIST); then each published metric, in per cent as
        in every table of clray, NaN where it was not measured or the trial diverged; then ``status``, ``seconds`` of
        wall time, ``fresh`` (False where other code made the record than the code here; missing where the code is not
        here, as that of a method of your own is before its sweep was loaded) and ``source`` (``own`` or
        ``reference``).

        Raises:
            PandasMissing: pandas is not installed.
        """
        from clray.api.frames import frame, load_pandas
        from clray.provenance import freshness

        load_pandas()  # the error comes before the work
        computed = [record.metrics for record in self.records]
        shown = self.metrics or [name for name in METRICS if any(name in values for values in computed)]
        columns: dict[str, Sequence[Any]] = {key: [value(r) for r in self.records] for key, value in _COLUMNS.items()}
        for name in shown:
            columns[name] = [_per_cent(values.get(name)) for values in computed]
        columns["status"] = [record.status for record in self.records]
        columns["seconds"] = [float(record.provenance.get("seconds", "nan")) for record in self.records]
        columns["fresh"] = [freshness(record) for record in self.records]
        columns["source"] = [self._value(record, "source") for record in self.records]
        types = {"seed": "int64", "fresh": "boolean", "seconds": "float64"} | dict.fromkeys(shown, "float64")
        return frame(columns, types, units=UNITS)

    def measurements(self, name: Names | None = None) -> pandas.DataFrame:
        """A row for each number that was measured during the trials: the long form, for curves and matrices.

        The columns are ``id``, ``sweep``, ``variant``, ``method``, ``seed``, ``task_order``; ``step``: training
        examples seen (episodes on their track); ``trained_tasks``: the tasks whose training has begun, 0 before any;
        ``eval_task``: the task it was measured on, from 0 (the class, on streams whose tasks share classes);
        ``metric``: its name, such as ``accuracy``; and ``value``, as measured: a fraction where it is a rate.

        Args:
            name: only the measurements of this name or these names, such as ``accuracy``; these are not the published
                metrics, which are computed from them.

        Raises:
            DeclarationError: nothing of that name was measured.
            PandasMissing: pandas is not installed.
        """
        from clray.api.frames import frame, load_pandas

        load_pandas()
        wanted = names(name, "name")
        there = sorted({m.metric for record in self.records for m in record.measurements})
        for one in wanted:
            if one not in there:
                raise DeclarationError(
                    f"measurements({one!r}): nothing of that name was measured; {one_of(one, there)}"
                )
        rows = [(r, m) for r in self.records for m in r.measurements if not wanted or m.metric in wanted]
        keys = ("id", "sweep", "variant", "method", "seed", "task_order")
        columns: dict[str, Sequence[Any]] = {key: [_COLUMNS[key](record) for record, _ in rows] for key in keys}
        for field in ("step", "trained_tasks", "eval_task", "metric", "value"):
            columns[field] = [getattr(measured, field) for _, measured in rows]
        whole = dict.fromkeys(("seed", "step", "trained_tasks", "eval_task"), "int64")
        return frame(columns, {**whole, "value": "float64"}, units=MEASURED)


def load(results: Place | None = None, *, reference: Names | None = None, running: bool = False) -> Results:
    """The trials of a results store, or the reference runs that ship with clray.

    ``load("results")`` reads a store, ``load(reference="mer_rotations")`` the runs that ship with a reproduction, and
    ``load("results") + load(reference="mer_rotations")`` has both.

    Args:
        results: a folder or a URI (``s3://…``, ``gs://…``); ``results`` where neither argument is given.
        reference: one reproduction or several.
        running: trials in progress, too: with what they have measured so far.

    Raises:
        DeclarationError: no reference runs of that name ship with clray, or an argument is wrong.
        StoreError: the store cannot be read, or there is no such folder.

    Warns:
        UserWarning: some files of the store cannot be used; ``Results.problems`` names them.
    """
    if reference is not None:
        if results is not None or running:
            other = "results" if results is not None else "running"
            raise DeclarationError(f"load({other}=…, reference=…): takes one of them; + joins two results")
        return _shipped(names(reference, "reference"))
    return _of_store("results" if results is None else results, running)


def _shipped(asked: Sequence[str]) -> Results:
    from clray import reference_runs

    with_some = reference_runs.names()
    for name in asked:
        if name not in with_some:
            raise DeclarationError(
                f"reference={name!r}: no reference runs of this ship with clray; {one_of(name, with_some)}"
            )
    found = {record.id: record for name in asked for record in reference_runs.read(name)}
    return Results(_in_order(list(found.values())), reference=frozenset(found))


def _of_store(results: Place, running: bool) -> Results:
    from clray.errors import StoreError
    from clray.output import redacted

    store = opened(results)
    if "://" not in uri(results) and not os.path.isdir(store.path()):
        raise StoreError(f"{uri(results)}: there is no such folder; the first trial that finishes makes a store")
    records, problems = store.records()
    if running:
        begun, more = store.records("running")
        finished = {record.id for record in records}
        records += [record for record in begun if record.id not in finished]
        problems += more
    if problems:
        more_words = f", and {len(problems) - 1} more files" if len(problems) > 1 else ""
        warnings.warn(f"{redacted(str(problems[0]))}{more_words}; see .problems of the results", stacklevel=3)
    return Results(_in_order(records), tuple(problems))


def _in_order(records: Sequence[Record]) -> tuple[Record, ...]:
    def place(record: Record) -> tuple[Any, ...]:
        return record.sweep, record.variant, record.trial.seed, record.trial.task_order or [], record.id

    return tuple(sorted(records, key=place))


def _order(record: Record) -> str:
    order = record.trial.task_order
    return "identity" if order is None else "-".join(map(str, order))


def _per_cent(fraction: float | None) -> float:
    """Rounded as in tables (``clray.analysis.runs.run_of``)."""
    return float("nan") if fraction is None else round(100 * fraction, 6) + 0.0


def _among(asked: Names | None, argument: str, allowed: Sequence[str]) -> tuple[str, ...]:
    found = names(asked, argument)
    for name in found:
        if name not in allowed:
            raise DeclarationError(f"select({argument}={shorter(repr(name))}): {one_of(name, allowed)}")
    return found


_COLUMNS: Mapping[str, Callable[[Record], Any]] = {
    "id": lambda record: record.id,
    "track": lambda record: record.trial.track,
    "sweep": lambda record: record.sweep,
    "variant": lambda record: record.variant,
    "method": lambda record: record.trial.method,
    "benchmark": lambda record: str(record.trial.benchmark.get("name", "")),
    "seed": lambda record: record.trial.seed,
    "task_order": _order,
    "data": lambda record: str(record.data.get("name", "")),
    "data_source": lambda record: str(record.data.get("source", "")),
}
"""The first columns of ``Results.to_pandas``."""
_VALUES: Mapping[str, Callable[[Record], Any]] = {**_COLUMNS, "status": lambda record: record.status}
KEYS = ("variant", "metric", "method", "seed", "sweep", "track", "benchmark", "status", "source", "id")
"""The keys of ``Results.select``."""
