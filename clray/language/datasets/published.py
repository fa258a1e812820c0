"""What is published of a task: its files, in one or more forms, and how each is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from clray.language.datasets.files import Files
from clray.language.records import Example

Splits = tuple[list[Example], list[Example], list[Example]]
"""Examples for training, development and test; where a task has only two sets, dev and test are one list."""


@dataclass(frozen=True)
class Form:
    """One form in which a task's data is published.

    Attributes:
        folder: where its files are, below the folder of all tasks.
        files: the SHA-256 of each file by its name; None where none is known. A file may be compressed with gzip: it is
            then called ``NAME.gz``, and the checksum is that of what it holds.
        read: the examples in these files. It raises ``DataError`` where a file is torn or foreign.
        inner: the folder in which the published archive holds the files; they are found there too.
        members: where the first of the files is an archive: the names, without folders, of what ``read`` takes from it.
        addresses: where clray can download each file; empty where it cannot.
        partial: why this is not the task's data as LAMOL has it; numbers from it are not judged against a paper.
        unverified: what nobody can vouch for, although the data is whole.
        sizes: examples for training, development and test, where they are not the ones of ``clray.language.tasks``.
    """

    folder: str
    files: dict[str, str | None]
    read: Callable[[Files], Splits]
    inner: str = ""
    members: tuple[str, ...] = ()
    addresses: dict[str, str] = field(default_factory=dict)
    partial: str = ""
    unverified: str = ""
    sizes: tuple[int, int, int] | None = None

    @property
    def checksummed(self) -> bool:
        """Whether the SHA-256 of every file is known."""
        return None not in self.files.values()


@dataclass(frozen=True)
class Published:
    """A task's data as published.

    Attributes:
        origin: where it comes from, for people: an address.
        forms: the forms clray reads, the preferred one first.
        advice: what to do where it is missing and clray cannot fetch it.
    """

    origin: str
    forms: tuple[Form, ...]
    advice: str = ""

    @property
    def download(self) -> Form | None:
        """The form that ``fetch`` downloads."""
        return next((form for form in self.forms if form.addresses), None)
