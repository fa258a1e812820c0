"""Replay memories. They hold the numbers of examples; the images themselves are held once, in the stream.

Values that a method stores beside an example, such as its logits, are in fields: ``memory.fields["logits"][slots]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Law = Literal["mer", "batch", "batch_before", "exact"]
Numbers = NDArray[np.int64]
"""As in ``clray.vision.stream``, which loads torch: a plan that looks at a method must not."""


class _Draws(Protocol):
    """The draws that memories make: a part of ``clray.vision.draws.Draws``."""

    def with_replacement(self, filled: int, count: int) -> NDArray[np.int64]: ...
    def without_replacement(self, filled: int, count: int) -> NDArray[np.int64]: ...
    def up_to(self, highest: int) -> int: ...
    def below(self, highest: int, count: int) -> NDArray[np.int64]: ...
    def below_each(self, highest: NDArray[np.int64]) -> NDArray[np.int64]: ...


class Reservoir:
    """A memory that holds a uniform sample of the examples it was offered (Vitter 1985; MER, Algorithm 3).

    ``law`` says how an example gets a slot when the memory is full:

    - ``mer``: one draw for each example from [0, seen], both ends included, where ``seen`` counts the example itself.
      The range is larger by one than in Vitter's Algorithm R, as in MER's official code.
    - ``batch``: one draw for all slots of a batch from [0, seen), where ``seen`` counts the examples offered before the
      batch, and in the batch that fills the memory those of it that were stored. So a batch's later examples are kept
      a little too often. The official codes of TAG, ER, MIR, SCR, PCR and OnPro do this.
    - ``batch_before``: the same, but in the batch that fills the memory, too, only those before it count, as in the
      code of ER-ACE's authors.
    - ``exact``: Algorithm R: a draw for each example from [0, seen), where ``seen`` counts the example itself, as in
      Mammoth (DER++).

    Args:
        capacity: number of slots.
        draws: the trial's random draws.
        law: one of the laws above.
        fields: the shape of the value stored beside each example, by the name of the field; values are float32.
        device: where the fields' values are.
    """

    def __init__(
        self,
        capacity: int,
        draws: _Draws,
        law: Law,
        fields: dict[str, tuple[int, ...]] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if law not in get_args(Law):
            raise ValueError(f"law: {law!r} is none of {', '.join(get_args(Law))}")
        self.capacity, self.seen, self._draws, self._law = capacity, 0, draws, law
        self._numbers: Numbers = np.empty(capacity, np.int64)
        self.fields: dict[str, Tensor] = {}
        """[capacity, ...] of each field, on the device."""
        if fields:
            import torch

            self.fields = {name: torch.zeros((capacity, *shape), device=device) for name, shape in fields.items()}

    def __len__(self) -> int:
        return min(self.seen, self.capacity)

    @property
    def numbers(self) -> Numbers:
        """The numbers of the stored examples, by slot."""
        return self._numbers[: len(self)]

    def slots(self, count: int, among: Numbers | None = None) -> Numbers:
        """Draw ``count`` different slots; where there are fewer, return all of them in order.

        Args:
            among: the slots from which to draw; by default all that hold an example.
        """
        filled = len(self) if among is None else len(among)
        drawn = np.arange(filled) if filled < count else self._draws.without_replacement(filled, count)
        return drawn if among is None else among[drawn]

    def draw_with_replacement(self, count: int) -> Numbers:
        """Draw the numbers of ``min(count, len(self))`` stored examples uniformly, with replacement."""
        return self._numbers[self._draws.with_replacement(len(self), count)]

    def draw(self, count: int) -> Numbers:
        """Draw the numbers of ``count`` stored examples from different slots; where there are fewer, return all."""
        return self._numbers[self.slots(count)]

    def add(self, number: int) -> int | None:
        """Offer one example to the memory, by the law ``mer``.

        Returns:
            The number of the example whose place it took, if there is one.
        """
        filled = len(self)
        self.seen += 1
        if filled < self.capacity:
            self._numbers[filled] = number
            return None
        slot = self._draws.up_to(self.seen)
        if slot >= self.capacity:
            return None
        replaced = int(self._numbers[slot])
        self._numbers[slot] = number
        return replaced

    def add_batch(self, numbers: Numbers, **fields: Tensor) -> None:
        """Offer a batch of examples to the memory, with the values [n, ...] of its fields."""
        if self._law == "mer":
            raise ValueError("the law mer takes one example at a time: use add")
        slots = self._slots_for(len(numbers))
        kept = np.flatnonzero(slots < self.capacity)
        # Of two examples for one slot the later one stays. A tensor's own indexing does not promise that.
        written, last = np.unique(slots[kept][::-1], return_index=True)
        chosen = kept[::-1][last]
        self._numbers[written] = numbers[chosen]
        for name, values in fields.items():
            self.fields[name][written] = values[chosen]

    def _slots_for(self, count: int) -> Numbers:
        """The slot of each of the next ``count`` examples; those from ``capacity`` on mean that it is not stored."""
        before, filled = self.seen, len(self)
        room = min(self.capacity - filled, count)
        self.seen += count
        slots = np.arange(filled, filled + room)
        if room == count:
            return slots
        if self._law == "exact":
            drawn = self._draws.below_each(np.arange(before + room + 1, before + count + 1))
        else:
            counted = before if self._law == "batch_before" else before + room
            drawn = self._draws.below(max(counted, 1), count - room)
        return np.concatenate([slots, drawn])

    def state_dict(self) -> dict[str, Any]:
        kept = {name: values[: len(self)].clone() for name, values in self.fields.items()}
        return {"seen": self.seen, "numbers": self.numbers.copy(), "fields": kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if len(state["numbers"]) != min(state["seen"], self.capacity) or set(state["fields"]) != set(self.fields):
            raise ValueError("the state is of another memory")
        self.seen = state["seen"]
        self._numbers[: len(self)] = state["numbers"]
        for name, values in state["fields"].items():
            self.fields[name][: len(self)] = values


class Ring:
    """The last examples of each of several groups: of each task, or of each class of each task.

    Args:
        groups: number of groups.
        capacity: number of examples stored for each group.
        shared_pointer: use one write position for all groups, which is not reset between them, as GEM's and MER's codes
            do.
    """

    def __init__(self, groups: int, capacity: int, shared_pointer: bool = False) -> None:
        self.capacity = capacity
        self.numbers: Numbers = np.full((groups, capacity), -1, np.int64)
        """[groups, capacity], -1 where no example has come."""
        self._pointers: NDArray[np.int64] = np.zeros(1 if shared_pointer else groups, np.int64)

    def add(self, group: int, number: int) -> None:
        pointer = group if len(self._pointers) > 1 else 0
        place = self._pointers[pointer]
        self.numbers[group, place] = number
        self._pointers[pointer] = (place + 1) % self.capacity

    def of(self, groups: list[int]) -> Numbers:
        """The numbers [n] of all examples stored for these groups."""
        kept = self.numbers[groups].ravel()
        return kept[kept >= 0]

    def state_dict(self) -> dict[str, Any]:
        return {"numbers": self.numbers.copy(), "pointers": self._pointers.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        numbers, pointers = (np.asarray(state[key], np.int64) for key in ("numbers", "pointers"))
        if numbers.shape != self.numbers.shape or pointers.shape != self._pointers.shape:
            raise ValueError("the state is of another memory")
        self.numbers, self._pointers = numbers.copy(), pointers.copy()
