"""Replay memories: the examples that they store and return, and the draws behind both."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy.stats import chi2

from clray.training import generator
from clray.vision.draws import ClrayDraws
from clray.vision.memory import Reservoir, Ring
from clray.vision.official.mer import OfficialDraws

SURE = 1e-4
"""With fixed seeds a test passes or fails for ever: this is how unlucky the fixed seed would have to be."""


def chi_square(observed: np.ndarray, expected: np.ndarray) -> float:
    """The p-value of independent counts against their expectations."""
    return float(chi2.sf(((observed - expected) ** 2 / expected).sum(), len(observed)))


class TestReservoir:
    def test_it_fills_in_order_first(self):
        memory = Reservoir(5, ClrayDraws(0), "mer")
        for position in range(10, 14):
            memory.add(position)
        assert len(memory) == 4
        assert set(memory.draw_with_replacement(100).tolist()) <= {10, 11, 12, 13}
        assert memory.state_dict()["numbers"].tolist() == [10, 11, 12, 13]

    def test_an_empty_one_gives_nothing(self):
        for randomness in (ClrayDraws(0), OfficialDraws(0)):
            assert len(Reservoir(5, randomness, "mer").draw_with_replacement(3)) == 0

    @pytest.mark.parametrize("randomness", [ClrayDraws, OfficialDraws])
    def test_an_example_enters_with_the_coded_probability(self, randomness):
        """capacity / (age + 1), one less than in Vitter's Algorithm R, which this many repetitions tell apart."""
        capacity, length, repetitions = 4, 12, 6000
        entered = np.zeros(length)
        draws = randomness(1)
        for _ in range(repetitions):
            memory = Reservoir(capacity, draws, "mer")
            for position in range(length):
                memory.add(position)
                entered[position] += position in memory.numbers
        ages = np.arange(capacity + 1, length + 1)
        found = entered[capacity:]
        assert (entered[:capacity] == repetitions).all()

        def deviance(p: np.ndarray) -> float:
            return float(chi2.sf(((found - repetitions * p) ** 2 / (repetitions * p * (1 - p))).sum(), len(p)))

        assert deviance(capacity / (ages + 1)) > SURE
        assert deviance(capacity / ages) < 1e-6

    def test_any_slot_may_be_replaced(self):
        replaced = np.zeros(4)
        draws = ClrayDraws(2)
        for _ in range(4000):
            memory = Reservoir(4, draws, "mer")
            for position in range(5):
                memory.add(position)
            replaced += memory.numbers == 4
        assert chi_square(replaced, np.full(4, 4000 / 6)) > SURE

    @pytest.mark.parametrize("randomness", [ClrayDraws, OfficialDraws])
    def test_draws_are_uniform_and_with_replacement(self, randomness):
        memory = Reservoir(8, randomness(3), "mer")
        for position in range(8):
            memory.add(position)
        counts, repeated = np.zeros(8), 0
        for _ in range(1500):
            drawn = memory.draw_with_replacement(8)
            counts += np.bincount(drawn, minlength=8)
            repeated += len(set(drawn.tolist())) < 8
        assert chi_square(counts, np.full(8, 1500.0)) > SURE
        assert repeated / 1500 == pytest.approx(1 - 0.0024, abs=0.005)  # 8! / 8^8 of the draws repeat nothing

    def test_a_draw_is_no_longer_than_the_memory(self):
        memory = Reservoir(8, ClrayDraws(0), "mer")
        memory.add(0)
        memory.add(1)
        assert len(memory.draw_with_replacement(5)) == 2

    @pytest.mark.parametrize("randomness", [ClrayDraws, OfficialDraws])
    def test_it_goes_on_from_its_state(self, randomness):
        def play(memory, first, last):
            return [memory.add(i) or memory.draw_with_replacement(3).tolist() for i in range(first, last)]

        draws = randomness(5)
        memory = Reservoir(6, draws, "mer")
        play(memory, 0, 20)
        state, at = memory.state_dict(), draws.state_dict()
        expected = play(memory, 20, 60)
        other_draws = randomness(77)
        again = Reservoir(6, other_draws, "mer")
        again.load_state_dict(state)
        other_draws.load_state_dict(at)
        assert play(again, 20, 60) == expected
        assert again.numbers.tolist() == memory.numbers.tolist()


class TestRandomness:
    def test_purposes_are_independent(self):
        assert generator(0, "weights").random() != generator(0, "buffer").random()
        assert generator(0, "weights").random() != generator(1, "weights").random()
        one, other = ClrayDraws(0), ClrayDraws(0)
        one.with_replacement(10, 1000)
        assert (one.perceptron([3, 2], "xavier")[0] == other.perceptron([3, 2], "xavier")[0]).all()

    def test_nothing_is_seeded_or_drawn_globally(self):
        import torch

        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
        for randomness in (ClrayDraws(0), OfficialDraws(0)):
            randomness.examples(10, 2, 3)
            randomness.perceptron([3, 2], "linear")
            randomness.with_replacement(5, 3)
            randomness.permutation(4)
            randomness.up_to(9)
        after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
        assert before == after

    @pytest.mark.parametrize("randomness", [ClrayDraws, OfficialDraws])
    def test_the_highest_number_is_among_the_drawn(self, randomness):
        draws = randomness(0)
        assert {draws.up_to(3) for _ in range(200)} == {0, 1, 2, 3}
        assert sorted(draws.permutation(3)) == [0, 1, 2]
        assert len({tuple(draws.permutation(3)) for _ in range(200)}) == 6

    @pytest.mark.parametrize("randomness", [ClrayDraws, OfficialDraws])
    @pytest.mark.parametrize(("how", "bound"), [("xavier", np.sqrt(6 / (784 + 100))), ("linear", 1 / 28)])
    def test_weights_fill_their_range_and_biases_are_zero(self, randomness, how, bound):
        layers = randomness(0).perceptron([784, 100, 10], how)
        assert [layer.shape for layer in layers] == [(100, 784), (100,), (10, 100), (10,)]
        assert bound * 0.999 < np.abs(layers[0]).max() <= bound * (1 + 1e-6)
        assert layers[0].mean() == pytest.approx(0, abs=4 * bound / np.sqrt(3 * 78400))
        assert layers[0].std() == pytest.approx(bound / np.sqrt(3), rel=0.02)
        assert not layers[1].any()
        assert not layers[3].any()
        assert all(layer.dtype == np.float32 for layer in layers)


class TestRing:
    def test_each_task_keeps_its_last_examples(self):
        ring = Ring(2, 3, shared_pointer=True)
        for position in range(10):
            ring.add(0, position)
        for position in range(10, 17):
            ring.add(1, position)
        assert [sorted(row) for row in ring.numbers.tolist()] == [[7, 8, 9], [14, 15, 16]]

    def test_one_pointer_serves_all_tasks(self):
        ring = Ring(2, 3, shared_pointer=True)
        for position in range(4):
            ring.add(0, position)
        ring.add(1, 4)
        assert ring.numbers.tolist() == [[3, 1, 2], [-1, 4, -1]]
