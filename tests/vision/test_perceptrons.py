"""The fused kernels against the plain PyTorch form, on the same draws."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import SETTINGS, weights_of
from official import make_trial
from waiting import GUARD

from clray.errors import DeclarationError
from clray.training import run
from clray.vision.draws import ClrayDraws, Weights
from clray.vision.kernels import gem
from clray.vision.learners.adaptive import adaptive
from clray.vision.learners.constraints import constraints
from clray.vision.learners.perceptron import EagerPerceptron
from clray.vision.learners.perceptron_fused import FusedPerceptron, SparseRows
from clray.vision.trial import VisionTraining

pytestmark = pytest.mark.usefixtures("kernels")
WIDTHS = [(100, 100), (5, 5), (1, 1), (130, 100), (16, 33)]
LR = 0.05
ROTATIONS = {"name": "mnist-rotations", "tasks": 2, "train_per_task": 10, "source": "embedded"}


def initial(hidden=(100, 100), seed=3) -> Weights:
    weights = ClrayDraws(seed).perceptron([784, *hidden, 10], "xavier")
    rng = np.random.default_rng(seed)  # biases too, so that a wrong one shows
    return [w + rng.uniform(-0.05, 0.05, w.shape).astype(np.float32) if w.ndim == 1 else w for w in weights]


def nets(rows, hidden=(100, 100), lr=LR) -> tuple[EagerPerceptron, FusedPerceptron]:
    weights = initial(hidden)
    return EagerPerceptron(weights, rows, lr), FusedPerceptron(weights, SparseRows.of(rows), lr)


def flat(weights: Weights) -> np.ndarray:
    return np.concatenate([np.asarray(w, np.float64).ravel() for w in weights])


def apart(a: Weights, b: Weights) -> float:
    """The distance between two sets of weights, relative to the first."""
    return float(np.linalg.norm(flat(a) - flat(b)) / np.linalg.norm(flat(a)))


def same_update(before: Weights, eager: Weights, fused: Weights, tolerance: float = 1e-5) -> None:
    """The two engines moved the weights alike, and did move them."""
    one, other = flat(eager) - flat(before), flat(fused) - flat(before)
    assert np.linalg.norm(one) > 0
    # A weight holds 24 bits, and its update is a difference of two: that much is rounding, whatever the update.
    rounding = np.linalg.norm(flat(before) * 2.0**-24) * 2
    assert np.linalg.norm(one - other) <= tolerance * np.linalg.norm(one) + rounding


class TestOneUpdate:
    """A learning rate of 1 makes the update as large as the weights, so that rounding hides nothing of it."""

    @pytest.mark.parametrize("hidden", WIDTHS)
    @pytest.mark.parametrize(
        ("kind", "positions", "scale"),
        [
            ("step", [7], None),
            ("step", [7, 3, 3, 150], None),
            ("step", [7, 3, 3, 150], [1.0, 0.25, 0.25, 0.5]),
            ("steps", [7], [5.0]),
        ],
    )
    def test_it_is_the_same(self, rows, hidden, kind, positions, scale):
        eager, fused = nets(rows, hidden, lr=1.0)
        before = eager.weights()
        for net in (eager, fused):
            getattr(net, kind)(positions, scale)
        same_update(before, eager.weights(), fused.weights())

    def test_a_mean_is_not_a_sum(self, rows):
        _, fused = nets(rows, lr=1.0)
        before = fused.weights()
        fused.step([7, 3])
        mean = flat(fused.weights()) - flat(before)
        fused.load(before)
        fused.step([7, 3], [1.0, 1.0])
        summed = flat(fused.weights()) - flat(before)
        np.testing.assert_allclose(summed, 2 * mean, atol=1e-6)

    @pytest.mark.parametrize("hidden", WIDTHS)
    def test_gradients(self, rows, hidden):
        eager, fused = nets(rows, hidden)
        positions = [0, 60, 110, 199]
        autograd = flat([g.numpy() for g in eager.gradients(eager.losses(positions).mean())])
        np.testing.assert_allclose(flat(fused.views(fused.gradient(positions))), autograd, rtol=1e-4, atol=1e-6)

    def test_sequential_steps_are_not_one_step(self, rows):
        for net in nets(rows, lr=0.5):
            before = net.weights()
            net.steps([1, 2])
            sequential = net.weights()
            net.load(before)
            net.step([1, 2], [1.0, 1.0])
            assert apart(sequential, net.weights()) > 1e-3

    @pytest.mark.parametrize("rate", [1.0, 0.3, 0.03])
    def test_reptile_steps(self, rows, rate):
        for net in nets(rows, lr=0.5):
            before = net.weights()
            kept = net.snapshot()
            net.steps([1, 2, 3])
            after = net.weights()
            net.interpolate(kept, rate)
            wanted = flat(before) + rate * (flat(after) - flat(before))
            np.testing.assert_allclose(flat(net.weights()), wanted, rtol=3e-7, atol=1e-7)


class TestConstraints:
    """GEM's constraints, against autograd."""

    MEMORIES = np.array([[0, 5, 9, 7], [60, 61, 61, 2], [120, 7, 130, 131]])

    def both(self, rows, hidden, lr=LR):
        eager, fused = nets(rows, hidden, lr)
        return (eager, constraints(eager, self.MEMORIES)), (fused, constraints(fused, self.MEMORIES))

    @pytest.mark.parametrize("hidden", [(100, 100), (5, 5), (130, 100), (16, 33)])
    def test_steps_stop_before_the_same_violations_with_the_same_program(self, rows, hidden):
        """After a violation the fused form has computed everything anew, and between them it has kept it up to date."""
        (eager, slow), (fused, fast) = self.both(rows, hidden)
        numbers = np.random.default_rng(0).integers(200, size=60)
        stops = plain = 0
        while len(numbers):
            taken = slow.steps(numbers)
            assert fast.steps(numbers[:taken]) == taken
            assert apart(eager.weights(), fused.weights()) < 1e-5
            numbers, plain = numbers[taken:], plain + taken
            if not len(numbers):
                break
            gram, products = slow.program()
            assert fast.steps(numbers) == 0, "it stops before this example"
            own, theirs = fast.program()
            scale = np.abs(gram).max()
            np.testing.assert_allclose(own, gram, rtol=1e-3, atol=1e-4 * scale)
            np.testing.assert_allclose(theirs, products, rtol=1e-3, atol=1e-4 * scale)
            for form in (slow, fast):
                form.projected_step(int(numbers[0]), np.array([0.5, 0.25, 1.0]))
            assert apart(eager.weights(), fused.weights()) < 1e-5
            numbers, stops = numbers[1:], stops + 1
        assert stops > 3
        assert plain > 3

    def test_preactivations_that_are_kept_stay_those_of_the_weights(self, rows):
        _, (fused, fast) = self.both(rows, (100, 100), lr=0.01)
        for number in np.random.default_rng(1).integers(200, size=2000):
            if fast.steps(np.array([number])) == 0:  # as if it were allowed
                gem.plain_step(
                    fused.theta, fast._turned, fused.shape, fused.examples, np.array([number]), fast._passes,
                    fast._own, np.float32(0.01),
                )  # fmt: skip
        kept = fast.state_dict()["preactivations"]
        again = constraints(fused, self.MEMORIES).state_dict()["preactivations"]
        assert np.abs(again - kept).max() < 1e-4 * np.abs(again).max()

    def test_the_same_bits_however_the_examples_are_divided(self, rows):
        numbers, ends = np.random.default_rng(2).integers(200, size=60), []
        for divided in ([], range(1, 60), [7, 20]):
            _, (fused, fast) = self.both(rows, (100, 100), lr=0.001)
            for part in np.split(numbers, divided):
                while (taken := fast.steps(part)) < len(part):
                    fast.program()
                    fast.projected_step(int(part[taken]), np.full(3, 0.5))
                    part = part[taken + 1 :]
            ends.append((fused.theta.tobytes(), fast.state_dict()["preactivations"].tobytes()))
        assert ends[0] == ends[1] == ends[2]

    def test_memories_of_unequal_number_that_get_fewer(self, rows):
        """A reservoir gives up past tasks' examples one by one; what is left has the mean loss."""
        memories = [np.array([0, 5, 9, 7, 11]), np.array([60, 61]), np.array([120, 7, 130])]
        eager, fused = nets(rows, lr=0.05)
        slow, fast = constraints(eager, memories), constraints(fused, memories)
        numbers = np.random.default_rng(3).integers(200, size=40)
        for forgotten in (None, 5, 61, 130, 0):
            if forgotten is not None:
                slow.forget(forgotten), fast.forget(forgotten)
                memories = [memory[memory != forgotten] for memory in memories]
            stopped = slow.steps(numbers)
            assert fast.steps(numbers[:stopped]) == stopped
            assert stopped < len(numbers)
            assert fast.steps(numbers[stopped:]) == 0
            own, products = fast.program()
            gram, others = slow.program()
            np.testing.assert_allclose(own, gram, rtol=1e-3, atol=1e-4 * np.abs(gram).max())
            np.testing.assert_allclose(products, others, rtol=1e-3, atol=1e-4 * np.abs(gram).max())
            fresh = constraints(eager, memories)
            assert fresh.steps(numbers[stopped:]) == 0
            np.testing.assert_allclose(fresh.program()[0], gram, rtol=1e-5)
            slow.projected_step(int(numbers[stopped]), np.full(3, 0.5))
            fast.projected_step(int(numbers[stopped]), np.full(3, 0.5))
            assert apart(eager.weights(), fused.weights()) < 1e-5


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
class TestAdaptive:
    """Adam and RMSProp: the kernels beside torch.optim."""

    BATCHES = [np.array([7]), np.array([7, 3]), np.array([7, 3, 3, 150]), np.array([1, 2, 3, 4])]
    SCALES = [[1.0], [0.5, 2.0], [1.0, 0.25, 0.25, 0.5], [0.1, 0.2, 0.3, 0.4]]

    @pytest.mark.parametrize("scales", [None, SCALES])
    @pytest.mark.parametrize("hidden", WIDTHS)
    def test_steps(self, rows, hidden, scales, name):
        eager, fused = nets(rows, hidden, lr=0.001)
        before = eager.weights()
        for net in (eager, fused):
            optimizer = adaptive(net, name)
            for _ in range(10):
                optimizer.step_each(self.BATCHES, scales)
        assert apart(before, eager.weights()) > 0.001
        assert apart(eager.weights(), fused.weights()) < 1e-5

    @pytest.mark.parametrize("which", [0, 1])
    def test_the_same_bits_one_by_one_and_after_its_state_was_kept(self, rows, which, name):
        one, other = nets(rows, lr=0.001)[which], nets(rows, lr=0.001)[which]
        adaptive(one, name).step_each(self.BATCHES, self.SCALES)
        optimizer = adaptive(other, name)
        for batch, scale in zip(self.BATCHES, self.SCALES, strict=True):
            optimizer.step_each([batch], [scale])
            again = adaptive(other, name)
            again.load_state_dict(optimizer.state_dict())
            optimizer = again
        assert all((a == b).all() for a, b in zip(one.weights(), other.weights(), strict=True))


class TestManySteps:
    @pytest.mark.parametrize("hidden", WIDTHS)
    def test_the_parameters_stay_together(self, rows, hidden):
        eager, fused = nets(rows, hidden, lr=0.01)
        rng = np.random.default_rng(1)
        for _ in range(20):
            batch = rng.integers(200, size=50)
            for net in (eager, fused):
                net.steps(batch)
        assert apart(initial(hidden), eager.weights()) > 0.01
        assert apart(eager.weights(), fused.weights()) < 1e-4

    @pytest.mark.parametrize("name", SETTINGS)
    def test_whole_trials_of_every_method(self, name, train):
        """Hundreds to thousands of updates: the weights, and the accuracies of every evaluation."""
        eager, fused = (train(name, engine) for engine in ("eager", "fused"))
        measured = [run(training) for training in (eager, fused)]
        assert max(abs(a.value - b.value) for a, b in zip(*measured, strict=True)) <= 0.003
        assert [m[:4] for m in measured[0]] == [m[:4] for m in measured[1]]
        start = train(name)
        for task in range(3):
            assert apart(weights_of(eager, task), weights_of(fused, task)) < 1e-4
        assert apart(weights_of(start, 2), weights_of(fused, 2)) > 0.005

    @pytest.mark.parametrize("hidden", [(5, 5), (1, 1), (130, 7)])
    def test_padded_units_stay_zero(self, rows, hidden):
        _, fused = nets(rows, hidden, lr=0.05)
        rng = np.random.default_rng(2)
        kept = fused.snapshot()
        fused.steps(rng.integers(200, size=300))
        fused.step(rng.integers(200, size=20))
        fused.interpolate(kept, 0.5)
        real = np.zeros_like(fused.theta)
        for view in fused.views(real):
            view[...] = 1
        assert (real == 0).sum() > 0
        assert not fused.theta[real == 0].any()


class TestInBulk:
    """Many examples in one call of the kernels: the bits of one call for each."""

    BATCHES = [np.array([7]), np.array([7, 3]), np.array([7, 3, 3, 150]), np.array([1, 2, 3, 4])]

    @pytest.mark.parametrize("scaled", [False, True])
    @pytest.mark.parametrize("which", [0, 1])
    def test_steps_on_batches(self, rows, which, scaled):
        scales = [[1.0], [0.5, 2.0], [1.0, 0.25, 0.25, 0.5], [0.1, 0.2, 0.3, 0.4]] if scaled else None
        one, other = nets(rows)[which], nets(rows)[which]
        one.step_each(self.BATCHES, scales)
        for i, batch in enumerate(self.BATCHES):
            other.step(batch, scales[i] if scales else None)
        assert all((a == b).all() for a, b in zip(one.weights(), other.weights(), strict=True))

    @pytest.mark.parametrize("across", [None, 1.0, 0.3])
    @pytest.mark.parametrize("which", [0, 1])
    def test_reptile(self, rows, which, across):
        rng = np.random.default_rng(0)
        examples = [rng.integers(200, size=(3, width)) for width in (1, 2, 5, 5)]
        one, other = nets(rows)[which], nets(rows)[which]
        one.reptile_each(examples, 0.5, across)
        for batches in examples:
            before = other.snapshot()
            other.reptile(batches, 0.5)
            if across is not None:
                other.interpolate(before, across)
        assert all((a == b).all() for a, b in zip(one.weights(), other.weights(), strict=True))

    def test_pulled_steps(self, rows):
        one, other = nets(rows)[1], nets(rows)[1]
        rng = np.random.default_rng(0)
        stiffness = rng.random(one.theta.size).astype(np.float32) * np.float32(0.01)
        anchor = stiffness * one.theta * np.float32(0.5)
        one.pulled_step_each(np.arange(9), stiffness, anchor)
        for number in range(9):
            other.pulled_step([number], stiffness, anchor)
        assert (one.theta == other.theta).all()

    @pytest.mark.parametrize("engine", ["eager", "fused"])
    @pytest.mark.parametrize("name", SETTINGS)
    def test_however_the_examples_are_cut(self, train, monkeypatch, name, engine):
        from clray.vision import trial

        ends = []
        for most in (1, 7, 50, 1000):
            monkeypatch.setattr(trial, "_AT_ONCE", most)
            training = train(name, engine, per_task=20, hidden=(20, 20))
            ends.append((run(training), [w.tobytes() for t in range(3) for w in weights_of(training, t)]))
        assert all(end == ends[0] for end in ends)


class TestEvaluation:
    @pytest.mark.parametrize("hidden", WIDTHS)
    def test_both_engines_count_alike(self, rows, hidden):
        eager, fused = nets(rows, hidden)
        fused.steps(np.arange(200))
        eager.load(fused.weights())
        found = [[net.correct(task) for task in range(4)] for net in (eager, fused)]
        assert found[0] == pytest.approx(found[1], abs=1)  # one image of a thousand may stand on the edge
        if min(hidden) > 4:
            assert len(set(found[1])) > 1

    def test_it_is_the_fraction_of_right_answers(self, rows):
        """Against a perceptron written out in numpy, task by task."""
        _, fused = nets(rows)
        fused.steps(np.arange(200))
        W1, b1, W2, b2, W3, b3 = fused.weights()
        for task in range(4):
            h = np.maximum(rows.tests(task) @ W1.T + b1, 0)
            predicted = (np.maximum(h @ W2.T + b2, 0) @ W3.T + b3).argmax(1)
            assert fused.correct(task) == pytest.approx((predicted == rows.test_labels).sum(), abs=1)


class TestWeights:
    @pytest.mark.parametrize("which", [0, 1])
    def test_they_are_copies(self, rows, which):
        """Weights handed out as views changed under who had asked for them, in one engine only."""
        net = nets(rows)[which]
        before = net.weights()
        kept = [w.copy() for w in before]
        net.steps(np.arange(20))
        assert all((a == b).all() for a, b in zip(before, kept, strict=True))
        for w in net.weights():
            w += 1
        assert apart(net.weights(), kept) < 0.5

    @pytest.mark.parametrize("which", [0, 1])
    def test_a_snapshot_is_a_copy(self, rows, which):
        net = nets(rows)[which]
        before, kept = net.weights(), net.snapshot()
        net.steps(np.arange(20))
        net.interpolate(kept, 1e-9)
        assert apart(before, net.weights()) < 1e-6

    @pytest.mark.parametrize("which", [0, 1])
    def test_a_net_neither_keeps_nor_changes_what_it_was_given(self, rows, which):
        given = initial()
        kept = [w.copy() for w in given]
        net = (EagerPerceptron(given, rows, LR), FusedPerceptron(given, SparseRows.of(rows), LR))[which]
        net.steps(np.arange(20))
        net.load(given)
        net.steps(np.arange(20))
        assert all((a == b).all() for a, b in zip(given, kept, strict=True))

    @pytest.mark.parametrize("hidden", WIDTHS)
    def test_they_come_back_as_they_went_in(self, rows, hidden):
        for net in nets(rows, hidden):
            given = initial(hidden, seed=9)
            net.load(given)
            assert all((a == b).all() and a.shape == b.shape for a, b in zip(net.weights(), given, strict=True))


class TestWhichEngine:
    def test_auto_is_fused_on_the_cpu(self, train):
        assert train("online", "auto").facts == {"engine": "fused", "device": "cpu"}
        assert train("online", "eager").facts == {"engine": "eager", "device": "cpu"}

    @pytest.mark.parametrize("hidden", [(20,), (20, 20, 20)])
    def test_other_depths_are_eager(self, train, hidden):
        training = train("online", "auto", hidden=hidden)
        assert training.facts["engine"] == "eager"
        assert run(training)[-1].value > 0.1

    def test_another_device_has_no_kernel(self, embedded):
        trial = make_trial("online", {"lr": 0.1}, benchmark=ROTATIONS, engine="fused")
        with pytest.raises(DeclarationError, match=r"kernels are for the CPU.*allowed here: auto, eager"):
            VisionTraining(trial, embedded, "cuda")


SAME_BITS = """
import hashlib, numpy as np
from clray.machine import set_threads
set_threads(1)
from clray.vision.learners.rows import Rows
from clray.vision.learners.perceptron_fused import FusedPerceptron, SparseRows
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (50, 784)) * (rng.random((50, 784)) < 0.2)
images, labels = images.astype(np.uint8), rng.integers(0, 10, 50)
rows = Rows(images, labels, images, labels, np.arange(784, dtype=np.int16)[None], 50)
shapes = [(100, 784), (100,), (100, 100), (100,), (10, 100), (10,)]
net = FusedPerceptron([(0.1 * rng.standard_normal(s)).astype(np.float32) for s in shapes], SparseRows.of(rows), 0.05)
for i in range(40):
    net.step(rng.integers(50, size=11))
print(hashlib.sha256(b"".join(w.tobytes() for w in net.weights())).hexdigest())
"""


def same_bits(**environment: str) -> str:
    """The hash of some weights after some steps in a process of their own."""
    command, environment = [sys.executable, "-c", SAME_BITS], {**os.environ, **environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=GUARD)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_two_processes_give_the_same_bits():
    assert same_bits() == same_bits()


@pytest.mark.slow
def test_the_process_that_compiles_gives_the_same_bits(tmp_path):
    """As those that load the kernels from numba's cache: with fast-math they rounded otherwise."""
    assert same_bits(NUMBA_CACHE_DIR=str(tmp_path)) == same_bits(NUMBA_CACHE_DIR=str(tmp_path))


def test_a_trial_gives_the_same_bits_twice(train):
    def digest() -> str:
        training = train("mer")
        run(training)
        return hashlib.sha256(b"".join(w.tobytes() for w in weights_of(training))).hexdigest()

    assert digest() == digest()
