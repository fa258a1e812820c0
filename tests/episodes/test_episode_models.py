"""The networks against the official code's figures, and their fused form against the plain one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from episode_references import Reference, references

from clray.episodes import fused, networks
from clray.episodes.benchmarks import BENCHMARKS
from clray.episodes.learner import Learner, as_episode
from clray.episodes.methods.base import UpdateSettings
from clray.episodes.models import Model
from clray.episodes.networks import Contexts, Dropout, Episode, Network, Sequences

NAMES = list(references()["files"])
SMALL = [name for name in NAMES if "small" in name]
FORMS = {"eager": networks, "fused": fused}
CLOSE = 2e-6
"""The difference that rounding makes in figures of the order of one."""


@pytest.fixture(params=NAMES)
def reference(request) -> Reference:
    return Reference(request.param)


@pytest.fixture(params=FORMS)
def form(request):
    return FORMS[request.param]


def steps_first(array: np.ndarray) -> torch.Tensor:
    """The official layout [T, n, …] as [n, T, …]."""
    return torch.from_numpy(array).transpose(0, 1)


def packed(found, form, target):
    """Logits of valid steps, row by row, of either form."""
    if form is networks:
        return found[target.valid]
    rows, packing = found
    return rows[torch.argsort(packing.symbols)]


class TestAgainstTheOfficialCode:
    def test_sizes_are_the_official_ones(self, reference):
        network = reference.network()
        for part, count in ((network.encoder, "n_enc"), (network.decoder, "n_dec")):
            assert sum(parameter.numel() for parameter in part.parameters()) == reference.told[count]

    def test_contexts_and_messages(self, reference, form):
        found = form.encode(reference.network(), reference.episode())
        torch.testing.assert_close(found.by_step, steps_first(reference.arrays["context_by_step"]), rtol=0, atol=CLOSE)
        torch.testing.assert_close(
            found.message, torch.from_numpy(reference.arrays["context_last"]), rtol=0, atol=CLOSE
        )

    @pytest.mark.parametrize("name", [name for name in NAMES if references()["files"][name]["memory"]])
    def test_looks_at_the_memory(self, name):
        reference = Reference(name)
        found = networks.encode(reference.network(), reference.episode())
        wanted = steps_first(reference.arrays["mem_attn_by_step"])
        torch.testing.assert_close(found.attention, wanted, rtol=0, atol=CLOSE)

    @pytest.mark.parametrize("name", [name for name in NAMES if references()["files"][name]["attention"]])
    def test_looks_at_the_command(self, name):
        reference = Reference(name)
        network, episode = reference.network(), reference.episode()
        writer = networks.Writer(network.decoder, networks.encode(network, episode))
        given = networks.given_symbols(episode)
        for t, wanted in enumerate(reference.arrays["dec_attn"]):
            writer.step(given[:, t], [None, None])
            torch.testing.assert_close(writer.attention, torch.from_numpy(wanted), rtol=0, atol=CLOSE)
        for layer, (h, c) in enumerate(writer.state):
            torch.testing.assert_close(h, torch.from_numpy(reference.arrays["dec_h_last"][layer]), rtol=0, atol=CLOSE)
            torch.testing.assert_close(c, torch.from_numpy(reference.arrays["dec_c_last"][layer]), rtol=0, atol=CLOSE)

    def test_logits_of_every_step_even_padded_ones(self, reference):
        network, episode = reference.network(), reference.episode()
        found = networks.logits(network, networks.encode(network, episode), episode)
        torch.testing.assert_close(found, steps_first(reference.arrays["dec_logits"]), rtol=0, atol=CLOSE)

    def test_logits_loss_and_gradients(self, reference, form):
        network, episode = reference.network(), reference.episode()
        logits = packed(form.logits(network, form.encode(network, episode), episode), form, episode.target)
        wanted = steps_first(reference.arrays["dec_logits"])[episode.target.valid]
        torch.testing.assert_close(logits, wanted, rtol=0, atol=CLOSE)
        loss = form.loss(network, episode)
        assert float(loss.detach()) == pytest.approx(reference.told["loss"], abs=1e-6)
        loss.backward()
        for name, parameter in reference.parameters(network).items():
            assert float(parameter.grad.norm()) == pytest.approx(reference.told["grad_norms"][name], abs=1e-6)
            if (stored := f"grad.{name}") in reference.arrays:
                wanted = torch.from_numpy(reference.arrays[stored])
                torch.testing.assert_close(parameter.grad, wanted, rtol=0, atol=1e-6)

    def test_one_update(self, form):
        """Adam moves every weight by its rate whatever the gradient's size: tiny gradients are left to rounding."""
        for name in SMALL:
            reference = Reference(name)
            learner = learner_of(reference, form)
            learner.observe(reference.episode())
            for key, parameter in reference.parameters(learner.network).items():
                wanted = torch.from_numpy(reference.arrays[f"after1.{key}"])
                clear = torch.from_numpy(np.abs(reference.arrays[f"grad.{key}"]) > 1e-5)
                torch.testing.assert_close(parameter[clear], wanted[clear], rtol=0, atol=2e-6)
                torch.testing.assert_close(parameter, wanted, rtol=0, atol=2.1e-3)

    def test_twenty_updates_and_what_is_written_then(self, reference):
        learner = learner_of(reference, fused)
        episode = reference.episode()
        losses = [learner.observe(episode) for _ in range(20)]
        assert losses == pytest.approx(reference.arrays["train20_losses"].tolist(), rel=1e-3)
        written = fused.greedy(learner.network, episode, reference.language["out"]["EOS"], 50)
        wanted = reference.told["greedy_after20"]
        assert [reference.words(row.tolist())[:12] for row in written] == [row[:12] for row in wanted]

    def test_what_is_written_at_first(self, reference):
        written = networks.greedy(reference.network(), reference.episode(), 12)
        found = [reference.words(row) for row in written.tolist()]
        assert found == [row[:12] for row in reference.told["greedy_pred_first12"]]


def learner_of(reference: Reference, form) -> Learner:
    name = "fused" if form is fused else "eager"
    return Learner(reference.network(), UpdateSettings(), name, Dropout(0.0, np.random.default_rng(0)))


# --------------------------------------------------------------------------------------------------------------


def drawn_episode(name: str = "scan_prim_permutation", seed: int = 0, memory: bool = True, **settings):
    benchmark = BENCHMARKS[name](name=name, **settings).build()
    drawn = benchmark.draw(np.random.default_rng(seed))
    query = drawn.query.followed_by(drawn.support, (benchmark.commands.sos, benchmark.actions.sos))
    return benchmark, as_episode(drawn.support if memory else None, query, benchmark, "cpu")


def network_for(benchmark, memory=True, attention=True, **model) -> Network:
    torch.manual_seed(0)
    return Network(len(benchmark.commands), len(benchmark.actions), Model(embedding=8, **model), memory, attention)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(("memory", "attention"), [(True, True), (False, True), (True, False), (False, False)])
def test_both_forms_drop_and_learn_the_same(memory, attention, layers):
    benchmark, episode = drawn_episode(support=4, queries=5, memory=memory)
    network, found = network_for(benchmark, memory, attention, layers=layers), {}
    for name, form in FORMS.items():
        network.zero_grad()
        dropout = Dropout(0.5, np.random.default_rng(5))
        loss = form.loss(network, episode, dropout)
        loss.backward()
        found[name] = [loss.detach(), *(parameter.grad for parameter in network.parameters())]
        found[name].append(torch.tensor(dropout.rng.random()))
    for eager, quick in zip(found["eager"], found["fused"], strict=True):
        torch.testing.assert_close(quick, eager, rtol=1e-5, atol=1e-6)


def test_masks_keep_the_mean_and_their_rate():
    mask = Dropout(0.2, np.random.default_rng(0))(2000, 50)
    assert mask.mean().item() == pytest.approx(1, abs=0.01)
    assert sorted(mask.unique().tolist()) == pytest.approx([0.0, 1.25])
    assert Dropout(0.0, np.random.default_rng(0))(3, 4) is None


@pytest.mark.parametrize("memory", [True, False])
def test_a_librarys_layers_give_the_same(memory, monkeypatch):
    """On a CPU, the layers that a GPU would use."""
    benchmark, episode = drawn_episode(support=4, queries=5, memory=memory)
    network = network_for(benchmark, memory)
    ours = fused.loss(network, episode)
    monkeypatch.setattr(fused, "_layer", fused._library)
    torch.testing.assert_close(fused.loss(network, episode), ours, rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="module")
def learned():
    benchmark, episode = drawn_episode("mutual_exclusivity", queries=8)
    learner = Learner(network_for(benchmark), UpdateSettings(lr=0.02), "fused", Dropout(0.0, np.random.default_rng(0)))
    for _ in range(200):
        learner.observe(episode)
        right = fused.right(learner.network, episode, benchmark.actions.eos)
        if 0 < right.sum() < len(right):
            break
    return benchmark, learner.network, episode


class TestAnswers:
    """Scoring by one pass against writing symbol by symbol, on a network that gets some right and some not."""

    def test_both_forms_score_the_same(self, learned):
        benchmark, network, episode = learned
        found = {name: form.right(network, episode, benchmark.actions.eos).tolist() for name, form in FORMS.items()}
        assert found["eager"] == found["fused"]
        assert 0 < sum(found["eager"]) < len(found["eager"])

    def test_writing_stops_when_all_rows_have_ended(self, learned):
        benchmark, network, episode = learned
        whole = networks.greedy(network, episode, 50)
        short = fused.greedy(network, episode, benchmark.actions.eos, 50)
        assert (whole[:, : short.shape[1]] == short).all()
        ends = (whole == benchmark.actions.eos).argmax(axis=1)
        if (whole == benchmark.actions.eos).any(axis=1).all():
            assert short.shape[1] == ends.max() + 1

    def test_what_is_too_long_to_be_written_is_not_right(self, learned):
        benchmark, network, episode = learned
        for form in FORMS.values():
            assert not form.right(network, episode, benchmark.actions.eos, limit=1).any()


def test_the_order_of_the_support_set_does_not_matter():
    benchmark = BENCHMARKS["scan_prim_permutation"](name="scan_prim_permutation").build()
    drawn = benchmark.draw(np.random.default_rng(0))
    network = network_for(benchmark)
    shuffled = drawn.support.take(np.random.default_rng(1).permutation(len(drawn.support)))
    for form in FORMS.values():
        found = [
            form.encode(network, as_episode(support, drawn.query, benchmark, "cpu")).by_step
            for support in (drawn.support, shuffled)
        ]
        torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-6)


class TestPadding:
    """A decoder sees padded steps: so a part of a test must be padded as the whole of it is."""

    def test_a_query_depends_on_the_longest_one_beside_it(self):
        benchmark, episode = drawn_episode("mutual_exclusivity")
        network = network_for(benchmark)
        short = int(episode.query.lengths.argmin())
        alone, beside = self.logits(network, episode, [short])[0], self.logits(network, episode, None)[short]
        assert not torch.allclose(alone, beside[: len(alone)], rtol=0, atol=1e-5)

    def test_a_part_padded_as_the_whole_is_answered_as_in_the_whole(self):
        benchmark, episode = drawn_episode("mutual_exclusivity")
        network = network_for(benchmark)
        whole, short = self.logits(network, episode, None), int(episode.query.lengths.argmin())
        alone = self.logits(network, episode, [short], steps=episode.steps)[0]
        torch.testing.assert_close(alone, whole[short][: len(alone)], rtol=0, atol=1e-6)
        padded = fused.encode(network, self.part(episode, [short], episode.steps)).by_step
        torch.testing.assert_close(padded, fused.encode(network, episode).by_step[[short]], rtol=0, atol=1e-6)

    def logits(self, network, episode, rows, steps=0):
        part = episode if rows is None else self.part(episode, rows, steps)
        return networks.logits(network, networks.encode(network, part), part)

    @staticmethod
    def part(episode: Episode, rows: list[int], steps: int = 0) -> Episode:
        def some(sequences: Sequences) -> Sequences:
            lengths = sequences.lengths[rows]
            return Sequences(sequences.tokens.numpy()[rows, : lengths.max()], lengths)

        query = some(episode.query)
        return Episode(episode.support, query, some(episode.target), episode.start, steps or query.tokens.shape[1])


def test_without_a_memory_padded_contexts_are_zero():
    benchmark, episode = drawn_episode("mutual_exclusivity", memory=False)
    for form in FORMS.values():
        found: Contexts = form.encode(network_for(benchmark, memory=False), episode)
        assert (found.by_step[~episode.query.valid] == 0).all()
        assert (found.by_step[episode.query.valid] != 0).all()
