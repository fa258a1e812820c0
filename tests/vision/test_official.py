"""clray's trials against the official MER code, run on the same draws: figures from tests/fixtures/mer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from official import ANGLES, METRICS, cases, figures, first_permutation, streams

from clray.vision.benchmarks.mer import MnistPermutations, MnistRotations
from clray.vision.official.mer import OfficialDraws

CASES = cases()
COUNTED_ALIKE = 1e-6
"""Accuracies are multiples of 1e-4 and the reference is float32: no test image may be counted otherwise."""
ROUNDING = {
    # Both engines sum in another order than the official code. Where a method takes one step an example that shows in
    # no prediction; tens of sequential steps an example amplify it, by up to these differences of RA and LA. They are
    # two to three times what was measured, and GEM's were exact: other processors, and other BLAS, round otherwise.
    "rot5_eralg4_200": 0.008,
    "rot5_eralg5_200": 0.003,
    "rot5_gem_m40": 0.008,
    "rot5_meralg1_200": 0.006,
    "rot5_meralg6_200": 0.015,
    "rot5_meralg7_200": 0.006,
}

_FUSED: dict[tuple[str, int], dict[str, float]] = {}


def fused(name: str, seed: int, data: dict[str, Any]) -> dict[str, float]:
    """The figures of clray's fused run, made once."""
    if (name, seed) not in _FUSED:
        _FUSED[name, seed] = figures(CASES[name].trial(seed, engine="fused"), data)
    return _FUSED[name, seed]


def close(ours: dict[str, float], official: dict[str, float], tolerance: float) -> None:
    for metric in ("RA", "LA"):
        assert ours[metric] == pytest.approx(official[metric], abs=tolerance), metric
    assert ours["BTI"] == pytest.approx(ours["RA"] - ours["LA"], abs=1e-12)


def test_the_angles_are_the_reference_runs():
    drawn = MnistRotations(name="mnist-rotations", tasks=5, train_per_task=200, seed=0).task_angles()
    assert drawn == pytest.approx(ANGLES, abs=5e-5)


def test_the_first_permutation_is_the_scripts():
    head = first_permutation()
    for name, tasks in (("mnist-permutations", 20), ("mnist-many-permutations", 100)):
        maps = MnistPermutations(name=name, tasks=tasks, train_per_task=1, seed=0).pixel_maps()
        assert maps[0, : len(head)].tolist() == head


@pytest.mark.parametrize(("tasks", "count", "seed"), streams())
def test_the_stream_the_weights_and_what_follows(tasks, count, seed):
    drawn = streams()[tasks, count, seed]
    draws = OfficialDraws(seed)
    chosen = draws.examples(60000, tasks, count)
    arriving = [[task, int(example)] for task, examples in enumerate(chosen) for example in examples]
    assert arriving[:8] == drawn["stream_first8"]
    assert arriving[-3:] == drawn["stream_last3"]

    weights = draws.perceptron([784, 100, 100, 10], "xavier")
    sums = [float(w.sum(dtype=np.float64)) for w in weights]
    assert sums == pytest.approx(list(drawn["init_sum"].values()), abs=2e-4)  # theirs were summed in float32
    total = sum(float(np.abs(w).sum(dtype=np.float64)) for w in weights)
    assert total == pytest.approx(drawn["init_abs"], rel=1e-6)

    # Python's own generator is where theirs is when training begins.
    following = [draws._python.random() for _ in drawn["py_random_next"]]
    assert following == drawn["py_random_next"]


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("rot5_online_lr1e-2", 1),
        ("rot5_ewc_official", 0),
        ("rot5_gem_m40", 0),
        ("rot5_eralg4_200", 1),
        ("rot5_independent", 0),
        ("rot5_taskinput", 2),
    ],
)
def test_eager_figures_are_the_official_ones(name, seed, mnist):
    ours = figures(CASES[name].trial(seed, engine="eager"), mnist)
    for metric in METRICS:
        assert ours[metric] == pytest.approx(CASES[name].figures[seed][metric], abs=COUNTED_ALIKE), metric


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        pytest.param(name, seed, marks=[] if seed == 0 else pytest.mark.slow)
        for name, case in CASES.items()
        for seed in sorted(case.figures)[:2]
    ],
)
def test_fused_figures_are_the_official_ones(name, seed, mnist, kernels):
    close(fused(name, seed, mnist), CASES[name].figures[seed], ROUNDING.get(name, COUNTED_ALIKE))


@pytest.mark.slow
def test_fused_figures_agree_to_the_last_digit_where_they_did(mnist, kernels):
    """The tolerances above would hide an error that is small everywhere: most of these agree exactly."""
    sensitive = [("rot5_eralg4_200", 0), ("rot5_gem_m40", 0), ("rot5_gem_m40", 1), ("rot5_gem_m40", 2)]
    sensitive += [("rot5_meralg1_200", 1), ("rot5_meralg7_200", 1)]
    exact = 0
    for name, seed in sensitive:
        ours = fused(name, seed, mnist)
        exact += all(abs(ours[m] - CASES[name].figures[seed][m]) < COUNTED_ALIKE for m in METRICS)
    assert exact >= len(sensitive) - 3
