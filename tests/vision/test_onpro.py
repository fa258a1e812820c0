"""OnPro and OCM against the recorded steps and values of OnPro's code."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from official_steps import FOLDER, NETWORKS, case, play, stream_of

from clray.errors import DeclarationError
from clray.training import run
from clray.trial import Trial
from clray.vision.draws import ClrayDraws
from clray.vision.learners.incremental import IncrementalLearner
from clray.vision.methods import METHODS
from clray.vision.prototypical_feedback import mixture, pair_odds, shared_out
from clray.vision.rotation_contrast import (
    among_same_labels,
    prototype_loss,
    rotated_labels,
    rotations,
    similarity,
    to_the_other_view,
)
from clray.vision.stream import Batch
from clray.vision.training import resolve, train


@pytest.fixture(scope="module")
def units():
    return json.loads((FOLDER / "onpro_units.json").read_text(encoding="utf-8"))


def test_rotations(units):
    x = torch.arange(2 * 3 * 4 * 4).view(2, 3, 4, 4)
    assert rotations(x).flatten(1).tolist() == units["rotation"]["out"]
    assert rotated_labels(torch.tensor([0.5, 2]), 10)[:6].tolist() == [0.5, 2, 10.5, 12, 20.5, 22]


@pytest.mark.parametrize("number", range(12))
def test_contrasts(units, number):
    recorded, given = units["ocm"][number], units["ocm_inputs"]
    z = torch.nn.functional.normalize(torch.tensor(given["projections"]), dim=1).requires_grad_()
    labels = torch.tensor(recorded["labels"]).repeat(2)
    similarities = similarity(torch.tensor(given["features"]), z, given["window_start"], recorded["lam"])
    contrast = {"n": to_the_other_view, "uni": among_same_labels}[recorded["kind"]]
    loss = contrast(similarities, labels, recorded["temperature"])
    assert loss.item() == pytest.approx(recorded["loss"], rel=1e-5)
    if "loss_T0.5" in recorded:
        assert contrast(similarities, labels, 0.5).item() == pytest.approx(recorded["loss_T0.5"], rel=1e-5)
        loss.backward()
        assert z.grad.numpy() == pytest.approx(np.array(recorded["grad_projections"]), abs=1e-4)


@pytest.mark.parametrize("number", range(4))
def test_prototypes(units, number):
    recorded, given = units["ope"][number], units["ope_inputs"]
    z1, z2 = (torch.tensor(given[key], requires_grad=True) for key in ("z1", "z2"))
    loss, means = prototype_loss(z1, z2, torch.tensor(given["y"]), 10, recorded["temperature"])
    assert loss.item() == pytest.approx(recorded["loss"], rel=1e-5)
    expected = (np.array(recorded["proto1"]) + np.array(recorded["proto2"])) / 2
    assert means.numpy()[: len(expected)] == pytest.approx(expected, abs=1e-6)
    assert not means[len(expected) :].any()
    if recorded["grad_z1"] is None:
        return
    loss.backward()
    for mine, key in ((z1, "grad_z1"), (z2, "grad_z2")):
        assert mine.grad.numpy() == pytest.approx(np.array(recorded[key]), abs=1e-6)


class Replayed:
    """Recorded draws of one mixture, in place of a generator; each must be asked for in its turn."""

    def __init__(self, draws):
        self.draws = list(draws)

    def _next(self, kind):
        name, value = self.draws.pop(0)
        assert name == kind
        return np.array(value)

    def choice(self, among, count, replace=True):
        drawn = self._next("choice")
        assert len(drawn) == count
        assert replace or drawn.max(initial=-1) < among
        return drawn

    def random(self, shape=None):
        drawn = self._next("random")
        assert drawn.shape == (() if shape is None else shape if isinstance(shape, tuple) else (shape,))
        return drawn

    def permutation(self, count):
        drawn = self._next("permutation").astype(np.int64)
        assert len(drawn) == count
        return drawn

    def uniform(self, lowest, highest, count):
        drawn = self._next("uniform")
        assert len(drawn) == count
        return drawn

    def beta(self, one, other, count):
        drawn = self._next("beta")
        assert len(drawn) == count
        return drawn


def retold(slots, labels, prototypes, recorded, settings):
    """Mix as the official code does, pair after pair in a loop, with what it drew.

    Returns:
        The mixture as lists of (first, second, share); the draws in the order in which ``mixture`` asks for them.
    """
    choices, permutations = list(recorded["np_choice"]), list(recorded["torch_randperm"])
    betas, fractions = list(recorded["beta"]), list(recorded["rand"])
    base, partners, lambdas = recorded["base"], permutations.pop(0), recorded["lambdas"]
    masks = fractions.pop(0)
    chosen = [slots[b] for b in base]
    draws = [("choice", base), ("random", 0.0 if partners else 1.0)]
    mixed = [(slot, slot, 0.0) for slot in chosen]
    if partners:
        mask = [0.0 if share else 1.0 for share in lambdas]
        draws += [("permutation", partners), ("uniform", lambdas), ("random", mask)]
        mixed = [(slot, chosen[int(p)], share) for slot, p, share in zip(chosen, partners, lambdas, strict=True)]
        assert len(masks) == len(base)
    known = [c for c in range(len(prototypes)) if np.abs(prototypes[c]).sum() > 0]
    pairs = list(itertools.combinations(known, 2))
    nearness = torch.tensor([1 / np.linalg.norm(prototypes[a] - prototypes[b]) for a, b in pairs])
    odds = torch.softmax(nearness, 0)
    count = len(slots) - len(base)
    counts = (odds * count).round().int().tolist()
    left = count - sum(counts)
    if left:
        order = permutations.pop(0)
        draws.append(("permutation", order))
        among = range(len(pairs)) if left > 0 else [p for p, number in enumerate(counts) if number]
        for place in order[: abs(left)]:
            counts[among[int(place)]] += 1 if left > 0 else -1
    firsts, seconds, gates, shares, replaced = [], [], [2.0] * len(pairs), [], {0: [], 1: []}
    places = []
    for number, (pair, size) in enumerate(zip(pairs, counts, strict=True)):
        if not size:
            continue
        own = list(pair)
        for side in (0, 1):
            if own[side] not in labels:
                own[side] = choices.pop(0)[0]
                replaced[side].append(own[side])
        members = [[slot for slot, label in enumerate(labels) if label == c] for c in own]
        drawn = [choices.pop(0), choices.pop(0)]
        gates[number] = fractions.pop(0)
        share = betas.pop(0) if gates[number] <= settings["mix_probability"] else [0.0] * size
        # A slot as a fraction of its class's memories, in the middle of its part of the range from 0 to 1.
        places.append([[(m.index(d) + 0.5) / len(m) for d in each] for m, each in zip(members, drawn, strict=True)])
        firsts += drawn[0]
        seconds += drawn[1]
        shares += share
    assert not choices
    assert not betas
    draws += [("choice", replaced[0] + replaced[1])]
    draws += [("random", np.concatenate(places, 1)), ("random", gates), ("beta", shares)]
    return mixed + list(zip(firsts, seconds, shares, strict=True)), draws


class TestFeedback:
    @pytest.mark.parametrize("number", range(3))
    def test_the_official_code(self, units, number):
        """The slots, shares and labels of a mixture, and the mixed images."""
        each = units["apf"][number]
        slots, labels = np.array(each["memory_draw"]), np.array(each["buffer_y"])
        prototypes = np.array(each["prototypes"], np.float32)
        recorded = each["draws_after_base"] | {"base": each["base_choice"]}
        recorded["lambdas"] = each["kornia"]["params"]["mixup_lambdas"]
        settings = {"mix_probability": each["mixup_p"]}
        slow, draws = retold(slots, labels, prototypes, recorded, settings)
        rng = Replayed(draws)
        own = mixture(slots, labels, prototypes, rng, each["base_rate"], each["mixup_p"], 0.6, each["beta_alpha"])
        assert not rng.draws
        assert own.first.tolist() == [first for first, _, _ in slow]
        assert own.second.tolist() == [second for _, second, _ in slow]
        assert own.share == pytest.approx([share for _, _, share in slow], abs=1e-6)
        expected = np.array(each["out_labels_y1_y2_lam"])
        assert np.stack([labels[own.first], labels[own.second], own.share], 1) == pytest.approx(expected, abs=1e-6)
        with np.load(FOLDER / "onpro_units.npz") as arrays:
            x, out = arrays[f"apf{number}.buffer_x"].astype(np.float32) / 255, arrays[f"apf{number}.out_x"]
        share = own.share.reshape(-1, 1, 1, 1)
        assert (1 - share) * x[own.first] + share * x[own.second] == pytest.approx(out, abs=1e-5)
        known = [c for c in range(len(prototypes)) if prototypes[c].any()]
        assert known == each["prob_classes"]
        distances = [np.linalg.norm(prototypes[a] - prototypes[b]) for a, b in itertools.combinations(known, 2)]
        assert pair_odds(np.array(distances)) == pytest.approx(each["pair_prob"], abs=1e-6)

    @pytest.mark.parametrize(("odds", "count"), [([0.5, 0.5], 5), ([0.3, 0.3, 0.4], 4), ([0.15] * 6 + [0.1], 10)])
    def test_counts_sum_to_what_is_asked_for(self, odds, count):
        for seed in range(20):
            counts = shared_out(np.array(odds), count, np.random.default_rng(seed))
            assert counts.sum() == count
            assert counts.min() >= 0
            assert np.abs(counts - np.array(odds) * count).max() <= 1.5

    def test_without_two_prototypes_all_is_mixed_at_random(self):
        prototypes, labels = np.zeros((4, 3), np.float32), np.array([0, 1, 2, 3] * 3)
        prototypes[1] = 1
        rng = np.random.default_rng(0)
        own = mixture(np.arange(12), labels, prototypes, rng, 0.5, 1.0, 0.6, 0.4)
        assert sorted(own.first.tolist()) == sorted(own.second.tolist()) == list(range(12))
        assert 0 < own.share.max() <= 0.6

    def test_prototypes_that_are_not_finite(self):
        with pytest.raises(FloatingPointError, match="prototypes"):
            mixture(np.arange(2), np.arange(2), np.full((2, 2), np.nan), np.random.default_rng(0), 0.5, 1, 0.6, 0.4)


SETTINGS = {"projection": 16, "replay_batch": 20}


class TestOnPro:
    @staticmethod
    def compare(**changes):
        described, arrays = case("onpro")
        steps, losses, images = described["steps"], {}, {}

        def prepare(method):
            method.augmented = lambda x, view: x.flip(3)  # of every image, as it was recorded
            memory_contrast = method.memory_contrast

            def windows(view):
                order = [p for p in steps[method.steps]["draw_randperm"] if len(p) == 48]
                assert len(order) == (1 if method.steps < 4 else 2)
                return order[0 if view == "stream" else 1][0]

            def generator(purpose):
                assert purpose == f"prototypical feedback {method.steps}"
                step = steps[method.steps]
                drawn, own = step["draw_np_choice"], step["apf"]["kornia"]
                recorded = {
                    "np_choice": drawn[2:],
                    "base": drawn[1],
                    "torch_randperm": [p for p in step["draw_randperm"] if len(p) != 48],
                    "beta": step["draw_beta"],
                    "rand": step["draw_rand"],
                    "lambdas": own["mixup_lambdas"],
                }
                labels = method._labels[method.memory.numbers]
                settings = {"mix_probability": 0.6}
                method.expected, draws = retold(
                    np.array(drawn[0]), labels, method.prototypes.numpy(), recorded, settings
                )
                return Replayed(draws)

            def labelled(features, z, label):
                step = steps[method.steps]
                if "apf" in step:
                    assert label.numpy() == pytest.approx(np.array(step["apf"]["pseudo"]), abs=1e-6)
                return memory_contrast(features, z, label)

            def noted(name):
                inner = getattr(method, name)

                def outer(*given, **named):
                    value = inner(*given, **named)
                    losses.setdefault(name, []).append(value.item())
                    return value

                setattr(method, name, outer)

            turned = method.turned

            def watched(x, view):
                images[view] = x
                return turned(x, view)

            method.window, method.draws.keyed, method.memory_contrast = windows, generator, labelled
            method.turned = watched
            for name in ("contrast", "memory_contrast", "equilibrium", "memory_equilibrium", "loss"):
                noted(name)

        def after(method, step, number):
            kinds = {
                "contrast": "ins_stream",
                "memory_contrast": "ins_memory",
                "equilibrium": "ope_stream",
                "memory_equilibrium": "ope_buffer",
                "loss": "total_loss",
            }
            for own, theirs in kinds.items():
                assert losses.pop(own, []) == pytest.approx(step.get(theirs, []), rel=1e-4), (own, number)
            expected = arrays[f"proto{number}"]
            assert method.prototypes.numpy()[: len(expected)] == pytest.approx(expected, abs=1e-5)
            if f"apf_x{number}" in arrays:
                assert images["memory"].numpy() == pytest.approx(arrays[f"apf_x{number}"], abs=1e-6)

        return play("onpro", "onpro", SETTINGS | changes, prepare, after)

    def test_the_official_code(self):
        self.compare()

    @pytest.mark.parametrize("changes", [{"similarity": 1.0}, {"prototype_temperature": 0.6}, {"weight_decay": 0.1}])
    def test_other_settings_give_other_losses(self, changes):
        with pytest.raises(AssertionError):
            self.compare(**changes)

    def test_the_first_batch_of_a_task_is_not_mixed(self):
        method = made("onpro", SETTINGS)
        mixed = []
        mixture = method.mixture
        method.mixture = lambda slots: mixed.append(method.steps) or mixture(slots)
        for number in range(12):
            method.observe(Batch(method.stream, np.arange(number * 10, number * 10 + 10), number // 4))
        assert mixed == [5, 6, 7, 9, 10, 11]

    def test_memories_of_a_step_are_limited_by_the_classes_seen(self):
        method = made("onpro", SETTINGS | {"replay_batch": 64, "memories": 100, "replay_per_class": 3})
        counts = []
        whole_or_mixed = method.mixture
        method.mixture = lambda slots: counts.append(len(slots)) or whole_or_mixed(slots)
        for number in range(12):
            method.observe(Batch(method.stream, np.arange(number * 10, number * 10 + 10), number // 4))
        assert counts == [12] * 3 + [18] * 3


def made(name, settings, network="conv", **changes):
    kind = METHODS[name]
    settings = kind.Settings(**{"lr": 1e-3, "memories": 30} | settings)
    return kind(settings, IncrementalLearner(NETWORKS[network], stream_of("y_contig", **changes), ClrayDraws(3)))


@pytest.mark.parametrize("name", ["ocm", "onpro"])
class TestBoth:
    def test_the_second_task_is_learned_from_memory(self, name, embedded):
        """The stream's batches have no cross-entropy then."""
        benchmark = {"name": "class-incremental", "dataset": "mnist", "tasks": 2, "source": "embedded"}
        benchmark |= {"classes": [0, 1, 2, 3], "train_per_class": 300, "test_per_class": 50}
        settings = {"lr": 0.005, "memories": 200, "replay_batch": 20, "projection": 20, "iterations": 2}
        declared = {"benchmark": benchmark, "model": {"name": "mlp", "hidden": [50]}, "method": name}
        resolved = resolve(declared | {"hyperparameters": settings})
        rest = {"evaluate": "after_task", "randomness": "clray", "engine": "auto", "task_order": None}
        trial = Trial(version=1, track="vision", precision="float32", seed=0, **rest, **resolved)
        measured = run(train(trial, embedded, "cpu"))
        end = {m.eval_task: m.value for m in measured if m.metric == "accuracy" and m.trained_tasks == 2}
        assert min(end.values()) > 0.5

    def test_the_projection_must_be_smaller_than_the_features(self, name):
        with pytest.raises(DeclarationError, match=rf"^{name}: projection 64 .* 64 features"):
            made(name, {"projection": 64})

    def test_images_must_be_square_with_even_sides(self, name):
        stream = stream_of("y")
        for shape in ((200, 3, 7, 7), (200, 3, 8, 6)):
            own = replace(stream, train=replace(stream.train, pixels=torch.zeros(shape, dtype=torch.uint8)))
            kind = METHODS[name]
            with pytest.raises(DeclarationError, match=rf"^{name}: .*square"):
                kind(kind.Settings(lr=0.1, memories=5), IncrementalLearner(NETWORKS["conv"], own, ClrayDraws(0)))


class TestOcm:
    def test_the_terms_of_a_later_step(self):
        """Each term against a slow form, by the pieces of its definition."""
        method = made("ocm", SETTINGS, "convbn")
        for number in range(4):
            method.observe(Batch(method.stream, np.arange(number * 10, number * 10 + 10), 0))
        assert method.former is None
        method.end(0)
        for number in range(4, 6):
            method.observe(Batch(method.stream, np.arange(number * 10, number * 10 + 10), 1))
        batch, learner = Batch(method.stream, np.arange(60, 70), 1), method.learner
        now, then, slots = learner.module, method.former, method.memory.slots(20)
        assert not torch.equal(now.head.weight, then.head.weight)
        method.replayed = lambda: slots
        total = method.loss(batch).item()

        old_x, old_y = method.examples(slots)

        def augmented(x, view):
            return learner.augmented(x, "onpro", f"{method.steps} {view}")

        def embedded(module, x):
            features = module.features(x)
            z = module.projection(features)
            return features / features.norm(dim=1, keepdim=True), z / z.norm(dim=1, keepdim=True)

        forms = [rotations(x) for x in (batch.x, old_x)]
        turned = [augmented(forms[0], "stream turned"), augmented(forms[1], "memory turned")]
        features, z = embedded(now, torch.cat([forms[0], turned[0], forms[1], turned[1]]))
        labels = [torch.cat([y + 10 * form for form in range(16)]) for y in (batch.y, old_y)]
        expected = 0.0
        for part, (y, view) in enumerate(zip(labels, ("stream", "memory"), strict=True)):
            own = slice(0, 320) if part == 0 else slice(320, None)
            begin = int(method.draws.keyed(f"window of features {method.steps} {view}").integers(64 - 16))
            alike = 0.5 * (z[own] @ features[own][:, begin : begin + 16].T + z[own] @ z[own].T)
            contrast = to_the_other_view if part == 0 else among_same_labels
            expected += contrast(alike, torch.cat([y, y]), 0.07).item()
        logits = now(augmented(old_x, "memory"))
        expected += -logits.log_softmax(1)[torch.arange(20), old_y].mean().item()
        _, before = embedded(then, forms[1])
        odds = (z[320:640] @ before.T / 0.07).softmax(1)
        for row in range(320):
            same = [column for column in range(320) if labels[1][column] == labels[1][row]]
            expected += -odds[row, same].log().mean().item() / 320
        differences = then(augmented(old_x, "memory of the copy"))[:, :2] - logits[:, :2]
        expected += differences.square().mean().item()
        assert total == pytest.approx(expected, rel=1e-4)

    def test_the_first_task_is_that_of_onpro_without_prototypes(self):
        """OnPro's loss of the first batch has one more term, that of the batch's prototypes."""
        batches, losses = {}, {}
        for name in ("ocm", "onpro"):
            method = made(name, SETTINGS)
            batches[name] = Batch(method.stream, np.arange(10), 0)
            losses[name] = method.loss(batches[name]).item()
            if name == "onpro":
                _, z = method.embedded(method.turned(batches[name].x, "stream"))
                losses["prototypes"] = method.equilibrium(z, batches[name].y).item()
        assert losses["ocm"] + losses["prototypes"] == pytest.approx(losses["onpro"], rel=1e-5)

    def test_no_copy_where_boundaries_are_hidden(self):
        method = made("ocm", SETTINGS)
        for number in range(5):
            method.observe(Batch(method.stream, np.arange(number * 10, number * 10 + 10), None))
        assert method.former is None
        assert method.task == -1
