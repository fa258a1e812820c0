"""Reading published files: as they are, compressed with gzip, or inside the published archive.

Whatever is wrong with one is a ``DataError`` that names the file and, wherever there is one, the line.
"""

from __future__ import annotations

import csv
import functools
import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clray.data_files import is_file, reading
from clray.errors import DataError


class Text(NamedTuple):
    """A file's text, and what to call the file in a message."""

    where: str
    content: str

    def bad(self, line: int, what: str) -> DataError:
        return DataError(f"{self.where}, line {line}: {what}")

    def lines(self) -> list[tuple[int, str]]:
        """The lines with their numbers. Only a line feed ends one, not what else Unicode takes for an end."""
        content = self.content.replace("\r\n", "\n").replace("\r", "\n")
        return list(enumerate(content.removesuffix("\n").split("\n"), 1)) if content else []

    def rows(self, columns: Sequence[str], header: bool = False) -> Iterator[tuple[int, list[str]]]:
        """The rows of a table of comma-separated values, with the number of the line on which each begins.

        Args:
            columns: what they are; a row must have so many fields.
            header: the first row must be the columns' names.
        """
        reader, line = csv.reader(io.StringIO(self.content, newline=""), strict=True), 1
        try:
            for row in reader:
                if header and line == 1:
                    if row != list(columns):
                        raise self.bad(1, f"expected the columns {','.join(columns)}")
                elif len(row) != len(columns):
                    raise self.bad(line, f"{len(row)} fields, expected {len(columns)}: {', '.join(columns)}")
                else:
                    yield line, row
                line = reader.line_num + 1
        except csv.Error as error:
            raise self.bad(line, f"not comma-separated values: {error}") from None

    def json(self) -> Any:
        try:
            return json.loads(self.content)
        except json.JSONDecodeError as error:
            raise self.bad(error.lineno, f"not JSON: {error.msg}") from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self.where}: not JSON that can be read: {error}") from None

    def json_lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The objects of a file that has one a line, with the lines' numbers."""
        for number, line in self.lines():
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise self.bad(number, f"not JSON: {error.msg}") from None
            except (ValueError, RecursionError) as error:
                raise self.bad(number, f"not JSON that can be read: {error}") from None
            if not isinstance(value, dict):
                raise self.bad(number, f"expected an object, found {line:.40}")
            yield number, value


def field(value: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """A key's value in an object of JSON.

    Args:
        kind: what it must be.
        where: the place of the object, for the message.
    """
    if not isinstance(value, dict) or key not in value:
        raise DataError(f"{where}: no {key!r}")
    if not isinstance(value[key], kind):
        names = " or ".join(_JSON_NAMES[k] for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise DataError(f"{where}: {key!r} must be {names}, found {json.dumps(value[key])[:40]}")
    return value[key]


_JSON_NAMES = {str: "a string", list: "a list", dict: "an object", int: "a number"}


class Files:
    """The files of one form of a task, in one folder.

    Args:
        inner: the folder below it where they may be instead.
        archive: the name of the archive that holds them; empty where they lie in the folder.
        members: what of the archive will be read.
    """

    def __init__(self, folder: Path, inner: str = "", archive: str = "", members: Collection[str] = ()):
        self.folder, self.inner, self.archive, self.members = folder, inner, archive, members
        self.last = str(folder)
        """What was read last."""

    def text(self, name: str) -> Text:
        """The text of a file.

        Raises:
            DataError: it is not there, cannot be read, or is not UTF-8.
        """
        if self.archive:
            where, raw = f"{self.folder / self.archive}: {name}", self._member(name)
        else:
            path = located(self.folder, name, self.inner)
            if path is None:
                raise DataError(f"{self.folder / name}: no such file")
            where, raw = str(path), content(path)
        self.last = where
        return Text(where, decoded(where, raw))

    def _member(self, name: str) -> bytes:
        if name not in self._unpacked:
            raise DataError(f"{self.folder / self.archive}: it holds no {name}")
        return self._unpacked[name]

    @functools.cached_property
    def _unpacked(self) -> dict[str, bytes]:
        return dict(each(self.folder / self.archive, self.members))


def each(archive: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Files of an archive, one after the other as they stand in it: their names without folders, and content.

    Raises:
        DataError: the archive is torn or none.
    """
    with reading(archive):
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as zipped:
                for entry in zipped.infolist():
                    if Path(entry.filename).name in wanted:
                        yield Path(entry.filename).name, zipped.read(entry)
            return
        with tarfile.open(archive, "r|*") as packed:
            for member in packed:
                name = Path(member.name).name
                opened = packed.extractfile(member) if name in wanted and member.isfile() else None
                if opened is not None:
                    yield name, opened.read()


def located(folder: Path, name: str, inner: str = "", lies: Callable[[Path], bool] = is_file) -> Path | None:
    """Where a file is: in the folder or in the inner one, as it is or compressed.

    Args:
        lies: whether there is a file.

    Raises:
        DataError: a folder may not be entered.
    """
    places = [folder, folder / inner] if inner else [folder]
    candidates = (place / spelt for place in places for spelt in (name, f"{name}.gz"))
    return next((path for path in candidates if lies(path)), None)


def content(path: Path) -> bytes:
    """What a file holds, unpacked if its name says that it is compressed; an archive as it is.

    Raises:
        DataError: it cannot be read.
    """
    with reading(path):
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.suffix == ".gz" else raw


def decoded(where: str, raw: bytes) -> str:
    """Text from bytes of UTF-8, without a byte order mark.

    Raises:
        DataError: they are not.
    """
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{where}, line {line}: not UTF-8: {error.reason}") from None
