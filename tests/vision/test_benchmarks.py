"""Streams of MNIST tasks: their pixels, their order, their size, and settings that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SETTINGS, weights_of
from official import make_trial
from PIL import Image
from pydantic import ValidationError

from clray.errors import DataError
from clray.loading import load_sweep
from clray.trial import SettingError
from clray.vision.benchmarks import BENCHMARKS
from clray.vision.benchmarks.mer import MnistPermutations, MnistRotations
from clray.vision.benchmarks.pixels import rearranged, rotation_map
from clray.vision.data import ImageSet
from clray.vision.draws import ClrayDraws
from clray.vision.learners.rows import Rows
from clray.vision.official.mer import OfficialDraws
from clray.vision.training import resolve
from clray.vision.trial import VisionTraining

OFFICIAL = MnistRotations(name="mnist-rotations", tasks=20, train_per_task=1000, seed=0).task_angles()
ROTATIONS = {"name": "mnist-rotations", "tasks": 3, "train_per_task": 40, "source": "embedded"}


def rotations(**changes: Any) -> MnistRotations:
    return MnistRotations(**{**ROTATIONS, **changes})


def stream(digits: ImageSet, order=None, seed=0, **changes: Any):
    return rotations(**changes).stream({"mnist": digits}, ClrayDraws(seed), order)


class TestRotations:
    @pytest.mark.parametrize("angle", [0, 0.4, 9, 45, 89.9, 90, 90.1, 135, 179.99, 180, 270, -30, 360, *OFFICIAL])
    def test_a_pixel_map_is_pillows_rotation(self, digits, angle):
        """As GEM's script turns them: nearest pixel, zero fill, counter-clockwise, about the centre."""
        some = digits.train_images[::400]
        turned = [np.asarray(Image.fromarray(image.reshape(28, 28), mode="L").rotate(angle)) for image in some]
        assert (rearranged(some, rotation_map(angle)) == np.stack(turned).reshape(-1, 784)).all()

    def test_quarter_turns_are_counter_clockwise(self, digits):
        some = digits.train_images[::700]
        square = some.reshape(-1, 28, 28)
        assert (rearranged(some, rotation_map(0)) == some).all()
        assert (rearranged(some, rotation_map(180)) == square[:, ::-1, ::-1].reshape(-1, 784)).all()
        assert (rearranged(some, rotation_map(90)) == np.rot90(square, axes=(1, 2)).reshape(-1, 784)).all()

    def test_the_angles_stay_in_their_bins(self):
        assert [int(angle // 9) for angle in OFFICIAL] == list(range(20))

    def test_they_depend_on_the_benchmarks_seed_alone(self, digits):
        assert rotations(seed=1).task_angles() != rotations(seed=0).task_angles()
        assert (stream(digits, seed=5).pixel_maps == stream(digits, seed=6).pixel_maps).all()

    def test_given_angles_are_used(self):
        assert rotations(angles=[1.5, 90, 7]).task_angles() == [1.5, 90, 7]
        with pytest.raises(ValidationError, match="2 angles for 3 tasks"):
            rotations(angles=[1, 2])


class TestPermutations:
    def test_they_are_permutations_all_different(self):
        maps = MnistPermutations(name="mnist-permutations", tasks=20, train_per_task=1, seed=0).pixel_maps()
        assert (np.sort(maps, axis=1) == np.arange(784)).all()
        assert len({m.tobytes() for m in maps}) == 20
        assert not (maps == np.arange(784)).all(axis=1).any()  # the first task is permuted too

    def test_many_begin_as_few_do(self):
        few, many = (
            MnistPermutations(name=name, tasks=n, train_per_task=1, seed=0).pixel_maps()
            for name, n in (("mnist-permutations", 20), ("mnist-many-permutations", 100))
        )
        assert many.shape == (100, 784)
        assert (many[:20] == few).all()

    def test_the_seed_counts(self):
        first = [
            MnistPermutations(name="mnist-permutations", tasks=1, train_per_task=1, seed=s).pixel_maps() for s in (0, 1)
        ]
        assert (first[0] != first[1]).any()


class TestStream:
    def test_examples_are_what_their_task_shows_of_their_source(self, digits):
        s = stream(digits)
        for position in (0, 39, 40, 119):
            expected = rearranged(digits.train_images[s.image[position]][None], s.pixel_maps[s.owner[position]])[0]
            assert (s.pixels(np.array([position])).numpy().ravel() == expected).all()
        assert (s.labels.numpy() == digits.train_labels[s.image]).all()
        assert s.owner.tolist() == [0] * 40 + [1] * 40 + [2] * 40

    def test_a_task_never_shows_an_example_twice_and_tasks_draw_anew(self, digits):
        s = stream(digits, train_per_task=2000)
        parts = [s.image[s.owner == t] for t in range(3)]
        assert all(len(set(part)) == 2000 for part in parts)
        assert set(parts[0]) != set(parts[1])

    @pytest.mark.parametrize("randomness", [ClrayDraws, OfficialDraws])
    def test_each_seed_draws_other_examples(self, digits, randomness):
        drawn = [rotations().stream({"mnist": digits}, randomness(seed), None).image for seed in (0, 1, 0)]
        assert (drawn[0] != drawn[1]).any()
        assert (drawn[0] == drawn[2]).all()

    def test_inputs_are_fractions_of_255(self, digits):
        s = stream(digits)
        x, _ = s.examples(np.array([3, 50]))
        pixels = s.pixels(np.array([3, 50])).numpy()
        assert (x.numpy() == pixels.astype(np.float32) / np.float32(255)).all()
        assert x.max() == 1

    def test_the_test_set_is_all_of_it_for_every_task(self, digits):
        s = stream(digits, last_test_example="scored")
        shown = Rows.of(s).tests(2)
        assert shown.shape == (1000, 784)
        assert (shown * 255 == rearranged(digits.test_images, s.pixel_maps[2])).all()
        assert (s.tests(2)[0].flatten(1).numpy() == shown).all()

    def test_officially_the_last_test_example_is_not_scored(self, digits):
        for last, count in (("skipped", 999), ("scored", 1000)):
            for e in stream(digits, last_test_example=last).experiences:
                assert (len(e.tests), e.accuracy_divisor) == (count, 1000)

    def test_a_task_order_is_applied(self, digits):
        plain, turned = stream(digits), stream(digits, order=[2, 0, 1])
        assert (turned.pixel_maps == plain.pixel_maps[[2, 0, 1]]).all()
        assert turned.owner.tolist() == plain.owner.tolist()
        first = rearranged(digits.train_images[turned.image[:1]], plain.pixel_maps[2])[0]
        assert (turned.pixels(np.array([0])).numpy().ravel() == first).all()

    def test_a_task_order_reaches_the_trial(self, train):
        plain, turned = train("online"), train("online", order=[1, 2, 0])
        assert (turned.stream.pixel_maps == plain.stream.pixel_maps[[1, 2, 0]]).all()

    def test_more_examples_than_there_are_is_an_error_that_says_so(self, digits):
        with pytest.raises(DataError, match=r"mnist-rotations: train_per_task is 4001.* only 4000 "):
            stream(digits, train_per_task=4001)


@pytest.mark.parametrize("file", ["mer/rotations", "mer/permutations", "mer/many_permutations"])
def test_the_full_benchmarks_fit_into_100_megabytes(file):
    """The published archives hold 4 to 21 GB. With arrays as large as MNIST's own, all zero."""
    settings = load_sweep(file).cells[0].trial.benchmark
    train, test = ((np.zeros((n, 784), np.uint8), np.zeros(n, np.int64)) for n in (60000, 10000))
    blank = ImageSet(*train, *test)
    made = BENCHMARKS[settings["name"]](**settings).stream({"mnist": blank}, ClrayDraws(0), None)
    assert len(made) == 20000
    rows = Rows.of(made)
    arrays = [*vars(made).values(), made.train.pixels, rows.images, rows.test_images]
    assert sum(value.nbytes for value in arrays if hasattr(value, "nbytes")) < 100e6


class TestEvaluations:
    def test_after_every_task_and_before_any(self, train):
        training = train("online")
        measured = [m for _ in range(10) if training.progress < 1 for m in training.advance()]
        assert [(m.step, m.trained_tasks, m.eval_task) for m in measured] == [
            (60 * t, t, j) for t in range(4) for j in range(3)
        ]
        assert training.progress == 1

    def test_every_so_many_examples(self, train):
        training = train("online", evaluate=25)
        steps: list[int] = []
        while training.progress < 1:
            steps += [m.step for m in training.advance()]
        assert sorted(set(steps)) == [0, 25, 50, 60, 75, 100, 120, 125, 150, 175, 180]

    def test_more_of_them_change_no_number(self, train):
        ends = []
        for evaluate in ("after_task", 7):
            training = train("er", evaluate=evaluate)
            while training.progress < 1:
                last = training.advance()
            ends.append(([m.value for m in last], [w.tobytes() for w in weights_of(training)]))
        assert ends[0] == ends[1]

    def test_a_stop_by_the_clock_changes_no_number(self, train, monkeypatch):
        from clray.vision import trial as module

        ends = []
        for seconds in (10.0, -1.0):
            monkeypatch.setattr(module, "_STOP_AFTER", seconds)
            training, stops, measured = train("mer"), 0, []
            while training.progress < 1:
                measured += training.advance()
                stops += 1
            ends.append((measured, [w.tobytes() for w in weights_of(training)]))
            if seconds < 0:
                assert stops > 4
        assert ends[0] == ends[1]


class TestSettings:
    """The settings that each benchmark accepts. The errors of a sweep are in test_refused_when_planned."""

    @pytest.mark.parametrize("name", SETTINGS)
    def test_the_small_settings_resolve(self, name):
        method, settings = SETTINGS[name]
        trial = make_trial(method, settings, benchmark=ROTATIONS)
        assert trial.benchmark["dataset"] == "mnist"
        assert trial.benchmark["angles"] is None

    @pytest.mark.parametrize(
        ("changes", "section", "message"),
        [
            ({"benchmark": {"name": "cifar"}}, "benchmark", "'cifar' is not a benchmark.*mnist-rotations"),
            ({"benchmark": {**ROTATIONS, "angels": [1]}}, "benchmark", "did you mean 'angles'"),
            ({"benchmark": {"name": "mnist-permutations", "tasks": 2}}, "benchmark", "missing"),
            ({"benchmark": {**ROTATIONS, "source": "web"}}, "benchmark", "'auto', 'files' or 'embedded'"),
            ({"benchmark": {**ROTATIONS, "tasks": 0}}, "benchmark", "greater than or equal to 1"),
            ({"model": {"name": "cnn"}}, "model", "'cnn' is not a model.*mlp"),
            ({"model": {"hidden": []}}, "model", "at least 1"),
            ({"method": "onlin"}, "hyperparameters", "did you mean 'online'.*allowed: .*gem"),
            ({"hyperparameters": {}}, "hyperparameters", "missing"),
            ({"hyperparameters": {"lr": -1}}, "hyperparameters", "greater than 0"),
            ({"hyperparameters": {"lr": 1, "beta": 1}}, "hyperparameters", "not a setting.*allowed: lr"),
        ],
    )
    def test_wrong_ones_are_errors_with_a_place(self, changes, section, message):
        declared = {"benchmark": ROTATIONS, "model": {}, "method": "online", "hyperparameters": {"lr": 0.1}, **changes}
        with pytest.raises(SettingError, match=message) as caught:
            resolve(declared)
        assert caught.value.section == section

    def test_an_algorithm_takes_no_setting_that_it_would_ignore(self):
        settings = {"algorithm": 6, "lr": 0.1, "memories": 10, "replay_batch": 2, "gamma": 0.1, "beta": 0.03}
        with pytest.raises(SettingError, match="algorithm 6 does not use beta"):
            make_trial("mer", settings, benchmark=ROTATIONS)

    def test_a_task_must_fill_its_memory(self):
        settings = {"lr": 0.1, "memories_per_task": 41, "margin": 0}
        with pytest.raises(SettingError, match="41 is more than a task has: train_per_task is 40"):
            make_trial("gem", settings, benchmark=ROTATIONS)

    def test_tasks_that_share_memories_have_one_each(self):
        settings = {"lr": 0.1, "memories": 2, "replay_batch": 2, "memory": "ring"}
        with pytest.raises(SettingError, match="2: memory: ring divides them among 3 tasks; allowed: 3 or more"):
            make_trial("er", settings, benchmark=ROTATIONS)
        make_trial("er", settings | {"memories": 500}, benchmark=ROTATIONS)  # a row that no task fills is no harm


def test_training_needs_no_files_of_its_own(embedded, kernels, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    training = VisionTraining(make_trial("online", {"lr": 0.1}, benchmark=ROTATIONS), embedded)
    training.advance()
    assert list(Path().iterdir()) == []
