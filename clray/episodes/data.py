"""Where the pairs of a benchmark come from, and what exactly was read.

Nothing needs a file but SCAN's ``simple`` split, which was drawn at random: it is read from ``$CLRAY_DATA/scan`` as
github.com/brendenlake/SCAN has it, compressed with gzip or not. Everything else its grammars make, and makes exactly.
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
        benchmark: one that reads it.
        split: the split that files define, where it is not a grammar that makes it.
    """

    benchmark: str
    split: str | None = None
    origin: str = "github.com/brendenlake/SCAN"
    advice: str = ""
    download: Form | None = None


@dataclass(frozen=True)
class Found:
    """A data set that is here; see ``clray.track_interface.LocalDataset``."""

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
"""By name; see ``clray.track_interface.DatasetRegistry``."""


def find(name: str) -> Found | None:
    """What is here of a data set.

    Raises:
        DataError: ``CLRAY_DATA`` names no folder, or holds only some of the files, or they lie in a folder that may not
            be entered.
    """
    if DATASETS[name].split is None:
        return Found("grammar")
    given = given_folder()
    if given is None:
        return None
    folder = given / "scan"
    here = {str(path.relative_to(folder)): sum for file, sum in SIMPLE.items() if (path := _lying(folder / file))}
    missing = [file for file in SIMPLE if _lying(folder / file) is None]
    if here and missing:
        raise DataError(f"{folder}: incomplete: missing {', '.join(missing)}")
    return Found("CLRAY_DATA", folder, Form(here)) if here else None


def beside_it(name: str) -> str:
    """Which other files lie where a data set's were looked for, in words; empty where none do."""
    given = given_folder()
    return others(given / "scan" / "simple_split") if given is not None and DATASETS[name].split else ""


def fetch(name: str) -> Path:
    """Nothing of this track is downloaded: what no grammar makes is put there by hand.

    Raises:
        DataError: always.
    """
    advice = DATASETS[name].advice
    raise DataError(f"{name}: " + (f"clray cannot download it: {advice}" if advice else "its grammar makes it"))


def verify(name: str) -> dict[str, Any]:
    """``locate`` for a data set by its name.

    Raises:
        DataError: its files are missing, or are others than the published ones.
    """
    return locate(DATASETS[name].benchmark, DATASETS[name].split)


def locate(benchmark: str, file_split: str | None) -> dict[str, Any]:
    """What a trial would read here: its name, source and fingerprint.

    Raises:
        DataError: a split's files are missing, or are others than the published ones.
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
    """Training and test pairs of a split that files define; None where a grammar makes them.

    Raises:
        DataError: the files are not here, or others.
    """
    return read_simple() if described["name"] == "scan-simple" else None


def read_simple() -> tuple[list[Pair], list[Pair]]:
    """Training and test pairs of the simple split, in the files' order.

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
    path = _lying(plain)
    if path is None:
        raise DataError(f"{plain}: no such file, and no {plain.name}.gz; {where}")
    with reading(path):
        content = path.read_bytes() if path == plain else gzip.decompress(path.read_bytes())
    found = hashlib.sha256(content).hexdigest()
    if found != checksum:
        crlf = line_ends(content, checksum)
        raise DataError(f"{path}: not the published file: {crlf}its SHA-256 is {found}, expected {checksum}")
    return content.decode()


def _lying(plain: Path) -> Path | None:
    """The file, or the same compressed with gzip; None where there is neither."""
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
