"""Methods that learn a task at a time: against the official codes' runs, and each by what it is meant to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TASK_SETTINGS
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils import vector_to_parameters

from clray.training import run
from clray.vision.learner import Batch, Learner, TaskMethod
from clray.vision.methods import TASK_METHODS, find
from clray.vision.methods.agem import ClassRings
from clray.vision.methods.er_reservoir import BatchReservoir
from clray.vision.networks import MlpNetwork
from clray.vision.task_benchmarks import Split, TaskStream
from clray.vision.task_randomness import ClrayTaskRandomness, OfficialTaskRandomness

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "tag"
OFFICIAL: dict[str, Any] = json.loads((FIXTURES / "methods.json").read_text())
"""The official training loop of TAG's repository, by method: three tasks of six batches of 20."""


def made_stream(x: Tensor, y: Tensor, tasks: int, heads: str = "multi", classes: int = 10) -> TaskStream:
    """Inputs [N, C, H, W] and logits' indices [N] that lie task by task, as many of each."""
    share = len(x) // tasks
    split = Split(x, y, [torch.arange(share * t, share * (t + 1)) for t in range(tasks)])
    multi = heads == "multi"
    return TaskStream(
        train=split,
        test=split,
        offsets=[0] * tasks,
        heads=[(classes * t, classes * t + classes) if multi else (0, classes) for t in range(tasks)],
        outputs=classes * tasks if multi else classes,
        shape=tuple(x.shape[1:]),  # type: ignore[arg-type]
        pixel_maps=None,
        scale=lambda images: images,
        label_classes=classes,
    )


def small_stream(heads: str = "multi", count: int = 24) -> TaskStream:
    """Three tasks of three classes."""
    rng = torch.Generator().manual_seed(0)
    y = torch.randint(3, (3 * count,), generator=rng)
    if heads == "multi":
        y += 3 * torch.arange(3).repeat_interleave(count)
    return made_stream(torch.randn(3 * count, 1, 2, 3, generator=rng), y, 3, heads, classes=3)


def method_on(stream: TaskStream, name: str, hidden: tuple[int, ...] = (5,), seed: int = 0, **settings: Any) -> Any:
    learner = Learner(MlpNetwork(name="mlp", hidden=list(hidden)), stream, ClrayTaskRandomness(seed))
    method = find(name)
    return method(method.Settings(**settings), learner)


def batches(stream: TaskStream, task: int, size: int) -> list[Batch]:
    parts = torch.arange(len(stream.train.members[task])).split(size)
    return [Batch(task, indices, *stream.batch(task, indices)) for indices in parts]


def learn(method: TaskMethod, tasks: int, size: int = 6) -> None:
    """The training loop, one epoch a task."""
    with method.learner.randomness.training():
        for task in range(tasks):
            method.begin_epoch(task)
            for batch in batches(method.learner.stream, task, size):
                method.observe(batch)
            method.end_task(task)


def gradient(learner: Learner, x: Tensor, y: Tensor, task: int) -> Tensor:
    """[P] of a batch's own loss, leaving the learner as it is."""
    gradients = torch.autograd.grad(learner.loss(learner.module(x), y, task), learner.parameters)
    return torch.cat([g.flatten() for g in gradients])


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors])


class TestTheOfficialCode:
    """Every method of TAG's repository on the authors' training loop: parameters, Fisher information, memories."""

    NAMES = ("W1.weight", "W1.bias", "W2.weight", "W2.bias", "W3.weight", "W3.bias")

    def setting(self, case: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        words = case["opt"].split("-")
        settings = {"optimizer": "sgd", "lr": case["lr"], "batch": 20}
        if words[0] in ("rms", "adagrad", "adam"):
            settings["optimizer"] = words[0].replace("rms", "rmsprop")
        elif words[0] == "tag":
            settings |= {"optimizer": "tag-" + case["tag_opt"].replace("rms", "rmsprop"), "b": 5}
        if "gamma" in case:
            return "stable_sgd", {"lr": case["lr"], "gamma": case["gamma"], "momentum": 0.0, "batch": 20}
        if words[-1] == "ewc":
            return "ewc_online", settings | {"strength": case["lambd"]}
        if words[-1] in ("agem", "er"):
            return {"agem": "agem", "er": "er_reservoir"}[words[-1]], settings | {"memories_per_class": 1}
        return "naive", settings

    @pytest.mark.parametrize("name", OFFICIAL)
    def test_its_runs(self, name):
        case, given = OFFICIAL[name], np.load(FIXTURES / "methods_inputs.npz")
        x = torch.from_numpy(np.concatenate([given[f"x{t}"].reshape(-1, 1, 28, 28) for t in range(3)]))
        y = torch.from_numpy(np.concatenate([given[f"y{t}"].ravel() for t in range(3)]))
        stream = made_stream(x, y, tasks=3)
        learner = Learner(MlpNetwork(name="mlp", hidden=[16, 16]), stream, OfficialTaskRandomness(0))
        learner.randomness = OfficialTaskRandomness(0)  # the official run is seeded after its network is made
        with torch.no_grad():
            for p, key in zip(learner.parameters, self.NAMES, strict=True):
                p.copy_(torch.from_numpy(given[f"init_{key}"]))
        kind, settings = self.setting(case["cfg"])
        method = find(kind)(find(kind).Settings(**settings), learner)
        with learner.randomness.training():
            for task, after in enumerate(case["after_task"]):
                method.begin_epoch(task)
                for batch in batches(stream, task, 20):
                    method.observe(batch)
                method.end_task(task)
                for p, key in zip(learner.parameters, self.NAMES, strict=True):
                    assert p.norm().item() == pytest.approx(after["params"][key]["norm"], rel=1e-5)
                if kind == "ewc_online":
                    norms = [f.norm().item() for f in method.fisher]
                    assert norms == pytest.approx([after["fisher_norm"][key] for key in self.NAMES], rel=1e-4)
                if kind == "er_reservoir":
                    memory = method.memory
                    kept = [
                        int(y[stream.train.members[t][i]]) for t, i in zip(memory.tasks, memory.indices, strict=True)
                    ]
                    assert kept == after["buf_y"]
                    assert memory.tasks.tolist() == after["buf_t"]
        final = np.load(FIXTURES / "methods_final_params.npz")
        for p, key in zip(learner.parameters, self.NAMES, strict=True):
            torch.testing.assert_close(p.detach(), torch.from_numpy(final[f"{name}/{key}"]), rtol=0, atol=2e-6)
            moved = np.abs(final[f"{name}/{key}"] - given[f"init_{key}"]).max()
            assert moved > 1e-3, "far more than the tolerance"

    def test_they_are_all_there(self):
        assert len(OFFICIAL) == 18
        assert {self.setting(case["cfg"])[0] for case in OFFICIAL.values()} == set(TASK_METHODS) - {"multitask_cyclic"}


class TestLosses:
    def test_a_loss_is_that_of_filled_logits(self):
        """The official codes put -1e11 in the place of other tasks' logits."""
        learner = method_on(small_stream(), "naive", lr=0.1).learner
        for task in range(3):
            x, y = learner.stream.batch(task, torch.arange(24))
            logits = learner.module(x).detach()
            filled = torch.full_like(logits, -10e10)
            filled[:, 3 * task : 3 * task + 3] = logits[:, 3 * task : 3 * task + 3]
            assert learner.loss(logits, y, task).item() == pytest.approx(cross_entropy(filled, y).item(), rel=1e-6)

    @pytest.mark.parametrize("heads", ["multi", "single"])
    def test_a_mixed_loss_is_the_mean_of_each_examples_own(self, heads):
        learner = method_on(small_stream(heads), "naive", lr=0.1).learner
        tasks, indices = torch.tensor([2, 0, 1, 2, 0]), torch.tensor([3, 3, 7, 1, 20])
        x, y = learner.stream.mixed_batch(tasks, indices)
        logits = learner.module(x)
        each = [learner.loss(logits[i : i + 1], y[i : i + 1], t) for i, t in enumerate(tasks.tolist())]
        assert learner.mixed_loss(logits, y, tasks).item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-6)

    def test_tasks_of_different_numbers_of_classes(self):
        """Every example under its own task's logits alone: no more and no fewer."""
        learner = method_on(small_stream(), "naive", lr=0.1).learner
        learner.stream.heads = [(0, 2), (2, 7), (7, 9)]
        tasks, y = torch.tensor([2, 0, 1, 1, 0, 2]), torch.tensor([8, 1, 6, 2, 0, 7])
        logits = torch.randn(6, 9, generator=torch.Generator().manual_seed(0), requires_grad=True)
        each = [learner.loss(logits[i : i + 1], y[i : i + 1], t) for i, t in enumerate(tasks.tolist())]
        expected, found = torch.stack(each).mean(), learner.mixed_loss(logits, y, tasks)
        assert found.item() == pytest.approx(expected.item(), rel=1e-6)
        gradients = [torch.autograd.grad(loss, logits)[0] for loss in (expected, found)]
        torch.testing.assert_close(*gradients)
        for row, task in zip(gradients[1], tasks.tolist(), strict=True):
            begin, end = learner.stream.heads[task]
            assert not row[:begin].any()
            assert not row[end:].any()
            assert row[begin:end].all()

    def test_agem_has_a_ring_for_every_class_of_the_widest_task(self):
        stream = small_stream()
        stream.heads = [(0, 2), (2, 7), (7, 9)]
        method = method_on(stream, "agem", lr=0.1, memories_per_class=2)
        method.memory.add(1, [4, 0], [10, 11])
        assert method.memory.of([1])[1].tolist() == [11, 10]

    def test_gradients_go_out_and_in(self):
        learner = method_on(small_stream(), "naive", lr=0.1).learner
        x, y = learner.stream.batch(1, torch.arange(10))
        learner.loss(learner.forward(x), y, 1).backward()
        before = learner.gradient()
        torch.testing.assert_close(before, gradient(learner, x, y, 1))
        learner.set_gradient(2 * before)
        assert torch.equal(learner.gradient(), 2 * before)
        assert not torch.equal(before, learner.gradient()), "what came out was a copy"

    def test_accuracy_is_among_the_tasks_own_classes(self):
        learner = method_on(small_stream(), "naive", lr=0.1).learner
        with torch.no_grad():
            learner.parameters[-1][:3] += 100  # the first task's logits are the highest of all
        for task in range(3):
            x, y = learner.stream.batch(task, torch.arange(24), "test")
            own = learner.module(x)[:, 3 * task : 3 * task + 3].argmax(1) + 3 * task
            assert learner.accuracy(task, batch=7) == pytest.approx((own == y).float().mean().item())


class TestEwc:
    SETTINGS = {"lr": 0.05, "strength": 3.0, "batch": 6}

    def squares(self, learner: Learner, task: int) -> Tensor:
        """[P] the mean of the squared gradients of a task's images, one by one through torch.func."""
        names = [name for name, _ in learner.module.named_parameters()]
        begin, end = learner.stream.heads[task]

        def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            logits = torch.func.functional_call(learner.module, parameters, (x.unsqueeze(0),))
            return cross_entropy(logits[:, begin:end], y.unsqueeze(0) - begin)

        parameters = {name: p.detach() for name, p in learner.module.named_parameters()}
        x, y = learner.stream.batch(task, torch.arange(24))
        each = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(parameters, x, y)
        return flat([each[name].square().mean(0) for name in names])

    @pytest.mark.parametrize("heads", ["multi", "single"])
    def test_as_intended(self, heads):
        """The mean over tasks of the mean of squared gradients of single images."""
        method = method_on(small_stream(heads), "ewc_online", fisher="intended", **self.SETTINGS)
        mean = torch.zeros(1)
        with method.learner.randomness.training():
            for task in range(3):
                for batch in batches(method.learner.stream, task, 6):
                    method.observe(batch)
                mean = (task * mean + self.squares(method.learner, task)) / (task + 1)
                method.end_task(task)
                torch.testing.assert_close(flat(method.fisher), mean, rtol=1e-4, atol=1e-7)
                assert torch.equal(flat(method.anchor), method.learner.flat_parameters())
        assert mean.max() > 1e-3

    @pytest.mark.parametrize("heads", ["multi", "single"])
    def test_as_coded(self, heads):
        """The squared gradient of the mean loss, under the next task's mask: there a softmax over the next task's
        logits (all logits, where there is no next task) less the true class, and under one head the plain loss."""
        stream = small_stream(heads)
        method = method_on(stream, "ewc_online", **self.SETTINGS)
        learner, fisher = method.learner, torch.zeros(1)
        with learner.randomness.training():
            for task in range(3):
                for batch in batches(stream, task, 6):
                    method.observe(batch)
                x, y = stream.batch(task, torch.arange(24))
                logits = learner.module(x)
                slope = torch.full_like(logits, 1 / 9)
                if heads == "single":
                    slope = logits.detach().softmax(1)
                elif task < 2:
                    slope = torch.zeros_like(logits)
                    slope[:, 3 * task + 3 : 3 * task + 6] = logits[:, 3 * task + 3 : 3 * task + 6].detach().softmax(1)
                slope[torch.arange(24), y] -= 1
                g = flat(list(torch.autograd.grad(logits, learner.parameters, slope / 24)))
                fisher = (fisher + (task + 1) * g**2) / (task + 2)
                method.end_task(task)
                torch.testing.assert_close(flat(method.fisher), fisher, rtol=1e-4, atol=1e-7)

    def test_only_so_many_images(self):
        """Ten of the task's, in evaluation mode, which ones being drawn."""
        method = method_on(small_stream(), "ewc_online", fisher_images=10, **self.SETTINGS)
        seen: list[Tensor] = []
        method.learner.module.register_forward_hook(lambda module, args, out: seen.append(args[0]))
        method.end_task(0)
        x, _ = method.learner.stream.batch(0, torch.arange(24))
        [given] = seen
        places = [int((x == image).flatten(1).all(1).nonzero()) for image in given]
        assert len(places) == len(set(places)) == 10
        assert places != sorted(places)
        assert not method.learner.module.training

    @pytest.mark.parametrize(("strength", "clipped"), [(1.0, False), (1e5, True)])
    def test_the_penaltys_gradient_is_clipped_alone(self, strength, clipped):
        method = method_on(small_stream(), "ewc_online", optimizer="sgd", lr=1.0, strength=strength, batch=6)
        learner = method.learner
        learn(method, 1)
        with torch.no_grad():
            for p in learner.parameters:
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
        before = learner.flat_parameters()
        batch = batches(learner.stream, 1, 6)[0]
        pull = 2 * strength * flat(method.fisher) * (before - flat(method.anchor))
        assert (pull.norm() > 100) == clipped
        if clipped:
            pull *= 100 / pull.norm()
        own = gradient(learner, batch.x, batch.y, 1)
        method.observe(batch)
        torch.testing.assert_close(before - learner.flat_parameters(), pull + own, rtol=1e-4, atol=2e-5)
        assert own.norm() > 0.1

    def test_there_is_no_penalty_on_the_first_task(self):
        method = method_on(small_stream(), "ewc_online", **self.SETTINGS)
        method.add_gradients(batches(method.learner.stream, 0, 6)[0])
        assert all(not p.grad.any() for p in method.learner.parameters)


class TestAGem:
    def test_a_step_does_not_add_to_the_memories_loss(self):
        """Every step of the later tasks: along the batch's gradient where that agrees with the memories', otherwise
        along what is left of it."""
        stream = small_stream()
        method = method_on(stream, "agem", lr=0.3, memories_per_class=4, batch=40)
        learner = method.learner
        learn(method, 1)
        conflicts = agreements = 0
        for task in (1, 2):
            for batch in batches(stream, task, 3):
                past = list(range(task))
                tasks, indices = method.memory.of(past)
                x, y = stream.mixed_batch(tasks, indices)
                loss = learner.mixed_loss(learner.module(x), y, tasks)
                reference = flat(list(torch.autograd.grad(loss, learner.parameters)))
                own = gradient(learner, batch.x, batch.y, task)
                before = learner.flat_parameters()
                method.observe(batch)
                taken = (before - learner.flat_parameters()) / 0.3
                if own @ reference < 0:
                    conflicts += 1
                    assert abs(taken @ reference) < 1e-4 * taken.norm() * reference.norm() + 1e-6
                    expected = own - (own @ reference) / (reference @ reference) * reference
                else:
                    agreements += 1
                    expected = own
                torch.testing.assert_close(taken, expected, rtol=1e-3, atol=1e-5)
            method.end_task(task)
        assert conflicts > 2
        assert agreements > 2

    def test_no_more_memories_than_a_batch(self):
        stream = small_stream()
        method = method_on(stream, "agem", lr=0.1, memories_per_class=4, batch=6)
        sizes: list[int] = []
        method.learner.module.register_forward_hook(lambda module, args, out: sizes.append(len(args[0])))
        learn(method, 2)
        # On the first task the batch passes twice; on the second six of the memories do in between.
        assert sizes == [6, 6] * 4 + [6, 6, 6] * 4
        sizes.clear()
        few = method_on(stream, "agem", lr=0.1, memories_per_class=1, batch=6)
        few.learner.module.register_forward_hook(lambda module, args, out: sizes.append(len(args[0])))
        learn(few, 2)
        assert sizes[8:] == [6, 3, 6] * 4

    def test_rings_keep_the_last_of_each_class(self):
        stream = small_stream()
        method = method_on(stream, "agem", lr=0.1, memories_per_class=4, batch=6)
        learn(method, 3)
        for task in range(3):
            _, y = stream.batch(task, torch.arange(24))
            expected = {i for c in range(3) for i in torch.nonzero(y == 3 * task + c).flatten().tolist()[-4:]}
            tasks, indices = method.memory.of([task])
            assert set(tasks.tolist()) == {task}
            assert sorted(indices.tolist()) == sorted(expected)

    def test_a_ring_that_is_not_full_has_no_gaps(self):
        rings = ClassRings(tasks=2, classes=3, capacity=2)
        assert len(rings.of([0, 1])[0]) == 0
        rings.add(1, [0, 2, 0, 0], [10, 11, 12, 13])
        tasks, indices = rings.of([0, 1])
        assert tasks.tolist() == [1, 1, 1]
        assert sorted(indices.tolist()) == [11, 12, 13]


class Scripted:
    """Draws that were written down beforehand."""

    def __init__(self, *slots: list[int]) -> None:
        self.slots, self.asked = list(slots), []

    def below(self, highest: int, count: int) -> Tensor:
        self.asked.append((highest, count))
        return torch.tensor(self.slots.pop(0))


class TestReservoir:
    def test_a_batch_is_drawn_for_at_once_by_what_was_seen_before_it(self):
        """The textbook's range grows with every image of the batch."""
        randomness = Scripted([3, 0], [5, 2, 2])
        memory = BatchReservoir(4, randomness)  # type: ignore[arg-type]
        memory.add(0, torch.tensor([10, 11, 12]))
        assert randomness.asked == []
        memory.add(0, torch.tensor([13, 14, 15]))
        assert randomness.asked == [(4, 2)]
        assert memory.indices.tolist() == [15, 11, 12, 14]
        memory.add(1, torch.tensor([20, 21, 22]))
        assert randomness.asked == [(4, 2), (6, 3)]
        assert memory.indices.tolist() == [15, 11, 22, 14], "a place drawn twice has the later image"
        assert memory.tasks.tolist() == [0, 0, 1, 0]
        assert memory.seen == 9

    @pytest.mark.parametrize("kind", [ClrayTaskRandomness, OfficialTaskRandomness])
    def test_what_it_holds_is_as_likely_as_that_makes_it(self, kind):
        capacity, size, count, times = 8, 5, 40, 2500
        expected = np.zeros(count)
        for i in range(count):  # kept if its own draw hits a place, and none of the later ones hits the same
            seen = min(i, capacity) if i < capacity else max(capacity, i // size * size)
            chance = 1.0 if i < capacity else capacity / seen
            for later in range(max(i + 1, capacity), count):
                chance *= 1 - 1 / max(capacity, later // size * size)
            expected[i] = chance
        assert expected.sum() == pytest.approx(capacity, rel=0.02)
        found, randomness = np.zeros(count), kind(3)
        with randomness.training():
            for _ in range(times):
                memory = BatchReservoir(capacity, randomness)
                for images in torch.arange(count).split(size):
                    memory.add(0, images)
                assert len(memory) == capacity
                found[memory.indices.numpy()] += 1
        sigma = np.sqrt(expected * (1 - expected) / times)
        assert (np.abs(found / times - expected) < 4.5 * sigma).all()
        assert expected == pytest.approx(np.full(count, capacity / count), rel=0.35), "near to a uniform sample"

    def test_memories_are_drawn_without_repetition(self):
        randomness = ClrayTaskRandomness(0)
        memory = BatchReservoir(20, randomness)
        memory.add(0, torch.arange(8))
        assert memory.draw(10)[1].tolist() == list(range(8)), "all, where there are fewer"
        memory.add(1, torch.arange(12))
        assert all(len(set(zip(*(part.tolist() for part in memory.draw(10)), strict=True))) == 10 for _ in range(20))

    def test_a_step_adds_the_mean_loss_of_a_batch_of_memories(self):
        stream = small_stream()
        method = method_on(stream, "er_reservoir", lr=0.1, memories_per_class=3, batch=6)
        learner = method.learner
        assert method.memory.capacity == 9
        learn(method, 1)
        drawn: list[tuple[Tensor, Tensor]] = []
        draw = method.memory.draw
        method.memory.draw = lambda count: drawn.append(tuple(p.clone() for p in draw(count))) or drawn[-1]
        tasks_drawn = set()
        for batch in batches(stream, 1, 6):
            before = learner.flat_parameters()
            own = gradient(learner, batch.x, batch.y, 1)
            method.observe(batch)
            tasks, indices = drawn[-1]
            tasks_drawn |= set(tasks.tolist())
            assert len(tasks) == 6
            after = learner.flat_parameters()
            vector_to_parameters(before, learner.parameters)
            x, y = stream.mixed_batch(tasks, indices)
            loss = learner.mixed_loss(learner.module(x), y, tasks)
            replayed = flat(list(torch.autograd.grad(loss, learner.parameters)))
            torch.testing.assert_close((before - after) / 0.1, own + replayed, rtol=1e-4, atol=1e-5)
            vector_to_parameters(after, learner.parameters)
        assert len(drawn) == 4
        assert tasks_drawn == {0, 1}, "the current task's images are among them"


class TestStableSgd:
    @pytest.mark.parametrize(
        ("settings", "rates"),
        [
            ({"lr": 0.1, "gamma": 0.4}, [0.04, 0.016, 0.0064]),
            ({"lr": 0.01}, [0.01, 0.01, 0.01]),
            ({"lr": 0.001, "gamma": 0.1}, [1e-4, 5e-5, 5e-5]),
        ],
    )
    def test_rates_fall_from_the_first_task_on_to_a_floor(self, settings, rates):
        method = method_on(small_stream(), "stable_sgd", **settings)
        found = []
        for task in range(3):
            method.begin_epoch(task)
            [group] = method.learner.optimizer.param_groups
            found.append(group["lr"])
            assert group["momentum"] == 0.8
        assert found == pytest.approx(rates, rel=1e-12)

    def test_momentum_is_forgotten_before_every_epoch(self):
        stream = small_stream()
        method = method_on(stream, "stable_sgd", lr=0.2, gamma=0.5, momentum=0.8, batch=6)
        other = method_on(stream, "naive", lr=0.2).learner
        for epoch in range(2):
            method.begin_epoch(0)
            velocity = torch.zeros(1)
            for batch in batches(stream, 0, 6):
                velocity = 0.8 * velocity + gradient(other, batch.x, batch.y, 0)
                vector_to_parameters(other.flat_parameters() - 0.1 * velocity, other.parameters)
                method.observe(batch)
            torch.testing.assert_close(method.learner.flat_parameters(), other.flat_parameters(), rtol=1e-4, atol=1e-6)
            assert method.learner.optimizer.state, f"epoch {epoch} had momentum"


class TestMultitask:
    def test_all_tasks_in_turn_six_times(self):
        method = method_on(small_stream(), "multitask_cyclic", lr=0.1)
        assert method.schedule() == [0, 1, 2] * 6
        assert method_on(small_stream(), "multitask_cyclic", lr=0.1, cycles=2).schedule() == [0, 1, 2, 0, 1, 2]

    def test_one_row_at_the_end(self, train_tasks):
        measured = run(train_tasks("multitask_cyclic", tasks=3, settings={"cycles": 2}))
        assert [m[:4] for m in measured] == [(300, 3, task, "accuracy") for task in range(3)]

    def test_once_round_is_naive_training(self, train_tasks):
        assert run(train_tasks("multitask_cyclic", settings={"cycles": 1})) == run(train_tasks("naive"))


def first_task(training: Any) -> tuple[list[Any], Tensor]:
    measured: list[Any] = []
    while not measured:
        measured = training.advance()
    return measured, training.learner.flat_parameters()


class TestTheFirstTask:
    """What the authors' logs have for every seed: before there is a past, methods against forgetting do nothing."""

    @pytest.mark.parametrize("randomness", ["clray", "official"])
    @pytest.mark.parametrize(
        "optimizer",
        [
            {"optimizer": "sgd", "lr": 0.1},
            {"optimizer": "rmsprop", "lr": 0.003},
            {"optimizer": "tag-rmsprop", "lr": 0.001, "b": 5},
        ],
    )
    def test_ewc_and_er_are_naive(self, train_tasks, randomness, optimizer):
        names = ("naive", "ewc_online", "er_reservoir", "agem")
        ends = [first_task(train_tasks(n, randomness=randomness, settings=optimizer)) for n in names]
        measured, parameters = ends[0]
        assert [m.eval_task for m in measured] == [0]
        for others, theirs in ends[1:]:
            assert others == measured
            assert torch.equal(theirs, parameters)

    def test_they_differ_from_the_second_on(self, train_tasks):
        ends = []
        for name in ("naive", "ewc_online", "er_reservoir", "agem"):
            training = train_tasks(name)
            run(training)
            ends.append(training.learner.flat_parameters())
        for i, one in enumerate(ends):
            assert not any(torch.equal(one, other) for other in ends[i + 1 :])

    def test_agem_moves_batch_normalisations_means_twice(self, train_tasks):
        network = {"name": "reduced-resnet18", "filters": 8}
        naive, er, agem = (train_tasks(n, per_task=30, model=network) for n in ("naive", "er_reservoir", "agem"))
        ends = [first_task(training)[1] for training in (naive, er, agem)]
        assert torch.equal(ends[0], ends[1])
        assert torch.equal(ends[0], ends[2])
        states = [training.learner.module.state_dict() for training in (naive, er, agem)]
        assert torch.equal(states[0]["bn1.running_mean"], states[1]["bn1.running_mean"])
        assert not torch.equal(states[0]["bn1.running_mean"], states[2]["bn1.running_mean"])
        assert [int(s["bn1.num_batches_tracked"]) for s in states] == [3, 3, 6]


def test_every_method_is_in_the_small_settings():
    assert {method for method, _ in TASK_SETTINGS.values()} == set(TASK_METHODS)
    optimizers = {settings.get("optimizer") for _, settings in TASK_SETTINGS.values()}
    assert len(optimizers - {None}) == 6
    for name in TASK_METHODS:
        assert find(name).Settings.model_config["extra"] == "forbid"


@pytest.mark.parametrize("name", TASK_SETTINGS)
def test_every_method_learns(name, train_tasks):
    """Well above chance, of ten classes, on what was just learned."""
    measured = run(train_tasks(name, per_task=500, benchmark={"epochs": 2}, settings={"batch": 10}))
    after = [m.value for m in measured if m.metric == "accuracy" and m.trained_tasks == m.eval_task + 1]
    assert min(after[-1:] if name == "multitask_cyclic" else after) > 0.5
