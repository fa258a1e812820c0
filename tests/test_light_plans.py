"""A plan loads nothing heavy: sweeps are read, checked, priced and named without torch and its kind."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "numba", "ray", "scipy", "pandas")

PLAN = """
import sys
from clray.documents import Document
from clray.loading import find_sweep, load_sweep, sweep_names
from clray.selection import Selection
from clray.tracks import track

name, heavy = sys.argv[1], sys.argv[2:]
track(name).kinds()
sweeps = [sweep for sweep in sweep_names() if Document(find_sweep(sweep)).data["track"] == name]
trials = 0
for sweep in sweeps:
    for cell in load_sweep(sweep, Selection()).cells:
        assert track(name).estimate(cell.trial) > 0
        assert track(name).modules_of(cell.trial)
        trials += 1
print(len(sweeps), trials, *(package for package in heavy if package in sys.modules))
"""


@pytest.mark.parametrize("track", ["episodes", "language"])
def test_every_sweep_of_a_track_is_planned_without_a_heavy_package(track):
    """In a process of its own, as this one has loaded torch for other tests."""
    command = [sys.executable, "-c", PLAN, track, *HEAVY]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    sweeps, trials, *loaded = done.stdout.split()
    assert int(sweeps) > 1
    assert int(trials) > 10
    assert not loaded
