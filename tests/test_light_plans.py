"""A plan is cheap: sweeps are read, checked and priced without torch and its kind, and no variant is resolved twice."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from typer.testing import CliRunner
from waiting import GUARD

from clray.cli import app
from clray.loading import load_sweep, sweep_names
from clray.phases import NAME_ENDS
from clray.reproduction import load_reproduction
from clray.tracks import TRACKS, track

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


@pytest.mark.parametrize("name", TRACKS)
def test_every_sweep_of_a_track_is_planned_without_a_heavy_package(name):
    """In a process of its own, as this one has loaded torch for other tests."""
    command = [sys.executable, "-c", PLAN, name, *HEAVY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=GUARD)
    assert not done.returncode, done.stderr
    sweeps, trials, *loaded = done.stdout.split()
    assert int(sweeps) > 1
    assert int(trials) > 10
    assert not loaded


def test_listing_resolves_each_variant_once(tmp_path, monkeypatch):
    """Many variants are shown twice: with their sweep, and with the reproductions that use it.

    A tuning phase has trials of its own.
    """
    resolved: Counter[str] = Counter()

    def counting(resolve):
        def counted(declared):
            resolved[declared["method"]] += 1
            return resolve(declared)

        return counted

    for name in TRACKS:
        monkeypatch.setattr(track(name), "resolve", counting(track(name).resolve))
    monkeypatch.chdir(tmp_path)
    listed = CliRunner().invoke(app, ["list"], catch_exceptions=False)
    assert not listed.exit_code
    listing = resolved.total()
    points = sum(len(dict(load_sweep(sweep).variant_settings())) for sweep in sweep_names())
    tuned = load_reproduction("online_tuning").sweeps()
    points += sum(len(phase.variants) for name, phase in tuned.items() if name.endswith(NAME_ENDS))
    assert listing == points
