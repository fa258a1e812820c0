"""Benchmarks that are learned in epochs, each built from small made-up image sets, and their settings' errors."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
from conftest import heads, shown
from PIL import Image
from torch import Tensor

from clray.errors import DataError
from clray.trial import SettingError
from clray.vision.benchmarks import BENCHMARKS
from clray.vision.benchmarks.in_epochs import InEpochs
from clray.vision.data import ImageSet, locate, present
from clray.vision.draws import ClrayDraws
from clray.vision.official.tag import OfficialDraws
from clray.vision.stream import Stream
from clray.vision.training import resolve


def made(classes: int, train: int = 3, test: int = 2, shape: tuple[int, ...] = (3, 4, 4), seed: int = 0) -> ImageSet:
    """So many images of each class, in no order."""
    rng = np.random.default_rng(seed)

    def part(count: int) -> tuple[Any, Any]:
        labels = rng.permutation(np.repeat(np.arange(classes), count))
        return rng.integers(0, 256, (len(labels), *shape), np.uint8), labels

    return ImageSet(*part(train), *part(test))


DIGITS = made(10, 6, 4, (784,))


def settings(name: str, **changes: Any) -> InEpochs:
    return BENCHMARKS[name](name=name, **changes)


def built(name: str, images: ImageSet = DIGITS, **changes: Any) -> Stream:
    benchmark = settings(name, **changes)
    return benchmark.build(dict.fromkeys(benchmark.datasets, images), OfficialDraws(5))


def everything(stream: Stream, task: int, part: str = "train") -> tuple[Tensor, Tensor]:
    """All images of a task."""
    return shown(stream, task, slice(None), part)


def members(stream: Stream, part: str = "train") -> list[Any]:
    """Which images of the set each task has."""
    return [stream.image[e.examples] if part == "train" else e.tests for e in stream.experiences]


SPLITS = {
    "split-cifar100": ("cifar100", 100, 5),
    "split-mini-imagenet": ("mini-imagenet", 100, 5),
    "split-cub": ("cub", 200, 10),
}
"""The image set, its classes, and the classes of a task."""


@pytest.mark.parametrize("name", SPLITS)
class TestSplitClasses:
    def test_each_task_has_the_next_classes_in_label_order(self, name):
        dataset, classes, share = SPLITS[name]
        images = made(classes)
        stream = built(name, images)
        assert settings(name).datasets == (dataset,)
        assert (len(stream.experiences), stream.outputs, stream.label_classes) == (20, classes, classes)
        assert stream.shape == (3, 4, 4)
        assert heads(stream) == [(share * t, share * t + share) for t in range(20)]
        for part, labels in (("train", images.train_labels), ("test", images.test_labels)):
            for task in range(20):
                _, y = everything(stream, task, part)
                own = np.flatnonzero((labels >= share * task) & (labels < share * task + share))
                assert members(stream, part)[task].tolist() == own.tolist(), "in their published order"
                assert y.tolist() == labels[own].tolist()

    def test_other_numbers_of_tasks(self, name):
        _, classes, _ = SPLITS[name]
        stream = built(name, made(classes), tasks=10)
        assert heads(stream)[3] == (3 * classes // 10, 4 * classes // 10)
        assert len(members(stream)[0]) == 3 * classes // 10

    def test_only_some_images(self, name):
        _, classes, share = SPLITS[name]
        whole, part = (built(name, made(classes), **c) for c in ({}, {"train_per_task": 5, "test_per_task": 3}))
        for task in (0, 19):
            places = [i * 3 * share // 5 for i in range(5)]
            assert members(part)[task].tolist() == members(whole)[task][places].tolist()
            places = [i * 2 * share // 3 for i in range(3)]
            assert members(part, "test")[task].tolist() == members(whole, "test")[task][places].tolist()
        too_many = 3 * classes // 20 + 1
        with pytest.raises(DataError, match=f"{name}: train_per_task is {too_many}, but a task has only"):
            built(name, made(classes), train_per_task=too_many)
        with pytest.raises(DataError, match="test_per_task"):
            built(name, made(classes), test_per_task=too_many)

    def test_some_images_are_of_all_classes(self, name):
        """mini-ImageNet, CUB and the embedded digits lie class by class: the first images of a task are of one."""
        _, classes, share = SPLITS[name]
        pixels, labels = np.zeros((6 * classes, 3, 1, 1), np.uint8), np.repeat(np.arange(classes), 6)
        images = ImageSet(pixels, labels, pixels, labels)
        stream = built(name, images, train_per_task=2 * share, test_per_task=share)
        assert everything(stream, 2)[1].tolist() == [c for c in range(2 * share, 3 * share) for _ in range(2)]
        assert everything(stream, 2, "test")[1].tolist() == list(range(2 * share, 3 * share))


class TestScales:
    """The scaling of bytes to inputs, compared with values computed by hand."""

    def one(self, name: str) -> Tensor:
        classes = SPLITS[name][1]
        pixels = np.zeros((classes, 3, 1, 1), np.uint8)
        pixels[0, :, 0, 0] = [0, 51, 255]
        labels = np.arange(classes)
        return shown(built(name, ImageSet(pixels, labels, pixels, labels)), 0, [0])[0].flatten()

    def test_cifar100_is_divided_by_255(self):
        torch.testing.assert_close(self.one("split-cifar100"), torch.tensor([0.0, 0.2, 1.0]))

    def test_mini_imagenet_is_centred(self):
        torch.testing.assert_close(self.one("split-mini-imagenet"), torch.tensor([-1.0, -0.6, 1.0]))

    def test_cub_is_as_its_authors_scaled_it(self):
        """Blue's mean off red and red's off blue, nothing divided: from about -250 to 300."""
        expected = [(0 - 103.94 - 0.5) * 2, (51 - 116.78 - 0.5) * 2, (255 - 123.68 - 0.5) * 2]
        torch.testing.assert_close(self.one("split-cub"), torch.tensor(expected))

    def test_the_images_are_left_as_they_are(self):
        images = made(100)
        before = images.train_images.copy()
        stream = built("split-cifar100", images)
        first = everything(stream, 0)[0]
        assert torch.equal(first, everything(stream, 0)[0])
        assert (images.train_images == before).all()


class TestLoaders:
    """The ways of the official codes' training loaders."""

    @pytest.mark.parametrize(
        ("name", "drops_last", "shuffles"),
        [
            ("split-cifar100", False, False),
            ("split-mini-imagenet", True, True),
            ("split-cub", True, True),
            ("rotated-mnist", False, True),
            ("permuted-mnist", False, True),
        ],
    )
    def test_short_batches_and_order_while_searching(self, name, drops_last, shuffles):
        images = made(SPLITS[name][1]) if name in SPLITS else DIGITS
        for validation in (False, True):
            stream = built(name, images, tasks=20, validation=validation)
            assert stream.drops_last == drops_last
            assert stream.shuffles == (shuffles or not validation)


class TestMnist:
    @pytest.mark.parametrize("name", ["rotated-mnist", "permuted-mnist"])
    def test_heads(self, name):
        single, multi = (built(name, tasks=3, heads=heads) for heads in ("single", "multi"))
        assert heads(built(name, tasks=3)) == heads(single) == [(0, 10)] * 3
        assert heads(multi) == [(0, 10), (10, 20), (20, 30)]
        assert (single.outputs, multi.outputs) == (10, 30)
        for task in range(3):
            x, y = everything(single, task)
            other, labels = everything(multi, task)
            assert torch.equal(x, other)
            assert y.tolist() == DIGITS.train_labels.tolist()
            assert labels.tolist() == [label + 10 * task for label in DIGITS.train_labels]
            assert everything(multi, task, "test")[1].tolist() == [label + 10 * task for label in DIGITS.test_labels]
        assert single.shape == (1, 28, 28)
        assert single.label_classes == multi.label_classes == 10

    def test_angles_and_what_turning_is(self):
        """Task t is turned by a draw below ``degrees`` t, as Pillow turns it, for training and testing alike."""
        rng = np.random.RandomState(0)
        stream = built("rotated-mnist", tasks=4, degrees=30.0)
        for task in range(4):
            angle = task * 30.0 - rng.random_sample() * 30.0
            for part in ("train", "test"):
                x, _ = everything(stream, task, part)
                image = getattr(DIGITS, f"{part}_images")[7].reshape(28, 28)
                turned = np.asarray(Image.fromarray(image).rotate(angle))
                np.testing.assert_allclose(x[7, 0].numpy(), turned / np.float32(255), rtol=1e-6)

    def test_given_angles(self):
        stream = built("rotated-mnist", tasks=2, angles=[0.0, 90.0])
        images = DIGITS.train_images[:3].reshape(3, 28, 28)
        assert (everything(stream, 0)[0][:3, 0] * 255).round().numpy().tolist() == images.tolist()
        turned = np.rot90(images, axes=(1, 2))
        assert (everything(stream, 1)[0][:3, 0] * 255).round().numpy().tolist() == turned.tolist()

    def test_the_first_permutation_is_none(self):
        rng = np.random.RandomState(0)
        stream = built("permuted-mnist", tasks=3)
        for order in (np.arange(784), rng.permutation(784), rng.permutation(784)):
            task = stream.pixel_maps.tolist().index(order.tolist())
            x = everything(stream, task, "test")[0].flatten(1)
            np.testing.assert_allclose(x.numpy(), DIGITS.test_images[:, order] / np.float32(255), rtol=1e-6)
        assert stream.pixel_maps[0].tolist() == list(range(784))

    @pytest.mark.parametrize("name", ["rotated-mnist", "permuted-mnist"])
    def test_seeds(self, name):
        def maps(seed: int | None, trial: int = 5) -> Any:
            benchmark = settings(name, tasks=3, seed=seed)
            return torch.from_numpy(benchmark.build({"mnist": DIGITS}, OfficialDraws(trial)).pixel_maps)

        assert torch.equal(maps(0), maps(0, trial=6)), "the benchmark's own"
        assert not torch.equal(maps(0), maps(1))
        assert torch.equal(maps(None), maps(5)), "the trial's"
        assert not torch.equal(maps(None, trial=5), maps(None, trial=6))

    def test_too_few_images(self):
        with pytest.raises(DataError, match=r"rotated-mnist: train_per_task is 61, but a task has only 60 images"):
            built("rotated-mnist", tasks=2, train_per_task=61)


FIVE = {
    "cifar10": made(10, 2, 1, (3, 32, 32), 1),
    "mnist": made(10, 3, 1, (784,), 2),
    "svhn": made(10, 2, 2, (3, 32, 32), 3),
    "notmnist": made(10, 1, 1, (784,), 4),
    "fashion-mnist": made(10, 2, 1, (784,), 5),
}


@pytest.fixture(scope="module")
def stream() -> Stream:
    return settings("5-dataset").build(FIVE, ClrayDraws(0))


class TestFiveDatasets:
    def test_the_tasks_are_the_sets_in_their_order(self, stream):
        assert settings("5-dataset").datasets == tuple(FIVE)
        assert (stream.outputs, stream.label_classes, stream.shape) == (100, 50, (3, 32, 32))
        assert heads(stream) == [(0, 10), (10, 20), (20, 30), (30, 40), (40, 50)]
        for task, images in enumerate(FIVE.values()):
            for part in ("train", "test"):
                x, y = everything(stream, task, part)
                labels = getattr(images, f"{part}_labels")
                assert y.tolist() == [label + 10 * task for label in labels]
                assert x.shape == (len(labels), 3, 32, 32)
                if images.image_shape[0] == 3:
                    raw = getattr(images, f"{part}_images")
                    np.testing.assert_allclose(x.numpy(), raw / np.float32(255), rtol=1e-6)
        assert not stream.drops_last

    @pytest.mark.parametrize(("task", "name"), [(1, "mnist"), (3, "notmnist"), (4, "fashion-mnist")])
    def test_small_grey_images_are_enlarged_as_pillow_does_it(self, stream, task, name):
        x = (everything(stream, task)[0] * 255).round()
        assert torch.equal(x[:, 0], x[:, 1])
        assert torch.equal(x[:, 0], x[:, 2])
        for image, found in zip(FIVE[name].train_images, x[:, 0].numpy(), strict=True):
            grey = Image.fromarray(image.reshape(28, 28)).resize((32, 32), Image.Resampling.BILINEAR)
            assert np.abs(found - np.asarray(grey, np.float32)).max() <= 1

    def test_only_the_first_sets_and_some_images(self):
        stream = settings("5-dataset", tasks=2, train_per_task=7, test_per_task=5).build(FIVE, ClrayDraws(0))
        assert settings("5-dataset", tasks=2).datasets == ("cifar10", "mnist")
        assert [len(m) for m in members(stream)] == [7, 7]
        assert [len(m) for m in members(stream, "test")] == [5, 5]
        assert everything(stream, 1)[1].tolist() == [
            label + 10 for label in FIVE["mnist"].train_labels[[0, 4, 8, 12, 17, 21, 25]]
        ]
        with pytest.raises(DataError, match=r"5-dataset, notmnist: train_per_task is 11, .* only 10 images"):
            settings("5-dataset", train_per_task=11).build(FIVE, ClrayDraws(0))

    def test_images_are_not_shuffled_while_searching(self):
        assert settings("5-dataset").build(FIVE, ClrayDraws(0)).shuffles
        assert not settings("5-dataset", validation=True).build(FIVE, ClrayDraws(0)).shuffles


class TestStreams:
    @pytest.mark.parametrize(
        ("name", "changes"),
        [("rotated-mnist", {"tasks": 3, "heads": "multi"}), ("rotated-mnist", {"tasks": 3}), ("split-cifar100", {})],
    )
    def test_memories_of_several_tasks_are_the_same_images(self, name, changes):
        stream = built(name, made(100, 3) if name == "split-cifar100" else DIGITS, **changes)
        places = [(2, 4), (0, 3), (2, 4), (1, 0), (0, 9)]
        numbers = np.array([stream.experiences[task].examples[place] for task, place in places])
        x, y = stream.examples(numbers)
        assert x.dtype == torch.float32
        assert stream.owner[numbers].tolist() == [2, 0, 2, 1, 0]
        for i, (task, place) in enumerate(places):
            one, label = shown(stream, task, place)
            assert torch.equal(x[i : i + 1], one)
            assert y[i : i + 1].tolist() == label.tolist()

    def test_another_order_of_learning(self):
        stream = built("rotated-mnist", tasks=3, heads="multi")
        turned = stream.reordered([2, 0, 1])
        assert heads(turned) == [(20, 30), (0, 10), (10, 20)]
        for place, task in enumerate([2, 0, 1]):
            assert set(turned.owner[turned.experiences[place].examples]) == {place}
            assert turned.experiences[place] is stream.experiences[task], "an example keeps its number"
        for place, task in enumerate([2, 0, 1]):
            for part in ("train", "test"):
                for a, b in zip(everything(turned, place, part), everything(stream, task, part), strict=True):
                    assert torch.equal(a, b)
        assert [turned.outputs, len(turned.experiences)] == [30, 3]
        assert heads(stream)[0] == (0, 10), "the stream itself stays"
        classes = built("split-cub", made(200)).reordered(list(range(19, -1, -1)))
        assert sorted(set(everything(classes, 0)[1].tolist())) == list(range(190, 200))

    def test_a_part_is_held_out(self):
        stream = built("split-cifar100", made(100, 8))
        held = stream.with_held_out(np.random.RandomState(3))
        again = stream.with_held_out(np.random.RandomState(3))
        other = stream.with_held_out(np.random.RandomState(4))
        for task in range(20):
            kept, tested = members(held)[task].tolist(), members(held, "test")[task].tolist()
            assert (len(kept), len(tested)) == (36, 4)
            assert not {*kept} & {*tested}
            assert {*kept} | {*tested} == {*members(stream)[task].tolist()}
            assert kept == members(again)[task].tolist()
            assert tested == members(again, "test")[task].tolist()
            labels = torch.from_numpy(made(100, 8).train_labels)[tested]
            assert everything(held, task, "test")[1].tolist() == labels.tolist(), "training images"
        assert any(members(held, "test")[t].tolist() != members(other, "test")[t].tolist() for t in range(20))
        assert heads(held) == heads(stream)

    def test_a_tenth_of_too_few_is_none(self):
        """It ended in a division by zero when the first task was over."""
        stream = built("split-cifar100", made(100, 1), tasks=20)
        with pytest.raises(DataError, match="holds out a tenth of a task's images, and a task has only 5 here"):
            stream.with_held_out(np.random.RandomState(3))


def declared(name: str, method: str = "naive", **changes: Any) -> dict[str, Any]:
    return {
        "benchmark": {"name": name} | changes.get("benchmark", {}),
        "model": changes.get("model", {"name": "mlp"}),
        "method": method,
        "hyperparameters": {"lr": 0.1} | changes.get("settings", {}),
    }


class TestSettings:
    def test_defaults_are_filled_in(self):
        resolved = resolve(declared("split-cifar100", model={"name": "reduced-resnet18"}))
        assert resolved["benchmark"]["tasks"] == 20
        assert resolved["model"]["filters"] == 20
        assert resolved["hyperparameters"] == {"optimizer": "sgd", "lr": 0.1, "b": None, "batch": 10}

    @pytest.mark.parametrize(
        ("wrong", "section", "key", "message"),
        [
            (
                declared("split-cifar100", "mer"),
                "hyperparameters",
                "method",
                r"'mer' is not for split-cifar100; .*naive",
            ),
            (declared("split-cifar100", "sgd"), "hyperparameters", "method", r"'sgd' is not a method; .*stable_sgd"),
            (declared("mnist-rotations", "naive"), "hyperparameters", "method", r"'naive' is not for mnist.*online"),
            (declared("split-cifar", "naive"), "benchmark", "name", r"not a benchmark; .*split-cifar100"),
            (
                declared("split-cub", benchmark={"tasks": 7}),
                "benchmark",
                "tasks",
                r"200 classes do not divide into 7 tasks; allowed: 1, 2, 4, 5",
            ),
            (declared("5-dataset", benchmark={"tasks": 6}), "benchmark", "tasks", r"less than or equal to 5"),
            (declared("rotated-mnist"), "benchmark", "tasks", "missing"),
            (
                declared("rotated-mnist", benchmark={"tasks": 2, "angles": [1.0]}),
                "benchmark",
                "angles",
                "1 angles for 2",
            ),
            (
                declared("split-cub", benchmark={"degrees": 3}),
                "benchmark",
                "degrees",
                "not a setting of this benchmark",
            ),
            (declared("split-cub", benchmark={"epochs": 0}), "benchmark", "epochs", "greater than or equal to 1"),
            (declared("split-cub", model={}), "model", "name", r"missing; .*resnet18"),
            (declared("split-cub", model={"name": "cnn"}), "model", "name", r"'cnn' is not a network; .*resnet18"),
            (
                declared("split-cub", model={"name": "mlp", "filters": 3}),
                "model",
                "filters",
                "not a setting of this model",
            ),
            (declared("split-cub", settings={"b": 5}), "hyperparameters", "b", "belongs to the TAG optimizers"),
            (declared("split-cub", settings={"optimizer": "tag-adam"}), "hyperparameters", "b", "tag-adam needs it"),
            (declared("split-cub", settings={"optimizer": "tag-sgd"}), "hyperparameters", "optimizer", "tag-rmsprop"),
            (declared("split-cub", settings={"momentum": 0.8}), "hyperparameters", "momentum", "not a setting"),
            (declared("split-cub", "agem"), "hyperparameters", "memories_per_class", "missing"),
            (declared("split-cub", "ewc_online"), "hyperparameters", "strength", "missing"),
            (declared("split-cub", "stable_sgd", settings={"gamma": 1.5}), "hyperparameters", "gamma", "less than"),
        ],
    )
    def test_what_is_wrong_is_named(self, wrong, section, key, message):
        with pytest.raises(SettingError, match=message) as raised:
            resolve(wrong)
        assert raised.value.section == section
        assert raised.value.keys == (() if key is None else (key,))

    def test_networks_are_not_for_single_examples(self):
        wrong = declared("mnist-rotations", "online", model={"name": "reduced-resnet18"}, benchmark={"tasks": 2})
        with pytest.raises(SettingError, match="not a model for streams of single examples"):
            resolve(wrong)


class TestThePublishedCifar100:
    def test_its_tasks(self):
        if not os.environ.get("CLRAY_DATA") or present("cifar100") is None:
            pytest.skip("needs the published CIFAR-100 files: set CLRAY_DATA to a folder that holds cifar100/")
        from clray.vision.data import load

        stream = built("split-cifar100", load(locate("cifar100", "files")))
        for task in range(20):
            assert (len(members(stream)[task]), len(members(stream, "test")[task])) == (2500, 500)
            assert torch.unique(everything(stream, task, "test")[1]).tolist() == list(range(5 * task, 5 * task + 5))
