"""A trial of a task-incremental benchmark: its stops, its draws, its measurements."""

from __future__ import annotations

import dataclasses
import io
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pytest
import torch
from conftest import TASK_SETTINGS, flat_parameters, heads, shown
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from clray.errors import CheckpointError, DeclarationError
from clray.loading import load_sweep, sweep_names
from clray.metrics import Measurement
from clray.selection import Selection
from clray.training import run
from clray.trial import Trial
from clray.vision import trial as loop
from clray.vision.benchmarks import BENCHMARKS
from clray.vision.benchmarks.rearranged_mnist import RotatedMnist
from clray.vision.data import locate, present
from clray.vision.draws import ClrayDraws
from clray.vision.networks import NETWORKS
from clray.vision.networks.base import Network
from clray.vision.networks.mlp import Mlp
from clray.vision.official.tag import OfficialDraws
from clray.vision.training import data, estimate, resolve, train
from clray.vision.trial import VisionTraining

DROPOUT = {"name": "mlp", "hidden": [12, 12], "dropout": 0.3}
RESNET = {"name": "reduced-resnet18", "filters": 8, "dropout": 0.1}


@pytest.fixture
def stop_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """``advance`` returns after every minibatch."""
    monkeypatch.setattr(loop, "_STOP_AFTER", -1.0)


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def in_pieces(make: Callable[[], VisionTraining]) -> tuple[list[Measurement], VisionTraining, list[float]]:
    """A trial to its end, each piece of it by a new object that goes on from the last one's checkpoint."""
    training, measured, progress = make(), [], [0.0]
    while training.progress < 1:
        measured += training.advance()
        progress.append(training.progress)
        resumed = make()
        resumed.load_state_dict(through_a_file(training.state_dict()))
        training = resumed
        assert training.progress == progress[-1]
    return measured, training, progress


def same(one: VisionTraining, other: VisionTraining) -> bool:
    states = [t.learner.module.state_dict().values() for t in (one, other)]
    return all(torch.equal(a, b) for a, b in zip(*states, strict=True))


class TestStops:
    @pytest.mark.parametrize("randomness", ["clray", "official"])
    @pytest.mark.parametrize("name", TASK_SETTINGS)
    def test_a_trial_in_pieces_has_the_same_bits(self, name, randomness, train_tasks, stop_everywhere, monkeypatch):
        def make() -> VisionTraining:
            return train_tasks(name, per_task=25, model=DROPOUT, randomness=randomness, benchmark={"epochs": 2})

        measured, pieced, progress = in_pieces(make)
        monkeypatch.setattr(loop, "_STOP_AFTER", 1e9)
        whole = make()
        assert run(whole) == measured
        assert same(whole, pieced)
        visits = len(whole.plan.visits)
        evaluations = 1 if name == "multitask_cyclic" else visits
        expected = visits * 2 * 3 + len(measured) - evaluations
        assert len(progress) == 1 + expected, "three batches an epoch; the first task is measured after the last one"
        assert progress == sorted(progress)
        assert progress[-2] < progress[-1] == 1

    @pytest.mark.parametrize("name", ["agem", "tag-er"])
    def test_with_batch_normalisation_and_curvature_under_one_head(
        self, name, train_tasks, stop_everywhere, monkeypatch
    ):
        def make() -> VisionTraining:
            benchmark = {"heads": "single", "test_per_task": 20, "curvature": {"eigenvalues": 1, "images": 8}}
            return train_tasks(name, per_task=20, model=RESNET, benchmark=benchmark)

        measured, pieced, _ = in_pieces(make)
        monkeypatch.setattr(loop, "_STOP_AFTER", 1e9)
        whole = make()
        assert run(whole) == measured
        assert same(whole, pieced)
        assert {m.metric for m in measured} > {"accuracy", "displacement"}

    @pytest.mark.parametrize("seed", [0, 1])
    def test_a_seed_is_a_trial(self, train_tasks, seed):
        ends = [train_tasks("er_reservoir", model=DROPOUT, seed=s) for s in (seed, seed, seed + 1)]
        measured = [run(training) for training in ends]
        assert measured[0] == measured[1]
        assert same(ends[0], ends[1])
        assert not same(ends[0], ends[2])

    @pytest.mark.parametrize("name", ["naive", "tag-rmsprop", "er_reservoir", "agem", "ewc_online", "stable_sgd"])
    def test_a_foreign_checkpoint_is_refused(self, name, train_tasks):
        def begun(name: str, **changes: Any) -> dict[str, Any]:
            training = train_tasks(name, **changes)
            training.advance()
            return training.state_dict()

        others = [{}, {"position": 3}, begun(name, model={"name": "mlp", "hidden": [7]})]
        others += [begun(name, model=RESNET, per_task=20), begun(name, randomness="official")]
        if name in ("er_reservoir", "agem", "ewc_online"):
            others.append(begun("naive"))
        for state in others:
            with pytest.raises(CheckpointError, match="no checkpoint of a"):
                train_tasks(name).load_state_dict(state)


class TestDraws:
    @pytest.mark.parametrize("randomness", ["clray", "official"])
    def test_the_process_own_generators_are_left_alone(self, randomness, train_tasks, stop_everywhere):
        def make() -> VisionTraining:
            return train_tasks("er_reservoir", model=DROPOUT, randomness=randomness, benchmark={"curvature": {}})

        torch.manual_seed(3)
        np.random.seed(3)
        before = torch.get_rng_state(), np.random.get_state()[1].copy()
        training, measured = make(), []
        while training.progress < 1:
            measured += training.advance()
            assert torch.equal(torch.get_rng_state(), before[0])
        assert (np.random.get_state()[1] == before[1]).all()
        torch.manual_seed(4)
        again = make()
        torch.rand(5)
        assert run(again) == measured

    def test_official_order_is_that_of_torchs_loaders(self):
        """After the weights: a shuffled pass, a test set's pass, and a shuffled pass again."""

        def passes(loader: DataLoader[Any]) -> list[int]:
            return [int(i) for (batch,) in loader for i in batch]

        with torch.random.fork_rng():
            torch.manual_seed(7)
            weights = torch.nn.Linear(3, 4).weight
            images = TensorDataset(torch.arange(23))
            shuffled, plain = DataLoader(images, 5, shuffle=True), DataLoader(images, 5)
            expected = [passes(shuffled), passes(plain), passes(plain), passes(shuffled)]
            tail = torch.rand(3)
        randomness = OfficialDraws(7)
        with randomness.weights():
            assert torch.equal(torch.nn.Linear(3, 4).weight, weights)
        with randomness.training():
            assert randomness.order("", 23, shuffled=True).tolist() == expected[0]
            assert randomness.order("", 23, shuffled=False).tolist() == expected[1]
            randomness.evaluation()
            assert randomness.order("", 23, shuffled=True).tolist() == expected[3]
            assert torch.equal(torch.rand(3), tail)
        numpy = np.random.RandomState(7)
        assert randomness.without_replacement(30, 10).tolist() == numpy.choice(30, 10, replace=False).tolist()

    def test_each_purpose_has_its_own_draws(self):
        """Dropout, memories and passes do not move one another."""
        orders = []
        for disturb in (False, True):
            randomness = ClrayDraws(5)
            with randomness.training():
                if disturb:
                    (
                        torch.rand(7),
                        randomness.without_replacement(9, 3),
                        randomness.order("another pass", 9, shuffled=True),
                    )
                    randomness.evaluation()
                orders.append(randomness.order("this pass", 40, shuffled=True))
        assert (orders[0] == orders[1]).all()
        assert sorted(orders[0].tolist()) == list(range(40))
        assert (orders[0] != randomness.order("another pass", 40, shuffled=True)).any()
        assert randomness.order("this pass", 40, shuffled=False).tolist() == list(range(40))
        same_seed, other_seed = (ClrayDraws(s) for s in (5, 6))
        assert (same_seed.order("this pass", 40, shuffled=True) == orders[0]).all()
        assert (other_seed.order("this pass", 40, shuffled=True) != orders[0]).any()

    def test_memories_places_are_below_what_was_asked(self):
        for randomness in (ClrayDraws(0), OfficialDraws(0)):
            with randomness.training():
                drawn = randomness.below(7, 700)
                assert sorted(set(drawn.tolist())) == list(range(7))
                assert drawn.dtype == np.int64
                assert len(set(randomness.without_replacement(20, 15).tolist())) == 15


def batches_of(training: VisionTraining) -> list[Any]:
    """The minibatches that a trial's method is given."""
    seen: list[Any] = []
    observe = training.method.observe
    training.method.observe = lambda batch: (seen.append(batch), observe(batch))[1]  # type: ignore[method-assign]
    run(training)
    return seen


class TestTheLoop:
    def test_every_epoch_has_every_image_once_in_another_order(self, train_tasks):
        seen = batches_of(train_tasks("naive", per_task=25, benchmark={"epochs": 2}))
        assert [len(batch.y) for batch in seen] == [10, 10, 5] * 4
        assert [batch.experience for batch in seen] == [0] * 6 + [1] * 6
        passes = [np.concatenate([batch.numbers for batch in seen[i : i + 3]]).tolist() for i in range(0, 12, 3)]
        assert [sorted(p) for p in passes] == [list(range(25))] * 2 + [list(range(25, 50))] * 2
        assert len({tuple(p) for p in passes}) == 4
        for batch in seen:
            assert ((batch.y >= 10 * batch.experience) & (batch.y < 10 * batch.experience + 10)).all()

    @pytest.mark.parametrize("engine", ["auto", "eager"])
    def test_tag_is_told_of_epochs_and_tasks(self, train_tasks, engine):
        """Adam's bias correction counts the batches of an epoch."""
        training, seen = train_tasks("tag-adam", per_task=25, engine=engine, benchmark={"epochs": 2}), []
        optimizer = training.learner.optimizer
        optimizer.register_step_pre_hook(lambda o, args, kwargs: seen.append((o.tasks, o.batches)))
        run(training)
        assert seen == [(task, batch) for task in range(2) for _ in range(2) for batch in range(3)]

    def test_a_short_batch_may_be_left_out(self, train_tasks):
        training = train_tasks("naive", per_task=25)
        object.__setattr__(training.stream, "drops_last", True)
        assert [len(batch.y) for batch in batches_of(training)] == [10, 10] * 2
        assert training.step == 40

    def test_a_task_that_fills_no_batch_is_an_error(self, train_tasks, monkeypatch):
        """Without its short batch such a task would train nothing. Here only the data shows how large a task is."""
        whole = loop.stream_of
        monkeypatch.setattr(loop, "stream_of", lambda *args: dataclasses.replace(whole(*args), drops_last=True))
        assert train_tasks("naive", per_task=10).progress == 0
        trial = train_tasks("naive", per_task=10).trial
        fewer = trial.model_copy(update={"benchmark": {**trial.benchmark, "train_per_task": 9}})
        with pytest.raises(DeclarationError, match=r"only 9 images here: batch must be at most 9 \(it is 10\)"):
            VisionTraining(fewer, locate("mnist", "embedded"))

    def test_images_need_not_be_shuffled(self, train_tasks):
        training = train_tasks("naive", per_task=20)
        object.__setattr__(training.stream, "shuffles", False)
        expected = [list(range(begin, begin + 10)) for begin in (0, 10, 20, 30)]
        assert [batch.numbers.tolist() for batch in batches_of(training)] == expected

    def test_what_is_measured_after_each_task(self, train_tasks):
        training = train_tasks("naive", tasks=3, per_task=30, benchmark={"epochs": 2})
        measured = run(training)
        rows = [(60 * (t + 1), t + 1, u, "accuracy") for t in range(3) for u in range(t + 1)]
        assert [m[:4] for m in measured] == rows
        assert measured[-1].value == training.method.correct(2) / 100

    def test_it_learns_under_one_head_too(self, train_tasks):
        measured = run(train_tasks("stable_sgd", per_task=500, benchmark={"heads": "single", "epochs": 2}))
        assert [m.value > 0.5 for m in measured if m.trained_tasks == m.eval_task + 1] == [True, True]

    def test_a_task_order(self, train_tasks):
        """The tasks of the benchmark in another order, and what they are is theirs."""
        plain, turned = train_tasks("naive", tasks=3), train_tasks("naive", tasks=3, order=[2, 0, 1])
        assert heads(turned.stream) == [(20, 30), (0, 10), (10, 20)]
        for place, task in enumerate([2, 0, 1]):
            x, y = shown(turned.stream, place, slice(5))
            assert torch.equal(x, shown(plain.stream, task, slice(5))[0])
            assert (y // 10 == task).all()
        assert [m[:4] for m in run(turned)] == [m[:4] for m in run(plain)]

    def test_a_part_is_held_out(self, train_tasks):
        training = train_tasks("naive", per_task=50, benchmark={"validation": True})
        assert [len(e.examples) for e in training.stream.experiences] == [45, 45]
        assert [len(e.tests) for e in training.stream.experiences] == [5, 5]
        assert training.stream.test.pixels.data_ptr() == training.stream.train.pixels.data_ptr()
        assert [m.step for m in run(training)] == [45, 90, 90]


class TestCurvature:
    def test_what_is_measured_of_it(self, train_tasks):
        curvature = {"eigenvalues": 2, "solver": "lanczos", "images": 50}
        measured = run(train_tasks("naive", tasks=3, benchmark={"curvature": curvature}))
        names = {m.metric for m in measured}
        assert names == {"accuracy", "eigenvalue_1", "eigenvalue_2", "displacement", "relative_displacement"}
        for name in names - {"accuracy"}:
            assert [m[:3] for m in measured if m.metric == name] == [(50 * (t + 1), t + 1, t) for t in range(3)]
        found = {(m.metric, m.eval_task): m.value for m in measured}
        for task in range(3):
            assert found["eigenvalue_1", task] > found["eigenvalue_2", task] > 0
        assert found["displacement", 0] == found["relative_displacement", 0] == 0
        assert 0 < found["displacement", 1] < found["displacement", 2]

    def test_displacement_is_from_the_first_tasks_end(self, train_tasks):
        training, ends, measured = train_tasks("naive", benchmark={"curvature": {"images": 10}}), [], []
        while training.progress < 1:
            measured += training.advance()
            ends.append(flat_parameters(training))
        last = [m.value for m in measured if m.metric == "displacement"][-1]
        assert last == pytest.approx((ends[-1] - ends[0]).norm().item(), rel=1e-5)

    def test_looking_changes_nothing(self, train_tasks):
        seen, plain = (train_tasks("naive", model=RESNET, per_task=20, benchmark=b) for b in (
            {"curvature": {"images": 10}, "test_per_task": 20}, {"test_per_task": 20}
        ))  # fmt: skip
        assert [m for m in run(seen) if m.metric == "accuracy"] == run(plain)
        assert same(seen, plain)


class TestSettings:
    @pytest.mark.parametrize(("engine", "plain"), [("auto", False), ("fused", False), ("eager", True)])
    def test_engines_of_tag(self, train_tasks, engine, plain):
        facts = train_tasks("tag-rmsprop", engine=engine).facts
        assert facts["optimizer"] == ("PlainTag" if plain else "Tag")
        assert (facts["engine"] == "eager") == plain
        assert facts["device"] == "cpu"

    def test_engines_agree(self, train_tasks):
        ends = []
        for engine in ("eager", "auto"):
            training = train_tasks("tag-adam", engine=engine)
            run(training)
            ends.append(flat_parameters(training))
        torch.testing.assert_close(*ends, rtol=1e-3, atol=1e-4)

    def test_others_have_one(self, train_tasks):
        assert train_tasks("stable_sgd").facts["optimizer"] == "SGD"
        assert train_tasks("adam", engine="eager").facts["optimizer"] == "Adam"

    def test_progress_begins_at_nothing(self, train_tasks):
        assert train_tasks("naive").progress == 0


def declared_sweeps() -> list[str]:
    return [name for name in sweep_names() if name.startswith(("tag/", "stable_sgd/"))]


@pytest.mark.parametrize("name", declared_sweeps())
def test_the_time_of_every_declared_trial_can_be_told(name):
    trials = [cell.trial for cell in load_sweep(name).cells]
    assert trials
    assert all(10 < estimate(trial) < 4e6 for trial in trials)


def test_the_time_of_a_new_network_or_benchmark_can_be_told(monkeypatch):
    """``clray plan`` ended in a KeyError on a network that nothing but NETWORKS knew of."""

    class SmallCnn(Mlp):
        name: Literal["small-cnn"]  # type: ignore[assignment]

    class Mine(RotatedMnist):
        name: Literal["mine"]  # type: ignore[assignment]

    class Plain(Network):
        name: Literal["plain"]

    module = ModuleType("theirs")
    module.SmallCnn, module.Plain, module.Mine = SmallCnn, Plain, Mine
    for registry, names in ((NETWORKS, {"small-cnn": "SmallCnn", "plain": "Plain"}), (BENCHMARKS, {"mine": "Mine"})):
        monkeypatch.setitem(sys.modules, f"{registry.package}.theirs", module)
        for name, target in names.items():
            monkeypatch.setitem(registry.targets, name, f"theirs:{target}")
    for model in ("small-cnn", "plain"):
        declared = {
            "benchmark": {"name": "mine", "tasks": 2}, "model": {"name": model}, "method": "naive",
            "hyperparameters": {"lr": 0.1},
        }  # fmt: skip
        trial = Trial(
            version=1, track="vision", evaluate="after_task", randomness="clray", engine="auto", precision="float32",
            seed=1, task_order=None, **resolve(declared),
        )  # fmt: skip
        assert 5 < estimate(trial) < 1e5


@pytest.mark.parametrize(
    ("sweep", "variant", "change", "times"),
    [
        ("online/tiny_memories_cifar100", "mer-5", "variants.mer-5.steps=10", 2),
        ("online/er_ace_cifar10", "er-20", "variants.er-20.iterations=3", 3),
    ],
)
def test_an_estimate_grows_with_the_steps_on_a_batch(sweep, variant, change, times):
    def seconds(*changes):
        return estimate(load_sweep(sweep, Selection(only=(variant,), set=changes)).cells[0].trial)

    assert 0.8 * times < seconds(change) / seconds() < 1.2 * times


def test_an_estimate_grows_with_the_evaluations():
    def seconds(every):
        selection = Selection(only=("er-20",), set=(f"evaluate={every}",))
        return estimate(load_sweep("online/er_ace_cifar10", selection).cells[0].trial)

    assert seconds("after_task") < seconds(10_000) < seconds(1000) / 1.5


@pytest.fixture
def cifar() -> Trial:
    if not os.environ.get("CLRAY_DATA") or present("cifar100") is None:
        pytest.skip("needs the published CIFAR-100 files: set CLRAY_DATA to a folder that holds cifar100/")
    declared = {
        "benchmark": {"name": "split-cifar100", "source": "files"},
        "model": {"name": "reduced-resnet18"},
        "method": "naive",
        "hyperparameters": {"lr": 0.1},
    }
    return Trial(
        version=1, track="vision", evaluate="after_task", randomness="official", engine="auto", precision="float32",
        seed=1, task_order=None, **resolve(declared),
    )  # fmt: skip


def test_the_official_cifar100_run_begins_alike(cifar):
    """github.com/pranshu28/TAG @187d4df, run 1: its first minibatch, and the loss on it."""
    training = train(cifar, data(cifar, fetch=False), "cpu")
    assert isinstance(training, VisionTraining)
    losses: list[tuple[Tensor, float]] = []
    learner_loss = training.learner.loss

    def loss(logits: Tensor, y: Tensor, experience: int) -> Tensor:
        found = learner_loss(logits, y, experience)
        losses.append((y, found.item()))
        raise StopIteration

    training.learner.loss = loss  # type: ignore[method-assign]
    with pytest.raises(StopIteration):
        training.advance()
    [(labels, first)] = losses
    assert labels.tolist() == [3, 2, 4, 2, 0, 4, 1, 0, 2, 4]
    # In the official code's layout of memory to the last digits; with channels last convolutions round otherwise.
    assert first == pytest.approx(1.6496387720108032, rel=1e-5)
    module = training.learner.module.to(memory_format=torch.contiguous_format)
    x, y = training.stream.examples(training.plan._order[:10])
    assert learner_loss(module(x.contiguous()), y, 0).item() == pytest.approx(1.6496387720108032, rel=3e-7)
