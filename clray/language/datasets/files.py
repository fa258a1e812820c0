"""Reading published files: as they are, compressed with gzip, or inside the published archive.

Any error in a file is a ``DataError`` that names the file and, where possible, the line.
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
    """A file's text, and the file's name for error messages."""

    where: str
    content: str

    def bad(self, line: int, what: str) -> DataError:
        return DataError(f"{self.where}, line {line}: {what}")

    def lines(self) -> list[tuple[int, str]]:
        """The lines with their numbers. Only a line feed ends a line, none of Unicode's other line ends."""
        content = self.content.replace("\r\n", "\n").replace("\r", "\n")
        return list(enumerate(content.removesuffix("\n").split("\n"), 1)) if content else []

    def rows(self, columns: Sequence[str], header: bool = False) -> Iterator[tuple[int, list[str]]]:
        """The rows of a table of comma-separated values, with the number of each row's first line.

        Args:
            columns: the names of the columns; every row must have as many fields.
            header: True where the first row must hold these names.
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
        """The JSON objects of a file with one object on each line, with the lines' numbers."""
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
    """The value of a key in a JSON object.

    Args:
        kind: the type that it must have.
        where: the place of the object, for the error message.
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
        inner: a folder below it in which they may be instead.
        archive: the name of the archive that contains them; empty where they are files of the folder.
        members: the files of the archive that will be read.
    """

    def __init__(self, folder: Path, inner: str = "", archive: str = "", members: Collection[str] = ()):
        self.folder, self.inner, self.archive, self.members = folder, inner, archive, members
        self.last = str(folder)
        """The path of the file that was read last."""

    def text(self, name: str) -> Text:
        """The text of a file.

        Raises:
            DataError: it does not exist, cannot be read, or is not UTF-8.
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
    """The files of an archive, in its order: their names without folders, and their content.

    Raises:
        DataError: the archive is damaged, or no archive.
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


def located(folder: Path, name: str, inner: str = "", exists: Callable[[Path], bool] = is_file) -> Path | None:
    """The path of a file: in the folder or in the inner one, as it is or compressed.

    Args:
        exists: tells if a path is a file.

    Raises:
        DataError: a folder cannot be entered.
    """
    places = [folder, folder / inner] if inner else [folder]
    candidates = (place / spelt for place in places for spelt in (name, f"{name}.gz"))
    return next((path for path in candidates if exists(path)), None)


def content(path: Path) -> bytes:
    """The content of a file, decompressed where its name ends with ``.gz``; an archive is not unpacked.

    Raises:
        DataError: it cannot be read.
    """
    with reading(path):
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.suffix == ".gz" else raw


def decoded(where: str, raw: bytes) -> str:
    """Decode UTF-8, and remove a byte order mark.

    Raises:
        DataError: the bytes are not UTF-8.
    """
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{where}, line {line}: not UTF-8: {error.reason}") from None
