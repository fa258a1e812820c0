"""A reproduction file of the user's own: published numbers of any paper beside the runs of a sweep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typed import here

from clray.commands.target import selected, target_of
from clray.errors import DeclarationError
from clray.store import Store

SWEEP = """\
version: 1
track: vision
benchmark: {name: mnist-rotations, tasks: 2, train_per_task: 30, source: embedded}
model: {name: mlp, hidden: [10, 10]}
seeds: [0, 1]
metrics: [RA]
variants:
  plain: {method: online, lr: 0.01}
  replay: {method: er, lr: 0.1, memories: 20, replay_batch: 5}
quick: {seeds: [0]}
"""
TABLE = """\
version: 1
paper: {title: A paper, authors: "A. Author, B. Author", venue: Nowhere 2026, code: none}
title: Its table
runs: 3
spread: sd
known: paper
margins: {RA: {points: 2, reason: a tenth of the gap}}
tables:
  - title: Rotations
    sweep: mine.yaml
    source: Table 1
    metrics: [RA]
    rows:
      - {label: Plain, variant: plain, claims: {RA: 40 ± 3}}
      - {label: Replay, variant: replay, claims: {RA: 45 ± 3}}
"""


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "mine.yaml").write_text(SWEEP, encoding="utf-8")
    (folder / "table.yaml").write_text(TABLE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return folder / "table.yaml"


@pytest.mark.usefixtures("kernels")
def test_it_is_run_and_shown_beside_the_published_numbers(table: Path) -> None:
    said = here("reproduce", "theirs/table.yaml", "--local", "--wandb", "off", "--only", "replay")
    assert "A paper" in said
    assert "45.00 ± 3.00 (3)" in said
    assert "results/reports/theirs-table-" in said
    assert {record.sweep for record in Store("results").records()[0]} == {"mine"}, "as `clray sweep` calls it"
    data = json.loads(here("table", "theirs/table.yaml", "--format", "json"))
    assert data["paper"]["venue"] == "Nowhere 2026"
    cells = {cell["variant"]: cell for cell in data["tables"][0]["cells"]}
    assert (cells["replay"]["ours_runs"], cells["plain"]["published_mean"]) == (2, 40)
    assert "run it: python -m clray.reproduce theirs/table.yaml" in here("plan", "theirs/table.yaml")
    board = here("leaderboard", "theirs/table.yaml")
    assert "Replay" in board
    assert "the published numbers of theirs-table are left out: embedded data" in " ".join(board.split())
    assert "Replay" in here("compare", "theirs/table.yaml")
    quick = here("reproduce", "theirs/table.yaml", "--local", "--wandb", "off", "--quick", "--results", "other")
    assert "The whole table: python -m clray.reproduce theirs/table.yaml --results other" in " ".join(quick.split())


def test_a_file_with_the_name_of_a_shipped_one_is_taken(table: Path) -> None:
    for name in ("mer_rotations.yaml", "mer_rotations"):
        table.with_name(name).write_text(TABLE, encoding="utf-8")
    target = target_of("theirs/mer_rotations.yaml", selected(False, None, None, None))
    assert (target.name, target.reproduction and target.reproduction.title) == ("mer_rotations", "Its table")
    assert target.reference_count == 0
    shipped = target_of("mer_rotations", selected(False, None, None, None))
    assert shipped.reproduction
    assert shipped.reproduction.title == "MER on MNIST rotations"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("variant: plain", "variant: plane"), "yaml:14: tables.0.rows.0.variant: 'plane' is not a variant of "),
        (("sweep: mine.yaml", "sweep: mne.yaml"), "yaml:10: tables.0.sweep: mne.yaml: no such sweep file"),
        ((", venue: Nowhere 2026", ""), "yaml:2: paper"),
        (("title: A paper", "titel: A paper"), "yaml:2: paper"),
    ],
)
def test_what_is_wrong_names_the_place(table: Path, change: tuple[str, str], said: str) -> None:
    table.write_text(TABLE.replace(*change), encoding="utf-8")
    with pytest.raises(DeclarationError) as caught:
        here("plan", table)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
