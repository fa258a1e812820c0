"""The orders in which a sweep's tasks come: given, drawn at random, or all that there are."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from clray.documents import Declared
from clray.grid import MOST_TRIALS

MOST_PLACES = 2_000_000
"""The most entries in all task orders of a variant together: orders times tasks."""

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""A seed that every generator accepts, numpy's older one included."""


class RandomOrders(Declared):
    """Task orders drawn at random, as ``{random: 5, seed: 0}``; they differ from each other."""

    random: Annotated[int, Field(ge=1, le=MOST_TRIALS)]
    seed: Seed = 0

    def draw(self, tasks: int) -> list[list[int]]:
        """Draw orders of so many tasks, all different.

        Raises:
            ValueError: so many tasks do not have that many different orders.
        """
        there_are = math.factorial(min(tasks, 20))
        if self.random > there_are:
            raise ValueError(f"{tasks} tasks have no more than {there_are} different orders (random is {self.random})")
        rng = np.random.default_rng(np.random.SeedSequence(self.seed))
        drawn: dict[tuple[int, ...], None] = {}
        while len(drawn) < self.random:
            drawn[tuple(rng.permutation(tasks).tolist())] = None
        return [list(order) for order in drawn]


MOST_TASKS_OF_ALL = 8
"""The most tasks of which ``task_orders: all`` takes all orders: 8 have 40,320, and 9 more than ``MOST_TRIALS``."""

Order = Literal["identity"] | list[int | str]
