"""Records as the trainers write them, with accuracies that a test chooses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from made_records import REAL, measured, of

from clray.loading import load_sweep
from clray.record import Record
from clray.reproduction import Reproduction, load_reproduction
from clray.selection import Selection
from clray.store import Store
from clray.sweep import Cell, Sweep


@pytest.fixture
def make() -> Callable[..., Record]:
    """A record of a sweep's cell with a chosen LA and RA in per cent."""

    def record(
        cell: Cell, la: float, ra: float, *, data=REAL, code="c0ffee0000000000", host="node-1", **changes
    ) -> Record:
        trial = cell.trial
        return Record(
            id=trial.id(data["fingerprint"]),
            trial=trial,
            data=dict(data),
            measurements=measured(trial.benchmark["tasks"], la, ra),
            provenance={
                "code": code,
                "seconds": 61.5,
                "machine": {"host": host},
                "git": {"commit": "a" * 40, "uncommitted_changes": False},
            },
            variant=cell.variant,
            sweep="mer/rotations",
            **changes,
        )

    return record


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


@pytest.fixture(scope="session")
def rotations() -> Sweep:
    return load_sweep("mer/rotations")


@pytest.fixture(scope="session")
def reproduction() -> Reproduction:
    """MER's rotations as if nobody had read the numbers: verdicts on them carry a dagger."""
    return load_reproduction("mer_rotations").model_copy(update={"known": "recalled"})


@pytest.fixture(scope="session")
def sweeps(reproduction: Reproduction) -> dict[str, Sweep]:
    return reproduction.sweeps(Selection())


@pytest.fixture
def fill(store: Store, make: Callable[..., Record]) -> Callable[..., None]:
    """Write one variant's records: an (LA, RA) pair a seed, None for a seed without a record."""

    def write(sweep: Sweep, variant: str, pairs: list[tuple[float, float] | None], **changes) -> None:
        for cell, pair in zip(of(sweep, variant), pairs, strict=False):
            if pair is not None:
                store.write(make(cell, *pair, **changes))

    return write
