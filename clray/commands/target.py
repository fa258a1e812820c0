"""What a command is about: a reproduction or a sweep, and the store and terminal it is shown with."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clray.errors import DeclarationError

if TYPE_CHECKING:
    from rich.console import Console

    from clray.analysis.tables import Comparison
    from clray.results import Store
    from clray.spec import Reproduction, Selection, Sweep


@dataclass(frozen=True)
class Target:
    """What a command is about: a reproduction with its sweeps, or one sweep."""

    name: str
    sweeps: dict[str, Sweep]
    reproduction: Reproduction | None
    selection: Selection
    file: str = ""
    """What was typed: the name, or a sweep file's path."""

    @property
    def comparable(self) -> bool:
        return all(sweep.comparable for sweep in self.sweeps.values())

    def compare(self, store: Store) -> Comparison:
        from clray.analysis.tables import compare
        from clray.execution import made_by_this_code

        return compare(self.name, self.sweeps, store, self.reproduction, made_by_this_code)


def selected(quick: bool, only: list[str] | None, seeds: str | None, set_: list[str] | None) -> Selection:
    """What ``--quick --only --seeds --set`` ask for.

    Raises:
        DeclarationError: a flag names no variant, or no seeds.
    """
    from clray.documents import shorter
    from clray.spec import Selection

    variants = tuple(name for item in only or () for name in item.split(",") if name)
    if only and not variants:
        raise DeclarationError(f"--only {shlex.quote(','.join(only))}: expected names of variants with commas between")
    try:
        numbers = () if seeds is None else tuple(int(seed) for seed in seeds.split(","))
    except ValueError:
        flag = f"--seeds {shlex.quote(shorter(seeds))}"
        raise DeclarationError(f"{flag}: expected whole numbers with commas between, such as 0,1,2") from None
    return Selection(quick, variants, numbers, tuple(set_ or ()))


def target_of(name: str, selection: Selection) -> Target:
    """The reproduction, sweep or sweep file of this name.

    Raises:
        DeclarationError: there is none, or it is wrong.
    """
    from clray.documents import is_there, one_of, shorter
    from clray.spec import load_reproduction, load_sweep, reproduction_names, sweep_names

    if name in reproduction_names():
        reproduction = load_reproduction(name)
        return Target(name, reproduction.sweeps(selection), reproduction, selection, name)
    shipped = name.removeprefix("sweeps/").removesuffix(".yaml") in sweep_names()
    if not name or not (shipped or is_there(Path(name))):
        every = [*reproduction_names(), *sweep_names()]
        raise DeclarationError(
            f"{shorter(name) or repr(name)}: no such reproduction, sweep or file; {one_of(name, every)}"
        )
    sweep = load_sweep(name, selection)
    return Target(sweep.name, {sweep.name: sweep}, None, selection, name)


def terminal() -> Console:
    """What is printed on."""
    from rich.console import Console

    # Bound to today's stdout: while Ray runs, what others print is sent elsewhere.
    return Console(file=sys.stdout, highlight=False)


def store_at(uri: str) -> Store:
    """The results store that ``--results`` names."""
    from clray.commands.answers import opened

    return opened(uri)
