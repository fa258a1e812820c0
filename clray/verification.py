"""Runs trials again and compares every measurement with a reference run's: the same bits, near, or different."""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from clray.errors import ClrayError, DataError
from clray.execution import Execution
from clray.metrics import Measurement
from clray.provenance import code_digest
from clray.record import Record, bits
from clray.reproduction import Tolerance
from clray.store import Store
from clray.tracks import track
from clray.work import Task

Agreement = Literal["same bits", "within tolerance", "different"]


@dataclass(frozen=True)
class Difference:
    """The largest difference between two lists of measurements.

    Attributes:
        size: in per cent points for a fraction, such as an accuracy; else in per cent of the reference's value. 0 means
            that all bits are the same, infinity that a measurement is missing, or only one of the two is finite.
        where: the measurement with this difference, as text; empty where all bits are the same.
        fraction: the measurement is a fraction in both.
    """

    size: float
    where: str
    fraction: bool = field(default=True, compare=False)


@dataclass(frozen=True)
class Verified:
    """The comparison of a trial that was run again with its reference run; ``seconds`` is the time it took here."""

    reference: Record
    agreement: Agreement
    difference: Difference
    seconds: float


def draw(records: Sequence[Record], trials: int, seed: int) -> list[Record]:
    """Draw so many different records at random; all of them, in random order, where there are fewer."""
    ordered = sorted(records, key=lambda record: record.id)
    return random.Random(seed).sample(ordered, min(trials, len(ordered)))


def compare(
    reference: Sequence[Measurement], here: Sequence[Measurement], tolerance: Tolerance | None = None
) -> Difference:
    """Find the largest difference between the measurements of two runs of a trial.

    Args:
        tolerance: then it is the largest one in relation to what is allowed for such a measurement.
    """

    def share(difference: Difference) -> float:
        return difference.size / (tolerance.allowed(difference.fraction) if tolerance else 1.0)

    wanted, found = _by_place(reference), _by_place(here)
    if lacking := [place for place in {**wanted, **found} if place not in wanted or place not in found]:
        return Difference(math.inf, f"{len(lacking)} measurements that only one of the two has, such as {lacking[0]}")
    if bits(reference) == bits(here):
        return Difference(0.0, "")
    largest = Difference(0.0, "")
    for place, value in wanted.items():
        difference = Difference(size_of(value, found[place]), place, _are_fractions(value, found[place]))
        if share(difference) > share(largest) or not largest.where:
            largest = difference
    return largest


def _by_place(measurements: Sequence[Measurement]) -> Mapping[str, float]:
    return {
        f"{m.metric} on task {m.eval_task + 1} after {m.trained_tasks} tasks, {m.step} examples": m.value
        for m in measurements
    }


def size_of(reference: float, here: float) -> float:
    """The size of the difference between two values of a measurement; see ``Difference``."""
    if reference == here or (math.isnan(reference) and math.isnan(here)):
        return 0.0
    if not (math.isfinite(reference) and math.isfinite(here)):
        return math.inf
    return 100 * abs(here - reference) / (1.0 if _are_fractions(reference, here) else max(abs(reference), 1e-12))


def _are_fractions(reference: float, here: float) -> bool:
    return 0 <= reference <= 1 and 0 <= here <= 1


def agreement(difference: Difference, tolerance: Tolerance | None) -> Agreement:
    """Judge a difference; without a declared tolerance only the same bits agree."""
    if not difference.where:
        return "same bits"
    near = tolerance is not None and difference.size <= tolerance.allowed(difference.fraction)
    return "within tolerance" if near else "different"


def verify(
    records: Sequence[Record], tolerance: Tolerance | None, note: Callable[[Record, float], None]
) -> Iterator[Verified]:
    """Run the trials of these records again in this process, one after the other, and compare.

    Args:
        note: is called with the record and the progress, 0 to 1, as a trial goes on.

    Raises:
        DataError: this machine has other data than the reference runs read, or none.
        ClrayError: a trial asks for a GPU, and there is none.
    """
    for record in records:
        data = track(record.trial.track).data(record.trial, True)
        if data["fingerprint"] != record.data["fingerprint"]:
            raise DataError(
                f"{record.variant}: the data {data['name']} here ({data['source']}, {data['fingerprint']}) are other "
                f"than those of the reference runs ({record.data['source']}, {record.data['fingerprint']}); "
                "`clray data list` tells where to get them"
            )
        device = str(record.provenance.get("device", "cpu"))
        if device.startswith("cuda") and not _has_gpu():
            raise ClrayError(f"{record.variant} seed {record.trial.seed}: the reference run is of a GPU; there is none")
        with tempfile.TemporaryDirectory() as folder:
            task = Task(
                record.id, record.variant, record.sweep, record.trial, data, device=device,
                code=code_digest(record.trial),
            )  # fmt: skip
            execution = Execution(task, Store(folder))
            while not execution.done:
                execution.step()
                note(record, execution.progress)
            here = Store(folder).read(record.id)
        assert isinstance(here, Record)
        difference = compare(record.measurements, here.measurements, tolerance)
        if here.status != record.status:
            difference = Difference(math.inf, f"{here.status} here, and {record.status} there")
        yield Verified(record, agreement(difference, tolerance), difference, execution.seconds)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
