"""The benchmarks: the support set and the queries of an episode, the mappings for validation, and the test.

An episode re-assigns meanings: some words of the language (its slots) are replaced by other words, and their actions by
other actions; both are drawn for each episode. SCAN's commands are numbered once. So an episode is a draw of row
numbers and two tables that replace each symbol. Mappings reserved for validation are never used in training.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from clray.episodes import scan
from clray.episodes.scan import ACTIONS, COMMAND_WORDS, PRIMITIVES, TURNS, Pair, Words
from clray.registry import Registry
from clray.settings import TrialSettings

Int = NDArray[np.int64]

_ATTEMPTS = 10_000
"""The most draws of a mapping. If all of them are reserved for validation, it is an error."""


class Vocabulary:
    """A numbering of symbols; SOS, which is also the padding, and EOS come last."""

    def __init__(self, symbols: Words) -> None:
        self.symbols = symbols
        self.sos, self.eos = len(symbols), len(symbols) + 1
        self.number = {symbol: index for index, symbol in enumerate(symbols)}

    def __len__(self) -> int:
        return len(self.symbols) + 2

    def table(self, rows: Sequence[Words]) -> tuple[Int, Int]:
        """The rows as numbers [n, T], each ending with EOS and padded with SOS, and their lengths [n] with EOS."""
        lengths = np.array([len(row) + 1 for row in rows], np.int64)
        table = np.full((len(rows), int(lengths.max(initial=1))), self.sos, np.int64)
        for line, row in zip(table, rows, strict=True):
            line[: len(row) + 1] = [*(self.number[symbol] for symbol in row), self.eos]
        return table, lengths

    def words(self, row: Sequence[int]) -> Words:
        """The symbols of a row up to its EOS."""
        row = list(row)
        until = row.index(self.eos) if self.eos in row else len(row)
        return tuple("SOS" if number == self.sos else self.symbols[number] for number in row[:until])

    def replacing(self, old: Words, new: Words) -> Int:
        """A table from numbers to numbers that replaces each symbol of ``old`` by that of ``new``."""
        table = np.arange(len(self))
        table[[self.number[symbol] for symbol in old]] = [self.number[symbol] for symbol in new]
        return table


@dataclass(frozen=True)
class Pairs:
    """Commands and their actions as numbers: tables [n, T] and [n, U], and the rows' lengths with EOS."""

    commands: Int
    command_lengths: Int
    actions: Int
    action_lengths: Int

    @staticmethod
    def of(pairs: Sequence[Pair], commands: Vocabulary, actions: Vocabulary) -> Pairs:
        return Pairs(*commands.table([pair[0] for pair in pairs]), *actions.table([pair[1] for pair in pairs]))

    def __len__(self) -> int:
        return len(self.commands)

    def take(self, rows: Int, commands: Int | None = None, actions: Int | None = None) -> Pairs:
        """Some of the rows, cut to the longest of them, with symbols replaced by the given tables."""
        long, far = self.command_lengths[rows], self.action_lengths[rows]
        found, done = self.commands[rows, : long.max(initial=1)], self.actions[rows, : far.max(initial=1)]
        return Pairs(
            found if commands is None else commands[found], long, done if actions is None else actions[done], far
        )

    def followed_by(self, other: Pairs, padding: tuple[int, int]) -> Pairs:
        """These rows, then those of ``other``; ``padding`` is SOS of commands and of actions."""
        return Pairs(
            _stacked(self.commands, other.commands, padding[0]),
            np.concatenate([self.command_lengths, other.command_lengths]),
            _stacked(self.actions, other.actions, padding[1]),
            np.concatenate([self.action_lengths, other.action_lengths]),
        )


def _stacked(first: Int, second: Int, padding: int) -> Int:
    table = np.full((len(first) + len(second), max(first.shape[1], second.shape[1])), padding, np.int64)
    table[: len(first), : first.shape[1]] = first
    table[len(first) :, : second.shape[1]] = second
    return table


@dataclass(frozen=True)
class Drawn:
    """A drawn episode.

    Attributes:
        support: the support set; None where there is none.
        query: the queries.
        identifier: names its mapping, so that validation mappings are not used in training.
    """

    support: Pairs | None
    query: Pairs
    identifier: str = ""


class Benchmark(Protocol):
    """The interface of a benchmark, which is built from its settings."""

    commands: Vocabulary
    actions: Vocabulary

    def draw(self, rng: np.random.Generator) -> Drawn:
        """A training episode with any mapping."""
        ...

    def validation(self, rng: np.random.Generator) -> list[Drawn]:
        """The validation episodes, whose mappings training does not use."""
        ...

    def tests(self, validation: list[Drawn]) -> list[Drawn]:
        """The episodes of the final test; its accuracy is their mean, over queries that are not in the support set."""
        ...


def draw_allowed(benchmark: Benchmark, rng: np.random.Generator, kept: set[str]) -> Drawn:
    """A training episode whose mapping is not one of ``kept``."""
    for _ in range(_ATTEMPTS):
        drawn = benchmark.draw(rng)
        if drawn.identifier not in kept:
            return drawn
    raise RuntimeError(f"{_ATTEMPTS} mappings drawn, and all are kept for validation")


def _identifier(words: Words, actions: Words) -> str:
    return "\n".join(sorted(f"{word} -> {action}" for word, action in zip(words, actions, strict=True)))


Kind = Literal["episodes", "split"]
"""Episodes have a support set; a split has a training set and a test set."""


class Settings(TrialSettings):
    """The common base of the benchmarks' settings."""

    kind: ClassVar[Kind] = "episodes"

    @property
    def file_split(self) -> str | None:
        """The split that this benchmark reads from official files; None where a grammar makes it."""
        return None


# --------------------------------------------------------------------------------------------------------------
# Mutual exclusivity


class MutualExclusivity(Settings):
    """Four words for four colours, three of which are shown: queries use the fourth as well (experiment 1).

    As in the official code, the test uses the validation episodes, whose mappings training does not use.
    """

    name: Literal["mutual_exclusivity"]
    queries: Annotated[int, Field(ge=1, le=1000)] = 20
    """The number of queries of an episode, all different, of 2 to 6 words."""
    validation: Annotated[int, Field(ge=1, le=20)] = 5
    """The number of mappings, of 24, that are reserved for validation."""

    def build(self, pairs: tuple[list[Pair], list[Pair]] | None = None) -> Benchmark:
        return _MutualExclusivity(self)


class _MutualExclusivity:
    WORDS, COLOURS = ("dax", "lug", "wif", "zup"), ("RED", "YELLOW", "GREEN", "BLUE")
    SHORTEST, LONGEST = 2, 6

    def __init__(self, settings: MutualExclusivity) -> None:
        self.settings = settings
        self.commands, self.actions = Vocabulary(self.WORDS), Vocabulary(self.COLOURS)

    def draw(self, rng: np.random.Generator) -> Drawn:
        words = [self.WORDS[index] for index in rng.permutation(4)]
        colours = [self.COLOURS[index] for index in rng.permutation(4)]
        queries: dict[Words, Words] = {}
        while (lacking := self.settings.queries - len(queries)) > 0:
            lengths = rng.integers(self.SHORTEST, self.LONGEST + 1, size=lacking).tolist()
            for length, chosen in zip(lengths, rng.integers(4, size=(lacking, self.LONGEST)).tolist(), strict=True):
                chosen = chosen[:length]
                queries[tuple(words[index] for index in chosen)] = tuple(colours[index] for index in chosen)
        shown = [((word,), (colour,)) for word, colour in zip(words[:3], colours[:3], strict=True)]
        support = Pairs.of(shown, self.commands, self.actions)
        query = Pairs.of(list(queries.items()), self.commands, self.actions)
        return Drawn(support, query, _identifier(tuple(words), tuple(colours)))

    def validation(self, rng: np.random.Generator) -> list[Drawn]:
        found: list[Drawn] = []
        for _ in range(self.settings.validation):
            found.append(draw_allowed(self, rng, {drawn.identifier for drawn in found}))
        return found

    def tests(self, validation: list[Drawn]) -> list[Drawn]:
        return validation


# --------------------------------------------------------------------------------------------------------------
# SCAN by episodes

_NUMBERS = tuple(str(number) for number in range(1, 21))


class ScanEpisodes(Settings):
    """Episodes of SCAN commands under re-assigned meanings, on all of SCAN's structures."""

    support: Annotated[int, Field(ge=1, le=1000)] = 20
    queries: Annotated[int, Field(ge=1, le=1000)] = 20
    validation: Annotated[int, Field(ge=1, le=1000)] = 5
    """The number of validation episodes, all with SCAN's own meanings."""

    slots: ClassVar[dict[str, str]] = PRIMITIVES
    """The words that change their meaning, with their meaning in SCAN."""
    more: ClassVar[tuple[Words, Words]] = ((), ())
    """Further words and actions with which slots are filled."""
    reserved_word: ClassVar[str | None] = None
    """The word whose meaning training must not use; None where the meanings of all words together count."""
    test_split: ClassVar[str] = "addprim_jump"
    test_support: ClassVar[Words | None] = tuple(PRIMITIVES)
    """The commands of the test's support set; None to use the support sets of the validation episodes."""

    def build(self, pairs: tuple[list[Pair], list[Pair]] | None = None) -> Benchmark:
        return _ScanEpisodes(self)

    def pools(self, lengths: Int, training: bool) -> tuple[Int, Int]:
        """The commands from which support sets and queries are drawn, given each command's number of actions.

        Where the two are the same object, no command is drawn for both.
        """
        every = np.arange(len(lengths))
        return every, every


class ScanPrimPermutation(ScanEpisodes):
    """The meanings of the four primitives are permuted; the test is "jump" in longer commands (experiment 2)."""

    name: Literal["scan_prim_permutation"]


class ScanPrimAugmentation(ScanEpisodes):
    """Twenty more words and actions replace the four primitives; the test is "jump" (experiment 3)."""

    name: Literal["scan_prim_augmentation"]
    more = (_NUMBERS, tuple(f"I_{number}" for number in _NUMBERS))
    reserved_word = "jump"


class ScanAroundRight(ScanEpisodes):
    """There are four directions instead of left and right; the test is "around right" (experiment 4)."""

    name: Literal["scan_around_right"]
    slots = {"right": TURNS["right"], "left": TURNS["left"]}
    more = (("1", "2"), ("I_1", "I_2"))
    reserved_word = "right"
    test_split = "template_around_right"
    test_support = ("turn left", "turn right")


class ScanLength(ScanEpisodes):
    """Support sets have fewer than 12 actions, queries 12 to 22, the test 24 to 48 (experiment 5)."""

    name: Literal["scan_length"]
    support: Annotated[int, Field(ge=1, le=1000)] = 100
    more = ScanPrimAugmentation.more
    test_split = "length"
    test_support = None

    def pools(self, lengths: Int, training: bool) -> tuple[Int, Int]:
        short, rest = np.flatnonzero(lengths < 12), np.flatnonzero((lengths >= 12) & (lengths <= 22))
        if training:
            return short, rest
        return np.concatenate([short, rest]), np.flatnonzero(lengths >= 24)


class _ScanEpisodes:
    def __init__(self, settings: ScanEpisodes) -> None:
        self.settings = settings
        words, actions = settings.more
        order = _LENGTH_ORDER if isinstance(settings, ScanLength) else (COMMAND_WORDS, ACTIONS)
        self.commands, self.actions = Vocabulary(order[0] + words), Vocabulary(order[1] + actions)
        self.words, self.meanings = (*settings.slots, *words), (*settings.slots.values(), *actions)
        self.pairs = _all_pairs(self.commands.symbols, self.actions.symbols)
        self.pools = {training: settings.pools(self.pairs.action_lengths - 1, training) for training in (True, False)}

    def draw(self, rng: np.random.Generator) -> Drawn:
        slots, meanings = tuple(self.settings.slots), tuple(self.settings.slots.values())
        words = tuple(self.words[index] for index in rng.permutation(len(self.words))[: len(slots)])
        actions = tuple(self.meanings[index] for index in rng.permutation(len(self.meanings))[: len(slots)])
        tables = self.commands.replacing(slots, words), self.actions.replacing(meanings, actions)
        support, query = self._rows(rng, training=True)
        return Drawn(
            self.pairs.take(support, *tables), self.pairs.take(query, *tables), self._identifier(words, actions)
        )

    def _rows(self, rng: np.random.Generator, training: bool) -> tuple[Int, Int]:
        wanted = self.settings.support, self.settings.queries
        pools = self.pools[training]
        if pools[0] is pools[1]:
            rows = pools[0][rng.choice(len(pools[0]), sum(wanted), replace=False)]
            return rows[: wanted[0]], rows[wanted[0] :]
        support, query = (pool[rng.choice(len(pool), n, replace=False)] for pool, n in zip(pools, wanted, strict=True))
        return support, query

    def _identifier(self, words: Words, actions: Words) -> str:
        reserved_word = self.settings.reserved_word
        if reserved_word is None:
            return _identifier(words, actions)
        at = words.index(reserved_word) if reserved_word in words else None
        return f"no {reserved_word}" if at is None else _identifier((reserved_word,), (actions[at],))

    def validation(self, rng: np.random.Generator) -> list[Drawn]:
        slots = self.settings.slots
        identifier = self._identifier(tuple(slots), tuple(slots.values()))
        drawn = [self._rows(rng, training=False) for _ in range(self.settings.validation)]
        return [Drawn(self.pairs.take(support), self.pairs.take(query), identifier) for support, query in drawn]

    def tests(self, validation: list[Drawn]) -> list[Drawn]:
        _, test = scan.split(self.settings.test_split)
        query = Pairs.of(test, self.commands, self.actions)
        if self.settings.test_support is None:
            return [Drawn(drawn.support, query) for drawn in validation]
        shown = [(tuple(command.split()), scan.interpret(command)) for command in self.settings.test_support]
        return [Drawn(Pairs.of(shown, self.commands, self.actions), query)]


_LENGTH_ORDER = (
    ("walk", "jump", "look", "turn", "right", "run", "left", "after", "twice", "opposite", "and", "thrice", "around"),
    ("I_WALK", "I_JUMP", "I_LOOK", "I_TURN_RIGHT", "I_RUN", "I_TURN_LEFT"),
)
"""The order of symbols in the files of the length split, which number that experiment's symbols."""


@functools.lru_cache(maxsize=4)
def _all_pairs(commands: Words, actions: Words) -> Pairs:
    return Pairs.of(scan.all_pairs(), Vocabulary(commands), Vocabulary(actions))


# --------------------------------------------------------------------------------------------------------------
# SCAN by commands


class ScanSplit(Settings):
    """One of SCAN's own splits for standard networks: an episode is a batch of training pairs without a support set."""

    kind = "split"

    name: Literal["scan_split"]
    split: Literal["simple", *scan.SPLITS]  # type: ignore[valid-type]
    """``simple`` is read from its official files; the grammar makes all others."""
    queries: Annotated[int, Field(ge=1, le=100_000)] = 40
    """The number of pairs of a batch, drawn with replacement; pairs that the files repeat are more frequent."""

    @property
    def file_split(self) -> str | None:
        return "simple" if self.split == "simple" else None

    def build(self, pairs: tuple[list[Pair], list[Pair]] | None = None) -> Benchmark:
        """Build the benchmark.

        Args:
            pairs: the training and test pairs, where files define them.
        """
        return _ScanSplit(self, pairs or scan.split(self.split))


class _ScanSplit:
    def __init__(self, settings: ScanSplit, pairs: tuple[list[Pair], list[Pair]]) -> None:
        self.settings = settings
        self.commands, self.actions = Vocabulary(COMMAND_WORDS), Vocabulary(ACTIONS)
        self.train, self.test = (Pairs.of(part, self.commands, self.actions) for part in pairs)

    def draw(self, rng: np.random.Generator) -> Drawn:
        return Drawn(None, self.train.take(rng.integers(len(self.train), size=self.settings.queries)))

    def validation(self, rng: np.random.Generator) -> list[Drawn]:
        return []

    def tests(self, validation: list[Drawn]) -> list[Drawn]:
        return [Drawn(None, self.test)]


BENCHMARKS: Registry[Any] = Registry(
    "clray.episodes",
    {
        "mutual_exclusivity": "benchmarks:MutualExclusivity",
        "scan_prim_permutation": "benchmarks:ScanPrimPermutation",
        "scan_prim_augmentation": "benchmarks:ScanPrimAugmentation",
        "scan_around_right": "benchmarks:ScanAroundRight",
        "scan_length": "benchmarks:ScanLength",
        "scan_split": "benchmarks:ScanSplit",
    },
    base="clray.episodes.benchmarks:Settings",
    group="clray.benchmarks",
)
"""The settings of each benchmark, by its name; they build the benchmark."""
