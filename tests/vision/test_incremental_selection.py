"""MIR, A-GEM, ASER and refresh learning against the recorded steps and values of the official codes."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from official_steps import (
    BATCH,
    FOLDER,
    NETWORKS,
    Recorded,
    case,
    learner_of,
    parts,
    play,
    recorded_parts,
    stream_of,
)

from clray.errors import DeclarationError
from clray.vision.draws import ClrayDraws
from clray.vision.learners.incremental import IncrementalLearner
from clray.vision.methods import METHODS
from clray.vision.methods.incremental.agem import projected
from clray.vision.methods.incremental.aser import first_of_each, scores, shapley_values
from clray.vision.stream import Batch


class Candidates(Recorded):
    """Recorded draws with MIR's candidates; the memories to replay are not drawn, but chosen."""

    def of(self, step):
        super().of(step | {"replay": [step["mir"]["candidates"]]})
        if len(step["mir"]["candidates"]) < 20:  # the memory has fewer: then all of them are candidates, in no order
            self.replay = []


class TestMir:
    @staticmethod
    def compare(name: str, **changes):
        """Play a case; its candidates' losses and the chosen slots are compared at each step."""
        harms, chosen = [], []

        def prepare(method):
            harm, examples = method.harm, method.examples

            def watched(x, y):
                harms.append(harm(x, y))
                return harms[-1]

            def drawn(slots):
                chosen.append(slots)
                return examples(slots)

            method.harm, method.examples = watched, drawn

        def after(method, step, number):
            recorded = step["mir"]
            if not recorded["candidates"]:
                assert not harms
                return
            slots, harm = chosen.pop(), harms.pop().numpy()
            order = np.argsort(slots), np.argsort(recorded["candidates"])
            assert slots[order[0]].tolist() == sorted(recorded["candidates"])
            raised = np.array(recorded["post"]) - np.array(recorded["pre"])
            assert harm[order[0]] == pytest.approx(raised[order[1]], abs=1e-4)
            best = slots[np.argsort(-harm, kind="stable")[:BATCH]]
            assert set(best.tolist()) == set(step["replay"][0]), number

        return play(name, "mir", {"candidates": 20} | changes, prepare, after, Candidates())

    @pytest.mark.parametrize("name", ["mir", "mir_bn"])
    def test_the_surveys_code(self, name):
        self.compare(name)

    def test_a_virtual_step_leaves_no_trace(self):
        """With batch normalisation the running statistics move with the true weights only."""

        def prepare(method):
            learner = method.learner
            before = [buffer.clone() for buffer in learner.module.buffers()]
            weights = {name: p + 1 for name, p in learner.module.named_parameters()}
            moved = learner.logits_aside(torch.rand(5, 3, 8, 8), weights)
            assert moved.requires_grad
            assert all(torch.equal(a, b) for a, b in zip(before, learner.module.buffers(), strict=True))

        play("mir_bn", "mir", {"candidates": 20}, prepare, draws=Candidates())


class TestAGem:
    def test_the_surveys_code(self):
        play("agem", "ocl_agem", {})

    def test_mammoth(self):
        """In float64, since a kink of the network lies within rounding of step 18.

        On which side of it float32 falls depends on the order of sums, and so on the layout of images.
        """
        play("mammoth_agem", "ocl_agem", {"memory": "task_end", "reservoir": "exact"}, double=True)

    def test_a_memory_filled_at_task_ends_needs_boundaries(self):
        with pytest.raises(DeclarationError, match="hides"):
            play("mammoth_agem", "ocl_agem", {"memory": "task_end", "reservoir": "exact"}, hidden=True)

    @pytest.mark.parametrize(("product", "expected"), [(1.0, [1.0, 2.0]), (-1.0, [0.0, 2.0])])
    def test_projection(self, product, expected):
        assert projected(torch.tensor([1.0, 2.0]), torch.tensor([product * 3, 0.0])).tolist() == expected


def brute_force(features, y, candidates, candidate_y, k):
    """Shapley values [judges, candidates] by their definition: mean gains over all orders in which candidates join."""
    count = len(candidates)
    distances = (features[:, None] - candidates[None]).square().sum(2)
    values = torch.zeros(len(features), count, dtype=torch.float64)
    for judge, row in enumerate(distances):
        nearest = row.argsort().tolist()

        def worth(members, judge=judge, nearest=nearest):
            voters = [c for c in nearest if c in members][:k]
            return sum(int(candidate_y[c] == y[judge]) for c in voters) / k

        for candidate in range(count):
            rest = [c for c in range(count) if c != candidate]
            for size in range(count):
                share = 1 / (count * math.comb(count - 1, size))
                for members in itertools.combinations(rest, size):
                    values[judge, candidate] += share * (worth({*members, candidate}) - worth(members))
    return values


@pytest.fixture(scope="module")
def units():
    """The recorded cases, as tensors."""
    cases = json.loads((FOLDER / "aser_units.json").read_text(encoding="utf-8"))["cases"]
    return [{key: torch.tensor(value) if key != "k" else value for key, value in each.items()} for each in cases]


class TestAser:
    @pytest.mark.parametrize("number", range(3))
    def test_values_and_scores(self, units, number):
        each = units[number]
        judged, own = (each["eval_features"], each["eval_y"]), (each["cand_features"], each["cand_y"])
        values = shapley_values(*judged, *own, each["k"])
        assert torch.allclose(values, each["sv"], atol=1e-6)
        assert torch.allclose(values.double(), brute_force(*judged, *own, each["k"]), atol=1e-6)
        for kind in ("asvm", "asv", "neg_sv"):
            together = [each["coop_sv"]] if kind != "neg_sv" else []
            assert torch.allclose(scores(kind, each["sv"], *together), each[f"score_{kind}"], atol=1e-6)

    def test_first_of_each_class(self):
        labels = np.array([3, 1, 3, 3, 0, 1, 1])
        assert first_of_each(labels, 2).tolist() == [4, 1, 5, 0, 2]

    @staticmethod
    def made(**changes):
        kind = METHODS["aser"]
        settings = kind.Settings(**{"lr": 0.1, "memories": 25, "neighbours": 3} | changes)
        return kind(settings, IncrementalLearner(NETWORKS["convbn"], stream_of("y"), ClrayDraws(3)))

    @pytest.mark.parametrize("kind", ["asvm", "asv", "neg_sv"])
    def test_the_best_candidates_are_replayed(self, kind):
        """One memory of each class is a candidate; others, no two of a class, are judges besides the batch."""
        method = self.made(kind=kind)
        seen, values = [], method.values

        def watched(judges, candidates):
            seen.append((judges, candidates, values(judges, candidates)))
            return seen[-1][2]

        method.values = watched
        for begin in range(0, 200, 10):
            numbers = np.arange(begin, begin + 10)
            held = set(method.memory.numbers.tolist())
            seen.clear()
            batch = Batch(method.stream, numbers, None)
            slots = method.retrieved(batch)
            if begin <= 25:
                assert not seen
            else:
                (judges, candidates, (against, *together)) = seen[0]
                labels = method.stream.labels.numpy()
                present = sorted(set(labels[list(held)].tolist()))
                assert sorted(labels[candidates].tolist()) == present
                assert judges[0].tolist() == numbers.tolist()
                if kind != "neg_sv":
                    others = judges[1].tolist()
                    assert not set(others) & set(candidates.tolist())
                    assert len(set(labels[others].tolist())) == len(others)
                    assert set(others) <= held
                score = scores(kind, against, *together)
                chosen = [candidates.tolist().index(number) for number in method.memory.numbers[slots]]
                assert len(chosen) == min(10, len(candidates))
                rest = [c for c in range(len(candidates)) if c not in chosen]
                assert not rest or score[chosen].min() >= score[rest].max()
            method.observe(batch)

    def test_examples_with_the_largest_values_stay(self):
        method = self.made()
        values, watched = method.values, []
        method.values = lambda *given: watched.append((given, values(*given))) or watched[-1][1]
        labels, replaced = method.stream.labels.numpy(), 0
        for begin in range(0, 200, 10):
            before = method.memory.numbers.tolist()
            arriving = np.arange(begin, begin + 10)
            watched.clear()
            method.remember(Batch(method.stream, arriving, None))
            after = method.memory.numbers.tolist()
            assert method.memory.seen == begin + 10
            if begin <= 10:
                assert after == before + arriving.tolist()
                continue
            ((judges,), candidates), (value,) = watched[0]
            full = before + arriving[: 25 - len(before)].tolist()
            late = arriving[25 - len(before) :].tolist()
            assert candidates[-len(late) :].tolist() == late
            old = candidates[: -len(late)].tolist()
            assert len(old) == min(15, 25 - len([j for j in judges if j in full]))
            assert not set(old) & set(judges.tolist())
            assert {labels[j] for j in judges if j in full} == {labels[number] for number in full}
            best = value.sum(0).argsort(descending=True, stable=True)[: len(old)]
            assert {number for number in full if number not in old} | {candidates[b] for b in best} == set(after)
            assert [a for a, b in zip(full, after, strict=True) if a != b] == [a for a in full if a not in after]
            replaced += len(set(after) - set(full))
        assert replaced > 10

    def test_one_pass_or_two(self):
        """The passes before the joint one move running statistics, as in the code, but give no gradients."""
        ends = {}
        for passes in ("joint", "separate"):
            method = self.made(passes=passes)
            for begin in range(0, 60, 10):
                method.observe(Batch(method.stream, np.arange(begin, begin + 10), None))
            ends[passes] = [part.clone() for part in parts(method.learner.module)]
            counted = [b for name, b in method.learner.module.named_buffers() if name.endswith("num_batches_tracked")]
            assert int(counted[0]) == 1 + 5 * (3 if passes == "joint" else 2)
        assert not torch.allclose(ends["joint"][0], ends["separate"][0])


class TestRefresh:
    SETTINGS = {"alpha": 0.1, "beta": 0.5}

    def compare(self, **changes):
        """Play the case; the moves before the steps and the Fisher information are compared as well."""
        described, arrays = case("refresh_derpp")
        unlearned = []

        def prepare(method):
            unlearn = method.unlearn

            def noise():
                return [torch.from_numpy(value) for value in recorded_parts(arrays, f"noise{method.steps + 1}")]

            def watched(batch):
                before = [p.clone() for p in method.learner.parameters]
                unlearn(batch)
                after = list(recorded_parts(arrays, f"unlearned{method.steps + 1}"))
                if after:
                    for mine, theirs, start in zip(method.learner.parameters, after, before, strict=True):
                        # A move is 1e-5 of the length of a tensor, so that it shows in the last digits only.
                        assert mine.detach().numpy() == pytest.approx(theirs, abs=3e-7)
                        if start.numel() > 500:
                            assert (mine - start).norm() > 0.9e-5 * start.norm()
                    unlearned.append(method.steps)

            method.noise, method.unlearn = noise, watched

        def after(method, step, number):
            if number % 4 == 1 and number > 1:  # the first step after an experience's end
                fisher = list(recorded_parts(arrays, f"fisher{number // 4 - 1}"))
                for mine, theirs in zip(method.fisher.values(), fisher, strict=True):
                    assert mine.numpy() == pytest.approx(theirs, rel=2e-3, abs=1e-5)

        assert described["meta"]["args"] == self.SETTINGS
        play("refresh_derpp", "refresh_derpp", self.SETTINGS | changes, prepare, after)
        assert unlearned == [0, 1, 4, 9]

    def test_the_authors_code(self):
        self.compare()

    def test_without_weight_decay_it_is_another_method(self):
        with pytest.raises(AssertionError):
            self.compare(weight_decay=0.0)

    def test_without_the_move_it_is_der_plus_plus(self):
        with pytest.raises(AssertionError):
            self.compare(delta=0.0)
        settings = self.SETTINGS | {"delta": 0.0, "weight_decay": 0.0}

        def prepare(method):
            method.noise = lambda: [torch.zeros_like(p) for p in method.learner.parameters]

        play("mammoth_derpp", "refresh_derpp", settings, prepare)

    @pytest.mark.parametrize("network", ["conv", "convbn"])
    def test_fisher_information_is_that_of_single_images(self, network, monkeypatch):
        monkeypatch.setattr("clray.vision.methods.incremental.refresh._GRADIENTS_AT_ONCE", 20_000)  # a few at once
        kind = METHODS["refresh_derpp"]
        method = kind(kind.Settings(lr=0.1, memories=5, **self.SETTINGS), learner_of(network, "y", Recorded()))
        method.end(0)
        module = method.learner.module.eval()
        expected = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
        numbers = method.stream.experiences[0].examples
        for number in numbers:
            x, y = method.stream.examples(np.array([number]))
            module.zero_grad()
            likelihood = module(x).log_softmax(1)[0, y[0]]
            likelihood.backward()
            for name, p in module.named_parameters():
                expected[name] += likelihood.detach().exp() * p.grad.square() / len(numbers)
        for name, value in expected.items():
            assert torch.allclose(method.fisher[name], value, rtol=1e-4, atol=1e-8)
