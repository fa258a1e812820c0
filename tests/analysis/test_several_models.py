"""Language tables whose variants have several models: the same texts, but a fingerprint for each model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from made_records import measured, of

from clray import tracks
from clray.analysis.gather import gather, read
from clray.loading import load_sweep
from clray.record import Record
from clray.store import Store
from clray.sweep import Sweep

SWEEP = """\
version: 1
paper: mer
track: language
benchmark: {name: stream, tasks: [sst, srl]}
seeds: [1, 2]
metrics: [ACC]
variants:
  small: {method: finetune, model: {name: small}}
  large: {method: finetune, model: {name: large}}
"""


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    monkeypatch.setitem(tracks.TRACKS, "language", "named_tasks")
    (tmp_path / "models.yaml").write_text(SWEEP, encoding="utf-8")
    return load_sweep(tmp_path / "models.yaml")


def data(model: str, texts: str = "texts", weights: str = "1", **remarks: str) -> dict:
    """A data description as the language track makes it."""
    parts = {"texts": {"name": "sst+srl", "fingerprint": texts}, "model": {"name": model, "fingerprint": weights}}
    whole = hashlib.sha256(f"{texts} {model} {weights}".encode()).hexdigest()
    return {"name": f"sst+srl and {model}", "source": "cache", "fingerprint": whole, **parts, **remarks}


def fill(store: Store, sweep: Sweep, variant: str, seeds: list[int], described: dict, **changes: str) -> None:
    for cell in of(sweep, variant):
        if cell.trial.seed in seeds:
            name = cell.trial.id(described["fingerprint"])
            store.write(Record(name, cell.trial, described, measured(2, 80.0, 70.0 + cell.trial.seed), **changes))


def runs(store: Store, sweep: Sweep) -> tuple[dict[str, list[int]], list[str]]:
    """The seeds that are shown of each variant, and the data sets that are not shown."""
    found = gather(sweep, ["small", "large"], read(store))
    return {n: [r.seed for r in v.runs] for n, v in found.variants.items()}, [str(d) for d in found.other_data_sets]


def test_all_models_on_the_same_texts_stand_in_one_table(store, sweep):
    fill(store, sweep, "small", [1, 2], data("small"))
    fill(store, sweep, "large", [1], data("large"))
    fill(store, sweep, "large", [2], data("large"), status="running")
    assert runs(store, sweep) == ({"small": [1, 2], "large": [1]}, [])
    found = gather(sweep, ["small", "large"], read(store))
    assert found.data.records == 3
    assert str(found.data) == "sst+srl and large, sst+srl and small (cache, texts)"
    assert found.data.fingerprints == sorted(data(model)["fingerprint"] for model in ("small", "large"))
    assert found.variants["large"].half_done == 1


def test_one_model_is_told_by_its_whole_fingerprint(store, sweep):
    fill(store, sweep, "small", [1], data("small"))
    found = gather(sweep, ["small", "large"], read(store)).data
    assert str(found) == f"sst+srl and small (cache, {data('small')['fingerprint'][:8]})"


def test_other_texts_are_left_aside(store, sweep):
    fill(store, sweep, "small", [1, 2], data("small"))
    fill(store, sweep, "large", [1, 2], data("large"))
    fill(store, sweep, "large", [1, 2], data("large", texts="others"))
    shown, others = runs(store, sweep)
    assert shown == {"small": [1, 2], "large": [1, 2]}
    assert others == [f"sst+srl and large (cache, {data('large', texts='others')['fingerprint'][:8]})"]


def test_two_contents_of_one_model_are_not_mixed(store, sweep):
    fill(store, sweep, "small", [1, 2], data("small"))
    fill(store, sweep, "large", [1], data("large", weights="1"))
    fill(store, sweep, "large", [1, 2], data("large", weights="2"))
    shown, others = runs(store, sweep)
    assert shown == {"small": [1, 2], "large": [1, 2]}
    assert others == [f"sst+srl and large (cache, {data('large', weights='1')['fingerprint'][:8]})"]


def test_a_model_that_is_a_part_makes_way_for_the_whole_one(store, sweep):
    fill(store, sweep, "large", [1, 2], data("large", weights="1", partial="one layer"))
    fill(store, sweep, "large", [1], data("large", weights="2"))
    found = gather(sweep, ["small", "large"], read(store))
    assert [r.seed for r in found.variants["large"].runs] == [1]
    assert found.data.not_comparable_because == []


def test_a_declared_model_of_random_weights_is_no_part_of_the_data(store, sweep):
    described = data("scratch", partial="the model begins with random weights")
    fill(store, sweep, "small", [1], described)
    assert gather(sweep, ["small"], read(store)).data.not_comparable_because == []
    part = data("scratch", weights="2", partial="ag: a tenth; the model begins with random weights")
    part["texts"]["partial"] = "ag: a tenth"
    fill(store, sweep, "large", [1], part)
    assert gather(sweep, ["large"], read(store)).data.not_comparable_because == ["only a part of the data: ag: a tenth"]
