"""The stream that names superclasses first: its labels, its loss within a level, and its measurements."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from clray.training import run
from clray.trial import SettingError, Trial
from clray.vision.benchmarks.coarse_to_fine import COARSE, CoarseToFine
from clray.vision.data import ImageSet
from clray.vision.draws import ClrayDraws
from clray.vision.stream import Batch, Stream
from clray.vision.training import resolve, train


def built(images: ImageSet, order: list[int] | None = None, seed: int = 0, **settings: Any) -> Stream:
    declared = {"name": "coarse-to-fine", "dataset": "mnist", "tasks": 3, "train_per_class": 20, **settings}
    return CoarseToFine(**declared).stream({declared["dataset"]: images}, ClrayDraws(seed), order)


def twenty() -> ImageSet:
    """Six images of each of 100 classes, of which the first two are for testing, too."""
    labels = np.repeat(np.arange(100), 6)
    pixels = np.random.default_rng(0).integers(0, 256, (600, 3, 4, 4), np.uint8)
    test = np.arange(600) % 6 < 2
    return ImageSet(pixels, labels, pixels[test], labels[test])


def test_the_superclasses_are_those_of_the_data_set():
    path = Path(os.environ.get("CLRAY_DATA", "")) / "cifar100" / "classes.json"
    if not path.is_file():
        pytest.skip("the names of the classes are not here")
    assert list(COARSE["cifar100"]) == json.loads(path.read_text(encoding="utf-8"))["coarse_of_fine"]


def test_each_superclass_has_five_classes():
    assert sorted(COARSE["cifar100"]) == sorted(list(range(20)) * 5)


class TestStream:
    @pytest.mark.parametrize("order", [None, [2, 0, 1]])
    def test_an_example_has_a_label_of_one_level(self, digits, order):
        stream = built(digits, order)
        coarse = (order or [0, 1, 2]).index(0)
        seen: dict[int, set[int]] = {}
        for task, own in enumerate(stream.experiences):
            x, y = stream.examples(own.examples)
            digit = digits.train_labels[stream.image[own.examples]]
            assert len(x) == (100 if task == coarse else 50)
            for label, name in zip(y.tolist(), digit % 2 if task == coarse else digit + 10, strict=True):
                seen.setdefault(label, set()).add(int(name))
            assert set(y.tolist()) == set(range(*own.logits))
        assert sorted(seen) == list(range(12))
        assert all(len(names) == 1 for names in seen.values())

    def test_classes_of_one_superclass_come_together(self, digits):
        stream = built(digits)
        coarse_first = digits.train_labels[stream.image[stream.experiences[0].examples]]
        first_label = stream.examples(stream.experiences[0].examples)[1].numpy()
        for task, own in enumerate(stream.experiences[1:]):
            parity = set((digits.train_labels[stream.image[own.examples]] % 2).tolist())
            assert parity == set((coarse_first[first_label == task] % 2).tolist())
            assert len(parity) == 1

    def test_tests_have_labels_of_their_level(self, digits):
        stream = built(digits)
        for group in range(3):
            _, y = stream.tests(group)
            digit = digits.test_labels[stream.experiences[group].tests]
            assert set(y.tolist()) == set(range(*stream.experiences[group].logits))
            assert len({(int(a), int(b)) for a, b in zip(y, digit % 2 if group == 0 else digit, strict=True)}) == len(
                set(y.tolist())
            )

    def test_an_image_comes_once_or_again(self, digits):
        once, again = built(digits), built(digits, again=True)
        assert len(set(once.image.tolist())) == len(once) == 200
        assert len(again) == 400
        assert set(again.image[again.experiences[0].examples].tolist()) == set(again.image.tolist())

    def test_cifar100(self):
        images = twenty()
        stream = built(images, dataset="cifar100", tasks=6, train_per_class=None)
        assert stream.outputs == 120
        assert [e.logits for e in stream.experiences] == [(0, 20), *((20 + 20 * t, 40 + 20 * t) for t in range(5))]
        for own in stream.experiences[1:]:
            fine = images.train_labels[stream.image[own.examples]]
            assert len({COARSE["cifar100"][c] for c in fine.tolist()}) == 4
        assert [len(e.tests) for e in stream.experiences] == [200, 40, 40, 40, 40, 40]

    def test_the_order_of_superclasses_is_a_declared_seed(self):
        def order(seed: int = 0, **settings: Any) -> list[int]:
            stream = built(twenty(), seed=seed, dataset="cifar100", tasks=6, train_per_class=None, **settings)
            y, image = stream.labels.numpy(), stream.image
            fine = twenty().train_labels
            return [COARSE["cifar100"][fine[image[y == logit][0]]] for logit in range(20)]

        assert order() == order(seed=5) != order(class_order=1)
        assert order(class_order="labels") == list(range(20))
        assert order(class_order=[*range(10, 20), *range(10)]) == [*range(10, 20), *range(10)]
        assert order(class_order="trial") != order(seed=5, class_order="trial")

    def test_too_few_images(self, digits):
        from clray.errors import DataError

        with pytest.raises(DataError, match="half of a class's images comes in task 0"):
            built(digits, train_per_class=1)
        assert len(built(digits, train_per_class=1, again=True)) == 20


def trial(embedded: Any, method: str = "ocl_er", **benchmark: Any) -> Any:
    settings = {"lr": 0.1} | ({"memories": 200} if method != "ocl_naive" else {})
    settings |= {"augmentation": "none"} if method in ("pcr", "hpcr") else {}
    declared = resolve(
        {
            "benchmark": {"name": "coarse-to-fine", "dataset": "mnist", "tasks": 3, "source": "embedded", **benchmark},
            "model": {"name": "mlp", "hidden": [50]},
            "method": method,
            "hyperparameters": settings,
        }
    )
    made = Trial(
        version=1, track="vision", precision="float32", seed=0, evaluate="after_task", randomness="clray",
        engine="auto", task_order=None, **declared,
    )  # fmt: skip
    return train(made, embedded, "cpu")


class TestTrials:
    def test_the_loss_is_that_within_the_level(self, embedded):
        training = trial(embedded)
        learner, stream = training.learner, training.stream
        for group, (begin, end) in ((0, (0, 2)), (1, (2, 12))):
            x, y = stream.examples(stream.experiences[group].examples[:20])
            learner.module.zero_grad()
            loss = cross_entropy(learner.logits(x), y)
            loss.backward()
            found = [p.grad.clone() for p in learner.parameters]
            learner.module.zero_grad()
            own = cross_entropy(learner.module(x)[:, begin:end], y - begin)
            own.backward()
            assert loss.item() == pytest.approx(own.item() + np.log(2), abs=1e-5)
            for one, p in zip(found, learner.parameters, strict=True):
                assert torch.allclose(one, p.grad, atol=1e-6)

    @pytest.mark.parametrize("method", ["er_ace", "pcr", "hpcr", "uer", "ocl_er"])
    def test_superclasses_and_classes_do_not_compete(self, method, embedded):
        """A loss of superclasses moves no weight of a class's logit, and the other way round."""
        boundaries = {"boundaries": "given"} if method == "hpcr" else {}
        for level, (begin, end) in ((0, (2, 12)), (1, (0, 2))):
            training = trial(embedded, method, **boundaries)
            own, stream = training.method, training.stream
            numbers = np.random.default_rng(0).permutation(stream.experiences[level].examples)
            own.observe(Batch(stream, numbers[:10], level))
            own.learner.module.zero_grad()
            own.loss(Batch(stream, numbers[10:20], level)).backward()
            *_, weights = [p for p in own.learner.parameters if len(p) == 12 and p.ndim == 2]
            assert weights.grad[begin:end].abs().max() < 1e-5
            assert weights.grad.abs().max() > 1e-3

    def test_an_answer_is_looked_for_in_its_level(self, embedded):
        """A network that always prefers one superclass and one digit is right where its level says so."""
        training = trial(embedded)
        head = training.learner.module.head
        with torch.no_grad():
            head.weight.zero_()
            head.bias.copy_(torch.tensor([9.0, 8.0] + [0.0] * 4 + [5.0] + [0.0] * 5))
        counts = [training.method.counts(group) for group in range(3)]
        own = [len(e.tests) for e in training.stream.experiences]
        assert own == [1000, 500, 500]
        assert [c["accuracy"] for c in counts] == [500, 100, 0]
        assert [c["task_accuracy"] for c in counts] == [500, 100, 100]

    @pytest.mark.parametrize("method", ["ocl_er", "er_ace"])
    def test_methods_learn_both_levels(self, method, embedded):
        measured = run(trial(embedded, method))
        last = {m.eval_task: m.value for m in measured if m.trained_tasks == 3 and m.metric == "accuracy"}
        assert last[0] > 0.7
        assert last[1] + last[2] > 0.8

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"tasks": 4}, "tasks: 2 superclasses do not divide into 3 tasks after the first 1; allowed: 2, 3"),
            ({"tasks": 1}, "do not divide"),
            ({"classes": [0, 1, 2]}, "classes: the superclasses are those of all classes"),
            ({"class_order": [0, 0]}, "class_order: a list must hold each superclass from 0 to 1 once"),
            ({"dataset": "cifar10"}, "mnist"),
            ({"normalise": "onpro"}, "normalise: onpro has no numbers for mnist"),
        ],
    )
    def test_wrong_settings_are_refused(self, change, said, embedded):
        with pytest.raises(SettingError) as caught:
            trial(embedded, **change)
        assert said in f"{caught.value.keys[0]}: {caught.value}"
