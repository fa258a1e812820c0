"""Reference runs: the finished trials of a reproduction that ship with clray, so that its table needs no computing.

``reproduce/records/NAME.parquet`` holds the records of the reproduction NAME, a row a trial: what a store has in one
file each (``clray.record``), without the names of machines and processes. ``clray records add`` packs them, ``clray
table`` and ``report`` show them, and ``clray verify`` runs some of them again.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from clray.arrow import as_numpy, integers, texts
from clray.atomic import write_atomically
from clray.data_sets import data_sets
from clray.errors import DeclarationError
from clray.loading import declared_root
from clray.metrics import Measurement
from clray.record import Record, measured_columns
from clray.store import Store
from clray.sweep import Sweep
from clray.trial import Trial

FORMAT = 1
_METADATA = b"clray reference runs"
_PRIVATE = frozenset({"host", "pid", "boot", "process", "launch", "executions", "system", "missing_artifacts"})
"""Keys of provenance that name a machine or a process; they are left out wherever they stand. So is ``system``,
the version of the kernel, and ``missing_artifacts``, which names files of a store."""


def path_of(name: str) -> Path:
    """The file with the reference runs of a reproduction; it need not exist."""
    return declared_root() / "reproduce" / "records" / f"{name}.parquet"


def names() -> list[str]:
    """The reproductions that have reference runs."""
    return sorted(path.stem for path in path_of("any").parent.glob("*.parquet"))


def read(name: str, declarations: Collection[str] | None = None, measurements: bool = True) -> list[Record]:
    """The reference runs of a reproduction in the order of their ids; none where it has no file.

    Args:
        name: the reproduction.
        declarations: the trials whose runs are asked for; all by default.
        measurements: False leaves the measurements out, which takes most of the time.

    Raises:
        DeclarationError: the file cannot be read, or holds something else.
    """
    path = path_of(name)
    if not path.exists():
        return []
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(path.read_bytes()))
        found = (file.schema_arrow.metadata or {}).get(_METADATA)
        if found != str(FORMAT).encode():
            raise ValueError(f"its format is {found!r:.50}, this clray reads {FORMAT}")
        if missing := {*_TEXTS, "measurements"} - set(file.schema_arrow.names):
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
        return _records(file, declarations, measurements)
    except (
        pa.ArrowException,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DeclarationError(f"{path}: not a file of reference runs: {reason}; install clray again") from None


def of(declarations: Collection[str]) -> list[Record]:
    """The reference runs of these trials, whichever reproductions they ship with; each once.

    Raises:
        DeclarationError: a file of reference runs cannot be read.
    """
    return list({record.id: record for name in names() for record in read(name, declarations)}.values())


def with_id(trial: str) -> Record | None:
    """The reference run of a trial, by its id; None where there is none."""
    return next((record for name in names() for record in read(name) if record.id == trial), None)


def count(name: str) -> int:
    """The number of reference runs of a reproduction, from the end of its file alone; 0 where that cannot be read."""
    path = path_of(name)
    if not path.exists():
        return 0
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path).num_rows
    except (pa.ArrowException, OSError):
        return 0


def _records(file: Any, declarations: Collection[str] | None, measurements: bool) -> list[Record]:
    records, rows = [], []
    for i, row in enumerate(file.read(columns=list(_TEXTS), use_threads=False).to_pylist()):
        trial = Trial(**json.loads(row.pop("trial")))
        if declarations is not None and trial.declaration not in declarations:
            continue
        data, provenance = (json.loads(row.pop(key)) for key in ("data", "provenance"))
        if trial.id(data["fingerprint"]) != row["id"]:
            raise ValueError(f"the id of {row['id']} is not that of its declaration and data")
        records.append(Record(trial=trial, data=data, provenance=provenance, measurements=[], **row))
        rows.append(i)
    if measurements and rows:
        for record, measured in zip(records, _measured(file, rows), strict=True):
            record.measurements.extend(measured)
    return records


def _measured(file: Any, rows: list[int]) -> Iterator[Iterator[Measurement]]:
    """The measurements of these rows."""
    whole = file.read(columns=["measurements"], use_threads=False).column(0)
    measured = whole.take(integers(rows)).combine_chunks()
    columns = measured_columns(measured.flatten().field)
    ends = np.cumsum(as_numpy(measured.value_lengths())).tolist()
    for start, end in zip([0, *ends], ends, strict=False):
        yield map(Measurement._make, zip(*(column[start:end] for column in columns), strict=True))


def write(name: str, records: Sequence[Record]) -> Path:
    """Write the reference runs of a reproduction; the file is replaced as a whole. Returns its path.

    Raises:
        DeclarationError: the file cannot be written.
        StateError: a record holds something that no trial may produce.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    ordered = sorted(records, key=lambda record: record.id)
    for record in ordered:
        record.check()
    kinds = (pa.int64(), pa.int64(), pa.int64(), pa.string(), pa.float64())
    measurement = pa.struct(list(zip(Measurement._fields, kinds, strict=True)))
    measured = [[m._asdict() for m in record.measurements] for record in ordered]
    described = [_texts_of(record) for record in ordered]
    columns = {key: texts([of[key] for of in described]) for key in _TEXTS}
    table = pa.table({**columns, "measurements": pa.array(measured, pa.list_(measurement))})
    table = table.replace_schema_metadata({_METADATA: str(FORMAT).encode()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", compression_level=19)
    path = path_of(name)
    try:
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise DeclarationError(f"{path}: cannot be written: {error.strerror or error}") from None
    return path


_TEXTS = ("id", "status", "variant", "sweep", "trial", "data", "provenance")
"""The columns of texts; the last three are JSON."""


def _texts_of(record: Record) -> dict[str, str]:
    facts = {
        "trial": record.trial.model_dump(mode="json"),
        "data": record.data,
        "provenance": _without_private(record.provenance),
    }
    labels = {"id": record.id, "status": record.status, "variant": record.variant, "sweep": record.sweep}
    return labels | {key: json.dumps(value, sort_keys=True) for key, value in facts.items()}


def _without_private(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_private(inner) for key, inner in value.items() if key not in _PRIVATE}
    return [_without_private(inner) for inner in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Collected:
    """The records of a store that may become reference runs, and the reasons against the others."""

    records: list[Record]
    refused: list[str] = field(default_factory=list)


def collect(
    sweeps: Mapping[str, Sweep], store: Store, is_current: Callable[[Record], bool], kept: Sequence[Record] = ()
) -> Collected:
    """Find the finished trials of some sweeps in a store; records of other sweeps are passed over.

    Refused are files that cannot be read, records that other code made than the code here, records on a part of the
    data or on embedded data, and records on another data set than the other records of their sweep. Each sweep may
    have a data set of its own.

    Args:
        is_current: tells if the code here made a record, or code that is known to give the same numbers.
        kept: the reference runs that are there already; new ones of their sweep must be on their data set.
    """
    found, problems = store.records()
    refused = [str(problem).replace(": skipped: ", ": ") for problem in problems]
    names = {c.trial.declaration: (sweep, c.variant) for sweep, of in sweeps.items() for c in of.cells}
    asked = [record for record in found if record.trial.declaration in names]
    best: dict[str, set[str]] = {}
    reasons: dict[str, str] = {}
    for sweep in sweeps:
        old, new = (
            [record for record in of if names.get(record.trial.declaration, ("",))[0] == sweep] for of in (kept, asked)
        )
        sets = data_sets([*old, *new])
        taken = {record.data["fingerprint"] for record in old}
        chosen = next((data for data in sets if taken & set(data.fingerprints)), sets[0] if sets else None)
        best[sweep] = set(chosen.fingerprints) if chosen else set()
        reasons |= {f: "; ".join(data.not_comparable_because) for data in sets for f in data.fingerprints}
    records = []
    for record in asked:
        sweep, variant = names[record.trial.declaration]
        fingerprint = record.data["fingerprint"]
        if record.status == "running":
            against = "not finished"
        elif reason := reasons[fingerprint]:
            against = f"made on {record.data['source']} data: {reason}"
        elif fingerprint not in best[sweep]:
            against = f"made on another data set ({record.data['source']}, {fingerprint}) than most of these trials"
        elif not is_current(record):
            against = "stale: other code made it than the code here"
        else:
            records.append(replace(record, sweep=sweep, variant=variant))
            continue
        refused.append(f"{variant} seed {record.trial.seed} ({record.id}): {against}")
    return Collected(records, refused)
