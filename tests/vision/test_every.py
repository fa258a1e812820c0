"""Tests that every method, benchmark and network must pass; the tests find them in their registries.

A method's settings are those of the first shipped variant that has it, made small.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from clray.loading import load_sweep, sweep_names
from clray.selection import Selection
from clray.sweep import Cell
from clray.training import run
from clray.trial import SettingError, Trial
from clray.vision import export
from clray.vision import trial as loop
from clray.vision.benchmarks import BENCHMARKS
from clray.vision.benchmarks.rearranged_mnist import RotatedMnist
from clray.vision.data import ImageSet
from clray.vision.draws import ClrayDraws
from clray.vision.methods import METHODS
from clray.vision.networks import NETWORKS
from clray.vision.stream import Stream
from clray.vision.training import estimate, resolve, train

NEED_BOUNDARIES = ("agem", "er_reservoir", "er_tiny", "ewc_online", "hpcr", "mer_batches")
"""The methods that must know which task a batch belongs to."""
FROM_MEMORY = ("ocm", "onpro")
"""The methods that learn the classes of later tasks from the memory alone, for which ten memories are too few."""
SMALL = 10
"""The most of anything that is counted in a method's settings: memories, replays, batches."""


def shipped() -> Iterator[Cell]:
    """The trials of all sweeps, and of tiny memories' quick form, which alone is on digits in tasks of two classes."""
    for name in sweep_names():
        sweep = load_sweep(name)
        if sweep.track == "vision":
            yield from sweep.cells
    yield from load_sweep("online/tiny_memories_cifar100", Selection(quick=True)).cells


@pytest.fixture(scope="module")
def declared() -> dict[str, dict[str, Any]]:
    """By method, the settings that a shipped variant gives it."""
    found: dict[str, dict[str, Any]] = {}
    for cell in shipped():
        found.setdefault(cell.trial.method, cell.trial.hyperparameters)
    return found


@pytest.fixture
def small(declared, embedded, kernels) -> Any:
    """``small(method)``: a trial of a method on the embedded digits, of seconds."""

    def ready(
        method: str,
        per_task: int = 30,
        device: str = "cpu",
        boundaries: str = "given",
        stream: dict[str, Any] | None = None,
        **changes: Any,
    ) -> loop.VisionTraining:
        settings = dict(declared[method])
        if "lr" in settings:
            settings["lr"] = 0.05
        if "optimizer" in settings:
            settings["optimizer"] = "sgd"
        settings.pop("replay_from", None)  # of one paper's form, which needs boundaries
        if "b" in settings:  # of the TAG optimizers
            settings["b"] = None
        for key, value in settings.items():
            if isinstance(value, int) and not isinstance(value, bool):
                settings[key] = min(value, SMALL)
        benchmark = {"tasks": 3, "train_per_task": per_task, "source": "embedded"}
        model: dict[str, Any] = {"name": "mlp", "hidden": [20, 20]}
        kind = METHODS[method].learner_kind
        if kind == "module":
            benchmark |= {"name": "rotated-mnist", "degrees": 60.0, "heads": "multi", "test_per_task": 200}
            model["dropout"] = 0.1
        elif kind == "incremental":
            benchmark = {"name": "class-incremental", "dataset": "mnist", "tasks": 3, "source": "embedded"}
            benchmark |= {"classes": list(range(6)), "train_per_class": per_task // 2, "boundaries": boundaries}
            benchmark |= stream or {}
        else:
            benchmark |= {"name": "mnist-rotations"}
        if method != "multitask_cyclic":  # whose epochs are its cycles
            settings.pop("cycles", None)
        rest = {"evaluate": "after_task", "randomness": "clray", "engine": "auto", "task_order": None, **changes}
        resolved = resolve({"benchmark": benchmark, "model": model, "method": method, "hyperparameters": settings})
        trial = Trial(version=1, track="vision", precision="float32", seed=0, **rest, **resolved)
        training = train(trial, embedded, device)
        assert isinstance(training, loop.VisionTraining)
        return training

    return ready


def bits(state: Any) -> list[Any]:
    """All that a state holds, comparable."""
    if isinstance(state, dict):
        return [part for key in sorted(state, key=str) for part in bits(state[key])]
    if isinstance(state, list | tuple):
        return [part for each in state for part in bits(each)]
    return [state.numpy().tobytes() if hasattr(state, "numpy") else state]


def same_bits_after_every_stop(make: Callable[[], loop.VisionTraining], monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare a trial that runs through with one that is saved and loaded again wherever it can stop."""
    whole = make()
    expected = run(whole)
    monkeypatch.setattr(loop, "_STOP_AFTER", -1.0)
    monkeypatch.setattr(loop, "_AT_ONCE", 3)
    training, measured, stops = make(), [], 0
    while training.progress < 1:
        measured += training.advance()
        saved = io.BytesIO()
        torch.save(training.state_dict(), saved)
        saved.seek(0)
        progress, training = training.progress, make()
        training.load_state_dict(torch.load(saved, weights_only=True))
        assert training.progress == progress
        stops += 1
    assert stops > 5
    assert measured == expected
    assert bits(training.state_dict()) == bits(whole.state_dict())


@pytest.mark.parametrize("method", METHODS)
class TestEveryMethod:
    def test_a_shipped_sweep_has_it(self, method, declared):
        assert method in declared

    def test_it_learns(self, method, small):
        measured = run(small(method, per_task=500))
        last = 1 if method in FROM_MEMORY else max(m.trained_tasks for m in measured)
        learned = [m.value for m in measured if m.trained_tasks == last and m.eval_task == last - 1]
        assert learned[0] > 0.25, "well above one in ten"

    @pytest.mark.parametrize("changes", [{}, {"evaluate": 7, "task_order": [2, 0, 1]}, {"randomness": "official"}])
    def test_it_goes_on_after_every_stop_with_the_same_bits(self, method, changes, small, monkeypatch):
        if "randomness" in changes and METHODS[method].learner_kind == "incremental":
            pytest.skip("these benchmarks have no official draws")
        same_bits_after_every_stop(lambda: small(method, **changes), monkeypatch)

    @pytest.mark.parametrize(
        ("stream", "order"),
        [
            ({"name": "i-blurry"}, None),
            ({"name": "si-blurry"}, [2, 0, 1]),
            ({"name": "coarse-to-fine", "classes": None}, [0, 2, 1]),
        ],
    )
    def test_it_goes_on_with_the_same_bits_on_every_stream(self, method, stream, order, small, monkeypatch):
        if METHODS[method].learner_kind != "incremental":
            pytest.skip("these streams are for one head")
        if method not in NEED_BOUNDARIES:
            stream = stream | {"boundaries": "hidden"}
        changes = {"per_task": 12, "stream": stream, "evaluate": 20, "task_order": order}
        same_bits_after_every_stop(lambda: small(method, **changes), monkeypatch)

    def test_looking_more_often_changes_nothing(self, method, small):
        """Every seventh example is within a batch of ten: then it is measured after the batch."""
        often, seldom = small(method, evaluate=7), small(method)
        measured, rows = run(often), run(seldom)
        assert [m for m in measured if m in rows] == rows
        steps = {m.step for m in measured}
        batch = often.method.batch_size
        assert steps >= {-(-step // batch) * batch for step in range(7, 30, 7)}
        for part in ("learner", "method"):
            assert bits(often.state_dict()[part]) == bits(seldom.state_dict()[part])

    def test_its_weights_are_kept_and_load_into_the_network_class(self, method, small):
        training = small(method)
        run(training)
        before, drawn = bits(training.state_dict()), torch.get_rng_state()
        kept = export.weights(training, {"id": "0123456789abcdef"})
        assert (bits(training.state_dict()), torch.equal(torch.get_rng_state(), drawn)) == (before, True)
        facts = json.loads(kept["weights.json"])
        assert (facts["id"], facts["trial"]) == ("0123456789abcdef", training.trial.model_dump(mode="json"))
        net = export.network(facts)
        net.load_state_dict(torch.load(io.BytesIO(kept["weights.pt"]), weights_only=True))
        net.eval()
        if METHODS[method].learner_kind == "perceptron":
            rows = training.learner._rows
            for experience in range(3):
                own = net[experience] if isinstance(net, torch.nn.ModuleList) else net
                answers = own(torch.from_numpy(rows.tests(experience)).view(-1, *training.stream.shape)).argmax(1)
                right = int((answers.numpy() == rows.test_labels[: rows.scored]).sum())
                assert abs(right - training.method.correct(experience)) <= 1, "the kernels add in another order"
            return
        images = training.learner.laid_out(training.stream.tests(1, 0, 20)[0])
        module = training.learner.module.eval()
        assert torch.equal(net(images), module(images))
        assert net.state_dict().keys() == module.state_dict().keys()

    def test_wrong_settings_are_refused(self, method, declared):
        benchmark = {"name": "mnist-rotations", "tasks": 2, "train_per_task": 20}
        if METHODS[method].learner_kind == "module":
            benchmark["name"] = "rotated-mnist"
        elif METHODS[method].learner_kind == "incremental":
            benchmark = {"name": "class-incremental", "dataset": "mnist"}
        right = {"benchmark": benchmark, "model": {"name": "mlp"}, "method": method}
        wrong = ({"no_such_setting": 1}, {"lr": -1.0}, {"lr": "fast"}, {"lr": float("nan")}, {"lr": True})
        for change in wrong:
            with pytest.raises(SettingError) as caught:
                resolve(right | {"hyperparameters": declared[method] | change})
            assert caught.value.keys == tuple(change)

    def test_boundaries_may_be_hidden(self, method, small, monkeypatch):
        """A method that needs the boundaries raises an error that says so."""
        if METHODS[method].learner_kind == "perceptron":
            pytest.skip("its examples know their tasks")
        monkeypatch.setattr(RotatedMnist, "hides_boundaries", True)
        if method in NEED_BOUNDARIES:
            with pytest.raises(SettingError, match=f"hidden: {method} must be told .*; allowed here: given"):
                small(method, boundaries="hidden")
            return
        training = small(method, boundaries="hidden")
        batches, ends = [], []
        observe = training.method.observe
        training.method.observe = lambda batch: batches.append(batch.experience) or observe(batch)
        training.method.end = ends.append
        assert run(training)
        assert set(batches) == {None}
        assert ends == []

    @pytest.mark.parametrize("stream", [{"name": "si-blurry"}, {"name": "coarse-to-fine", "classes": None}])
    def test_it_runs_where_tasks_share_classes_and_where_labels_have_levels(self, method, stream, small):
        """Nothing of these streams is in a method; the tasks are given, so that those that need them run as well."""
        if METHODS[method].learner_kind != "incremental":
            pytest.skip("these streams are for one head")
        training = small(method, per_task=100, stream=stream)
        measured = run(training)
        last = [m for m in measured if m.trained_tasks == 3 and m.metric == "accuracy"]
        assert {m.eval_task for m in last} == set(range(len(training.stream.groups)))
        assert sum(m.value for m in last) / len(last) > 0.15

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_it_runs_on_another_device(self, method, small):
        here, there = run(small(method)), run(small(method, device="cuda"))
        assert [m[:4] for m in here] == [m[:4] for m in there]


def made(classes: int, shape: tuple[int, ...]) -> ImageSet:
    """Some images of each class, in no order."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(classes), 12))
    pixels = rng.integers(0, 256, (len(labels), *shape), np.uint8)
    return ImageSet(pixels, labels, pixels[:40], labels[:40])


def built(name: str, order: list[int] | None = None) -> Stream:
    """The stream of a shipped trial on a benchmark, from made-up images."""
    settings = next(cell.trial.benchmark for cell in shipped() if cell.trial.benchmark["name"] == name)
    fewer = {"tasks": min(settings["tasks"], 5), "train_per_task": 10, "test_per_task": None, "angles": None}
    fewer |= {"train_per_class": 5, "test_per_class": None}
    benchmark = BENCHMARKS[name](**settings | {k: v for k, v in fewer.items() if k in settings})
    several = len(benchmark.datasets) > 1
    images = {
        each: made(10 if several else benchmark.label_classes, (784,) if "mnist" in each else (3, 8, 8))
        for each in benchmark.datasets
    }
    return benchmark.stream(images, ClrayDraws(0), order)


@pytest.mark.parametrize("name", BENCHMARKS)
class TestEveryBenchmark:
    def test_its_stream(self, name):
        stream = built(name)
        numbers = np.concatenate([e.examples for e in stream.experiences])
        assert sorted(numbers.tolist()) == list(range(len(stream))), "every example is of one experience"
        for experience, own in enumerate(stream.experiences):
            assert (stream.owner[own.examples] == experience).all()
            for x, y in (stream.examples(own.examples[:7]), stream.tests(experience, 0, 7)):
                assert x.dtype == torch.float32
                assert tuple(x.shape[1:]) == stream.shape
                assert x.isfinite().all()
                assert ((y >= own.logits[0]) & (y < own.logits[1])).all()
            assert own.logits[1] <= stream.outputs
            assert own.accuracy_divisor >= len(own.tests) > 0

    def test_examples_of_several_experiences_are_gathered_at_once(self, name):
        stream = built(name)
        several = [e.examples for e in stream.experiences if len(e.examples) > 3]  # a blurry task may have none
        numbers = np.array([own[3] for own in several] + [several[0][1]])
        assert len(several) > 1
        x, y = stream.examples(numbers)
        for i, number in enumerate(numbers):
            one, label = stream.examples(np.array([number]))
            assert torch.equal(x[i : i + 1], one)
            assert torch.equal(y[i : i + 1], label)

    def test_another_order_of_learning(self, name):
        stream = built(name)
        order = list(range(len(stream.experiences)))[::-1]
        turned = built(name, order)
        assert [e.logits for e in turned.experiences] == [stream.experiences[t].logits for t in order]
        for place, task in enumerate(order if stream.tested is None else range(len(stream.groups))):
            x, y = turned.tests(place)
            expected = stream.tests(task)
            assert torch.equal(x, expected[0])
            assert torch.equal(y, expected[1])

    def test_a_plan_of_it(self, name):
        cell = next(cell for cell in shipped() if cell.trial.benchmark["name"] == name)
        assert 1 < estimate(cell.trial) < 4e6
        settings = cell.trial.benchmark
        declared = {
            "model": cell.trial.model,
            "method": cell.trial.method,
            "hyperparameters": cell.trial.hyperparameters,
        }
        for change in ({"no_such_setting": 1}, {"tasks": 0}, {"source": "web"}):
            with pytest.raises(SettingError) as caught:
                resolve(declared | {"benchmark": settings | change})
            assert caught.value.section == "benchmark"


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
class TestEveryNetwork:
    def test_it_has_features_and_logits(self, name, shape):
        fields = NETWORKS[name].model_fields
        network = NETWORKS[name](name=name, **({"pretrained": False} if "pretrained" in fields else {}))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module: Any = network.build(shape, 7)
        module.eval()
        x = torch.rand(3, *shape)
        features, logits = module.features(x), module(x)
        heads = [part for part in module.modules() if isinstance(part, torch.nn.Linear) and part.out_features == 7]
        assert len(heads) == 1
        assert features.shape == (3, heads[0].in_features)
        assert logits.shape == (3, 7)
        assert torch.equal(heads[0](features), logits)
        assert min(network.seconds) > 0
