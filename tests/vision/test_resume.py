"""The content of a checkpoint: every generator, and the progress of an evaluation."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SETTINGS, flat_parameters, weights_of

from clray.errors import CheckpointError
from clray.training import run
from clray.vision import trial
from clray.vision.methods.naive import Naive
from clray.vision.methods.online import Online
from clray.vision.stream import Batch


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def in_pieces(make) -> tuple[list[Any], Any]:
    """A trial to its end, every stop's checkpoint taken up by a new object."""
    training, measured = make(), []
    while training.progress < 1:
        measured += training.advance()
        resumed = make()
        resumed.load_state_dict(through_a_file(training.state_dict()))
        assert resumed.progress == training.progress
        training = resumed
    return measured, training


@pytest.fixture
def stop_everywhere(monkeypatch) -> None:
    """``advance`` returns after every example or minibatch, and after every task of an evaluation."""
    monkeypatch.setattr(trial, "_STOP_AFTER", -1.0)
    monkeypatch.setattr(trial, "_AT_ONCE", 1)


class FreshAtTasks(Online):
    """Draws the last layer's weights anew where a task begins, as a head that grows does."""

    in_bulk = False

    def observe(self, batch: Batch) -> None:
        number = int(batch.numbers[0])
        if number and self.stream.owner[number] != self.stream.owner[number - 1]:
            width = self.learner.network.hidden[-1]
            self.net.load(self.net.weights()[:-2] + self.draws.perceptron([width, 10], "xavier"))
        super().observe(batch)


class FreshAtEpochs(Naive):
    """Draws the last layer's weights anew where a task ends."""

    def end(self, experience: int) -> None:
        super().end(experience)
        with self.draws.weights():
            self.learner.module.head.reset_parameters()


@pytest.mark.parametrize("randomness", ["clray", "official"])
class TestWeightsThatAreDrawnLate:
    def test_in_a_stream(self, train, monkeypatch, randomness):
        monkeypatch.setattr(trial, "METHODS", {"online": FreshAtTasks})

        def make() -> Any:
            return train("online", hidden=(20, 20), randomness=randomness)

        monkeypatch.setattr(trial, "_STOP_AFTER", 1e9)
        whole = make()
        expected = run(whole)
        monkeypatch.setattr(trial, "_STOP_AFTER", -1.0)
        measured, pieced = in_pieces(make)
        assert measured == expected
        assert all((a == b).all() for a, b in zip(weights_of(whole), weights_of(pieced), strict=True))

    def test_task_by_task(self, train_tasks, monkeypatch, randomness):
        monkeypatch.setattr(trial, "METHODS", {"naive": FreshAtEpochs})

        def make() -> Any:
            model = {"name": "mlp", "hidden": [12, 12], "dropout": 0.3}
            return train_tasks("naive", tasks=3, model=model, randomness=randomness)

        monkeypatch.setattr(trial, "_STOP_AFTER", 1e9)
        whole = make()
        expected = run(whole)
        monkeypatch.setattr(trial, "_STOP_AFTER", -1.0)
        measured, pieced = in_pieces(make)
        assert measured == expected
        assert torch.equal(flat_parameters(whole), flat_parameters(pieced))

    def test_no_draw_is_given_twice(self, train_tasks, randomness):
        training = train_tasks("naive", randomness=randomness)
        draws = training.draws
        with draws.weights():
            found = [torch.rand(8)]
        with draws.training():
            for _ in range(2):
                with draws.weights():
                    found.append(torch.rand(8))
            found.append(torch.rand(8))
        assert len({tuple(numbers.tolist()) for numbers in found}) == 4


class TestEvaluationInPieces:
    @pytest.mark.parametrize("engine", ["eager", "fused"])
    @pytest.mark.parametrize("name", SETTINGS)
    def test_a_stream(self, train, stop_everywhere, monkeypatch, name, engine):
        def make() -> Any:
            return train(name, engine, per_task=20, evaluate=8, hidden=(20, 20))

        measured, pieced = in_pieces(make)
        monkeypatch.setattr(trial, "_STOP_AFTER", 1e9)
        whole = make()
        assert run(whole) == measured
        for task in range(3):
            weights = weights_of(whole, task), weights_of(pieced, task)
            assert all((a == b).all() for a, b in zip(*weights, strict=True))

    def test_a_stop_scores_one_task_where_time_is_up(self, train, stop_everywhere):
        training = train("online")
        assert [[m.eval_task for m in training.advance()] for _ in range(3)] == [[0], [1], [2]]
        assert training.step == 0
        training.advance()
        assert training.step == 1

    @pytest.mark.parametrize("randomness", ["clray", "official"])
    def test_task_by_task_with_curvature_by_itself(self, train_tasks, stop_everywhere, monkeypatch, randomness):
        benchmark = {"curvature": {"eigenvalues": 1, "images": 8}}

        def make() -> Any:
            return train_tasks("er_reservoir", tasks=3, per_task=20, randomness=randomness, benchmark=benchmark)

        measured, _ = in_pieces(make)
        monkeypatch.setattr(trial, "_STOP_AFTER", 1e9)
        assert run(make()) == measured
        after_last = [m.metric for m in measured if m.trained_tasks == 3]
        assert after_last == ["accuracy"] * 3 + ["eigenvalue_1", "displacement", "relative_displacement"]

    def test_a_trial_is_over_when_all_is_measured(self, train_tasks, stop_everywhere):
        training, last = train_tasks("naive", tasks=3), []
        while training.progress < 1:
            last.append((len(training.plan.visits) - training.plan.visit, [m.eval_task for m in training.advance()]))
        assert last[-3:] == [(1, [0]), (0, [1]), (0, [2])]


class TestOldCheckpoints:
    """A checkpoint from an older clray, which lacks a part of today's state, is refused as a whole."""

    @pytest.mark.parametrize("randomness", ["clray", "official"])
    def test_of_a_stream(self, train, randomness):
        training = train("er", randomness=randomness)
        state = through_a_file(training.state_dict())
        lost = {"clray": ("data order", "weights"), "official": ("torch",)}[randomness]
        olds = [{k: v for k, v in state.items() if k != key} for key in ("evaluation", "plan", "draws")]
        olds += [{**state, "draws": {**state["draws"], key: [1, 2]}} for key in lost]
        if randomness == "official":
            olds.append({**state, "draws": {"python": state["draws"]["python"]}})
        for old in olds:
            with pytest.raises(CheckpointError, match="no checkpoint of a er trial"):
                train("er", randomness=randomness).load_state_dict(old)

    @pytest.mark.parametrize("key", ["draws", "learner"])
    def test_task_by_task(self, train_tasks, key):
        state = through_a_file(train_tasks("naive").state_dict())
        del state[key]
        with pytest.raises(CheckpointError, match="no checkpoint of a naive trial"):
            train_tasks("naive").load_state_dict(state)


def test_a_numpy_number_in_a_methods_state_comes_back(train):
    training = train("online")
    training.method.state_dict = lambda: {"weights": training.method.net.weights(), "last": np.float64(0.5)}
    state = through_a_file(training.state_dict())
    assert state["method"]["last"] == 0.5
    assert type(state["method"]["last"]) is float
