"""The spread between draws of a stream is separated from the spread between training seeds."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

_FILE = Path(__file__).resolve().parents[1] / "bench" / "stream_spread.py"
_SPEC = importlib.util.spec_from_file_location("stream_spread", _FILE)
assert _SPEC is not None
assert _SPEC.loader is not None
stream_spread = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(stream_spread)


@pytest.mark.parametrize(("of_draws", "of_seeds"), [(1.0, 0.5), (0.3, 1.2), (0.0, 1.0)])
def test_the_estimated_variances_are_right_on_average(of_draws: float, of_seeds: float) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, of_draws, (2000, 40, 1)) + rng.normal(0, of_seeds, (2000, 40, 3))
    estimates = np.array([stream_spread.between_draws(table) for table in values])
    assert np.sqrt((estimates[:, 1] ** 2).mean()) == pytest.approx(of_seeds, rel=0.01)
    # A negative estimate is cut at zero, which lifts the mean where there is nothing to see.
    assert np.sqrt((estimates[:, 0] ** 2).mean()) == pytest.approx(of_draws, abs=0.02 if of_draws == 1 else 0.2)


def test_seeds_that_differ_by_the_same_in_every_draw_leave_no_spread_between_draws() -> None:
    assert stream_spread.between_draws(np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]))[0] == 0
