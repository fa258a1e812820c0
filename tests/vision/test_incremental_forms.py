"""The forms that methods take in the official codes beside the one whose steps were recorded, and their odd cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from official_steps import NETWORKS, play, stream_of
from torch.nn.functional import cross_entropy, mse_loss

from clray.trial import SettingError
from clray.vision.augmentations import AUGMENTATIONS
from clray.vision.benchmarks.class_incremental import ClassIncremental
from clray.vision.draws import ClrayDraws
from clray.vision.learners.incremental import IncrementalLearner
from clray.vision.memory import Reservoir
from clray.vision.methods import METHODS
from clray.vision.stream import Batch
from clray.vision.training import resolve


def made(name: str, network: str = "conv", **settings: Any) -> Any:
    """A method on the recorded stream: five experiences of 40 images, which arrive in order."""
    kind = METHODS[name]
    learner = IncrementalLearner(NETWORKS[network], stream_of("y_contig"), ClrayDraws(3))
    return kind(kind.Settings(**{"lr": 0.05, "memories": 60} | settings), learner)


def batch_of(method: Any, number: int) -> Batch:
    return Batch(method.stream, np.arange(number * 10, number * 10 + 10), number // 4)


class TestMemoriesOfEarlierTasks:
    """``replay_from: earlier_tasks``, as the official code of MIR has it."""

    def test_slots_are_drawn_from_those_that_are_given(self):
        memory = Reservoir(40, ClrayDraws(0), "batch")
        memory.add_batch(np.arange(40))
        among = np.array([3, 5, 7, 11, 13])
        drawn = memory.slots(3, among)
        assert set(drawn) < set(among)
        assert len(set(drawn)) == 3
        assert memory.slots(9, among).tolist() == among.tolist()

    @pytest.mark.parametrize("name", ["ocl_er", "mir"])
    def test_the_own_task_is_left_out(self, name):
        method = made(name, replay_from="earlier_tasks")
        seen: dict[int, set[int]] = {}
        examples = method.examples

        def watched(slots: Any) -> Any:
            owners = method.stream.owner[method.memory.numbers[slots]].tolist()
            seen.setdefault(number // 4, set()).update(owners)
            return examples(slots)

        method.examples = watched
        for number in range(12):
            method.observe(batch_of(method, number))
        assert {task: owners for task, owners in seen.items() if owners} == {1: {0}, 2: {0, 1}}

    def test_the_first_task_is_fine_tuning(self):
        ends = []
        for name, settings in (("ocl_er", {"replay_from": "earlier_tasks"}), ("ocl_naive", {"memories": None})):
            settings = {key: value for key, value in ({"memories": 60} | settings).items() if value is not None}
            kind = METHODS[name]
            learner = IncrementalLearner(NETWORKS["conv"], stream_of("y_contig"), ClrayDraws(3))
            method: Any = kind(kind.Settings(lr=0.05, **settings), learner)
            for number in range(4):
                method.observe(batch_of(method, number))
            ends.append([p.detach().clone() for p in learner.parameters])
        assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))

    @pytest.mark.parametrize("name", ["ocl_er", "mir"])
    def test_it_needs_boundaries(self, name):
        benchmark = {"name": "class-incremental", "dataset": "mnist", "boundaries": "hidden"}
        settings = {"lr": 0.1, "memories": 60, "replay_from": "earlier_tasks"}
        declared = {"benchmark": benchmark, "model": {"name": "mlp"}, "method": name, "hyperparameters": settings}
        with pytest.raises(SettingError, match=r"hidden: .* must be told which task"):
            resolve(declared)


class TestErAceOfItsAuthors:
    def test_the_recorded_steps(self):
        play("aml_er_ace", "er_ace", {"reservoir": "batch_before", "form": "authors"}, hidden=True)

    @pytest.mark.parametrize(("form", "views"), [("authors", {"memory"}), ("mammoth", {"stream", "memory"})])
    def test_images_that_are_augmented(self, form, views):
        method = made("er_ace", augmentation="crop-flip", form=form)
        asked, augmented = set(), method.augmented
        method.augmented = lambda x, view: asked.add(view) or augmented(x, view)
        for number in range(3):
            method.observe(batch_of(method, number))
        assert asked == views

    @pytest.mark.parametrize(("form", "open_after_all"), [("authors", [4, 9]), ("mammoth", [4])])
    def test_the_last_logit_once_it_was_seen(self, form, open_after_all):
        method = made("er_ace", form=form)
        method.largest_seen = 9
        masked = method._among_new(torch.zeros(1, 10), torch.tensor([4]))
        assert (masked[0] == 0).nonzero().flatten().tolist() == open_after_all


class TestDerppAtOnce:
    def test_the_loss_by_its_definition(self):
        method = made("derpp", alpha=0.5, beta=0.25, memories_drawn="at_once")
        for number in range(3):
            method.observe(batch_of(method, number))
        slots = np.arange(20)[::-1].copy()
        method.memory.slots = lambda count: slots[:count]
        batch = batch_of(method, 3)
        found = method.loss(batch).item()
        x, y = method.examples(slots)
        now = method.learner.module(x)
        kept = method.memory.fields["logits"][slots[:10]]
        expected = cross_entropy(method.learner.module(batch.x), batch.y)
        expected = expected + 0.5 * mse_loss(now[:10], kept) + 0.25 * cross_entropy(now[10:], y[10:])
        assert found == pytest.approx(expected.item(), rel=1e-5)

    def test_both_batches_are_of_different_memories(self):
        method = made("derpp", alpha=0.5, beta=0.25, memories_drawn="at_once")
        drawn, slots = [], method.memory.slots
        method.memory.slots = lambda count: drawn.append(slots(count)) or drawn[-1]
        for number in range(8):
            method.observe(batch_of(method, number))
        assert [len(each) for each in drawn] == [0, 10] + [20] * 6
        assert all(len(set(each)) == len(each) for each in drawn)

    def test_a_single_memory_is_not_divided(self):
        method = made("derpp", alpha=0.5, beta=0.25, memories_drawn="at_once", memories=1)
        for number in range(3):
            method.observe(batch_of(method, number))
        assert torch.isfinite(method.loss(batch_of(method, 3)))


def test_refreshed_er_reviews_its_memories_at_the_end_of_a_task():
    ends = []
    for review in (False, True):
        method = made("refresh_er", review=review)
        for number in range(4):
            method.observe(batch_of(method, number))
        method.end(0)
        ends.append([p.detach().clone() for p in method.learner.parameters])
        assert any(fisher.any() for fisher in method.fisher.values())
    assert not torch.equal(ends[0][0], ends[1][0])


@pytest.mark.parametrize("passes", ["joint", "separate"])
def test_aser_passes_the_batch_before_it_chooses_memories(passes):
    """Its features are taken with running statistics, which hold the batch by then."""
    method = made("aser", "convbn", passes=passes, memories=20)
    for number in range(3):
        method.observe(batch_of(method, number))
    mean = next(b for name, b in method.learner.module.named_buffers() if name.endswith("running_mean"))
    before, at_choice, retrieved = mean.clone(), [], method.retrieved
    method.retrieved = lambda batch: at_choice.append(mean.clone()) or retrieved(batch)
    method.loss(batch_of(method, 3))
    assert not torch.equal(at_choice[0], before)


class TestOcmsOldClasses:
    SETTINGS = {"memories": 30, "lr": 1e-3, "replay_batch": 10, "projection": 16}

    def test_they_are_those_seen_until_the_end_of_the_last_task(self):
        method = made("ocm", **self.SETTINGS)
        for number in (4, 5):  # the second task of the stream comes first
            method.observe(Batch(method.stream, np.arange(number * 10, number * 10 + 10), 1))
        method.end(1)
        assert method.old == sorted(set(method.stream.labels[40:60].tolist()))
        again = made("ocm", **self.SETTINGS)
        again.load_state_dict(method.state_dict())
        assert again.old == method.old
        method.observe(batch_of(method, 0))
        assert method.old != method.seen

    def test_an_empty_first_task(self):
        method = made("ocm", **self.SETTINGS)
        method.end(0)
        for number in (4, 5):
            method.observe(batch_of(method, number))
        assert all(torch.isfinite(p).all() for p in method.learner.parameters)

    def test_the_form_for_mnist_has_no_difference_of_logits(self):
        losses = {}
        for keeps in (True, False):
            method = made("ocm", **self.SETTINGS, keeps_logits=keeps)
            for number in range(4):
                method.observe(batch_of(method, number))
            method.end(0)
            with torch.no_grad():
                method.learner.module.head.bias += 1.0  # away from the copy
            losses[keeps] = method.loss(batch_of(method, 4)).item()
        assert losses[True] > losses[False] + 0.5

    def test_similarities_of_the_first_task(self):
        losses = []
        for factor in (1.0, 0.5):
            method = made("ocm", **self.SETTINGS, first_similarity=factor)
            losses.append(method.loss(batch_of(method, 0)).item())
        assert losses[0] != losses[1]
        assert losses[0] == pytest.approx(made("ocm", **self.SETTINGS).loss(batch_of(method, 0)).item())


def test_a_resized_crop_alone_never_mirrors():
    x = torch.linspace(0, 1, 28).expand(50, 1, 28, 28).clone()  # brighter to the right
    change = AUGMENTATIONS["resized-crop"]
    assert change is not None
    parts = change(x, np.random.default_rng(0))
    assert (parts[..., -1] > parts[..., 0]).all()
    assert len({round(float(part[0, 0, -1]), 4) for part in parts}) > 20


@pytest.mark.parametrize(("dataset", "channels"), [("mnist", 1), ("cifar10", 3), ("cifar100", 3)])
def test_centred_images_reach_from_minus_one_to_one(dataset, channels):
    benchmark = ClassIncremental(name="class-incremental", dataset=dataset, normalise="centred")
    mean, std = benchmark.normalisation
    assert mean is not None
    assert std is not None
    ends = [(value - np.array(mean)) / np.array(std) for value in (0.0, 1.0)]
    assert [end.tolist() for end in ends] == [[-1.0] * channels, [1.0] * channels]
