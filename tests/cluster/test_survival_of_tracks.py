"""Trials of all other training loops survive killed workers with the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
from held import Meeting
from launching import EPISODES, LANGUAGE, TASKS, survive_killed_workers

from clray.loading import load_sweep
from clray.record import Record
from clray.store import Store
from clray.tracks import track
from clray.training import run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("declared", [TASKS, EPISODES, LANGUAGE], ids=["task by task", "episodes", "language"])
def test_killed_workers_are_started_again_and_go_on(
    declared: str, meet: Meeting, ray_tmpdir: Path, tmp_path: Path
) -> None:
    """With the numbers of the same trial in a plain process, where nothing of Ray or the store is."""
    sweep, store = tmp_path / "sweep.yaml", Store(tmp_path / "results")
    sweep.write_text(declared)
    survive_killed_workers(sweep, store, meet, ray_tmpdir)
    for cell in load_sweep(sweep).cells:
        side = track(cell.trial.track)
        data = side.data(cell.trial, fetch=False)
        alone = run(side.train(cell.trial, data, "cpu"))
        record = store.read(cell.trial.id(data["fingerprint"]))
        assert isinstance(record, Record)
        assert record.measurements == alone, cell.variant
