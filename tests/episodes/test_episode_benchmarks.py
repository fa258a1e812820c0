"""The content of episodes: mappings, support sets, queries, the validation split, and the tests."""

from __future__ import annotations

import itertools
import json
import tracemalloc

import numpy as np
import pytest
from episode_references import FOLDER

from clray.episodes import scan
from clray.episodes.benchmarks import BENCHMARKS, Benchmark, Drawn, Pairs, draw_allowed

EPISODES = [name for name in BENCHMARKS if name != "scan_split"]
OFFICIAL = json.loads((FOLDER / "episodes.json").read_text())
SIZES = {"mutual_exclusivity": (3, 20), "scan_length": (100, 20)}


def build(name: str, **settings) -> Benchmark:
    return BENCHMARKS[name](name=name, **settings).build()


def in_words(benchmark: Benchmark, pairs: Pairs) -> list[scan.Pair]:
    rows = zip(pairs.commands.tolist(), pairs.actions.tolist(), strict=True)
    return [(benchmark.commands.words(x), benchmark.actions.words(y)) for x, y in rows]


def identifiers(name: str, count: int) -> tuple[set[str], list[str]]:
    benchmark, rng = build(name), np.random.default_rng(0)
    kept = {drawn.identifier for drawn in benchmark.validation(rng)}
    return kept, [draw_allowed(benchmark, rng, kept).identifier for _ in range(count)]


@pytest.mark.parametrize("name", EPISODES)
class TestEveryBenchmark:
    def test_vocabularies_are_the_official_ones(self, name):
        benchmark = build(name)
        told = OFFICIAL["ME" if name == "mutual_exclusivity" else name]
        assert list(benchmark.commands.symbols) == told["input_symbols"]
        assert list(benchmark.actions.symbols) == told["output_symbols"]
        assert (len(benchmark.commands), len(benchmark.actions)) == (told["n_in"], told["n_out"])

    def test_identifiers_are_written_as_the_official_ones(self, name):
        told = OFFICIAL["ME" if name == "mutual_exclusivity" else name]["episodes"]
        kept, _ = identifiers(name, 0)
        if name != "mutual_exclusivity":  # whose mappings for validation are drawn
            assert kept == {episode["identifier"] for episode in told if episode["which"] == "val"}
        lines = {len(episode["identifier"].splitlines()) for episode in told}
        assert {len(identifier.splitlines()) for identifier in identifiers(name, 200)[1]} == lines

    def test_sizes_and_padding(self, name):
        benchmark, rng = build(name), np.random.default_rng(0)
        for drawn in [*benchmark.validation(rng), *(benchmark.draw(rng) for _ in range(20))]:
            assert (len(drawn.support), len(drawn.query)) == SIZES.get(name, (20, 20))
            for pairs in (drawn.support, drawn.query):
                tables = ((pairs.commands, pairs.command_lengths, benchmark.commands),
                          (pairs.actions, pairs.action_lengths, benchmark.actions))  # fmt: skip
                for table, lengths, vocabulary in tables:
                    assert table.shape[1] == lengths.max()
                    assert (table[np.arange(len(table)), lengths - 1] == vocabulary.eos).all()
                    padding = np.arange(table.shape[1]) >= lengths[:, None]
                    assert (table[padding] == vocabulary.sos).all()
                    assert (table[~padding] != vocabulary.sos).all()

    def test_validation_mappings_never_come_up_in_training(self, name):
        kept, drawn = identifiers(name, 3000)
        assert kept
        assert not kept & set(drawn)

    def test_draws_follow_from_the_seed_alone(self, name):
        def some() -> list[Drawn]:
            rng = np.random.default_rng(3)
            benchmark = build(name)
            return [*benchmark.validation(rng), benchmark.draw(rng)]

        for first, second in zip(some(), some(), strict=True):
            assert first.identifier == second.identifier
            assert (first.query.commands == second.query.commands).all()
            assert (first.support.actions == second.support.actions).all()

    def test_sampling_copies_no_data(self, name):
        """The official code copies all 20,910 pairs for every episode: 80 ms. A table of them is 1.5 MB."""
        benchmark, rng = build(name), np.random.default_rng(0)
        benchmark.draw(rng)
        tracemalloc.start()
        benchmark.draw(rng)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 400_000


class TestMutualExclusivity:
    def test_there_are_24_mappings_of_which_19_are_for_training(self):
        kept, drawn = identifiers("mutual_exclusivity", 2000)
        assert (len(kept), len(set(drawn))) == (5, 19)

    def test_queries_are_different_and_of_2_to_6_words(self):
        benchmark, rng = build("mutual_exclusivity"), np.random.default_rng(0)
        lengths: set[int] = set()
        for _ in range(50):
            queries = in_words(benchmark, benchmark.draw(rng).query)
            assert len({command for command, _ in queries}) == 20
            lengths |= {len(command) for command, _ in queries}
        assert lengths == {2, 3, 4, 5, 6}

    def test_the_support_set_shows_three_words_and_queries_use_four(self):
        benchmark, rng = build("mutual_exclusivity"), np.random.default_rng(0)
        for _ in range(20):
            drawn = benchmark.draw(rng)
            meaning = dict(line.split(" -> ") for line in drawn.identifier.splitlines())
            assert sorted(meaning) == ["dax", "lug", "wif", "zup"]
            shown = in_words(benchmark, drawn.support)
            assert len({command for command, _ in shown}) == 3
            for command, actions in shown + in_words(benchmark, drawn.query):
                assert actions == tuple(meaning[word] for word in command)

    def test_the_test_is_the_validation_episodes(self):
        benchmark = build("mutual_exclusivity")
        validation = benchmark.validation(np.random.default_rng(0))
        assert benchmark.tests(validation) == validation


SCAN = [name for name in EPISODES if name != "mutual_exclusivity"]


class TestScan:
    @pytest.mark.parametrize("name", SCAN)
    def test_pairs_follow_the_grammar_under_the_mapping(self, name):
        """Whatever stands in a slot, undone by a word's place among the actions it stands for."""
        benchmark, rng = build(name), np.random.default_rng(1)
        settings = BENCHMARKS[name](name=name)
        for _ in range(20):
            drawn = benchmark.draw(rng)
            pairs = in_words(benchmark, drawn.support) + in_words(benchmark, drawn.query)
            undo = _undone(pairs, settings.slots)
            assert undo is not None

    @pytest.mark.parametrize("name", SCAN)
    def test_no_query_is_in_the_support_set(self, name):
        benchmark, rng = build(name), np.random.default_rng(0)
        for drawn in [benchmark.draw(rng) for _ in range(50)] + benchmark.validation(rng):
            support, query = (in_words(benchmark, pairs) for pairs in (drawn.support, drawn.query))
            assert not {command for command, _ in support} & {command for command, _ in query}
            assert len({command for command, _ in support + query}) == len(support) + len(query)

    @pytest.mark.parametrize("name", SCAN)
    def test_validation_is_under_scans_own_meanings(self, name):
        benchmark = build(name)
        validation = benchmark.validation(np.random.default_rng(0))
        assert len(validation) == 5
        for drawn in validation:
            for command, actions in in_words(benchmark, drawn.support) + in_words(benchmark, drawn.query):
                assert actions == scan.interpret(command)

    def test_permutation_has_23_mappings_for_training(self):
        _, drawn = identifiers("scan_prim_permutation", 1000)
        assert len(set(drawn)) == 23
        assert any("jump -> I_JUMP" in identifier for identifier in drawn)

    @pytest.mark.parametrize(
        ("name", "word", "meaning"),
        [("scan_prim_augmentation", "jump", "I_JUMP"), ("scan_around_right", "right", "I_TURN_RIGHT")],
    )
    def test_one_word_tells_and_only_its_own_meaning_is_kept(self, name, word, meaning):
        kept, drawn = identifiers(name, 2000)
        assert kept == {f"{word} -> {meaning}"}
        absent = drawn.count(f"no {word}") / len(drawn)
        before = {"scan_prim_augmentation": (5 / 6, 1 / 24), "scan_around_right": (1 / 2, 1 / 4)}[name]
        assert absent == pytest.approx(before[0] / (1 - (1 - before[0]) * before[1]), abs=0.04)

    def test_length_keeps_its_pools_apart(self):
        benchmark, rng = build("scan_length"), np.random.default_rng(0)
        for _ in range(20):
            drawn = benchmark.draw(rng)
            assert (drawn.support.action_lengths - 1).max() < 12
            queries = drawn.query.action_lengths - 1
            assert 12 <= queries.min() <= queries.max() <= 22
        for drawn in benchmark.validation(rng):
            assert (drawn.support.action_lengths - 1).max() <= 22
            assert (drawn.query.action_lengths - 1).min() >= 24
        pools = benchmark.pools  # type: ignore[attr-defined]
        assert [len(pool) for training in (True, False) for pool in pools[training]] == [10_292, 6_698, 16_990, 3_920]

    @pytest.mark.parametrize(
        ("name", "support", "queries"),
        [
            ("scan_prim_permutation", {"walk", "look", "run", "jump"}, 7_706),
            ("scan_prim_augmentation", {"walk", "look", "run", "jump"}, 7_706),
            ("scan_around_right", {"turn left", "turn right"}, 4_476),
        ],
    )
    def test_tests_show_words_alone_and_ask_the_whole_test_split(self, name, support, queries):
        benchmark = build(name)
        (test,) = benchmark.tests(benchmark.validation(np.random.default_rng(0)))
        shown = in_words(benchmark, test.support)
        assert {" ".join(command) for command, _ in shown} == support
        assert all(actions == scan.interpret(command) for command, actions in shown)
        assert len(test.query) == queries

    def test_the_test_of_length_uses_the_validation_support_sets(self):
        benchmark = build("scan_length")
        validation = benchmark.validation(np.random.default_rng(0))
        tests = benchmark.tests(validation)
        assert [test.support for test in tests] == [drawn.support for drawn in validation]
        assert [len(test.query) for test in tests] == [3_920] * 5


def _undone(pairs: list[scan.Pair], slots: dict[str, str]) -> dict[str, str] | None:
    """Which word and action stand in each slot, such that all pairs are the grammar's; None where there is no way."""
    known = {*scan.COMMAND_WORDS} - set(slots)
    strange = list(dict.fromkeys(word for command, _ in pairs for word in command if word not in known))
    fixed = {*scan.ACTIONS} - set(slots.values())
    acts = list(dict.fromkeys(action for _, actions in pairs for action in actions if action not in fixed))
    for words in itertools.permutations(slots, len(strange)):
        back = dict(zip(strange, words, strict=True))
        wanted = {slots[word] for word in words}
        for meanings in itertools.permutations(wanted, len(acts)) if len(acts) <= len(wanted) else ():
            act = dict(zip(acts, meanings, strict=True))
            if all(
                scan.interpret(tuple(back.get(word, word) for word in command))
                == tuple(act.get(action, action) for action in actions)
                for command, actions in pairs
            ):
                return back | act
    return None


class TestSplits:
    def test_batches_come_from_the_training_set_as_often_as_its_lines(self):
        benchmark, rng = build("scan_split", split="addprim_jump", queries=2000), np.random.default_rng(0)
        drawn = benchmark.draw(rng)
        commands = [command for command, _ in in_words(benchmark, drawn.query)]
        assert drawn.support is None
        assert commands.count(("jump",)) / 2000 == pytest.approx(0.1, abs=0.03)
        assert all("jump" not in command or len(command) == 1 for command in commands)

    def test_there_is_no_validation_and_the_test_split_is_asked(self):
        benchmark = build("scan_split", split="length")
        assert benchmark.validation(np.random.default_rng(0)) == []
        (test,) = benchmark.tests([])
        assert (test.support, len(test.query)) == (None, 3_920)


def test_a_benchmark_whose_mappings_are_all_kept_says_so():
    benchmark, rng = build("scan_prim_permutation"), np.random.default_rng(0)
    every = {benchmark.draw(rng).identifier for _ in range(1000)}
    assert len(every) == 24
    with pytest.raises(RuntimeError, match="10000 mappings drawn, and all are kept"):
        draw_allowed(benchmark, rng, every)
