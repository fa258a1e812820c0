"""The sources of the tasks' texts, and the fingerprints of what was read.

The sources, in this order: ``$CLRAY_DATA/lamol`` with the files as published (``$CLRAY_DATA/lamol/sst/...``; LAMOL's
own converted files in ``$CLRAY_DATA/lamol/official``), the download cache, a download, and for the ``scan.*`` tasks the
grammar. Files are checked against known checksums and converted once into Parquet in the cache. A record contains the
fingerprint of the converted examples. ``clray.language.datasets`` lists the published files and reads them.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clray import cache
from clray.data_files import given_folder, is_file, is_file_if_allowed, line_ends, others, reading
from clray.errors import DataError
from clray.language import datasets
from clray.language.datasets import PUBLISHED, embedded
from clray.language.datasets.files import Files, content, located
from clray.language.datasets.published import Form, Published, Splits
from clray.language.examples import SPLITS, Example, TaskData
from clray.language.tasks import TASKS

__all__ = ["DATASETS", "PUBLISHED", "Found", "fetch", "find", "fingerprint", "load", "locate", "verify"]

DATASETS = PUBLISHED
"""The published data of each task, by the task's name."""


@dataclass(frozen=True)
class Found:
    """A form of a task's data that is on this machine.

    Attributes:
        source: ``CLRAY_DATA``, ``cache`` or ``grammar``.
        folder: the folder of its files; None where a grammar makes it.
        form: the published form; its ``partial`` says why it is a substitute.
    """

    name: str
    source: str
    folder: Path | None
    form: Form


_GRAMMAR = Form("", {}, lambda _: ([], [], []))


# --------------------------------------------------------------------------------------------------------------
# Data on this machine


def find(name: str) -> Found | None:
    """Find a task's data on this machine, in a complete form if there is one.

    Raises:
        DataError: there is no such task, ``CLRAY_DATA`` is no folder or holds only some files of a form, or a folder
            cannot be entered.
    """
    if name in embedded.TASKS:
        return Found(name, "grammar", None, _GRAMMAR)
    return next(_found(name), None)


def _found(task: str) -> Iterator[Found]:
    """The forms on this machine: complete ones before substitutes, ``CLRAY_DATA`` before the cache."""
    published, substitutes = _published(task), []
    for source, root in _roots():
        exists = is_file if source == "CLRAY_DATA" else is_file_if_allowed
        here = [form for form in published.forms if not _missing_files(root / form.folder, form, exists)]
        if source == "CLRAY_DATA" and not here:
            _complain_of_part(root, published)
        places = [Found(task, source, root / form.folder, form) for form in here]
        yield from (found for found in places if not found.form.partial)
        substitutes += [found for found in places if found.form.partial]
    yield from substitutes


def _roots() -> list[tuple[str, Path]]:
    """The folders that contain the tasks' folders, each with its source."""
    roots = [("cache", cache.cache_folder() / "lamol")]
    given = given_folder()
    if given is not None:
        roots.insert(0, ("CLRAY_DATA", given / "lamol"))
    return roots


def _missing_files(folder: Path, form: Form, exists: Callable[[Path], bool] = is_file) -> list[str]:
    return [file for file in form.files if located(folder, file, form.inner, exists) is None]


def _complain_of_part(root: Path, published: Published) -> None:
    """Raise an error where some files of a complete form are missing, for the form with the fewest missing files."""
    lacking = []
    for form in published.forms:
        missing = _missing_files(root / form.folder, form)
        if 0 < len(missing) < len(form.files) and not form.partial:
            lacking.append((len(missing), f"{root / form.folder}: incomplete: missing {', '.join(missing)}"))
    if lacking:
        raise DataError(min(lacking)[1])


def _published(task: str) -> Published:
    try:
        return PUBLISHED[task]
    except KeyError:
        raise DataError(f"{task}: no such task; there are {', '.join(PUBLISHED)}") from None


# --------------------------------------------------------------------------------------------------------------
# The data that a trial would read


def locate(tasks: Sequence[str], fetch: bool = False) -> dict[str, Any]:
    """Describe the data that a trial of these tasks would read on this machine. Only new or changed files are read.

    Args:
        fetch: True to download missing data.

    Returns:
        ``name`` (the tasks, joined by +), ``source`` (one or several; ``embedded`` where the grammar makes all),
        ``fingerprint`` (a hash of the tasks' names and fingerprints, in order) and ``parts``: the ``name``, ``source``,
        ``fingerprint`` and ``sizes`` of each task. ``partial`` says why a task's data is not LAMOL's, ``unverified``
        why it could not be verified; at the top level they name the task. The fingerprint is a hash of the examples and
        does not depend on the files' place.

    Raises:
        DataError: a task's data is not available, or its files are not the published ones.
    """
    parts = {task: _locate(task, fetch) for task in tasks}
    sources = dict.fromkeys(part["source"] for part in parts.values())
    identity = "".join(f"{task}={part['fingerprint']};" for task, part in parts.items())
    remarks = {
        key: "; ".join(f"{task}: {part[key]}" for task, part in parts.items() if key in part)
        for key in ("partial", "unverified")
    }
    return {
        "name": "+".join(parts),
        "source": "embedded" if list(sources) == ["grammar"] else ", ".join(sources),
        "fingerprint": hashlib.sha256(identity.encode()).hexdigest()[:16],
        "parts": parts,
        **{key: remark for key, remark in remarks.items() if remark},
    }


def _locate(task: str, fetching: bool) -> dict[str, Any]:
    found, failure = find(task), ""
    if fetching and (found is None or found.form.partial) and _published(task).download:
        try:
            fetch(task)
            found = find(task)
        except DataError as error:
            failure = str(error)
    if found is None:
        raise DataError(failure or _missing(task))
    return _described(found, _facts(found))


def _described(found: Found, facts: dict[str, Any]) -> dict[str, Any]:
    described = {"name": found.name, "source": found.source, **facts}
    expected, form = found.form.sizes or TASKS[found.name].sizes, found.form
    if form.partial:
        described["partial"] = form.partial
    elif expected and facts["sizes"] != list(expected):
        sizes = ", ".join(f"{had:,} of {whole:,}" for had, whole in zip(facts["sizes"], expected, strict=True))
        described["partial"] = f"examples for training, development and test: {sizes}"
    elif form.unverified:
        described["unverified"] = form.unverified
    elif found.folder and not form.checksummed:
        described["unverified"] = "no checksum of its files is known; the fingerprint says what was read"
    return described


def verify(name: str) -> dict[str, Any]:
    """Describe a task as ``locate`` does, but read and check every file and the converted examples again.

    Raises:
        DataError: there are no files, or they are not the published ones.
    """
    found = find(name)
    if found is None:
        raise DataError(_missing(name))
    if found.folder:
        cache.forget_checked(found.folder, _paths(found), _about(found.form))
    facts = _facts(found)
    if found.folder and _kept(name, facts["fingerprint"], thoroughly=True) is None:
        _convert(found)
    return _described(found, facts)


def _missing(task: str) -> str:
    published = _published(task)
    folders = ", ".join(dict.fromkeys(form.folder for form in published.forms))
    missing = (
        f"{task}: its files are neither below CLRAY_DATA/lamol nor in {cache.cache_folder() / 'lamol'} ({folders})"
    )
    if beside := beside_it(task):
        missing += f" ({beside})"
    return f"{missing}: {f'clray data fetch {task}' if published.download else published.advice}"


def beside_it(name: str) -> str:
    """The other files in the place where a task's files were searched, as text; empty where there are none."""
    given = given_folder()
    if given is None or name in embedded.TASKS:
        return ""
    own = [form.folder for form in _published(name).forms if form.folder == name]  # the others are shared
    return "; ".join(said for folder in dict.fromkeys(own) if (said := others(given / "lamol" / folder)))


# --------------------------------------------------------------------------------------------------------------
# The content of the files


def fingerprint(data: TaskData) -> str:
    """A hash of a task's examples: equal examples have equal fingerprints, whichever files they come from."""
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(f"{split}\n".encode())
        for example in getattr(data, split):
            digest.update(json.dumps(example, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def _facts(found: Found) -> dict[str, Any]:
    """The ``fingerprint`` and the ``sizes`` of the examples; only new or changed files are read."""
    if found.folder is None:
        return _facts_of(embedded.load(found.name))
    noted = cache.noted(found.folder, _paths(found), _about(found.form))
    return noted or _facts_of(_convert(found))


def _facts_of(data: TaskData) -> dict[str, Any]:
    return {"fingerprint": fingerprint(data), "sizes": [len(getattr(data, split)) for split in SPLITS]}


def _paths(found: Found) -> list[str]:
    """The paths of the form's files on this machine, below the folder."""
    assert found.folder is not None
    paths = [located(found.folder, file, found.form.inner) for file in found.form.files]
    return [str(path.relative_to(found.folder)) for path in paths if path]


def _about(form: Form) -> list[Any]:
    """All that the note about a form depends on besides its files: their checksums, and the code that reads them."""
    return [form.files, _converters()]


@functools.cache
def _converters() -> str:
    """A hash of the code that converts files: when it changes, files are converted again."""
    folder = Path(datasets.__file__).parent
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))).hexdigest()


def _convert(found: Found) -> TaskData:
    """Check the files, convert them to examples, and write these to the cache."""
    folder, form = found.folder, found.form
    assert folder is not None
    with cache.one_at_a_time(found.name):
        noted = cache.noted(folder, _paths(found), _about(form))
        kept = _kept(found.name, noted["fingerprint"]) if noted else None
        if kept:  # another process has converted them meanwhile
            return kept
        _check_sums(found)
        archive = next(iter(form.files)) if form.members else ""
        train, dev, test = _read_form(form, Files(folder, form.inner, archive, form.members))
        data = TaskData(found.name, train, dev, test)
        for split in SPLITS:
            if not getattr(data, split):
                raise DataError(f"{folder}: {', '.join(form.files)} hold no example for {split}")
        facts = _facts_of(data)
        try:
            _keep(data, facts["fingerprint"])
        except ValueError as error:
            raise DataError(f"{folder}: a text that is not Unicode: {error}") from None
        cache.take_note(folder, _paths(found), facts, _about(form))
        return data


def _read_form(form: Form, files: Files) -> Splits:
    """Read the examples in the files. An unexpected error names the file that was read last."""
    try:
        return form.read(files)
    except Exception:
        with reading(files.last):
            raise


def _check_sums(found: Found) -> None:
    assert found.folder is not None
    for name, expected in found.form.files.items():
        path = located(found.folder, name, found.form.inner)
        if expected is None or path is None:
            continue
        held = content(path)
        actual = hashlib.sha256(held).hexdigest()
        if actual != expected:
            raise DataError(
                f"{path}: not the published file: {line_ends(held, expected)}sha256 {actual}, expected {expected}; "
                f"remove it, or put the file from {_published(found.name).origin} there"
            )


# --------------------------------------------------------------------------------------------------------------
# Converted examples in the cache: a Parquet file for each split


def _folder(task: str, fingerprint: str) -> Path:
    return cache.cache_folder() / "decoded" / f"{task}-{fingerprint}"


def _kept(task: str, fingerprint: str, thoroughly: bool = False) -> TaskData | None:
    folder = _folder(task, fingerprint)
    note = cache.read_decoded(folder, thoroughly)
    if note is None:
        return None
    try:
        read = {file: _read(folder / file) for file in note["files"]}
        return TaskData(task, *(read[note["splits"][split]] for split in SPLITS))
    except (OSError, ValueError, KeyError, TypeError):  # not a file that ``_keep`` wrote
        return None


def _keep(data: TaskData, fingerprint: str) -> None:
    """Write converted examples to the cache. Where dev and test are the same list, they share one file."""
    files = {split: f"{'test' if getattr(data, split) is data.test else split}.parquet" for split in SPLITS}
    writers = {file: functools.partial(_write, getattr(data, split)) for split, file in files.items()}
    with contextlib.suppress(OSError):  # a full disk or a read-only cache: they are converted again the next time
        cache.write_decoded(_folder(data.name, fingerprint), writers, {"splits": files})


def _write(examples: list[Example], path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    text = pyarrow.string()
    columns = {
        "context": pyarrow.array([e.context for e in examples], text),
        "question": pyarrow.array([e.question for e in examples], text),
        "answers": pyarrow.array([list(e.answers) for e in examples], pyarrow.list_(text)),
        "id": pyarrow.array([e.id for e in examples], text),
        "gold": pyarrow.array([json.dumps(e.gold) for e in examples], text),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), path, compression="zstd")


def _read(path: Path) -> list[Example]:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    columns = [table[name].to_pylist() for name in Example._fields]
    return [
        Example(context, question, tuple(answers), name, json.loads(gold))
        for context, question, answers, name, gold in zip(*columns, strict=True)
    ]


# --------------------------------------------------------------------------------------------------------------
# Reading and downloading


def load(described: dict[str, Any]) -> dict[str, TaskData]:
    """Load the examples that ``locate`` described, from any place on this machine.

    Raises:
        DataError: this machine cannot provide the same examples.
    """
    return {task: _load(task, part["fingerprint"]) for task, part in described["parts"].items()}


def _load(task: str, wanted: str) -> TaskData:
    if task in embedded.TASKS:
        data = embedded.load(task)
        if fingerprint(data) != wanted:
            raise DataError(f"{task}: this clray makes other examples than those of this trial, {wanted}")
        return data
    kept = _kept(task, wanted)
    if kept:
        return kept
    here, found = find(task), _holding(task, wanted)
    if found is None and _published(task).download and (here is None or here.form.partial):
        fetch(task)
        here, found = find(task), _holding(task, wanted)
    if here is None:
        raise DataError(_missing(task))
    if found is None:
        raise DataError(f"{task}: {here.folder} holds other content than this trial has read, {wanted}")
    return _kept(task, wanted) or _convert(found)


def _holding(task: str, wanted: str) -> Found | None:
    return next((found for found in _found(task) if _facts(found)["fingerprint"] == wanted), None)


def fetch(name: str) -> Path:
    """Download a task's files into the cache, each checked against its SHA-256 before it is kept.

    Raises:
        DataError: a file could not be downloaded, or there is nowhere to download it from.
    """
    published = _published(name)
    form = published.download
    if form is None:
        raise DataError(f"{name}: clray cannot download it: {published.advice}")
    folder = cache.cache_folder() / "lamol" / form.folder
    for file, checksum in form.files.items():
        cache.download(name, file, [form.addresses[file]], f"sha256:{checksum}", folder)
    return folder
