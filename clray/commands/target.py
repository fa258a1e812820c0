"""The target of a command: a reproduction or a sweep. Also the store and the terminal that a command uses."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clray.errors import ClrayError, DeclarationError
from clray.output import json_text, redacted, say, to_json

if TYPE_CHECKING:
    from clray.analysis import Comparison
    from clray.analysis.comparison import Shown
    from clray.console import PlainConsole
    from clray.planning import Plan
    from clray.record import Record
    from clray.reproduction import Reproduction
    from clray.selection import Selection
    from clray.store import Store
    from clray.sweep import Sweep

RESULTS = "results"
"""The store where none is named."""
MOST_SEEDS = 10_000
"""The most seeds of a range."""
ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Target:
    """The target of a command: a reproduction with its sweeps, or one sweep."""

    name: str
    sweeps: dict[str, Sweep]
    reproduction: Reproduction | None
    selection: Selection
    file: str = ""
    """The argument as it was typed: the name, or a sweep file's path."""
    results: str = RESULTS
    """The store that was named."""

    @property
    def comparable(self) -> bool:
        return all(sweep.comparable for sweep in self.sweeps.values())

    def compare(self, store: Store, shown: Shown | None = "own") -> Comparison:
        """Compare the store's runs with the published numbers.

        Args:
            shown: the runs to show; None for the reference runs where the store has none of its own.

        Raises:
            DeclarationError: reference runs are asked for, and there are none.
        """
        from clray import reference_runs
        from clray.analysis import compare
        from clray.provenance import is_fresh

        reference = self._reference
        if shown in ("reference", "both") and not reference:
            with_some = ", ".join(reference_runs.names())
            raise DeclarationError(
                f"--records {shown}: no reference runs of {self.name} ship with clray; allowed: own, or a target with "
                f"reference runs: a sweep that has their trials, or one of {with_some or 'none'}"
            )
        return replace(
            compare(self.name, self.sweeps, store, self.reproduction, is_fresh, reference, shown),
            arguments=f"{self.arguments}{self.in_store}",
        )

    def plan(self, store: Store, download: bool = False) -> Plan:
        """Look up its trials in the store; see ``clray.planning.plan``.

        Raises:
            DataError: the data that a sweep insists on cannot be had.
        """
        from clray import planning, reference_runs

        reference = reference_runs.read(self.name, measurements=False) if self._ships else ()
        return planning.plan(self.sweeps, store, download, reference)

    @property
    def _ships(self) -> bool:
        """True for a reproduction of clray's; a file of one's own may have the same name."""
        return self.reproduction is not None and self.file == self.name

    @cached_property
    def _reference(self) -> list[Record]:
        """The reference runs of a reproduction; of a sweep, those of its trials that any reproduction has."""
        from clray import reference_runs

        return reference_runs.read(self.name) if self._ships else reference_runs.of(self._declared)

    @cached_property
    def _declared(self) -> set[str]:
        return {cell.trial.declaration for sweep in self.sweeps.values() for cell in sweep.cells}

    @property
    def reference_count(self) -> int:
        """The number of its trials that have a reference run."""
        return sum(record.trial.declaration in self._declared for record in self._reference)

    @property
    def arguments(self) -> str:
        """The arguments that select the same target again in a shell: the name or file, and the flags."""
        from clray.analysis import shell_flags

        # A file's name may begin with a dash.
        typed = self.file if not self.file.startswith("-") else f"./{self.file}"
        return " ".join([shlex.quote(typed), *shell_flags(self.selection)])

    @property
    def in_store(self) -> str:
        """The flag that names the store, with a space before it; empty for the default one."""
        return "" if self.results == RESULTS else f" --results {shlex.quote(redacted(self.results))}"

    @property
    def choosing(self) -> str | None:
        """The name of the command that runs the phase in which a sweep's settings are chosen; None where it has none.

        A reproduction runs such a phase itself.
        """
        if not self.reproduction:
            for sweep in self.sweeps.values():
                if sweep.tuning or sweep.search:
                    return "tune" if sweep.tuning else "search"
        return None

    @property
    def run(self) -> str:
        """The command that runs its trials."""
        verb = "python -m clray.reproduce" if self.reproduction else "clray sweep"
        return f"{verb} {self.arguments}{self.in_store}"


def selected(quick: bool, only: list[str] | None, seeds: str | None, set_: list[str] | None) -> Selection:
    """The selection of ``--quick --only --seeds --set``; ``target_of`` takes lists with commas in ``--only`` apart.

    Raises:
        DeclarationError: the seeds are not numbers, or an item is empty.
    """
    from clray.documents import shorter
    from clray.selection import Selection

    for item in only or ():
        if not any(name.strip() for name in item.split(",")):
            raise DeclarationError(f"--only {shlex.quote(item)}: names no variant; leave it out for all of them")
    keys = [item.partition("=")[0].strip() for item in set_ or ()]
    if twice := next((key for i, key in enumerate(keys) if key in keys[:i]), None):
        raise DeclarationError(f"--set {shorter(twice)}=…: given twice; allowed: one value for each key")
    try:
        numbers = tuple(n for part in seeds.split(",") for n in _seeds(part)) if seeds is not None else ()
    except ValueError:
        wanted = f"expected whole numbers with commas between, or a range, such as 0,1,2 or 0-4: at most {MOST_SEEDS:,}"
        raise DeclarationError(f"--seeds {shlex.quote(shorter(seeds or ''))}: {wanted}") from None
    return Selection(quick, tuple(only or ()), numbers, tuple(set_ or ()))


def _seeds(part: str) -> range:
    """The seeds of ``3`` or ``0-4``.

    Raises:
        ValueError: it is something else.
    """
    first, dash, last = part.strip().partition("-")
    if not dash or not first:  # -1 is a number: the sweep says that no seed is below zero
        return range(int(part), int(part) + 1)
    if not 0 <= int(last) - int(first) < MOST_SEEDS:
        raise ValueError(part)
    return range(int(first), int(last) + 1)


def _names(item: str, known: Collection[str]) -> Iterator[str]:
    """The variants that an item of ``--only`` names: those with commas in their own names are found first."""
    parts = item.split(",")
    while parts:
        for end in range(len(parts), 0, -1):
            name = ",".join(parts[:end])
            if name in known or end == 1:
                break
        if name in known or name.strip():
            yield name if name in known else name.strip()
        parts = parts[end:]


def target_of(name: str, selection: Selection, results: str = RESULTS, whole: bool = False) -> Target:
    """The reproduction, sweep or sweep file of this name.

    Args:
        selection: the flags; a list with commas in ``only`` is taken apart.
        results: the store that was named.
        whole: each item of ``only`` is the name of one variant, whatever commas it holds.

    Raises:
        DeclarationError: there is no such target, or its file is wrong.
    """
    from clray.documents import is_there, one_of, shorter
    from clray.loading import load_sweep, reproduction_names, sweep_names, variant_names
    from clray.reproduction import load_reproduction

    def split(known: Collection[str]) -> Selection:
        return replace(selection, only=tuple(v for item in selection.only for v in _names(item, known)))

    commas = not whole and any("," in item for item in selection.only)
    own = name not in reproduction_names() and _is_reproduction(name)
    if own or name in reproduction_names():
        reproduction = load_reproduction(Path(name) if own else name)
        if commas:
            filled = {row.variant for table in reproduction.tables for row in table.rows}
            selection = split(filled | {row.variant for group in reproduction.searches for row in group.rows})
        return Target(reproduction.name, reproduction.sweeps(selection), reproduction, selection, name, results)
    shipped = name.removeprefix("sweeps/").removesuffix(".yaml") in sweep_names()
    if not name or not (shipped or is_there(Path(name))):
        every = [*reproduction_names(), *sweep_names()]
        known = _sweep_files_near(Path(name)) or one_of(name, every, "clray list")
        raise DeclarationError(f"{shorter(name) or repr(name)}: no such reproduction, sweep or file; {known}")
    if not shipped and os.path.isdir(name) and (inside := _sweep_files_near(Path(name, "sweep.yaml"))):
        raise DeclarationError(f"{shorter(name)}: is a folder; {inside}")
    if commas:
        selection = split(variant_names(name, selection))
    sweep = load_sweep(name, selection)
    return Target(sweep.name, {sweep.name: sweep}, None, selection, name, results)


def _is_reproduction(name: str) -> bool:
    """True for a file with the tables of a reproduction; a file that cannot be read is one of a sweep."""
    from clray.documents import Document

    try:
        return os.path.isfile(name) and not Document(Path(name)).data.keys().isdisjoint({"tables", "searches"})
    except ClrayError:
        return False


def _sweep_files_near(path: Path) -> str:
    """The end of an error message where a file was meant: the YAML files beside it; empty where there are none.

    The names that ship with clray fill a page, and are of no use to somebody who has mistyped a file of his own.
    """
    from clray.documents import one_of

    if not path.suffix.startswith(".y"):
        return ""
    try:
        beside = sorted(str(other) for other in path.parent.iterdir() if other.suffix in (".yaml", ".yml"))
    except (OSError, ValueError):
        return ""
    return one_of(str(path), beside) if beside else ""


def trial_id(text: str) -> str:
    """Check an id that the user typed.

    Raises:
        DeclarationError: no trial has such an id.
    """
    if not ID.fullmatch(text):
        raise DeclarationError(
            f"{text}: not the id of a trial; allowed: 16 of the letters 0-9 and a-f, as `clray plan --trials` prints"
        )
    return text


def terminal() -> PlainConsole:
    """The console that commands print on."""
    from clray.console import PlainConsole

    return PlainConsole()


def print_json(value: Any, console: PlainConsole) -> None:
    """Print a value as indented JSON, coloured where the terminal has colours."""
    from rich.highlighter import JSONHighlighter
    from rich.text import Text

    text = Text(json_text(json.dumps(value, indent=2, ensure_ascii=False)))
    JSONHighlighter().highlight(text)
    console.print(text, soft_wrap=True)


def say_json(value: Any) -> None:
    """Print a value as one JSON document and nothing else, for programs: the same on terminals and in pipes."""
    say(to_json(value))


def store_at(uri: str, reading: bool = False) -> Store:
    """The results store that ``--results`` names.

    Args:
        reading: the command only reads it, so that a folder that is not there was probably mistyped.

    Raises:
        DeclarationError: it names none.
    """
    from clray.commands.answers import opened

    require_named(uri)
    if reading:
        require_there(uri)
    if os.path.isfile(uri):
        raise DeclarationError(f"--results {redacted(uri)}: is a file; allowed: a folder, s3://…, gs://…")
    return opened(uri)


def require_there(uri: str) -> None:
    """Check, for a command that only reads, that a folder which was named is there; the default one need not be.

    Raises:
        DeclarationError: it is not.
    """
    if uri != RESULTS and "://" not in uri and not os.path.exists(uri):
        raise DeclarationError(f"--results {redacted(uri)}: no such folder; allowed: one that a launch has written")


def require_named(uri: str) -> None:
    """Check that ``--results`` is not empty.

    Raises:
        DeclarationError: it is.
    """
    if not uri.strip():
        raise DeclarationError(f"--results {uri!r}: names no store: a folder, s3://…, gs://…")
