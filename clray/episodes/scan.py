"""SCAN (Lake and Baroni 2018): its grammar, the meaning of commands, and the splits that are rules about commands.

    C -> S | S and S | S after S            S -> V | V twice | V thrice
    V -> u | x d | x opposite d | x around d          u: walk look run jump; x: u or turn; d: left right

This gives 34 V, 102 S and 20,910 commands. The sets of a split are exact, but the order of the official files' lines
cannot be derived. The split ``simple`` was drawn at random; ``clray.episodes.data`` reads it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

PRIMITIVES = {"walk": "I_WALK", "look": "I_LOOK", "run": "I_RUN", "jump": "I_JUMP"}
TURNS = {"left": "I_TURN_LEFT", "right": "I_TURN_RIGHT"}

COMMAND_WORDS = (
    "walk", "opposite", "right", "thrice", "after", "run", "turn", "around", "twice", "look", "left", "and", "jump",
)  # fmt: skip
ACTIONS = ("I_TURN_RIGHT", "I_RUN", "I_WALK", "I_TURN_LEFT", "I_LOOK", "I_JUMP")
"""The words and the actions in the order of their first appearance in tasks.txt, as the official code numbers them."""

Words = tuple[str, ...]
Pair = tuple[Words, Words]
"""A command and its actions."""


def interpret(command: str | Words) -> Words:
    """The actions that a command stands for.

    Raises:
        ValueError: the grammar does not make this command.
    """
    words = tuple(command.split()) if isinstance(command, str) else command
    for conjunction in ("and", "after"):
        if words.count(conjunction) == 1:
            at = words.index(conjunction)
            first, second = _repeated(words[:at]), _repeated(words[at + 1 :])
            return first + second if conjunction == "and" else second + first
    return _repeated(words)


def _repeated(words: Words) -> Words:
    """[[V twice]] = [[V]] [[V]]"""
    times = {"twice": 2, "thrice": 3}.get(words[-1], 1) if words else 1
    return _phrase(words[:-1] if times > 1 else words) * times


def _phrase(words: Words) -> Words:
    """[[V]]: T is the turn, and A the primitive's action; "turn" has no action."""
    match words:
        case (verb,) if verb in PRIMITIVES:
            return (PRIMITIVES[verb],)
        case (verb, *how, direction) if (verb in PRIMITIVES or verb == "turn") and direction in TURNS:
            turn, act = (TURNS[direction],), (PRIMITIVES[verb],) if verb != "turn" else ()
            match how:
                case []:
                    return turn + act
                case ["opposite"]:
                    return turn + turn + act
                case ["around"]:
                    return (turn + act) * 4
    raise ValueError(f"{' '.join(words)!r}: SCAN's grammar has no such phrase")


@functools.cache
def all_pairs() -> tuple[Pair, ...]:
    """All 20,910 commands with their actions, in the order of the grammar."""
    phrases: list[Words] = [(verb,) for verb in PRIMITIVES]
    for verb, how, direction in itertools.product([*PRIMITIVES, "turn"], ((), ("opposite",), ("around",)), TURNS):
        phrases.append((verb, *how, direction))
    sentences = [phrase + times for phrase in phrases for times in ((), ("twice",), ("thrice",))]
    meaning = {sentence: _repeated(sentence) for sentence in sentences}
    pairs = list(meaning.items())
    for first, second in itertools.product(sentences, repeat=2):
        pairs.append(((*first, "and", *second), meaning[first] + meaning[second]))
        pairs.append(((*first, "after", *second), meaning[second] + meaning[first]))
    return tuple(pairs)


def split(name: str) -> tuple[list[Pair], list[Pair]]:
    """The training and test pairs of one of ``SPLITS``. Pairs that the official file repeats are repeated.

    Raises:
        KeyError: the grammar does not determine such a split.
    """
    train_rule, test_rule, repeated = SPLITS[name]
    pairs = all_pairs()
    train = [pair for pair in pairs if train_rule(pair)]
    test = [pair for pair in pairs if test_rule(pair)]
    if repeated:
        command, times = repeated
        train += [(tuple(command.split()), interpret(command))] * times
    return train, test


Rule = Callable[[Pair], bool]


def _has(phrase: str) -> Rule:
    """A rule: the command contains these words one after the other; ``*`` is any primitive."""
    wanted = [f" {phrase.replace('*', verb)} " for verb in (PRIMITIVES if "*" in phrase else "*")]

    def has(pair: Pair) -> bool:
        text = f" {' '.join(pair[0])} "
        return any(words in text for words in wanted)

    return has


def _without(*phrases: str) -> Rule:
    banned = [_has(phrase) for phrase in phrases]
    return lambda pair: not any(has(pair) for has in banned)


def _only(phrase: str, *but: str) -> Rule:
    has, lacks = _has(phrase), _without(*but)
    return lambda pair: has(pair) and lacks(pair)


def _isolated(phrase: str) -> Rule:
    """A rule: the phrase is inside a longer command."""
    has, alone = _has(phrase), tuple(phrase.split())
    return lambda pair: has(pair) and pair[0] != alone


def _filled(*fillers: str) -> Rule:
    """A rule: "around right" follows only the fillers, and never "turn"."""
    banned = [f"{verb} around right" for verb in (*PRIMITIVES, "turn") if verb not in fillers]
    return _without(*banned)


_JUMP_AROUND_RIGHT = _only("jump around right", "turn around right")

SPLITS: dict[str, tuple[Rule, Rule, tuple[str, int] | None]] = {
    "length": (lambda pair: len(pair[1]) <= 22, lambda pair: len(pair[1]) >= 24, None),
    "addprim_jump": (_without("jump"), _isolated("jump"), ("jump", 1467)),
    "addprim_turn_left": (_without("turn left"), _isolated("turn left"), ("turn left", 2189)),
    "template_around_right": (_without("around right"), _only("around right", "turn around right"), None),
    "template_opposite_right": (_without("opposite right"), _only("opposite right", "turn opposite right"), None),
    "template_right": (_without("* right", "turn right"), _only("* right", "turn right"), None),
    "template_jump_around_right": (_without("jump around right", "turn around right"), _JUMP_AROUND_RIGHT, None),
    "filler_num0": (_filled(), _JUMP_AROUND_RIGHT, None),
    "filler_num1": (_filled("look"), _JUMP_AROUND_RIGHT, None),
    "filler_num2": (_filled("look", "walk"), _JUMP_AROUND_RIGHT, None),
    "filler_num3": (_filled("look", "walk", "run"), _JUMP_AROUND_RIGHT, None),
}
"""The rules of each split: the pairs for training, those for the test, and a command that the training file repeats."""
