"""The part of a sweep that a command asked for, and where the values of a sweep were declared."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clray.documents import Document, dotted
from clray.trial import short_hash


@dataclass(frozen=True)
class Selection:
    """The part of a sweep that a command asked for, and what it changed: ``--quick --only --seeds --set``."""

    quick: bool = False
    only: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    set: tuple[str, ...] = ()
    only_flag: str = field(default="--only", compare=False)
    """The flag that named ``only``, for errors: ``clray run`` has another one."""

    @property
    def changes(self) -> tuple[str, ...]:
        """The flags that make the numbers another experiment than the declared one."""
        return (("--quick",) if self.quick else ()) + tuple(f"--set {item}" for item in self._changed)

    @property
    def _changed(self) -> tuple[str, ...]:
        """The items of ``--set`` that make other trials: neither resources, nor the files that trials keep."""
        return tuple(item for item in self.set if item.partition("=")[0] != "keep" and not _is_of_resources(item))

    @property
    def suffix(self) -> str:
        """Distinguishes the files made from this selection from those of the whole: empty for the whole.

        It is the same for selections of the same trials, in whatever order variants and seeds are named.
        """
        name = "-quick" if self.quick else ""
        if self.only or self.seeds or self._changed:
            name += "-" + short_hash([sorted(self.only), sorted(self.seeds), self._changed])[:6]
        return name


def named_by(item: str, known: Collection[str]) -> list[str]:
    """The names that an item of ``--only`` stands for: itself, or all that a pattern with ``*`` or ``?`` fits.

    Nothing where no name fits. A name that itself has such a letter stands for itself.
    """
    if item in known:
        return [item]
    if not re.search("[*?]", item):
        return []
    letters = {"*": ".*", "?": "."}  # not fnmatch, for which brackets are a pattern, too: names may have them
    pattern = re.compile("".join(letters.get(letter, re.escape(letter)) for letter in item), re.DOTALL)
    return [name for name in known if pattern.fullmatch(name)]


def _is_of_resources(item: str) -> bool:
    """True for a ``KEY=VALUE`` of ``--set`` that changes the resources of a sweep, or of one of its variants."""
    keys = item.partition("=")[0].split(".")
    return keys[0] == "resources" or (keys[0] == "variants" and keys[2:3] == ["resources"])


class Origin:
    """The places that declare the values of a sweep: its file, the quick form in that file, or a flag.

    Args:
        document: the file.
        selection: the flags.
        flags: for each flag that changed something, the path of keys that it changed and the flag as it was typed.
    """

    def __init__(self, document: Document, selection: Selection, flags: Sequence[tuple[tuple[str, ...], str]]) -> None:
        self._document, self._quick, self._flags = document, selection.quick, list(flags)

    def folder(self, keys: Sequence[Any]) -> Path:
        """The folder from which a path is taken that is declared there: the file's; for a flag the present one."""
        by_flag = any(tuple(keys[: len(at)]) == at for at, _ in self._flags)
        return Path() if by_flag else self._document.path.parent

    def has(self, keys: Sequence[Any]) -> bool:
        """True where a path of keys was declared."""
        return bool(
            any(tuple(keys[: len(at)]) == at for at, _ in self._flags)
            or (self._quick and self._document.has(("quick", *keys)))
            or self._document.has(keys)
        )

    def place(self, keys: Sequence[Any]) -> str:
        """A path of keys, after the flag or the line of the file that declares it."""
        for at, flag in reversed(self._flags):
            if tuple(keys[: len(at)]) == at:
                return f"{flag}: {dotted(keys)}"
        if self._quick and keys and self._document.has(("quick", *keys)):
            return self._document.place(("quick", *keys))
        return self._document.place(keys)
