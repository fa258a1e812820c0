"""Settings as they go into a trial's declaration: checked numbers, and fields that were added later."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict

from clray.documents import Declared
from clray.loading import load_sweep
from clray.selection import Selection
from clray.trial import SettingError, check_settings, declared_settings, later


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
