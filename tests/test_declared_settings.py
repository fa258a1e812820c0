"""Settings as they go into a trial's declaration: checked numbers, and fields that were added later."""

from __future__ import annotations

import importlib
import math
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, create_model

from clray import loading, record, tracks
from clray import sweep as sweep_module
from clray.documents import Declared
from clray.loading import load_sweep
from clray.record import Record
from clray.selection import Selection
from clray.store import Store
from clray.sweep import Sweep
from clray.trial import SettingError, Trial, check_settings, declared_settings, later


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int = 1
    added: bool = later(False)


class Before(Declared):
    lr: float
    inner: Inner = Inner()


class After(Before):
    ridge: float = later(0.0)
    part: Inner | None = later(None)
    kind: Literal["a", "b"] = later("a")


class TestLater:
    def test_while_it_has_its_default_nothing_tells_of_it(self):
        before = declared_settings(Before(lr=0.1))
        assert before == {"lr": 0.1, "inner": {"size": 1}}
        assert declared_settings(After(lr=0.1)) == before
        assert declared_settings(After(lr=0.1, ridge=0, part=None, kind="a", inner=Inner(added=False))) == before

    @pytest.mark.parametrize(
        "change",
        [{"ridge": 0.001}, {"part": {"size": 1}}, {"part": {"size": 2}}, {"kind": "b"}, {"inner": {"added": True}}],
    )
    def test_any_other_value_does(self, change):
        before, after = declared_settings(Before(lr=0.1)), declared_settings(After(lr=0.1, **change))
        assert after != before
        assert declared_settings(After(**after)) == after

    def test_a_trial_is_another_one_only_where_the_value_is(self, tiny):
        def ids(*changes: str) -> list[str]:
            sweep = load_sweep(tiny, Selection(only=("gem",), set=changes))
            return [cell.trial.declaration for cell in sweep.cells]

        assert ids() == ids("variants.gem.ridge=0") == ids("variants.gem.ridge=0.0")
        assert not set(ids()) & set(ids("variants.gem.ridge=0.001"))
        assert all("ridge" not in cell.trial.hyperparameters for cell in load_sweep(tiny).cells)


def ids(sweep: str, *changes: str) -> list[str]:
    return [cell.trial.declaration for cell in load_sweep(sweep, Selection(set=changes)).cells]


SWEEPS = {
    "vision": "tag/rotated_mnist",
    "episodes": "metaseq2seq/mutual_exclusivity",
    "language": "lamol/two_tasks_small",
}


def widen(monkeypatch: pytest.MonkeyPatch) -> type[Trial]:
    """Give sweeps, and their trials, a field more."""
    trial = create_model("Trial", __base__=Trial, added=(int, later(0)))
    monkeypatch.setattr(sweep_module, "Trial", trial)
    monkeypatch.setattr(loading, "Sweep", create_model("Sweep", __base__=Sweep, added=(int, later(0))))
    return trial


class TestLaterEverywhere:
    """A field that is added to any kind of settings leaves every trial's id as it is, until somebody changes it."""

    @pytest.mark.parametrize("section", ["benchmark", "model", "hyperparameters"])
    @pytest.mark.parametrize("track", SWEEPS)
    def test_a_setting_of_a_benchmark_a_network_and_a_method(self, monkeypatch, track, section):
        sweep = SWEEPS[track]
        before = ids(sweep)
        module = importlib.import_module(tracks.TRACKS[track])

        def widened(of: str, schema: Any, values: Any) -> Any:
            if of == section:
                schema = create_model(schema.__name__, __base__=schema, added=(int, later(0)))
            return check_settings(of, schema, values)

        monkeypatch.setattr(module, "check_settings", widened)
        assert ids(sweep) == before
        place = f"variants.{next(iter(load_sweep(sweep).variants))}" if section == "hyperparameters" else section
        assert ids(sweep, f"{place}.added=0") == before
        changed = ids(sweep, f"{place}.added=1")
        assert len(changed) == len(before)
        others = set(changed) & set(before)
        assert len(others) < len(before) if section == "hyperparameters" else not others

    @pytest.mark.parametrize("sweep", SWEEPS.values())
    def test_a_field_of_a_sweep_and_of_its_trials(self, monkeypatch, sweep):
        before = ids(sweep)
        widen(monkeypatch)
        assert ids(sweep) == ids(sweep, "added=0") == before
        assert not set(ids(sweep, "added=1")) & set(before)

    def test_a_record_of_before_is_read(self, tmp_path, monkeypatch):
        trial = load_sweep("mer/rotations").cells[0].trial
        data = {"name": "mnist", "source": "cache", "fingerprint": "abc"}
        Store(tmp_path).write(Record(trial.id("abc"), trial, data, [], status="running"))
        monkeypatch.setattr(record, "Trial", widen(monkeypatch))
        [found], problems = Store(tmp_path).records("running")
        assert not problems
        assert found.trial.added == 0  # type: ignore[attr-defined]
        assert found.trial.declaration == trial.declaration
        assert found.id == found.trial.id("abc")

    def test_settings_within_lists_and_mappings(self):
        class Many(BaseModel):
            listed: list[Inner] = []
            named: dict[str, Inner] = {}

        many = Many(listed=[Inner(), Inner(added=True)], named={"a": Inner()})
        inner = {"size": 1}
        assert declared_settings(many) == {"listed": [inner, {**inner, "added": True}], "named": {"a": inner}}


class Numbers(Declared):
    rate: float = 1.0
    count: int = 1
    on: bool = False
    many: list[float] = []
    either: int | Literal["all"] = 1
    inner: Inner = Inner()


class TestNumbers:
    @pytest.mark.parametrize(
        ("values", "keys", "message"),
        [
            ({"rate": math.inf}, ("rate",), r"a finite number \(it is inf\)"),
            ({"rate": -math.inf}, ("rate",), "finite"),
            ({"rate": math.nan}, ("rate",), "finite"),
            ({"rate": "nan"}, ("rate",), "finite"),
            ({"rate": "1e400"}, ("rate",), "finite"),
            ({"rate": True}, ("rate",), r"expected a number \(it is True\)"),
            ({"count": False}, ("count",), "expected a number"),
            ({"either": True}, ("either",), "expected a number"),
            ({"many": [1.0, math.nan]}, ("many", 1), "finite"),
            ({"many": [True]}, ("many", 0), "expected a number"),
            ({"inner": {"size": True}}, ("inner", "size"), "expected a number"),
        ],
    )
    def test_what_is_none_is_refused_at_its_place(self, values: dict[str, Any], keys, message):
        with pytest.raises(SettingError, match=message) as caught:
            check_settings("model", Numbers, values)
        assert caught.value.section == "model"
        assert caught.value.keys == keys

    def test_the_others_pass(self):
        values = {"rate": 2, "count": 3, "on": True, "many": [1, 2.5], "either": "all", "inner": {"added": True}}
        assert check_settings("model", Numbers, values) == Numbers(**values)
