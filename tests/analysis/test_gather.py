"""From records to runs: those that match a cell, are left aside, are missing, or are suspect."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from made_records import EMBEDDED, REAL, of

from clray.analysis import gather as module
from clray.analysis.gather import gather, read
from clray.analysis.runs import mark_collapsed, mean_matrix, overall_curve, seen_curve
from clray.loading import load_sweep
from clray.metrics import Measurement
from clray.record import Record
from clray.selection import Selection

FIVE = [(80.0, 70.0), (81.0, 72.0), (82.0, 71.0), (79.0, 73.0), (83.0, 74.0)]


def test_metrics_are_per_cent_by_seed(rotations, store, fill):
    fill(rotations, "gem-5120", FIVE)
    runs = gather(rotations, ["gem-5120"], read(store)).variants["gem-5120"]
    assert runs.values("LA") == {(seed, None): pytest.approx(la) for seed, (la, _) in enumerate(FIVE)}
    assert runs.values("RA") == {(seed, None): pytest.approx(ra) for seed, (_, ra) in enumerate(FIVE)}
    assert runs.values("BTI")[2, None] == pytest.approx(-11.0)
    sample = runs.sample("LA")
    assert (sample.mean, sample.sd, sample.n) == (pytest.approx(81.0), pytest.approx(math.sqrt(2.5)), 5)
    assert runs.counted == "5 of 5 runs"
    assert runs.runs[0].seconds == 61.5


def test_missing_and_half_done_runs_are_told(rotations, store, fill, make):
    fill(rotations, "gem-5120", [FIVE[0], None, FIVE[2], None, FIVE[4]])
    store.write(make(of(rotations, "gem-5120")[3], 50, 50, status="running"))
    runs = gather(rotations, ["gem-5120"], read(store)).variants["gem-5120"]
    assert runs.counted == "3 of 5 runs"
    assert list(runs.missing) == [(1, None), (3, None)]
    assert runs.half_done == 1
    assert runs.absent == "without seeds 1, 3 (1 half-done)"
    assert runs.sample("RA").n == 3


def test_a_store_with_only_half_done_trials(rotations, store, make):
    store.write(make(of(rotations, "online")[0], 50, 50, status="running"))
    gathered = gather(rotations, ["online"], read(store))
    assert gathered.variants["online"].half_done == 1
    assert gathered.runs == []


def test_an_empty_store(rotations, store):
    gathered = gather(rotations, ["online", "ewc"], read(store))
    assert gathered.data is None
    assert [v.counted for v in gathered.variants.values()] == ["0 of 5 runs"] * 2


def test_real_data_comes_before_more_of_the_embedded(rotations, store, fill):
    fill(rotations, "online", FIVE, data=EMBEDDED)
    fill(rotations, "ewc", FIVE, data=EMBEDDED)
    fill(rotations, "ewc", [None, (60.0, 55.0)], data=REAL)
    gathered = gather(rotations, ["online", "ewc"], read(store))
    assert gathered.data.source == "cache"
    assert not gathered.data.embedded
    assert [(d.source, d.records) for d in gathered.other_data_sets] == [("embedded", 10)]
    # one data set for the whole table: the embedded runs of the other row do not slip in
    assert gathered.variants["online"].runs == []
    assert gathered.variants["ewc"].values("RA") == {(1, None): pytest.approx(55.0)}


def test_of_two_real_data_sets_the_one_with_more_runs(rotations, store, fill):
    other = {**REAL, "fingerprint": "0000000000000000"}
    fill(rotations, "online", FIVE[:2], data=other)
    fill(rotations, "online", FIVE[:3], data=REAL)
    assert gather(rotations, ["online"], read(store)).data.fingerprint == REAL["fingerprint"]


def test_one_content_from_two_places_is_one_data_set(rotations, store, fill, make):
    fill(rotations, "online", FIVE[:2], data=REAL)
    store.write(make(of(rotations, "online")[2], 80, 70, data={**REAL, "source": "CLRAY_DATA"}))
    gathered = gather(rotations, ["online"], read(store))
    assert gathered.data.records == 3
    assert gathered.data.source == "CLRAY_DATA and cache"
    assert not gathered.other_data_sets


def test_trials_of_another_form_of_the_sweep_do_not_match(rotations, store, fill):
    quick = load_sweep("mer/rotations", Selection(quick=True))
    fill(quick, "online", FIVE[:3])
    results = read(store)
    assert gather(rotations, ["online"], results).runs == []
    assert len(gather(quick, ["online"], results).runs) == 3


def test_task_orders_are_kept_apart(store, make):
    sweep = load_sweep(
        "mer/rotations", Selection(quick=True, only=("online",), set=("task_orders={random: 2, seed: 3}",))
    )
    cells = of(sweep, "online")
    assert len(cells) == 6
    for i, cell in enumerate(cells[:5]):
        store.write(make(cell, 50 + i, 40 + i))
    runs = gather(sweep, ["online"], read(store)).variants["online"]
    assert len(runs.values("RA")) == 5
    ((seed, order),) = runs.missing
    assert (seed, list(order)) == (cells[5].trial.seed, cells[5].trial.task_order)
    assert "of order" in runs.absent


def test_torn_and_foreign_files_are_problems(rotations, store, fill, make):
    fill(rotations, "online", FIVE)
    folder = Path(store.path("records"))
    whole = next(iter(sorted(folder.iterdir())))
    (folder / "aaaaaaaaaaaaaaaa.parquet").write_bytes(whole.read_bytes()[:500])
    (folder / "bbbbbbbbbbbbbbbb.parquet").write_bytes(whole.read_bytes())
    (folder / "notes.txt").write_text("not a record, and none of our business")
    results = read(store)
    assert len(results.problems) == 2
    assert sum(len(r) for r in results.finished.values()) == 5


def test_records_that_lie_about_themselves_are_problems(rotations, store, make):
    cells = of(rotations, "online")
    stray = make(cells[0], 80, 70)
    stray.id = "1234567890abcdef"
    store.write(stray)
    short = make(cells[1], 80, 70)
    short.measurements = [m for m in short.measurements if m.trained_tasks < 20]
    store.write(short)
    nameless = make(cells[2], 80, 70)
    del nameless.data["fingerprint"]
    store.write(nameless)
    store.write(make(cells[3], 80, 70))
    results = read(store)
    assert sorted(p.reason.removeprefix("not a readable record: ") for p in results.problems) == [
        "finished, but not measured on all 20 tasks after the last",
        "it does not say which data it read",
        "its id is not that of its declaration and data",
    ]
    assert len(gather(rotations, ["online"], results).runs) == 1


def test_two_versions_of_the_code_are_told_method_by_method(rotations, store, fill):
    fill(rotations, "online", FIVE[:3], code="1111111111111111")
    fill(rotations, "online", [None] * 3 + FIVE[3:], code="2222222222222222")
    fill(rotations, "ewc", FIVE, code="3333333333333333")
    gathered = gather(rotations, ["online", "ewc"], read(store))
    assert gathered.mixed_code == ["online: runs of 2 versions of the code (3 of 11111111, 2 of 22222222)"]


def test_digests_of_code_that_gives_the_same_numbers_are_one_version(monkeypatch):
    def runs(name: str, *codes: str) -> Any:
        return SimpleNamespace(runs=[SimpleNamespace(code=code) for code in codes])

    monkeypatch.setattr(module, "representative", lambda code: {"new": "old"}.get(code, code))
    assert module._mixed_code({"a": runs("a", "old", "new"), "b": runs("b", "another")}) == []
    assert module._mixed_code({"a": runs("a", "old", "another")})


def test_a_collapsed_seed_is_marked_and_stays_in_the_mean(rotations, store, fill):
    fill(rotations, "er-5120", [(85, 84), (85.5, 84.2), (10, 10), (84.8, 84.1), (85.1, 83.9)])
    gathered = gather(rotations, ["er-5120"], read(store))
    assert gathered.chance == pytest.approx(10.0)
    runs = gathered.variants["er-5120"]
    assert [r.seed for r in runs.collapsed_runs] == [2]
    assert runs.sample("RA").n == 5
    assert runs.sample("RA").mean < 75


@pytest.mark.parametrize(
    ("accuracies", "marks"),
    [
        ([85, 84, 10, 84], [False, False, True, False]),
        ([12, 11, 10, 13], [False] * 4),  # all guess: nothing tells them apart
        ([85, 84, 40, 84], [False] * 4),  # bad, but no guess
        ([18, 17.5, 11, 17], [False, False, True, False]),  # guessing, and 6.5 points below three that agree
        ([30, 14, 22, 13.5], [False] * 4),  # near guessing, but so is the rest
        ([10.0], [False]),
    ],
)
def test_what_counts_as_mark_collapsed(accuracies, marks):
    assert mark_collapsed(accuracies, chance=10.0) == marks


def test_without_a_known_chance_nothing_is_marked():
    assert mark_collapsed([85, 84, 10, 84], math.nan) == [False] * 4


def test_matrix_and_curves():
    a, b = np.array([[0.9, 0.1], [0.7, 0.8]]), np.array([[0.7, 0.3], [0.5, 0.6]])
    assert mean_matrix([a, b]) == pytest.approx(np.array([[0.8, 0.2], [0.6, 0.7]]))
    assert seen_curve(a) == pytest.approx([0.9, 0.75])
    assert overall_curve(a) == pytest.approx([0.5, 0.75])
    b[0, 1] = np.nan
    assert np.isnan(mean_matrix([a, b])[0, 1])
    assert seen_curve(b) == pytest.approx([0.7, 0.55])


def test_importing_the_analysis_loads_nothing_heavy():
    heavy = ("torch", "ray", "wandb", "matplotlib", "jinja2", "scipy", "pyarrow")
    script = (
        "import sys; from clray.analysis import comparison, export_data, gather, plots, report, verdict;"
        "assert not [m for m in sys.modules if m.startswith(('clray.vision', 'clray.episodes', 'clray.language'))];"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_record_without_provenance_still_counts(rotations, store, make):
    record: Record = make(of(rotations, "online")[0], 80, 70)
    record.provenance = {}
    record.measurements.append(Measurement(5, 1, 0, "loss", 2.0))
    store.write(record)
    (run,) = gather(rotations, ["online"], read(store)).runs
    assert (run.seconds, run.code) == (None, "")
