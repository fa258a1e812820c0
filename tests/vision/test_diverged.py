"""Trials whose numbers overflow: they report it, and measure nothing with numbers that are not finite."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import SETTINGS, TASK_SETTINGS, weights_of

from clray.errors import DeclarationError, Diverged
from clray.optim import gem_multipliers
from clray.training import run
from clray.trial import SettingError
from clray.vision import trial
from clray.vision.methods import gem

HUGE = {"lr": 1e30}


def until_it_diverges(training) -> tuple[Diverged, list]:
    measured = []
    while training.progress < 1:
        try:
            measured += training.advance()
        except Diverged as error:
            return error, measured
    pytest.fail("it did not diverge")


class TestStreams:
    @pytest.mark.parametrize("engine", ["eager", "fused"])
    @pytest.mark.parametrize("name", SETTINGS)
    def test_every_method_on_both_engines(self, train, name, engine):
        error, measured = until_it_diverges(train(name, engine, settings=HUGE))
        assert [m[:3] for m in measured] == [(0, 0, task) for task in range(3)]
        assert 0 < error.step <= 60
        assert error.task == 0
        assert error.what == "weights"
        assert "diverged: weights not finite after" in str(error)

    @pytest.mark.parametrize("engine", ["eager", "fused"])
    def test_any_of_a_methods_networks_counts(self, train, engine):
        """That of a task that is learned no more, too."""
        training = train("independent", engine)
        training.advance(), training.advance()
        weights = weights_of(training)
        weights[2][0, 0] = np.inf
        training.method.nets[0].load(weights)
        error, measured = until_it_diverges(training)
        assert not measured
        assert (error.step, error.task) == (120, 1)

    def test_it_is_seen_at_a_stop_by_the_clock_too(self, train, monkeypatch):
        monkeypatch.setattr(trial, "_STOP_AFTER", -1.0)
        error, _ = until_it_diverges(train("online", settings=HUGE, per_task=200))
        assert error.step == trial._AT_ONCE

    @pytest.mark.parametrize("engine", ["eager", "fused"])
    def test_a_step_that_fails_for_it(self, train, engine, monkeypatch):
        """GEM's quadratic program on gradients that are not finite: the step is exact, also in bulk."""
        monkeypatch.setattr(gem, "gem_multipliers", lambda gram, *others: gem_multipliers(gram * np.nan, *others))
        steps = []
        for at_once in (50, 1):
            monkeypatch.setattr(trial, "_AT_ONCE", at_once)
            error, _ = until_it_diverges(train("gem", engine))
            assert error.what == "gradients on the memories"
            assert error.task == 1
            assert 60 <= error.step < 120
            steps.append(error.step)
        assert steps[0] == steps[1]
        assert steps[0] % 50, "the first violation is in the middle of a call"


class TestTasks:
    @pytest.mark.parametrize("name", TASK_SETTINGS)
    def test_every_method_and_optimizer(self, train_tasks, name):
        error, measured = until_it_diverges(train_tasks(name, per_task=50, settings=HUGE))
        assert not measured
        assert 0 < error.step <= 100
        assert error.what == "weights"

    @pytest.mark.parametrize("name", ["naive", "tag-rmsprop"])
    def test_what_batch_normalisation_keeps_counts(self, train_tasks, name):
        model = {"name": "reduced-resnet18", "filters": 8}
        training = train_tasks(name, per_task=20, model=model)
        training.advance()
        training.learner.module.bn1.running_var[0] = torch.nan
        error, _ = until_it_diverges(training)
        assert (error.what, error.task) == ("weights", 1)

    def test_it_is_seen_at_a_stop_by_the_clock_too(self, train_tasks, monkeypatch):
        monkeypatch.setattr(trial, "_STOP_AFTER", -1.0)
        error, _ = until_it_diverges(train_tasks("naive", settings={"lr": 1e38}, per_task=200))
        assert error.step < 100

    @pytest.mark.parametrize("solver", ["power_iteration", "lanczos"])
    def test_eigenvalues_that_are_not_finite(self, train_tasks, solver):
        """Weights that are finite, and a loss whose derivatives are not: the accuracies are kept."""
        curvature = {"eigenvalues": 1, "images": 10, "solver": solver}
        training = train_tasks("naive", benchmark={"curvature": curvature})
        measured = training.advance()
        assert [m.metric for m in measured] == ["accuracy"]
        with torch.no_grad():
            for parameter in training.learner.parameters:
                parameter.mul_(1e18)
        error, measured = until_it_diverges(training)
        assert not measured
        assert error.what == "eigenvalue_1"
        assert (error.step, error.task) == (50, 0)


SINGULAR = {"lr": 0.3, "memories_per_task": 1, "margin": 0.5}


class TestGemsProgram:
    """github.com/facebookresearch/GradientEpisodicMemory/issues/2: few memories that are fitted perfectly."""

    def trial(self, train, engine, **changes):
        benchmark = {"name": "mnist-permutations", "tasks": 10, "train_per_task": 100}
        return train("gem", engine, hidden=(50, 50), benchmark=benchmark, settings=SINGULAR | changes)

    @pytest.mark.parametrize("engine", ["eager", "fused"])
    def test_it_says_where_and_what_helps(self, train, engine):
        training = self.trial(train, engine)
        with pytest.raises(DeclarationError, match=r"gem: at example \d+, in task \d+: .*positive definite.*ridge"):
            run(training)

    @pytest.mark.parametrize("engine", ["eager", "fused"])
    def test_a_ridge_is_the_way_out(self, train, engine):
        training = self.trial(train, engine, ridge=1e-3)
        assert all(0 <= m.value <= 1 for m in run(training))

    def test_a_margin_beyond_sense(self):
        """As a trial came to it with a margin of 1e6: quadprog calls the constraints inconsistent."""
        gram, products = np.array([[7.73295714e15]]), np.array([-4.02380378e12])
        with pytest.raises(ValueError, match=r"constraints are inconsistent.*margin 1e\+06 .*smaller margin"):
            gem_multipliers(gram, products, 1e6)

    def test_the_ridge_is_added_to_the_matrix(self):
        rng = np.random.default_rng(0)
        gradients, own = rng.standard_normal((3, 20)), rng.standard_normal(20)
        gram, products = gradients @ gradients.T, gradients @ own
        by_hand = gem_multipliers(gram + 0.5 * np.eye(3), products, 0.1)
        assert gem_multipliers(gram, products, 0.1, ridge=0.5) == pytest.approx(by_hand, rel=1e-12)

    @pytest.mark.parametrize("ridge", [-0.1, math.nan, math.inf, True, 1e39])
    def test_a_ridge_is_a_number(self, train, ridge):
        with pytest.raises(SettingError) as caught:
            train("gem", settings={"ridge": ridge})
        assert caught.value.keys == ("ridge",)
