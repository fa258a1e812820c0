"""The published data of a task: its files in one or more forms, and the reader of each form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from clray.language.datasets.files import Files
from clray.language.examples import Example

Splits = tuple[list[Example], list[Example], list[Example]]
"""The examples for training, development and test; where a task has only two sets, dev and test are one list."""


@dataclass(frozen=True)
class Form:
    """One form in which a task's data is published.

    Attributes:
        folder: the folder of its files, below the folder of all tasks.
        files: the SHA-256 of each file by its name; None where it is not known. A file may be compressed with gzip; its
            name is then ``NAME.gz``, and the checksum is that of the decompressed content.
        read: reads the examples in these files, and raises ``DataError`` where a file is damaged or not the published
            one.
        inner: the folder of the published archive that contains the files; they are also found in it.
        members: where the first file is an archive, the names, without folders, of the files that ``read`` needs.
        addresses: the address of each file, where clray can download it; else empty.
        partial: the reason why this is not LAMOL's data; numbers from it are not judged against a paper.
        unverified: the part that could not be verified, although the data is complete.
        sizes: the numbers of examples for training, development and test, where they differ from those of
            ``clray.language.tasks``.
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
        """True where the SHA-256 of every file is known."""
        return None not in self.files.values()


@dataclass(frozen=True)
class Published:
    """A task's data as published.

    Attributes:
        origin: the address of its source, for people.
        forms: the forms that clray reads, the preferred one first.
        advice: how to get it, where it is missing and clray cannot download it.
    """

    origin: str
    forms: tuple[Form, ...]
    advice: str = ""

    @property
    def download(self) -> Form | None:
        """The form that ``fetch`` downloads."""
        return next((form for form in self.forms if form.addresses), None)
