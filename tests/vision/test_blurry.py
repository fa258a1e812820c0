"""i-Blurry and Si-Blurry: the recorded divisions of the official sampler, and trials on such streams."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clray.record import Record
from clray.training import run
from clray.trial import SettingError, Trial
from clray.vision import trial as loop
from clray.vision.benchmarks.blurry import IBlurry, SiBlurry, deal, kept_classes
from clray.vision.data import ImageSet
from clray.vision.draws import ClrayDraws
from clray.vision.stream import Stream
from clray.vision.training import resolve, train

RECORDED = Path(__file__).parents[1] / "fixtures" / "online"
CASES = json.loads((RECORDED / "siblurry.json").read_text(encoding="utf-8"))["cases"]
INDICES = np.load(RECORDED / "siblurry.npz")


class Given:
    """Recorded draws in the order in which the official code made them."""

    def __init__(self, order: list[str], values: list[list[int]]) -> None:
        self.left = list(zip(order, values, strict=True))

    def _next(self, kind: str, count: int) -> np.ndarray:
        name, values = self.left.pop(0)
        assert (name, len(values)) == (kind, count)
        return np.array(values, np.int64)

    def permutation(self, x: int) -> np.ndarray:
        return self._next("randperm", x)

    def integers(self, low: int, *, size: int) -> np.ndarray:
        return self._next("randint", size)


class OfTorch:
    """The same draws made again, with the generator that the official code makes them with."""

    def __init__(self, seed: int) -> None:
        self.rng = torch.Generator().manual_seed(seed)

    def permutation(self, x: int) -> np.ndarray:
        return torch.randperm(x, generator=self.rng).numpy()

    def integers(self, low: int, *, size: int) -> np.ndarray:
        return torch.randint(0, low, (size,), generator=self.rng).numpy()


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['dataset']}-{c['stochastic']}-{c['seed']}-{c['n']}")
def test_it_divides_as_the_official_sampler(case):
    toy = case["dataset"] == "toy20"
    labels = np.tile(np.arange(20), 10) if toy else INDICES["c100_labels"]
    for rng in [OfTorch(case["seed"])] + ([Given(**case["raw_draws"])] if "values" in case["raw_draws"] else []):
        order = rng.permutation(20 if toy else 100)
        assert order.tolist() == case["class_order"]
        disjoint, blurry = kept_classes(len(order), case["tasks"], case["n"])
        assert (disjoint, blurry) == (case["disjoint_num"], case["blurry_num"])
        drawn = rng if case["stochastic"] else None
        dealt = deal(labels, order[: disjoint + blurry], case["tasks"], disjoint, case["m"], drawn, rng)
        assert dealt.disjoint == case["disjoint_classes"]
        assert dealt.blurry == case["blurry_classes"]
        assert [len(own) for own in dealt.indices] == case["lengths"]
        expected = (
            case["indices"] if toy else np.split(INDICES[case["indices_in_npz"]], np.cumsum(case["lengths"])[:-1])
        )
        for own, other in zip(dealt.indices, expected, strict=True):
            assert own.tolist() == list(other)
        assert not getattr(rng, "left", []), "every draw was made"


@pytest.mark.parametrize(
    ("classes", "tasks", "percent", "kept"),
    [(100, 5, 50, (50, 50)), (10, 5, 50, (5, 5)), (10, 3, 50, (3, 6)), (10, 4, 50, (4, 4)), (10, 4, 0, (0, 8))],
)
def test_classes_that_do_not_divide_are_left_out(classes, tasks, percent, kept):
    assert kept_classes(classes, tasks, percent) == kept


def built(
    digits: ImageSet, seed: int = 0, order: list[int] | None = None, name: str = "si-blurry", **more: Any
) -> Stream:
    settings = {"name": name, "dataset": "mnist", "train_per_class": 40, "test_per_class": 20, **more}
    return {"si-blurry": SiBlurry, "i-blurry": IBlurry}[name](**settings).stream(
        {"mnist": digits}, ClrayDraws(seed), order
    )


class TestStream:
    def test_every_image_comes_once(self, digits):
        for seed in range(5):
            stream = built(digits, seed)
            assert len(stream) == 400
            assert len(set(stream.image.tolist())) == 400

    def test_classes_get_their_logits_as_they_arrive(self, digits):
        stream = built(digits)
        labels = stream.labels[stream.on_device(np.concatenate([e.examples for e in stream.experiences]))].tolist()
        assert list(dict.fromkeys(labels)) == list(range(10))

    def test_the_images_of_a_class_are_of_one_digit(self, digits):
        stream = built(digits)
        names = {}
        for number, logit in enumerate(stream.labels.tolist()):
            digit = int(digits.train_labels[stream.image[number]])
            assert names.setdefault(logit, digit) == digit
        for logit, group in enumerate(stream.tested):
            assert set(digits.test_labels[group.tests].tolist()) == {names[logit]}
            assert stream.tests(logit)[1].tolist() == [logit] * 20

    def test_disjoint_classes_are_of_one_task_and_blurry_ones_of_several(self, digits):
        stream = built(digits, name="i-blurry")
        tasks = [set(stream.labels[stream.on_device(e.examples)].tolist()) for e in stream.experiences]
        several = [c for c, found in Counter(c for task in tasks for c in task).items() if found > 1]
        assert 0 < len(several) <= 5
        assert [len(e.examples) for e in stream.experiences] == [80] * 5

    def test_another_seed_is_another_division(self, digits):
        one, same, other = (built(digits, seed) for seed in (0, 0, 1))
        assert one.image.tolist() == same.image.tolist() != other.image.tolist()
        assert [len(e.examples) for e in one.experiences] != [len(e.examples) for e in other.experiences]

    def test_without_mixing_and_without_blurry_classes(self, digits):
        for settings in ({"blurry_percent": 0}, {"disjoint_percent": 100}):
            stream = built(digits, **settings)
            tasks = [set(stream.labels[stream.on_device(e.examples)].tolist()) for e in stream.experiences]
            assert sum(map(len, tasks)) == 10

    def test_left_out_classes_never_arrive_and_have_no_logits(self, digits):
        stream = built(digits, tasks=4)
        assert stream.outputs == stream.label_classes == len(stream.tested) == 8
        assert len(stream) == 320
        assert sorted(set(stream.labels.tolist())) == list(range(8))

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"tasks": 20}, "fewer than 20 disjoint"),
            ({"disjoint_percent": 101}, "less than or equal to 100"),
            ({"blurry_percent": -1}, "greater than or equal to 0"),
            ({"measured": "tasks"}, "classes"),
            ({"epochs": 2}, "not a setting"),
        ],
    )
    def test_wrong_settings_are_refused(self, change, said):
        with pytest.raises(SettingError, match=said):
            resolved(**change)


def resolved(method: str = "ocl_er", **benchmark: Any) -> dict[str, Any]:
    settings = {"lr": 0.05} | ({"memories": 30} if method != "ocl_naive" else {})
    declared = {"name": "si-blurry", "dataset": "mnist", "train_per_class": 30, "test_per_class": 20, **benchmark}
    model = {"name": "mlp", "hidden": [20]}
    return resolve({"benchmark": declared, "model": model, "method": method, "hyperparameters": settings})


@pytest.fixture
def trial_of(embedded):
    def ready(seed: int = 0, method: str = "ocl_er", evaluate: Any = 70, order: Any = None, **benchmark: Any) -> Any:
        trial = Trial(
            version=1, track="vision", precision="float32", seed=seed, evaluate=evaluate, randomness="clray",
            engine="auto", task_order=order, **resolved(method, source="embedded", **benchmark),
        )  # fmt: skip
        training = train(trial, embedded, "cpu")
        assert isinstance(training, loop.VisionTraining)
        return training

    return ready


def with_an_empty_task(trial_of) -> int:
    """A seed whose stream has a task without images."""
    return next(s for s in range(200) if min(len(e.examples) for e in trial_of(s).stream.experiences) == 0)


class TestTrials:
    def test_only_classes_that_have_arrived_are_measured(self, trial_of):
        training = trial_of()
        stream = training.stream
        arriving = stream.labels[stream.on_device(np.concatenate([e.examples for e in stream.experiences]))].tolist()
        measured = run(training)
        by_step: dict[int, list[int]] = {}
        for m in measured:
            if m.metric == "accuracy":
                by_step.setdefault(m.step, []).append(m.eval_task)
        assert len(by_step) >= 300 // 70
        for step, classes in by_step.items():
            assert set(classes) == set(arriving[:step])
        assert set(by_step[300]) == set(range(10))

    def test_the_accuracy_on_seen_classes_is_the_mean_over_their_images(self, trial_of):
        training = trial_of()
        measured = run(training)
        seen = [m for m in measured if m.metric == "seen_accuracy"]
        ends, begin = [], 0  # of batches: the last one of a task may be short
        for own in training.stream.experiences:
            ends += [begin + min(n + 10, len(own.examples)) for n in range(0, len(own.examples), 10)]
            begin += len(own.examples)
        assert [m.step for m in seen] == [min(end for end in ends if end >= step) for step in (70, 140, 210, 280)]
        for one in seen:
            own = [m.value for m in measured if m.step == one.step and m.metric == "accuracy"]
            assert one.value == pytest.approx(np.mean(own))
        assert not [m for m in measured if m.metric == "task_accuracy"]

    def test_it_learns(self, trial_of):
        measured = run(trial_of(train_per_class=300, test_per_class=None, evaluate=1000))
        last = [m.value for m in measured if m.step == 3000 and m.metric == "accuracy"]
        assert np.mean(last[-10:]) > 0.5

    @pytest.mark.parametrize("method", ["ocl_er", "er_ace"])
    @pytest.mark.parametrize("changes", [{}, {"order": [3, 0, 4, 1, 2]}, {"name": "i-blurry"}, {"seed": -1}])
    def test_it_goes_on_after_every_stop_with_the_same_bits(self, method, changes, trial_of, monkeypatch):
        if changes.get("seed"):
            changes = {"seed": with_an_empty_task(trial_of)}
        whole = trial_of(method=method, **changes)
        expected = run(whole)
        monkeypatch.setattr(loop, "_STOP_AFTER", -1.0)
        training, measured, stops = trial_of(method=method, **changes), [], 0
        while training.progress < 1:
            measured += training.advance()
            saved = io.BytesIO()
            torch.save(training.state_dict(), saved)
            saved.seek(0)
            training = trial_of(method=method, **changes)
            training.load_state_dict(torch.load(saved, weights_only=True))
            stops += 1
        assert stops > 30
        assert measured == expected
        for name, values in whole.learner.module.state_dict().items():
            assert torch.equal(values, training.learner.module.state_dict()[name])

    def test_methods_are_not_told_the_task(self, trial_of):
        training, told = trial_of(), set()
        observe = training.method.observe
        training.method.observe = lambda batch: told.add(batch.experience) or observe(batch)
        run(training)
        assert told == {None}

    def test_its_record_can_be_read_again(self, trial_of):
        """Its measurements are of more classes than it has tasks."""
        training = trial_of()
        record = Record("", training.trial, {"fingerprint": "x", "name": "mnist"}, run(training))
        named = Record(training.trial.id("x"), record.trial, record.data, record.measurements)
        again = Record.from_table(named.to_table(), named.id)
        assert again.measurements == named.measurements
        none = [m for m in named.measurements if m.trained_tasks < 5]
        with pytest.raises(ValueError, match="not measured after the last task"):
            Record.from_table(Record(named.id, named.trial, named.data, none).to_table(), named.id)
