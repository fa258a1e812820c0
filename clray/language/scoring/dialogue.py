"""Dialogue state: the user's wishes so far, turn by turn (WOZ 2.0; Wen et al. 2017, Mrkšić et al. 2017).

A turn's answer is ``slot: value, slot: value; request, request``: its changes of the state, and its requests.
LAMOL's dsEM is ``joint_goal_em``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from clray.errors import DataError
from clray.language.examples import Example


class Turn(NamedTuple):
    """The content of a turn's answer.

    Attributes:
        inform: the slots that it sets, with their values.
        request: its requests, in order. None where the answer is empty or cannot be parsed, which differs from the
            ``[""]`` of an answer that ends with its semicolon.
    """

    inform: dict[str, str]
    request: list[str] | None


def read_turn(answer: str) -> Turn:
    """Parse an answer; one without the form ``inform; request`` gives an empty turn."""
    halves = answer.split(";")
    if len(halves) != 2 or answer.strip() == ";":
        return Turn({}, None)
    inform, request = ([part.strip() for part in half.split(",")] for half in halves)
    pairs = [part.split(":") for part in inform]
    return Turn({pair[0].strip(): pair[1].strip() for pair in pairs if len(pair) == 2}, request)


def measure(predictions: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """The percentages of turns with the correct state (``joint_goal_em``), requests and changes.

    The state accumulates over a dialogue's turns, in the turns' order and not in that of the examples. After a wrong
    turn the following turns are wrong until the slot is set again.
    """
    turns = sorted(zip(map(_place, examples), predictions, examples, strict=True), key=lambda turn: turn[0])
    joint = requests = changes = 0
    dialogue, state, right_state = "", {}, {}  # type: str, dict[str, str], dict[str, str]
    for (name, _), prediction, example in turns:
        if name != dialogue:
            dialogue, state, right_state = name, {}, {}
        said, meant = read_turn(prediction), read_turn(example.gold)
        state |= said.inform
        right_state |= meant.inform
        joint += state == right_state
        requests += said.request == meant.request
        changes += said.inform == meant.inform
    joint_goal, request, goal = (count / len(turns) * 100 for count in (joint, requests, changes))
    return {
        "joint_goal_em": joint_goal,
        "turn_request_em": request,
        "turn_goal_em": goal,
        "avg_dialogue": (joint_goal + request) / 2,
    }


def _place(example: Example) -> tuple[str, int]:
    """The dialogue of a turn, and the turn's number in it."""
    dialogue, _, turn = example.id.rpartition("_")
    if not dialogue or not turn.isdecimal():
        raise DataError(f"example {example.id}: the id of a dialogue's turn must be <dialogue>_<turn>")
    return dialogue, int(turn)
