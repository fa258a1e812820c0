"""The parts that methods add to SGD: projections, penalties, narrow and warm networks, input layers of their own."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import observe, weights_of
from scipy.optimize import minimize

from clray.optim import gem_multipliers
from clray.training import run
from clray.vision.learners.constraints import constraints
from clray.vision.methods.ewc import CollapsedPenalty, SeparatePenalties

ENGINES = ("eager", "fused")


def flat(weights) -> np.ndarray:
    return np.concatenate([np.asarray(w, np.float64).ravel() for w in weights])


class TestGemProgram:
    @pytest.mark.parametrize("margin", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize("tasks", [1, 2, 5, 19])
    def test_it_solves_the_program(self, tasks, margin):
        rng = np.random.default_rng(10 * tasks + int(2 * margin))
        G, g = rng.standard_normal((tasks, 40)), rng.standard_normal(40)
        gram, products = G @ G.T, G @ g
        v = gem_multipliers(gram, products, margin)

        # Karush-Kuhn-Tucker: feasible, slope never negative, and zero wherever v is free.
        slope = gram @ v + products
        assert (v >= margin - 1e-9).all()
        assert (slope >= -1e-8).all()
        assert np.abs((v - margin) * slope).max() < 1e-7

        def objective(x):
            return 0.5 * x @ gram @ x + products @ x

        found = minimize(
            objective, np.full(tasks, margin + 1.0), jac=lambda x: gram @ x + products, bounds=[(margin, None)] * tasks,
            method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 5000},
        )  # fmt: skip
        assert objective(v) <= found.fun + 1e-9
        assert v == pytest.approx(found.x, abs=1e-4)

    def test_the_projection_objects_to_no_task_and_is_the_nearest_that_does_not(self):
        rng = np.random.default_rng(0)
        G, g = rng.standard_normal((3, 6)), rng.standard_normal(6)
        g -= G.T @ np.full(3, 0.5)
        assert (G @ g < 0).any()
        projected = g + G.T @ gem_multipliers(G @ G.T, G @ g, 0.0)
        assert (G @ projected >= -1e-9).all()
        primal = minimize(
            lambda z: 0.5 * ((z - g) ** 2).sum(), g, jac=lambda z: z - g, method="SLSQP",
            constraints=[{"type": "ineq", "fun": lambda z: G @ z, "jac": lambda z: G}], options={"ftol": 1e-14},
        )  # fmt: skip
        assert projected == pytest.approx(primal.x, abs=1e-5)

    def test_a_singular_program_is_an_error(self):
        with pytest.raises(ValueError, match="positive definite"):
            gem_multipliers(np.zeros((2, 2)), np.array([-1.0, -1.0]), 0.0)


class TestGem:
    @pytest.mark.parametrize("margin", [0.0, 0.5])
    def test_both_engines_take_the_same_step_with_and_without_violation(self, train, margin):
        """The eager method decides and projects with autograd's gradients, example by example."""
        eager, fused = (train("gem", e, settings={"margin": margin, "lr": 0.05}) for e in ENGINES)
        violated, kept = 0, 0
        for position in range(100):
            before = weights_of(eager)
            fused.method.net.load(before)
            task = int(eager.stream.owner[position])
            plain = train_step(eager, position)
            for training in (eager, fused):
                observe(training, 1)
            one, other = (flat(weights_of(t)) - flat(before) for t in (eager, fused))
            assert np.linalg.norm(one - other) <= 1e-5 * np.linalg.norm(one) + 1e-6
            if task:
                projected = not np.allclose(one, plain, rtol=0, atol=1e-6)
                violated, kept = violated + projected, kept + (not projected)
        assert violated > 3
        assert kept > 3

    @pytest.mark.parametrize("engine", ENGINES)
    def test_a_projected_step_raises_no_past_loss(self, train, engine):
        training = train("gem", engine, settings={"margin": 0.0})
        observe(training, 60)
        net = train("gem", "eager", settings={"margin": 0.0}).method.net
        checked = 0
        for position in range(60, 100):
            before = weights_of(training)
            net.load(before)
            memory = training.method.memories.numbers[0]
            past = flat([g.numpy() for g in net.gradients(net.losses(memory).mean())])
            own = flat([g.numpy() for g in net.gradients(net.losses([position]).mean())])
            observe(training, 1)
            step = flat(weights_of(training)) - flat(before)
            if past @ own < -1e-3 * np.linalg.norm(past) * np.linalg.norm(own):
                assert past @ step <= 1e-4 * np.linalg.norm(past) * np.linalg.norm(step)
                checked += 1
            else:
                np.testing.assert_allclose(step, -training.method.net.lr * own, atol=1e-6)
        assert checked > 3

    @pytest.mark.parametrize(("engine", "memories"), [("eager", 4), ("fused", 4), ("fused", 1)])
    def test_a_reservoirs_constraints_are_the_examples_it_holds_of_each_past_task(self, train, engine, memories):
        """One reservoir for all tasks: a step is the one that constraints made anew from it would give."""
        training, other = (
            train("gem", form, tasks=6, per_task=20, settings={
                "memory": "reservoir", "memories_per_task": memories, "margin": 0.0, "lr": 0.05, "ridge": 0.001,
            })
            for form in (engine, "eager")
        )  # fmt: skip
        net, method, owner = other.method.net, training.method, training.stream.owner
        fewer = without = projected = 0
        for position in range(120):
            before, held = weights_of(training), set(method.memories.numbers.tolist())
            observe(training, 1)
            stored = method.memories.numbers
            past = [stored[owner[stored] == task] for task in range(owner[position])]
            assert [set(m.tolist()) for m in past if len(m)] == [set(m.tolist()) for m in method._left]
            fewer += any(owner[number] < owner[position] for number in held - set(stored.tolist()))
            without += any(not len(memory) for memory in past)
            net.load(before)
            fresh = [memory for memory in past if len(memory)]
            slow = constraints(net, fresh) if fresh else None
            if slow is None:
                net.step([position])
            elif not slow.steps(np.array([position])):
                slow.projected_step(position, gem_multipliers(*slow.program(), 0.0, 0.001))
                projected += 1
            one, other = (flat(w) - flat(before) for w in (net.weights(), weights_of(training)))
            assert np.linalg.norm(one - other) <= 1e-4 * np.linalg.norm(one) + 1e-6
        assert fewer > 3
        assert projected > 3
        assert memories > 1 or without > 3


def train_step(training, position) -> np.ndarray:
    """The plain SGD step that an eager net would take on an example."""
    net = training.method.net
    return -net.lr * flat([g.numpy() for g in net.gradients(net.losses([position]).mean())])


class TestEwc:
    def test_the_terms_collapse(self, train):
        """One step with two past tasks' terms apart, by autograd, and with their collapsed sum."""
        eager, fused = (train("ewc", e, settings={"lr": 0.1, "strength": 50.0}) for e in ENGINES)
        for training in (eager, fused):
            observe(training, 121)  # two tasks and the first example of the third
        assert isinstance(eager.method.penalty, SeparatePenalties)
        assert isinstance(fused.method.penalty, CollapsedPenalty)
        assert len(eager.method.penalty.terms) == 2
        fisher = [flat(f) for f, _ in eager.method.penalty.terms]
        optimum = [flat(p) for _, p in eager.method.penalty.terms]
        fused_fisher = flat(fused.method.net.views(fused.method.penalty.fisher_sum))
        np.testing.assert_allclose(fused_fisher, sum(fisher), rtol=1e-3, atol=1e-7)

        # Away from the optima, so that the penalty's part of the step is large.
        rng = np.random.default_rng(0)
        away = [(w + 0.3 * rng.standard_normal(w.shape)).astype(np.float32) for w in weights_of(eager)]
        for training in (eager, fused):
            training.method.net.load(away)
        own = train_step(eager, 121)
        pull = -0.1 * sum(2 * 50.0 * f * (flat(away) - p) for f, p in zip(fisher, optimum, strict=True))
        assert np.linalg.norm(pull) > 0.1 * np.linalg.norm(own)
        for training in (eager, fused):
            observe(training, 1)
            np.testing.assert_allclose(flat(weights_of(training)) - flat(away), own + pull, rtol=1e-3, atol=2e-6)

    @pytest.mark.parametrize("engine", ENGINES)
    def test_fisher_is_the_squared_mean_gradient_of_the_first_examples(self, train, engine):
        training, probe = train("ewc", engine), train("online", "eager").method.net
        observe(training, 60)
        probe.load(weights_of(training))
        expected = flat([g.square().numpy() for g in probe.gradients(probe.losses(list(range(10))).mean())])
        observe(training, 1)
        penalty = training.method.penalty
        found = flat(penalty.terms[0][0] if engine == "eager" else training.method.net.views(penalty.fisher_sum))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-7)

    @pytest.mark.parametrize("engine", ENGINES)
    def test_without_strength_it_is_online(self, train, engine):
        ends = []
        for training in (train("ewc", engine, settings={"strength": 0.0}), train("online", engine)):
            run(training)
            ends.append(flat(weights_of(training)))
        np.testing.assert_allclose(ends[0], ends[1], atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
class TestIndependent:
    @pytest.mark.parametrize(("tasks", "hidden", "width"), [(3, (100, 100), 33), (20, (100, 100), 5), (3, (2, 7), 1)])
    def test_widths_are_divided_by_the_tasks(self, train, engine, tasks, hidden, width):
        training = train("independent", engine, tasks=tasks, per_task=2, hidden=hidden)
        assert len(training.method.nets) == tasks
        assert weights_of(training, 0)[0].shape == (width, 784)

    def test_a_network_starts_from_the_previous_ones(self, train, engine):
        training = train("independent", engine)
        fresh = flat(weights_of(training, 1))
        observe(training, 60)
        assert (flat(weights_of(training, 1)) == fresh).all()
        learned = flat(weights_of(training, 0))
        observe(training, 1)
        warm = flat(weights_of(training, 1))
        assert 0 < np.linalg.norm(warm - learned) < 0.1 * np.linalg.norm(warm - fresh)
        assert (flat(weights_of(training, 0)) == learned).all()

    def test_or_from_its_own_weights(self, train, engine):
        training = train("independent", engine, settings={"finetune": False})
        fresh = flat(weights_of(training, 1))
        observe(training, 61)
        assert np.linalg.norm(flat(weights_of(training, 1)) - fresh) < 0.1 * np.linalg.norm(fresh)

    def test_nothing_is_forgotten(self, train, engine):
        measured = run(train("independent", engine))
        for task in range(3):
            after = {m.value for m in measured if m.eval_task == task and m.trained_tasks > task}
            assert len(after) == 1


@pytest.mark.parametrize("engine", ENGINES)
class TestTaskInput:
    def test_only_the_tasks_own_input_layer_and_the_shared_layers_learn(self, train, engine):
        training = train("task_input", engine)
        start = [weights_of(training, t) for t in range(3)]
        assert [w.shape for w in start[0]] == [(100, 784), (100,), (100, 100), (100,), (10, 100), (10,)]
        assert not (start[0][0] == start[1][0]).all()
        assert (start[0][2] == start[1][2]).all()
        observe(training, 70)
        first, second, third = (weights_of(training, t) for t in range(3))
        assert not (first[0] == start[0][0]).all()
        assert not (second[0] == start[1][0]).all()
        assert (third[0] == start[2][0]).all()
        assert (first[2] == second[2]).all()
        assert (first[2] == third[2]).all()
        observe(training, 10)
        assert (weights_of(training, 0)[0] == first[0]).all()

    def test_weights_start_as_pytorchs(self, train, engine):
        start = weights_of(train("task_input", engine))
        assert np.abs(start[0]).max() == pytest.approx(1 / 28, rel=1e-3)  # Xavier's would reach 0.082
        assert not start[1].any()


class TestMer:
    def test_algorithm_1_is_its_equations(self, train):
        """Two batches of sequential steps with Reptile within and across, by hand, on known draws."""
        training = train("mer", "eager", settings={"lr": 0.1, "beta": 0.5, "gamma": 0.25})
        observe(training, 20)
        method, net = training.method, train("mer", "eager", settings={"lr": 0.1}).method.net
        draws = iter([np.array([3, 3, 7, 0, 1]), np.array([9, 2, 2, 4, 5])])
        method.memory.draw_with_replacement = lambda count: next(draws)
        across = method.net.weights()
        now = across
        for batch in ([20, 3, 3, 7, 0, 1], [20, 9, 2, 2, 4, 5]):
            net.load(now)
            for position in batch:
                net.step([position])
            now = [a + np.float32(0.5) * (b - a) for a, b in zip(now, net.weights(), strict=True)]
        expected = flat(across) + 0.25 * (flat(now) - flat(across))
        observe(training, 1)
        np.testing.assert_allclose(flat(method.net.weights()), expected, atol=2e-7)

    def test_algorithm_6_puts_the_example_last_and_throws_a_draw_away(self, train):
        training = train("mer6", "eager", settings={"gamma": 1.0})
        observe(training, 20)
        seen: list[list[int]] = []
        draws = iter([np.array([1, 1]), np.array([5, 6])])
        training.method.memory.draw_with_replacement = lambda count: next(draws)
        training.method.net.steps = lambda batch, scale=None: seen.append(list(batch))
        observe(training, 1)
        assert seen == [[5, 6, 20]]

    def test_algorithm_7_scales_the_example_wherever_it_comes(self, train):
        training = train("mer7", "eager")
        first = flat(weights_of(training, 0))
        observe(training, 1)
        assert (flat(weights_of(training, 0)) == first).all()  # the very first example is only remembered
        assert len(training.method.memory) == 1
        observe(training, 19)
        places = set()
        for position in range(20, 60):
            seen: list[tuple[list[int], list[float]]] = []
            training.method.net.steps = lambda batch, scale, seen=seen: seen.append((list(batch), list(scale)))
            observe(training, 1)
            [(batch, scale)] = seen
            place = batch.index(position)
            assert scale == [5.0 if i == place else 1.0 for i in range(7)]
            places.add(place)
        assert len(places) == 7


class TestEr:
    def test_a_ring_holds_each_tasks_last_examples_and_replays_all_of_them(self, train, monkeypatch):
        training = train("er5-ring", per_task=60, settings={"memories": 30, "replay_batch": 20})
        drawn: list[set[int]] = []
        step_each = training.method.net.step_each

        def noted(batches, scales=None):
            drawn.extend(set(batch[:-1].tolist()) for batch in batches)
            step_each(batches, scales)

        monkeypatch.setattr(training.method.net, "step_each", noted)
        observe(training, 125)
        held = set(training.method.memory.of([0, 1, 2]).tolist())
        assert held == {*range(50, 60), *range(110, 120), *range(120, 125)}
        assert drawn[0] == set(), "nothing is stored yet"
        for position, replays in enumerate(drawn):
            assert replays <= set(range(position))
        assert set().union(*drawn[-5:]) & set(range(50, 60)), "past tasks are replayed"
        assert set().union(*drawn[-5:]) <= held | set(range(110, 125))

    def test_the_example_is_learned_with_its_replays_and_remembered_afterwards(self, train):
        training = train("er", "eager")
        seen: list[list[int]] = []
        training.method.net.step = lambda batch, scale=None: seen.append(list(batch))
        observe(training, 30)
        assert seen[0] == [0]
        assert all(batch[-1] == i and i not in batch[:-1] for i, batch in enumerate(seen))
        assert len(seen[-1]) == 11

    def test_algorithm_5_adds_the_means_of_the_tasks(self, train):
        training = train("er5", "eager")
        observe(training, 70)
        seen: list[tuple[list[int], list[float]]] = []
        training.method.net.step = lambda batch, scale=None: seen.append((list(batch), list(scale)))
        training.method.memory.draw_with_replacement = lambda count: np.array([0, 1, 2, 61])
        observe(training, 1)
        assert seen == [([0, 1, 2, 61, 70], [1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2])]
