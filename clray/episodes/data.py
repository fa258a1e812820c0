"""The sources of the benchmarks' pairs, and the fingerprints of what was read.

Only SCAN's ``simple`` split needs files, because it was drawn at random: the files of github.com/brendenlake/SCAN are
read from ``$CLRAY_DATA/scan``, compressed with gzip or not. Grammars make everything else, and exactly.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clray.data_files import given_folder, is_file, line_ends, others, reading
from clray.episodes import scan
from clray.episodes.scan import Pair
from clray.errors import DataError

SIMPLE = {
    "simple_split/tasks_train_simple.txt": "941bb8a088c5f53ceff12fde902dc008933cf0c4203cc672c47b5f79d73262dd",
    "simple_split/tasks_test_simple.txt": "1fe1c8f5a19d0dc40e41bab94278f45f66f3dc415a978bd29855a23440610fc6",
}
"""The files of the simple split, and the SHA-256 of each as published."""


@dataclass(frozen=True)
class Form:
    """The form in which a data set is published: see ``clray.track_interface.FileLayout``."""

    files: dict[str, str]
    partial: str = ""


@dataclass(frozen=True)
class Published:
    """A data set; see ``clray.track_interface.DatasetInfo``.

    Attributes:
        benchmark: a benchmark that reads it.
        split: the split that files define; None where a grammar makes it.
    """

    benchmark: str
    split: str | None = None
    origin: str = "github.com/brendenlake/SCAN"
    advice: str = ""
    download: Form | None = None


@dataclass(frozen=True)
class Found:
    """A data set on this machine; see ``clray.track_interface.LocalDataset``."""

    source: str
    folder: Path | None = None
    form: Form | None = None


DATASETS = {
    "mutual-exclusivity": Published("mutual_exclusivity"),
    "scan": Published("scan_split"),
    "scan-simple": Published(
        "scan_split", "simple", advice="put simple_split/ of github.com/brendenlake/SCAN into $CLRAY_DATA/scan/"
    ),
}
"""The data sets by name; see ``clray.track_interface.DatasetRegistry``."""


def find(name: str) -> Found | None:
    """Find a data set on this machine.

    Raises:
        DataError: ``CLRAY_DATA`` is no folder, or holds only some of the files, or a folder cannot be entered.
    """
    if DATASETS[name].split is None:
        return Found("grammar")
    given = given_folder()
    if given is None:
        return None
    folder = given / "scan"
    here = {
        str(path.relative_to(folder)): checksum
        for file, checksum in SIMPLE.items()
        if (path := _existing(folder / file))
    }
    missing = [file for file in SIMPLE if _existing(folder / file) is None]
    if here and missing:
        raise DataError(f"{folder}: incomplete: missing {', '.join(missing)}")
    return Found("CLRAY_DATA", folder, Form(here)) if here else None


def beside_it(name: str) -> str:
    """The other files in the place where a data set's files were searched, as text; empty where there are none."""
    given = given_folder()
    return others(given / "scan" / "simple_split") if given is not None and DATASETS[name].split else ""


def fetch(name: str) -> Path:
    """Raise an error: the user must provide the data that no grammar makes.

    Raises:
        DataError: always.
    """
    advice = DATASETS[name].advice
    raise DataError(f"{name}: " + (f"clray cannot download it: {advice}" if advice else "its grammar makes it"))


def verify(name: str) -> dict[str, Any]:
    """Describe a data set as ``locate`` does, by its name.

    Raises:
        DataError: its files are missing, or are not the published ones.
    """
    return locate(DATASETS[name].benchmark, DATASETS[name].split)


def locate(benchmark: str, file_split: str | None) -> dict[str, Any]:
    """Describe the data that a trial would read on this machine: name, source and fingerprint.

    Raises:
        DataError: a split's files are missing, or are not the published ones.
    """
    if file_split is not None:
        read_simple()
        text = "".join(SIMPLE.values())
        return {"name": "scan-simple", "source": "CLRAY_DATA", "fingerprint": _digest(text)}
    if benchmark == "mutual_exclusivity":
        return {"name": "mutual-exclusivity", "source": "grammar", "fingerprint": _digest("dax lug wif zup")}
    return {"name": "scan", "source": "grammar", "fingerprint": _grammar_fingerprint()}


@functools.cache
def _grammar_fingerprint() -> str:
    lines = sorted(f"IN: {' '.join(words)} OUT: {' '.join(actions)}\n" for words, actions in scan.all_pairs())
    return _digest("".join(lines))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def load(described: dict[str, Any]) -> tuple[list[Pair], list[Pair]] | None:
    """The training and test pairs of a split that files define; None where a grammar makes them.

    Raises:
        DataError: the files are missing, or are not the published ones.
    """
    return read_simple() if described["name"] == "scan-simple" else None


def read_simple() -> tuple[list[Pair], list[Pair]]:
    """The training and test pairs of the simple split, in the files' order.

    Raises:
        DataError: ``CLRAY_DATA`` has no such files, or they are not the published ones.
    """
    train, test = (read_pairs(_content(name, checksum)) for name, checksum in SIMPLE.items())
    return train, test


def _content(name: str, checksum: str) -> str:
    given = given_folder()
    where = "the simple split is defined by its official files (github.com/brendenlake/SCAN)"
    if given is None:
        raise DataError(f"{where}: set CLRAY_DATA to a folder that holds scan/{name}")
    plain = given / "scan" / name
    path = _existing(plain)
    if path is None:
        raise DataError(f"{plain}: no such file, and no {plain.name}.gz; {where}")
    with reading(path):
        content = path.read_bytes() if path == plain else gzip.decompress(path.read_bytes())
    found = hashlib.sha256(content).hexdigest()
    if found != checksum:
        crlf = line_ends(content, checksum)
        raise DataError(f"{path}: not the published file: {crlf}its SHA-256 is {found}, expected {checksum}")
    return content.decode()


def _existing(plain: Path) -> Path | None:
    """The path of the file, or of the file compressed with gzip; None where neither exists."""
    packed = plain.with_name(plain.name + ".gz")
    return plain if is_file(plain) else packed if is_file(packed) else None


def read_pairs(text: str) -> list[Pair]:
    """The pairs of a file's lines ``IN: <command> OUT: <actions>``.

    Raises:
        DataError: a line has another form.
    """
    pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        command, separator, actions = line.removeprefix("IN: ").partition(" OUT: ")
        if not separator or not line.startswith("IN: "):
            raise DataError(f"line {number}: {line[:60]!r}: expected 'IN: <command> OUT: <actions>'")
        pairs.append((tuple(command.split()), tuple(actions.split())))
    return pairs
