"""A trial's record and its Parquet table: each measurement is a row, everything else is in the table's metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clray import stored
from clray.arrow import as_numpy, as_texts, floats, integers, repeated
from clray.errors import StateError
from clray.metrics import Measurement, summarize
from clray.tracks import TRACKS
from clray.trial import Trial

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
_METADATA = b"clray"


def bits(measurements: Sequence[Measurement]) -> list[tuple[object, ...]]:
    """Measurements in a form that is equal only for the same bits: NaN equals NaN, and 0.0 does not equal -0.0."""
    return [(*measured[:-1], float(measured.value).hex()) for measured in measurements]


def measured_columns(column: Callable[[str], pa.Array | pa.ChunkedArray]) -> list[list[Any]]:
    """The columns of measurements, in the order of their fields. ``column`` gives each by its name.

    Through NumPy, which is ten times as fast as Arrow's own lists, with the same values.
    """
    found = {name: as_numpy(column(name)).tolist() for name in Measurement._fields if name != "metric"}
    numbers, names = as_texts(column("metric"))
    found["metric"] = [names[i] for i in numbers.tolist()]
    return [found[name] for name in Measurement._fields]


@dataclass
class Record:
    """A trial's measurements, and all that is known about their origin.

    Attributes:
        id: the trial's id, ``trial.id(data["fingerprint"])``.
        trial: the declaration that was run.
        data: the data set that it read: ``name``, ``source`` and ``fingerprint``.
        measurements: the long table that every published number is computed from.
        provenance: code, versions, machine and seconds (``clray.provenance``).
        status: ``finished``, ``running`` or ``diverged``: its loss or weights were not finite any more, so that it
            ended there; ``provenance["diverged"]`` holds the ``step``, the ``task`` (from 0) and ``what`` was not
            finite.
        variant: the name of its variant in the sweep that ran it first. A label: never part of the id.
        sweep: the name of that sweep. A label too.
    """

    id: str
    trial: Trial
    data: dict[str, Any]
    measurements: list[Measurement]
    provenance: dict[str, Any] = field(default_factory=dict)
    status: str = "finished"
    variant: str = ""
    sweep: str = ""

    @property
    def sharing(self) -> int | None:
        """The number of tasks where they share classes, so that classes were measured; None elsewhere."""
        return stored.sharing_tasks(self.trial.benchmark)

    @property
    def metrics(self) -> dict[str, float]:
        """The published metrics, as fractions. A trial that diverged has none: it has not learned all its tasks."""
        return {} if self.status == "diverged" else summarize(self.measurements, self.sharing)

    @property
    def undisturbed_seconds(self) -> float | None:
        """The seconds that the trial takes where no other program uses its cores; None where the record tells no time.

        On one core this is its CPU time. On several, or with a GPU, it is the time by the clock, and so it is for
        older records, which lack the CPU time.
        """
        seconds = self.provenance.get("seconds")
        if seconds is None or self.provenance.get("device", "cpu") != "cpu":
            return seconds
        return min(seconds, self.provenance.get("cpu_seconds", seconds))

    def to_table(self) -> pa.Table:
        import pyarrow as pa

        n = len(self.measurements)
        columns: list[Any] = list(zip(*self.measurements, strict=True)) or [()] * len(Measurement._fields)
        metadata = {
            "format": FORMAT,
            "id": self.id,
            "status": self.status,
            "sweep": self.sweep,
            "variant": self.variant,
            "trial": self.trial.model_dump(mode="json"),
            "data": self.data,
            "provenance": self.provenance,
        }
        return pa.table(
            {
                # The first three repeat in every row, so that a folder of records reads as one data set.
                "trial": repeated([self.id] * n),
                "method": repeated([self.trial.method] * n),
                "seed": integers([self.trial.seed] * n),
                "step": integers(columns[0]),
                "trained_tasks": integers(columns[1], 32),
                "eval_task": integers(columns[2], 32),
                "metric": repeated(columns[3]),
                "value": floats(columns[4]),
            }
        ).replace_schema_metadata({_METADATA: json.dumps(metadata).encode()})

    @classmethod
    def from_table(cls, table: pa.Table, expected_id: str, measurements: bool = True) -> Record:
        """Read a record, and check all of it.

        Args:
            expected_id: the trial whose record it should be.
            measurements: return them as well; they are checked in any case.

        Raises:
            ValueError, KeyError, TypeError, RecursionError: the table is no record of that trial.
        """
        raw = (table.schema.metadata or {}).get(_METADATA)
        if raw is None:
            raise ValueError("it carries no clray metadata")
        metadata = json.loads(raw)
        if metadata["format"] != FORMAT:
            raise ValueError(f"its format is {metadata['format']!s:.50}, this clray reads {FORMAT}")
        if metadata["id"] != expected_id:
            raise ValueError(f"it holds the trial {metadata['id']!s:.50}")
        if reason := stored.problem(stored.METADATA, metadata):
            raise ValueError(reason)
        trial = Trial(**metadata["trial"])
        if trial.track not in TRACKS:
            raise ValueError(f"trial.track: {trial.track!r:.50} is no track")
        fingerprint = metadata["data"].get("fingerprint")
        if fingerprint is None:
            raise ValueError("it does not say which data it read")
        if trial.id(fingerprint) != expected_id:
            raise ValueError("its id is not that of its declaration and data")
        finished, tasks = metadata["status"] == "finished", stored.task_count(trial.benchmark)
        if reason := stored.measurement_problem(table, tasks, finished, stored.of_classes(trial.benchmark)):
            raise ValueError(reason)
        columns = measured_columns(table.column) if measurements else []
        return cls(
            id=expected_id,
            trial=trial,
            data=metadata["data"],
            measurements=[Measurement(*row) for row in zip(*columns, strict=True)],
            provenance=metadata["provenance"],
            status=metadata["status"],
            variant=metadata["variant"],
            sweep=metadata["sweep"],
        )

    def check(self) -> None:
        """Check that a reader will accept this record.

        Raises:
            StateError: the record holds something that no trial may produce.
        """
        try:
            Record.from_table(self.to_table(), self.id)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise StateError(f"trial {self.id} came to what no record may hold: {error}") from error
