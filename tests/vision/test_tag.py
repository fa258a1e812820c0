"""TAG's two forms against the official code's trajectories, each other, and torch's own optimizers."""

from __future__ import annotations

import io
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clray.vision.tag import PlainTag, Tag, TaskOptimizer

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "tag" / "tag_unit.json"
CASES: dict[str, Any] = json.loads(FIXTURE.read_text())
"""Two networks by six settings of the official optimizer: gradients, and parameters and alphas after every step."""

FORMS: tuple[type[TaskOptimizer], ...] = (Tag, PlainTag)
BASES = {"rms": "rmsprop", "adagrad": "adagrad", "adam": "adam"}

each_form = pytest.mark.parametrize("form", FORMS)
each_base = pytest.mark.parametrize("base", BASES.values())


def leaf(*values: float) -> Tensor:
    return torch.tensor(values, requires_grad=True)


def draws(shape: Any, count: int, seed: int = 0) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=rng) for _ in range(count)]


def steps(optimizer: TaskOptimizer, *gradients: Tensor) -> None:
    """A step on each gradient, of an optimizer of one tensor."""
    for gradient in gradients:
        optimizer.tensors[0].grad = gradient.clone()
        optimizer.step()


def directions(optimizer: TaskOptimizer) -> list[list[Tensor]]:
    """By task that is over, by tensor: the first moment it ended with, of norm 1."""
    state = optimizer.state_dict()
    if isinstance(optimizer, PlainTag):
        return [[unit.flatten() for unit in units] for units, _ in state["past"]]
    return [list(flat.split([p.numel() for p in optimizer.tensors])) for flat in state["directions"]]


class TestTheOfficialCode:
    @each_form
    @pytest.mark.parametrize("name", CASES)
    def test_its_trajectories(self, form, name):
        case = CASES[name]
        tensors = {k: torch.tensor(v).view(case["shapes"][k]).requires_grad_() for k, v in case["init"].items()}
        optimizer = form(list(tensors.values()), lr=case["lr"], b=case["b"], base=BASES[case["optim"]])
        after = zip(case["params_after_step"], case["alpha_after_step"], strict=True)
        for task in range(case["tasks"]):
            gradients = iter(case["grads"][task])
            for _ in range(case["epochs"]):
                optimizer.begin_epoch()
                for _ in range(case["steps_per_epoch"]):
                    gradient = next(gradients)
                    for key, p in tensors.items():
                        p.grad = torch.tensor(gradient[key]).view(p.shape)
                    optimizer.step()
                    parameters, alphas = next(after)
                    for i, (key, p) in enumerate(tensors.items()):
                        torch.testing.assert_close(
                            p.detach().flatten(), torch.tensor(parameters[key]), rtol=0, atol=2e-7
                        )
                        found = optimizer.alphas[:, i]
                        torch.testing.assert_close(found, torch.tensor(alphas[key]), rtol=1e-5, atol=0)
            optimizer.end_task()
            for i, (key, unit) in enumerate(case["m_norm_after_task"][task].items()):
                assert key == list(tensors)[i]
                torch.testing.assert_close(directions(optimizer)[task][i], torch.tensor(unit).flatten())
        assert next(after, None) is None
        assert case["max_move"] > 0.003, "parameters went far more than the tolerance"


class TestTheFirstTask:
    """There all of TAG's weights are 1: it is the optimizer it is based on."""

    @each_form
    @pytest.mark.parametrize(
        ("base", "torchs"),
        [
            ("rmsprop", lambda p: torch.optim.RMSprop(p, 0.01)),
            ("adagrad", lambda p: torch.optim.Adagrad(p, 0.01, eps=1e-8)),
            ("adam", lambda p: torch.optim.Adam(p, 0.01)),
        ],
    )
    def test_it_is_torchs_optimizer(self, form, base, torchs):
        ours, theirs = nn.Parameter(torch.zeros(4, 3)), nn.Parameter(torch.zeros(4, 3))
        optimizers = form([ours], 0.01, base=base), torchs([theirs])
        for gradient in draws((4, 3), 20):
            for p, optimizer in zip((ours, theirs), optimizers, strict=True):
                p.grad = gradient.clone()
                optimizer.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
        assert optimizers[0].alphas.tolist() == [[1.0]]


class TestAgreement:
    @each_form
    @pytest.mark.parametrize(("turned", "cosine"), [(1.0, 1.0), (-1.0, -1.0), (0.0, 0.0)])
    def test_tasks_that_pull_the_other_way_hold_still(self, form, turned, cosine):
        """By hand: rmsprop, one step a task."""
        p, b, lr = leaf(0.0, 0.0), 2.0, 0.1
        optimizer = form([p], lr, b)
        first = torch.tensor([3.0, 0.0])
        steps(optimizer, first)
        optimizer.end_task()
        start, second = p.detach().clone(), turned * first + torch.tensor([0.0, 0.0 if turned else 3.0])
        steps(optimizer, second)
        weights = [math.exp(-b * cosine), math.exp(-b)]
        assert optimizer.alphas[:, 0].tolist() == pytest.approx(weights, rel=1e-5)
        moments = 0.01 * torch.stack([first, second]) ** 2
        root = (weights[0] * moments[0] + weights[1] * moments[1]).sqrt()
        torch.testing.assert_close(p.detach(), start - lr * second / (root + 1e-8), rtol=1e-5, atol=1e-7)

    @each_form
    def test_it_grows_with_b_and_tensors_are_on_their_own(self, form):
        one, other = leaf(0.0, 0.0), leaf(0.0)
        optimizer = form([one, other], 0.1, b=3.0)
        for signs in ((1.0, 1.0), (1.0, -1.0)):
            one.grad, other.grad = torch.full((2,), signs[0]), torch.full((1,), signs[1])
            optimizer.step()
            optimizer.end_task()
        expected = [[math.exp(-3), math.exp(3)], [math.exp(-3)] * 2]
        torch.testing.assert_close(optimizer.alphas, torch.tensor(expected), rtol=1e-5, atol=0)

    @each_form
    def test_without_b_nothing_tells(self, form):
        optimizer = form([leaf(0.0, 0.0)], 0.1, b=0.0)
        for gradient in draws(2, 3):
            steps(optimizer, gradient)
            optimizer.end_task()
        assert optimizer.alphas.tolist() == [[1.0]] * 3

    @each_form
    @pytest.mark.parametrize(("base", "counts"), [("rmsprop", False), ("adagrad", False), ("adam", True)])
    def test_only_adam_counts_an_epochs_batches(self, form, base, counts):
        ends = []
        for epochs in (1, 2):
            optimizer = form([leaf(0.0, 0.0)], 0.1, base=base)
            for gradients in (draws(2, 4)[:2], draws(2, 4)[2:]):
                steps(optimizer, *gradients)
                if epochs == 2:
                    optimizer.begin_epoch()
            ends.append(optimizer.tensors[0].tolist())
        assert (ends[0] != ends[1]) == counts


def convolutional(seed: int = 0) -> nn.Sequential:
    """A small network with every kind of tensor: filters, batch normalisation, a head."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3, bias=False), nn.ReLU(),
            nn.Flatten(), nn.Linear(12, 6),
        )  # fmt: skip


def learn(net: nn.Module, optimizer: TaskOptimizer, tasks: int = 3, batches: int = 6) -> None:
    """Tasks that each have two of six logits, in two epochs."""
    xs = iter(draws((8, 2, 6, 6), tasks * batches, seed=5))
    for task in range(tasks):
        for batch in range(batches):
            if batch in (0, batches // 2):
                optimizer.begin_epoch()
            x, y = next(xs), torch.arange(8) % 2
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x)[:, 2 * task : 2 * task + 2], y).backward()
            optimizer.step()
        optimizer.end_task()


class TestBothForms:
    @each_base
    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    def test_a_convolutional_net(self, base, layout):
        nets = [convolutional().to(memory_format=layout) for _ in FORMS]
        start = [p.detach().clone() for p in nets[0].parameters()]
        optimizers = [form(net.parameters(), 0.003, base=base) for form, net in zip(FORMS, nets, strict=True)]
        for net, optimizer in zip(nets, optimizers, strict=True):
            learn(net, optimizer)
        for before, *after in zip(start, *(net.parameters() for net in nets), strict=True):
            torch.testing.assert_close(*after, rtol=1e-4, atol=3e-6)
            assert (after[0] - before).abs().max() > 1e-3
        alphas = [optimizer.alphas for optimizer in optimizers]
        assert alphas[0].shape == (3, 7)
        torch.testing.assert_close(*alphas, rtol=1e-3, atol=0)
        assert alphas[0][:2, :-2].std() > 0.01, "tasks agree more and less"
        assert alphas[0][:2, -2:].tolist() == [[1.0, 1.0]] * 2, "the head's rows have nothing in common"


@each_form
class TestGroups:
    @each_base
    def test_each_group_has_its_own_rate(self, form, base):
        """A tensor's steps depend on no other tensor's: so each learns as if it were alone."""
        together = nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(5))
        both = form([{"params": together[:1], "lr": 0.5}, {"params": together[1:]}], 0.01, base=base)
        alone = []
        for p, lr in zip(together, (0.5, 0.01), strict=True):
            single = form([nn.Parameter(torch.zeros_like(p))], lr, base=base)
            for gradient in draws(p.shape, 4):
                steps(single, gradient)
                single.end_task()
            alone.append(single.tensors[0])
        for gradients in zip(*(draws(p.shape, 4) for p in together), strict=True):
            for p, gradient in zip(together, gradients, strict=True):
                p.grad = gradient
            both.step()
            both.end_task()
        for p, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(p, expected, rtol=1e-6, atol=1e-7)

    def test_a_schedule_of_torchs_changes_the_rate(self, form):
        p = leaf(0.0)
        optimizer = form([p], 0.5)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)
        steps(optimizer, torch.ones(1))
        schedule.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)
        before = p.item()
        steps(optimizer, torch.ones(1))
        assert before - p.item() == pytest.approx(0.05 / math.sqrt(1 - 0.99**2), rel=1e-5)

    @each_base
    def test_a_group_may_come_later(self, form, base):
        """Its tensor learns as if it had been there from the start, with nothing to learn."""
        gradients = [draws((2, 3), 12), draws(5, 12, seed=1)]
        ends = []
        for late in (False, True):
            first, second = nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(5))
            optimizer = form([first], 0.01, base=base)
            for i, (g, h) in enumerate(zip(*gradients, strict=True)):
                if i == (6 if late else 0):  # in the middle of the second task
                    optimizer.add_param_group({"params": second, "lr": 0.5})
                first.grad, second.grad = g.clone(), h.clone() if i >= 6 else torch.zeros(5)
                optimizer.step()
                if i % 4 == 3:
                    optimizer.end_task()
            ends.append((first, second, optimizer.alphas, *itertools.chain(*directions(optimizer))))
        assert ends[0][1].abs().max() > 0.1
        assert all(torch.equal(early, late) for early, late in zip(*ends, strict=True))

    def test_a_group_that_came_later_is_part_of_the_state(self, form):
        first, second = leaf(0.0), leaf(0.0, 0.0)
        optimizer = form([first], 0.1)
        steps(optimizer, *draws(1, 2))
        optimizer.end_task()
        before = optimizer.state_dict()
        optimizer.add_param_group({"params": [second]})
        second.grad = torch.ones(2)
        steps(optimizer, *draws(1, 2))
        with pytest.raises(ValueError, match="other sizes"):
            optimizer.load_state_dict(before)
        resumed = form([first.detach().clone().requires_grad_()], 0.1)
        resumed.add_param_group({"params": [second.detach().clone().requires_grad_()]})
        resumed.load_state_dict(optimizer.state_dict())
        for one in (optimizer, resumed):
            one.tensors[1].grad = torch.ones(2)
            steps(one, torch.ones(1))
        assert all(torch.equal(p, q) for p, q in zip(optimizer.tensors, resumed.tensors, strict=True))
        assert torch.equal(optimizer.alphas, resumed.alphas)

    def test_a_tensor_that_is_learned_already_is_refused(self, form):
        p = leaf(0.0)
        optimizer = form([p], 0.1)
        with pytest.raises(ValueError, match="more than one parameter group"):
            optimizer.add_param_group({"params": [p]})
        assert len(optimizer.tensors) == 1


@each_form
class TestState:
    @each_base
    def test_a_continuation_has_the_same_bits(self, form, base):
        gradients = draws((3, 2), 12)

        def go(optimizer: TaskOptimizer, first: int, last: int) -> None:
            for i in range(first, last):
                steps(optimizer, gradients[i])
                if i in (3, 7):
                    optimizer.end_task()

        whole = form([nn.Parameter(torch.zeros(3, 2))], 0.1, base=base)
        go(whole, 0, 12)
        for stop in (0, 2, 4, 9):
            begun = form([nn.Parameter(torch.zeros(3, 2))], 0.1, base=base)
            go(begun, 0, stop)
            begun.param_groups[0]["lr"] = 0.1
            file = io.BytesIO()
            torch.save(begun.state_dict(), file)
            file.seek(0)
            resumed = form([nn.Parameter(begun.tensors[0].detach().clone())], 0.7, base=base)
            resumed.load_state_dict(torch.load(file, weights_only=True))
            go(resumed, stop, 12)
            assert torch.equal(resumed.tensors[0], whole.tensors[0])
            assert torch.equal(resumed.alphas, whole.alphas)
            assert (resumed.tasks, resumed.batches) == (2, 4)

    def test_a_state_is_a_copy(self, form):
        optimizer = form([leaf(0.0, 0.0)], 0.1)
        steps(optimizer, *draws(2, 2))
        optimizer.end_task()
        steps(optimizer, *draws(2, 2))
        state = optimizer.state_dict()
        file = io.BytesIO()
        torch.save(state, file)
        steps(optimizer, *draws(2, 2))
        optimizer.end_task()
        later = io.BytesIO()
        torch.save(state, later)
        assert file.getvalue() == later.getvalue()

    def test_another_networks_state_is_refused(self, form):
        state = form([leaf(0.0, 0.0)], 0.1).state_dict()
        with pytest.raises(ValueError, match="other sizes"):
            form([leaf(0.0, 0.0, 0.0)], 0.1).load_state_dict(state)


class TestZeroGradients:
    @each_form
    @each_base
    def test_a_tensor_that_does_not_learn_stays_and_counts_as_no_agreement(self, form, base):
        still, moving = leaf(1.0, 2.0), leaf(1.0, 2.0)
        optimizer = form([still, moving], 0.1, base=base)
        for gradient in draws(2, 4):
            still.grad, moving.grad = torch.zeros(2), gradient
            optimizer.step()
            optimizer.end_task()
        assert still.tolist() == [1.0, 2.0]
        assert moving.isfinite().all()
        assert optimizer.alphas[:-1, 0].tolist() == [1.0] * 3
        still.grad, moving.grad = torch.ones(2), torch.ones(2)
        optimizer.step()
        assert still.isfinite().all()
        assert (still < torch.tensor([1.0, 2.0])).all()

    @each_form
    @pytest.mark.parametrize("turned", [1.0, -1.0])
    @pytest.mark.parametrize("idle", [300, 520, 700, 1200])
    def test_a_tensor_that_stops_learning(self, form, idle, turned):
        """Its first moment falls by a tenth a step, to numbers whose squares are none: the norm of 0 of something that
        is not 0 made weights of 0 and of infinity."""
        p = leaf(0.0, 0.0, 0.0)
        optimizer = form([p], 0.01)
        steps(optimizer, torch.tensor([1.0, 2.0, 0.0]), *[torch.zeros(3)] * idle)
        optimizer.end_task()
        steps(optimizer, torch.tensor([turned, 2 * turned, turned]))
        assert p.isfinite().all()
        agreement = -math.log(optimizer.alphas[0, 0].item()) / optimizer.b
        cosine = turned * 5 / math.sqrt(30)
        assert agreement == pytest.approx(cosine if idle == 300 else 0.0, abs=1e-4)

    def test_as_torch_leaves_them_after_a_loss_that_does_not_touch_a_row(self):
        net = nn.Linear(3, 4)
        optimizer = Tag(net.parameters(), 0.1)
        for task in range(3):
            optimizer.zero_grad()
            net(torch.ones(2, 3))[:, task].sum().backward()
            optimizer.step()
            optimizer.end_task()
        assert all(p.isfinite().all() for p in net.parameters())


@each_form
class TestUse:
    def test_as_an_ordinary_optimizer(self, form):
        """A plain loop, of which the tasks are none of its business."""
        torch.manual_seed(0)
        net = nn.Linear(3, 1)
        x = torch.randn(50, 3)
        y = x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.25
        optimizer = form(net.parameters(), lr=0.02)
        assert isinstance(optimizer, torch.optim.Optimizer)
        for _ in range(300):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(net(x), y)
            loss.backward()
            optimizer.step()
        assert loss.item() < 0.01

    def test_a_closure_computes_the_gradient_and_its_loss_comes_back(self, form):
        p = leaf(3.0)
        optimizer = form([p], 0.1)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = (p**2).sum()
            loss.backward()
            return loss

        assert optimizer.step(closure).item() == 9.0
        assert p.item() == pytest.approx(3 - 0.1 * 6 / (math.sqrt(0.01) * 6), rel=1e-5)
        assert optimizer.step(closure).item() < 9.0

    def test_a_missing_gradient_is_an_error_and_moves_nothing(self, form):
        one, other = leaf(0.0), leaf(0.0)
        optimizer = form([one, other], 0.1)
        one.grad = torch.ones(1)
        with pytest.raises(RuntimeError, match="has no gradient"):
            optimizer.step()
        assert one.item() == 0
        assert optimizer.batches == 0

    @pytest.mark.parametrize("wrong", [{"lr": 0.0}, {"lr": -1.0}, {"b": -0.1}, {"eps": 0.0}])
    def test_numbers_out_of_range(self, form, wrong):
        with pytest.raises(ValueError, match="must be positive and b not negative"):
            form([leaf(0.0)], **{"lr": 0.1} | wrong)

    def test_an_unknown_base_names_the_others(self, form):
        with pytest.raises(ValueError, match="'sgd' is none of rmsprop, adagrad, adam"):
            form([leaf(0.0)], 0.1, base="sgd")
