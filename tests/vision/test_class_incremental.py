"""The classes of one image set as a stream: their order, their images, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
from typing import Any

import numpy as np
import pytest
from test_data import idx

from clray.errors import DataError
from clray.training import generator, run
from clray.trial import SettingError, Trial
from clray.vision import data
from clray.vision.benchmarks.class_incremental import ClassIncremental
from clray.vision.data import ImageSet
from clray.vision.datasets.idx import idx_set
from clray.vision.draws import ClrayDraws
from clray.vision.stream import Stream
from clray.vision.training import resolve, train


def built(digits: ImageSet, seed: int = 0, order: list[int] | None = None, **settings: Any) -> Stream:
    declared = {"name": "class-incremental", "dataset": "mnist", "tasks": 5, "train_per_class": 20, **settings}
    return ClassIncremental(**declared).stream({declared["dataset"]: digits}, ClrayDraws(seed), order)


def digits_of_tasks(digits: ImageSet, stream: Stream) -> list[list[int]]:
    """The digits of each task in the order of their logits, from the images."""
    found = []
    for own in stream.experiences:
        y, names = stream.labels.numpy()[own.examples], digits.train_labels[stream.image[own.examples]]
        one = []
        for logit in range(*own.logits):
            (name,) = set(names[y == logit].tolist())
            one.append(name)
        assert set(y.tolist()) == set(range(*own.logits))
        found.append(one)
    return found


def order_of(digits: ImageSet, stream: Stream) -> list[int]:
    return [digit for task in digits_of_tasks(digits, stream) for digit in task]


class TestClassOrder:
    def test_that_of_the_labels(self, digits):
        assert digits_of_tasks(digits, built(digits)) == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]

    def test_a_list(self, digits):
        listed = [3, 1, 4, 5, 9, 2, 6, 8, 7, 0]
        assert order_of(digits, built(digits, class_order=listed)) == listed

    def test_drawn_with_each_trial(self, digits):
        first, same, other = (order_of(digits, built(digits, seed, class_order="trial")) for seed in (1, 1, 2))
        assert first == same != other
        assert sorted(first) == list(range(10))

    def test_drawn_with_a_seed_of_its_own(self, digits):
        """A trial's seed does not change it."""
        first, same, other = (
            order_of(digits, built(digits, seed, class_order=own)) for seed, own in ((1, 7), (2, 7), (1, 8))
        )
        assert first == same == generator(7, "class order").permutation(10).tolist()
        assert other != first

    def test_tests_follow(self, digits):
        stream = built(digits, class_order=[3, 1, 4, 5, 9, 2, 6, 8, 7, 0])
        _, y = stream.tests(0)
        assert y.tolist() == [int(digits.test_labels[i] == 1) for i in stream.experiences[0].tests]
        assert set(digits.test_labels[stream.experiences[0].tests].tolist()) == {1, 3}

    def test_an_order_of_tasks_keeps_logits(self, digits):
        turned = built(digits, order=[4, 3, 2, 1, 0])
        assert digits_of_tasks(digits, turned) == [[8, 9], [6, 7], [4, 5], [2, 3], [0, 1]]
        assert [e.logits for e in turned.experiences] == [(8, 10), (6, 8), (4, 6), (2, 4), (0, 2)]


class TestImages:
    def test_some_classes_alone(self, digits):
        stream = built(digits, classes=[7, 2, 5], tasks=3, class_order="labels")
        assert digits_of_tasks(digits, stream) == [[2], [5], [7]]
        assert (stream.outputs, stream.label_classes, len(stream)) == (3, 3, 60)
        assert digits_of_tasks(digits, built(digits, classes=[7, 2, 5], tasks=3, class_order=[5, 7, 2])) == [
            [5],
            [7],
            [2],
        ]

    def test_as_many_of_each_class_as_asked(self, digits):
        stream = built(digits, train_per_class=30, test_per_class=7)
        assert np.bincount(digits.train_labels[stream.image]).tolist() == [30] * 10
        assert [len(e.tests) for e in stream.experiences] == [14] * 5
        whole = built(digits, train_per_class=None)
        assert len(whole) == len(digits.train_labels)
        assert [len(e.tests) for e in whole.experiences] == [200] * 5

    def test_they_are_evenly_spread(self, digits):
        zeros = np.flatnonzero(digits.train_labels == 0)
        stream = built(digits, train_per_class=4)
        own = stream.image[stream.experiences[0].examples]
        assert own[digits.train_labels[own] == 0].tolist() == zeros[np.arange(4) * len(zeros) // 4].tolist()

    def test_validation_tests_on_training_images_that_are_not_learned(self, digits):
        stream = built(digits, validation=True)
        assert stream.test is stream.train
        for own in stream.experiences:
            learned, tested = stream.image[own.examples].tolist(), own.tests.tolist()
            assert (len(learned), len(tested)) == (36, 4)
            assert not set(learned) & set(tested)
            assert np.unique(digits.train_labels[tested], return_counts=True)[1].tolist() == [2, 2]
        other = built(digits, seed=1, validation=True)
        assert [e.tests.tolist() for e in other.experiences] != [e.tests.tolist() for e in stream.experiences]

    def test_too_few_images(self, digits):
        with pytest.raises(DataError, match="train_per_class is 9999, but a class has only"):
            built(digits, train_per_class=9999)
        with pytest.raises(DataError, match="test_per_class is 101, but a class has only 100"):
            built(digits, test_per_class=101)
        with pytest.raises(DataError, match="a tenth of a class's images, and one has 9 here"):
            built(digits, train_per_class=9, validation=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tasks": 3}, "tasks: 10 classes do not divide into 3 tasks; allowed: 1, 2, 5, 10"),
        ({"classes": [0, 1, 2], "tasks": 2}, "tasks: 3 classes do not divide into 2 tasks; allowed: 1, 3"),
        ({"classes": [1, 1]}, "classes: 1 stands twice; allowed: labels from 0 to 9, each once"),
        ({"classes": [1, 10]}, "classes: 10 is not a label of mnist; allowed: labels from 0 to 9, each once"),
        ({"classes": [1]}, "at least 2"),
        ({"class_order": [0, 1, 2]}, "class_order: a list must hold each of the stream's classes once: 0, 1, 2"),
        (
            {"classes": [1, 2], "tasks": 2, "class_order": [1, 3]},
            "class_order: a list must hold each of the stream's classes once: 1, 2",
        ),
        (
            {"class_order": "random"},
            "class_order: 'random'; allowed: labels, trial, a seed from 0, or a list of labels",
        ),
        ({"class_order": -1}, "class_order: -1; allowed: labels, trial, a seed from 0, or a list of labels"),
        ({"class_order": True}, "class_order: True; allowed: labels, trial, a seed from 0, or a list of labels"),
        ({"train_per_class": 0}, "greater than or equal to 1"),
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"dataset": "svhn"}, "fashion-mnist"),
        ({"normalise": "mammoth"}, "normalise: mammoth has no numbers for mnist; allowed here: none"),
        ({"boundaries": "some"}, "given"),
    ],
)
def test_wrong_settings_are_one_error(change, said):
    benchmark = {"name": "class-incremental", "dataset": "mnist", **change}
    declared = {"model": {"name": "mlp"}, "method": "ocl_naive", "hyperparameters": {"lr": 0.1}}
    with pytest.raises(SettingError) as caught:
        resolve(declared | {"benchmark": benchmark})
    assert caught.value.section == "benchmark"
    assert said in f"{caught.value.keys[0]}: {caught.value}"
    assert "\n" not in str(caught.value)


class TestFashionMnist:
    @pytest.fixture
    def here(self, tmp_path, monkeypatch) -> np.ndarray:
        """Small files of the published format under the published names: 12 training and 4 test images a class."""
        rng = np.random.default_rng(0)
        labels = rng.permutation(np.repeat(np.arange(10), 12)).astype(np.uint8)
        # each class is a bright row, so that a network can learn it
        images = rng.integers(0, 60, (120, 28, 28)).astype(np.uint8)
        images[np.arange(120), 2 * labels + 3] = 255
        keep = np.sort(np.concatenate([np.flatnonzero(labels == c)[:4] for c in range(10)]))
        files = {
            "train-images-idx3-ubyte.gz": idx(images),
            "train-labels-idx1-ubyte.gz": idx(labels),
            "t10k-images-idx3-ubyte.gz": idx(images[keep]),
            "t10k-labels-idx1-ubyte.gz": idx(labels[keep]),
        }
        sums = {name: hashlib.md5(content, usedforsecurity=False).hexdigest() for name, content in files.items()}
        monkeypatch.setitem(data.PUBLISHED, "fashion-mnist", idx_set("http://origin/", sums, ()))
        (tmp_path / "fashion-mnist").mkdir()
        for name, content in files.items():
            (tmp_path / "fashion-mnist" / name).write_bytes(content)
        monkeypatch.setenv("CLRAY_DATA", str(tmp_path))
        assert gzip.decompress(files["train-labels-idx1-ubyte.gz"])[8:] == labels.tobytes()
        return images

    def test_its_stream_is_learned(self, here):
        resolved = resolve(
            {
                "benchmark": {"name": "class-incremental", "dataset": "fashion-mnist", "epochs": 10},
                "model": {"name": "mlp", "hidden": [30]},
                "method": "ocl_er",
                "hyperparameters": {"lr": 0.1, "memories": 60},
            }
        )
        rest: dict[str, Any] = {"evaluate": "after_task", "randomness": "clray", "engine": "auto", "task_order": None}
        trial = Trial(version=1, track="vision", precision="float32", seed=0, **rest, **resolved)
        found = data.locate("fashion-mnist", "files")
        training: Any = train(trial, found, "cpu")
        stream = training.stream
        assert (stream.shape, len(stream), stream.outputs) == ((1, 28, 28), 120, 10)
        number = int(stream.experiences[1].examples[3])
        assert stream.pixels(np.array([number]))[0, 0].tolist() == here[stream.image[number]].tolist()
        last = [m.value for m in run(training) if m.trained_tasks == 5 and m.metric == "accuracy"]
        assert np.mean(last) > 0.5


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("hpcr", {}),
        ("ocl_er", {"review": True}),
        ("ocl_agem", {"memory": "task_end"}),
        ("er_ace", {"begins": "second_task"}),
        ("refresh_er", {"review": True}),
    ],
)
@pytest.mark.parametrize("benchmark", [{"name": "class-incremental", "boundaries": "hidden"}, {"name": "si-blurry"}])
def test_a_method_that_needs_boundaries_is_refused_where_they_are_hidden(method, settings, benchmark):
    declared: dict[str, Any] = {
        "benchmark": {"dataset": "mnist", **benchmark},
        "model": {"name": "mlp"},
        "method": method,
        "hyperparameters": {"lr": 0.1, "memories": 60, **settings},
    }
    with pytest.raises(
        SettingError, match=f"^hidden: {method} must be told which task .*; allowed here: given"
    ) as caught:
        resolve(declared)
    assert (caught.value.section, caught.value.keys) == ("benchmark", ("boundaries",))
    declared["benchmark"]["boundaries"] = "given"
    assert resolve(declared)["method"] == method
