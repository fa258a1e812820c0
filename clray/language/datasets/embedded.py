"""Three small tasks from SCAN's grammar, without files: a command's actions, its first action, and their number.

All three have the same 1,000 commands for training and the same 200 others for the test, drawn with seed 0 from those
with at most twelve actions. They show on any machine that learning one task disturbs another; no paper has numbers for
them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from clray.episodes import scan
from clray.language.examples import Example, TaskData

TRAIN, TEST, LONGEST = 1_000, 200, 12

Actions = tuple[str, ...]
_ASKED: dict[str, tuple[str, Callable[[Actions], str]]] = {
    "scan.actions": ("What are the actions?", " ".join),
    "scan.first": ("What is the first action?", lambda actions: actions[0]),
    "scan.count": ("How many actions are there?", lambda actions: str(len(actions))),
}
TASKS = tuple(_ASKED)


@functools.cache
def load(task: str) -> TaskData:
    """Make a task's examples."""
    question, answered = _ASKED[task]
    pairs = [pair for pair in scan.all_pairs() if len(pair[1]) <= LONGEST]
    order = np.random.RandomState(0).permutation(len(pairs))  # the same in every version of NumPy
    train, test = (
        [
            Example(" ".join(pairs[i][0]), question, (answered(pairs[i][1]),), f"{split}_{number}")
            for number, i in enumerate(chosen)
        ]
        for split, chosen in (("train", order[:TRAIN]), ("test", order[TRAIN : TRAIN + TEST]))
    )
    return TaskData(task, train, test, test)
