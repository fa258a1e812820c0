"""Methods that learn a task at a time: against the official codes' runs, and each by its purpose."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TASK_SETTINGS, flat_parameters, shown
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils import vector_to_parameters

from clray.metrics import summarize
from clray.training import run
from clray.vision.draws import ClrayDraws
from clray.vision.learners.module import ModuleLearner
from clray.vision.memory import Reservoir, Ring
from clray.vision.methods import METHODS
from clray.vision.methods.base import ModuleMethod
from clray.vision.networks.mlp import Mlp
from clray.vision.official.tag import OfficialDraws
from clray.vision.stream import Batch, Images, Stream, from_members

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "tag"
OFFICIAL: dict[str, Any] = json.loads((FIXTURES / "methods.json").read_text())
"""The official training loop of TAG's repository, by method: three tasks of six batches of 20."""


def made_stream(x: Tensor, y: Tensor, tasks: int, heads: str = "multi", classes: int = 10) -> Stream:
    """Inputs [N, C, H, W] and logits' indices [N] that lie task by task, as many of each."""
    share = len(x) // tasks
    members = [np.arange(share * t, share * (t + 1)) for t in range(tasks)]
    multi = heads == "multi"
    return from_members(
        Images(x, y),
        Images(x, y),
        members=members,
        tests=members,
        offsets=[0] * tasks,
        heads=[(classes * t, classes * t + classes) if multi else (0, classes) for t in range(tasks)],
        outputs=classes * tasks if multi else classes,
        scale=lambda images: images,
        label_classes=classes,
    )


def give_heads(stream: Stream, heads: list[tuple[int, int]]) -> None:
    changed = [replace(e, logits=own) for e, own in zip(stream.experiences, heads, strict=True)]
    object.__setattr__(stream, "experiences", changed)


def small_stream(heads: str = "multi", count: int = 24) -> Stream:
    """Three tasks of three classes."""
    rng = torch.Generator().manual_seed(0)
    y = torch.randint(3, (3 * count,), generator=rng)
    if heads == "multi":
        y += 3 * torch.arange(3).repeat_interleave(count)
    return made_stream(torch.randn(3 * count, 1, 2, 3, generator=rng), y, 3, heads, classes=3)


def method_on(stream: Stream, name: str, hidden: tuple[int, ...] = (5,), seed: int = 0, **settings: Any) -> Any:
    learner = ModuleLearner(Mlp(name="mlp", hidden=list(hidden)), stream, ClrayDraws(seed))
    method = METHODS[name]
    return method(method.Settings(**settings), learner)


def batches(stream: Stream, task: int, size: int) -> list[Batch]:
    own = stream.experiences[task].examples
    return [Batch(stream, own[begin : begin + size], task) for begin in range(0, len(own), size)]


def learn(method: ModuleMethod, tasks: int, size: int = 6) -> None:
    """The training loop, one epoch a task."""
    with method.draws.training():
        for task in range(tasks):
            method.begin(task)
            for batch in batches(method.stream, task, size):
                method.observe(batch)
            method.end(task)


def gradient(learner: ModuleLearner, x: Tensor, y: Tensor, task: int) -> Tensor:
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
        learner = ModuleLearner(Mlp(name="mlp", hidden=[16, 16]), stream, OfficialDraws(0))
        learner.draws = OfficialDraws(0)  # the official run is seeded after its network is made
        with torch.no_grad():
            for p, key in zip(learner.parameters, self.NAMES, strict=True):
                p.copy_(torch.from_numpy(given[f"init_{key}"]))
        kind, settings = self.setting(case["cfg"])
        method: Any = METHODS[kind](METHODS[kind].Settings(**settings), learner)
        with learner.draws.training():
            for task, after in enumerate(case["after_task"]):
                method.begin(task)
                for batch in batches(stream, task, 20):
                    method.observe(batch)
                method.end(task)
                for p, key in zip(learner.parameters, self.NAMES, strict=True):
                    assert p.norm().item() == pytest.approx(after["params"][key]["norm"], rel=1e-5)
                if kind == "ewc_online":
                    norms = [f.norm().item() for f in method.fisher]
                    assert norms == pytest.approx([after["fisher_norm"][key] for key in self.NAMES], rel=1e-4)
                if kind == "er_reservoir":
                    kept = method.memory.numbers
                    assert y[stream.image[kept]].tolist() == after["buf_y"]
                    assert stream.owner[kept].tolist() == after["buf_t"]
        final = np.load(FIXTURES / "methods_final_params.npz")
        for p, key in zip(learner.parameters, self.NAMES, strict=True):
            torch.testing.assert_close(p.detach(), torch.from_numpy(final[f"{name}/{key}"]), rtol=0, atol=2e-6)
            moved = np.abs(final[f"{name}/{key}"] - given[f"init_{key}"]).max()
            assert moved > 1e-3, "far more than the tolerance"

    def test_they_are_all_there(self):
        assert len(OFFICIAL) == 18
        found = {self.setting(case["cfg"])[0] for case in OFFICIAL.values()}
        assert found == {"naive", "stable_sgd", "ewc_online", "agem", "er_reservoir"}


class TestLosses:
    def test_a_loss_is_that_of_filled_logits(self):
        """The official codes put -1e11 in the place of other tasks' logits."""
        learner = method_on(small_stream(), "naive", lr=0.1).learner
        for task in range(3):
            x, y = shown(learner.stream, task)
            logits = learner.module(x).detach()
            filled = torch.full_like(logits, -10e10)
            filled[:, 3 * task : 3 * task + 3] = logits[:, 3 * task : 3 * task + 3]
            assert learner.loss(logits, y, task).item() == pytest.approx(cross_entropy(filled, y).item(), rel=1e-6)

    @pytest.mark.parametrize("heads", ["multi", "single"])
    def test_a_mixed_loss_is_the_mean_of_each_examples_own(self, heads):
        learner = method_on(small_stream(heads), "naive", lr=0.1).learner
        tasks, places = torch.tensor([2, 0, 1, 2, 0]), np.array([3, 3, 7, 1, 20])
        numbers = 24 * tasks.numpy() + places
        x, y = learner.stream.examples(numbers)
        logits = learner.module(x)
        each = [learner.loss(logits[i : i + 1], y[i : i + 1], t) for i, t in enumerate(tasks.tolist())]
        assert learner.mixed_loss(logits, y, tasks).item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-6)
        assert learner.loss_of(numbers).item() == learner.mixed_loss(logits, y, tasks).item()

    def test_tasks_of_different_numbers_of_classes(self):
        """Every example under its own task's logits alone: no more and no fewer."""
        learner = method_on(small_stream(), "naive", lr=0.1).learner
        give_heads(learner.stream, [(0, 2), (2, 7), (7, 9)])
        tasks, y = torch.tensor([2, 0, 1, 1, 0, 2]), torch.tensor([8, 1, 6, 2, 0, 7])
        logits = torch.randn(6, 9, generator=torch.Generator().manual_seed(0), requires_grad=True)
        each = [learner.loss(logits[i : i + 1], y[i : i + 1], t) for i, t in enumerate(tasks.tolist())]
        expected, found = torch.stack(each).mean(), learner.mixed_loss(logits, y, tasks)
        assert found.item() == pytest.approx(expected.item(), rel=1e-6)
        gradients = [torch.autograd.grad(loss, logits)[0] for loss in (expected, found)]
        torch.testing.assert_close(*gradients)
        for row, task in zip(gradients[1], tasks.tolist(), strict=True):
            begin, end = learner.stream.experiences[task].logits
            assert not row[:begin].any()
            assert not row[end:].any()
            assert row[begin:end].all()

    def test_agem_has_a_ring_for_every_class_of_the_widest_task(self):
        stream = small_stream()
        give_heads(stream, [(0, 2), (2, 7), (7, 9)])
        method = method_on(stream, "agem", lr=0.1, memories_per_class=2)
        assert method.memory.numbers.shape == (3 * 5, 2)

    def test_gradients_go_out_and_in(self):
        learner = method_on(small_stream(), "naive", lr=0.1).learner
        x, y = shown(learner.stream, 1, slice(10))
        learner.loss(learner.logits(x), y, 1).backward()
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
            x, y = shown(learner.stream, task, part="test")
            own = learner.module(x)[:, 3 * task : 3 * task + 3].argmax(1) + 3 * task
            assert learner.correct(task) == (own == y).sum()


class TestEwc:
    SETTINGS = {"lr": 0.05, "strength": 3.0, "batch": 6}

    def squares(self, learner: ModuleLearner, task: int) -> Tensor:
        """[P] the mean of the squared gradients of a task's images, one by one through torch.func."""
        names = [name for name, _ in learner.module.named_parameters()]
        begin, end = learner.stream.experiences[task].logits

        def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            logits = torch.func.functional_call(learner.module, parameters, (x.unsqueeze(0),))
            return cross_entropy(logits[:, begin:end], y.unsqueeze(0) - begin)

        parameters = {name: p.detach() for name, p in learner.module.named_parameters()}
        x, y = shown(learner.stream, task)
        each = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(parameters, x, y)
        return flat([each[name].square().mean(0) for name in names])

    @pytest.mark.parametrize("heads", ["multi", "single"])
    def test_as_intended(self, heads):
        """The mean over tasks of the mean of squared gradients of single images."""
        method = method_on(small_stream(heads), "ewc_online", fisher="intended", **self.SETTINGS)
        mean = torch.zeros(1)
        with method.draws.training():
            for task in range(3):
                for batch in batches(method.stream, task, 6):
                    method.observe(batch)
                mean = (task * mean + self.squares(method.learner, task)) / (task + 1)
                method.end(task)
                torch.testing.assert_close(flat(method.fisher), mean, rtol=1e-4, atol=1e-7)
                assert torch.equal(flat(method.anchor), flat_parameters(method))
        assert mean.max() > 1e-3

    @pytest.mark.parametrize("heads", ["multi", "single"])
    def test_as_coded(self, heads):
        """The squared gradient of the mean loss, under the next task's mask: there a softmax over the next task's
        logits (all logits, where there is no next task) less the true class, and under one head the plain loss."""
        stream = small_stream(heads)
        method = method_on(stream, "ewc_online", **self.SETTINGS)
        learner, fisher = method.learner, torch.zeros(1)
        with learner.draws.training():
            for task in range(3):
                for batch in batches(stream, task, 6):
                    method.observe(batch)
                x, y = shown(stream, task)
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
                method.end(task)
                torch.testing.assert_close(flat(method.fisher), fisher, rtol=1e-4, atol=1e-7)

    def test_only_so_many_images(self):
        """Ten of the task's, in evaluation mode, which ones being drawn."""
        method = method_on(small_stream(), "ewc_online", fisher_images=10, **self.SETTINGS)
        seen: list[Tensor] = []
        method.learner.module.register_forward_hook(lambda module, args, out: seen.append(args[0]))
        method.end(0)
        x, _ = shown(method.stream, 0)
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
        before = flat_parameters(method)
        batch = batches(learner.stream, 1, 6)[0]
        pull = 2 * strength * flat(method.fisher) * (before - flat(method.anchor))
        assert (pull.norm() > 100) == clipped
        if clipped:
            pull *= 100 / pull.norm()
        own = gradient(learner, batch.x, batch.y, 1)
        method.observe(batch)
        torch.testing.assert_close(before - flat_parameters(method), pull + own, rtol=1e-4, atol=2e-5)
        assert own.norm() > 0.1

    def test_there_is_no_penalty_on_the_first_task(self):
        method = method_on(small_stream(), "ewc_online", **self.SETTINGS)
        method.add_gradients(batches(method.stream, 0, 6)[0])
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
                loss = learner.loss_of(method.memory.of(list(range(3 * task))))
                reference = flat(list(torch.autograd.grad(loss, learner.parameters)))
                own = gradient(learner, batch.x, batch.y, task)
                before = flat_parameters(method)
                method.observe(batch)
                taken = (before - flat_parameters(method)) / 0.3
                if own @ reference < 0:
                    conflicts += 1
                    assert abs(taken @ reference) < 1e-4 * taken.norm() * reference.norm() + 1e-6
                    expected = own - (own @ reference) / (reference @ reference) * reference
                else:
                    agreements += 1
                    expected = own
                torch.testing.assert_close(taken, expected, rtol=1e-3, atol=1e-5)
            method.end(task)
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
            _, y = shown(stream, task)
            places = {i for c in range(3) for i in torch.nonzero(y == 3 * task + c).flatten().tolist()[-4:]}
            kept = method.memory.of(list(range(3 * task, 3 * task + 3)))
            assert sorted(kept.tolist()) == sorted(24 * task + i for i in places)

    def test_a_ring_that_is_not_full_has_no_gaps(self):
        rings = Ring(groups=6, capacity=2)
        assert len(rings.of([0, 1, 3, 5])) == 0
        for group, number in ((3, 10), (5, 11), (3, 12), (3, 13)):
            rings.add(group, number)
        assert sorted(rings.of([0, 3, 5]).tolist()) == [11, 12, 13]
        assert rings.of([5]).tolist() == [11]


class Scripted:
    """Draws that were written down beforehand."""

    def __init__(self, *slots: list[int]) -> None:
        self.slots, self.asked = list(slots), []

    def below(self, highest: int, count: int) -> np.ndarray:
        self.asked.append((highest, count))
        return np.array(self.slots.pop(0))


class TestReservoir:
    def test_a_batch_is_drawn_for_at_once_by_what_was_seen_before_it(self):
        """The textbook's range grows with every image of the batch."""
        randomness = Scripted([3, 0], [5, 2, 2])
        memory = Reservoir(4, randomness, "batch")  # type: ignore[arg-type]
        memory.add_batch(np.array([10, 11, 12]))
        assert randomness.asked == []
        memory.add_batch(np.array([13, 14, 15]))
        assert randomness.asked == [(4, 2)]
        assert memory.numbers.tolist() == [15, 11, 12, 14]
        memory.add_batch(np.array([20, 21, 22]))
        assert randomness.asked == [(4, 2), (6, 3)]
        assert memory.numbers.tolist() == [15, 11, 22, 14], "a place drawn twice has the later image"
        assert memory.seen == 9

    @pytest.mark.parametrize("kind", [ClrayDraws, OfficialDraws])
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
                memory = Reservoir(capacity, randomness, "batch")
                for begin in range(0, count, size):
                    memory.add_batch(np.arange(begin, begin + size))
                assert len(memory) == capacity
                found[memory.numbers] += 1
        sigma = np.sqrt(expected * (1 - expected) / times)
        assert (np.abs(found / times - expected) < 4.5 * sigma).all()
        assert expected == pytest.approx(np.full(count, capacity / count), rel=0.35), "near to a uniform sample"

    def test_memories_are_drawn_without_repetition(self):
        memory = Reservoir(20, ClrayDraws(0), "batch")
        memory.add_batch(np.arange(8))
        assert memory.draw(10).tolist() == list(range(8)), "all, where there are fewer"
        memory.add_batch(np.arange(8, 20))
        assert all(len(set(memory.draw(10).tolist())) == 10 for _ in range(20))

    def test_a_step_adds_the_mean_loss_of_a_batch_of_memories(self):
        stream = small_stream()
        method = method_on(stream, "er_reservoir", lr=0.1, memories_per_class=3, batch=6)
        learner = method.learner
        assert method.memory.capacity == 9
        learn(method, 1)
        drawn: list[Any] = []
        draw = method.memory.draw
        method.memory.draw = lambda count: drawn.append(draw(count).copy()) or drawn[-1]
        tasks_drawn = set()
        for batch in batches(stream, 1, 6):
            before = flat_parameters(method)
            own = gradient(learner, batch.x, batch.y, 1)
            method.observe(batch)
            tasks_drawn |= set(stream.owner[drawn[-1]].tolist())
            assert len(drawn[-1]) == 6
            after = flat_parameters(method)
            vector_to_parameters(before, learner.parameters)
            replayed = flat(list(torch.autograd.grad(learner.loss_of(drawn[-1]), learner.parameters)))
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
            method.begin(task)
            [group] = method.learner.optimizer.param_groups
            found.append(group["lr"])
            assert group["momentum"] == 0.8
        assert found == pytest.approx(rates, rel=1e-12)

    def test_momentum_is_forgotten_before_every_epoch(self):
        stream = small_stream()
        method = method_on(stream, "stable_sgd", lr=0.2, gamma=0.5, momentum=0.8, batch=6)
        plain = method_on(stream, "naive", lr=0.2)
        other = plain.learner
        for epoch in range(2):
            method.begin(0)
            velocity = torch.zeros(1)
            for batch in batches(stream, 0, 6):
                velocity = 0.8 * velocity + gradient(other, batch.x, batch.y, 0)
                vector_to_parameters(flat_parameters(plain) - 0.1 * velocity, other.parameters)
                method.observe(batch)
            torch.testing.assert_close(flat_parameters(method), flat_parameters(plain), rtol=1e-4, atol=1e-6)
            assert method.learner.optimizer.state, f"epoch {epoch} had momentum"


class TestMultitask:
    def test_all_tasks_in_turn_six_times(self):
        method = method_on(small_stream(), "multitask_cyclic", lr=0.1)
        assert method.visits() == [0, 1, 2] * 6
        assert method_on(small_stream(), "multitask_cyclic", lr=0.1, cycles=2).visits() == [0, 1, 2, 0, 1, 2]

    def test_one_row_at_the_end(self, train_tasks):
        measured = run(train_tasks("multitask_cyclic", tasks=3, settings={"cycles": 2}))
        assert [m[:4] for m in measured] == [(300, 3, task, "accuracy") for task in range(3)]

    def test_what_is_measured_on_the_way_is_no_row_of_a_matrix(self, train_tasks):
        """In the first round every task is new: its matrix would give forgetting that nobody defines."""
        measured = run(train_tasks("multitask_cyclic", tasks=3, settings={"cycles": 2}, evaluate=25))
        assert {m.metric for m in measured if m.step < 300} == {"interim_accuracy"}
        assert [m[:4] for m in measured if m.metric == "accuracy"] == [(300, 3, task, "accuracy") for task in range(3)]
        assert set(summarize(measured)) == {"RA", "ACC"}

    def test_once_round_is_naive_training(self, train_tasks):
        assert run(train_tasks("multitask_cyclic", settings={"cycles": 1})) == run(train_tasks("naive"))


def first_task(training: Any) -> tuple[list[Any], Tensor]:
    measured: list[Any] = []
    while not measured:
        measured = training.advance()
    return measured, flat_parameters(training)


class TestTheFirstTask:
    """In the first task, methods against forgetting do nothing: in the authors' logs too they give equal numbers."""

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
            ends.append(flat_parameters(training))
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


@pytest.mark.parametrize("name", TASK_SETTINGS)
def test_every_method_learns(name, train_tasks):
    """Well above chance, of ten classes, on what was just learned."""
    measured = run(train_tasks(name, per_task=500, benchmark={"epochs": 2}, settings={"batch": 10}))
    after = [m.value for m in measured if m.metric == "accuracy" and m.trained_tasks == m.eval_task + 1]
    assert min(after[-1:] if name == "multitask_cyclic" else after) > 0.5
