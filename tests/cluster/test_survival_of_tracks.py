"""Trials of all training loops survive killed workers with the same bits: Tune starts other workers for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from held import Meeting
from launching import EPISODES, LANGUAGE, SHORT, TASKS, survive_killed_workers

from clray.loading import load_sweep
from clray.record import Record
from clray.store import Store
from clray.tracks import track
from clray.training import run

pytestmark = pytest.mark.slow


def test_killed_workers_are_started_again_and_go_on(
    kernels: None, meet: Meeting, ray_tmpdir: Path, tmp_path: Path
) -> None:
    """With the numbers of the same trials in a plain process, where nothing of Ray or the store is."""
    sweeps, store = tmp_path / "sweeps", Store(tmp_path / "results")
    sweeps.mkdir()
    one_seed = SHORT.replace("seeds: [0, 1]", "seeds: [0]")
    for name, declared in (("stream", one_seed), ("tasks", TASKS), ("episodes", EPISODES), ("language", LANGUAGE)):
        (sweeps / f"{name}.yaml").write_text(f"{declared}resources: {{cpu: 0.33}}\n")  # all six on two cores at once
    survive_killed_workers(sweeps, store, meet, ray_tmpdir)
    cells = [cell for file in sweeps.iterdir() for cell in load_sweep(file).cells]
    assert len(cells) == 6
    for cell in cells:
        side = track(cell.trial.track)
        data = side.data(cell.trial, fetch=False)
        alone = run(side.train(cell.trial, data, "cpu"))
        record = store.read(cell.trial.id(data["fingerprint"]))
        assert isinstance(record, Record)
        assert record.measurements == alone, cell.variant
