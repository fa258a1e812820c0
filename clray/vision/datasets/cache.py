"""The cache of image data: notes about files that were checked, and decoded arrays, which are mapped into memory."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clray import cache
from clray.cache import cache_folder, one_at_a_time
from clray.vision.datasets.published import ARRAYS, Form, ImageSet

__all__ = [
    "cache_folder",
    "decoded",
    "forget",
    "keep_decoded",
    "note_fingerprint",
    "noted_fingerprint",
    "one_at_a_time",
]


def noted_fingerprint(folder: Path, form: Form) -> str | None:
    """The fingerprint that the form's files in this folder had when they were last checked; None if any changed."""
    facts = cache.noted(folder, form.files, _about(form))
    return facts.get("fingerprint") if facts else None


def note_fingerprint(folder: Path, form: Form, fingerprint: str) -> None:
    """Note that the form's files in this folder were checked, and the fingerprint of their content."""
    cache.take_note(folder, form.files, {"fingerprint": fingerprint}, _about(form))


def forget(folder: Path, form: Form) -> None:
    """Delete the note about the form's files in this folder, so that they are checked again."""
    cache.forget_checked(folder, form.files, _about(form))


def _about(form: Form) -> list[object]:
    return [form.files, form.fingerprint]


def decoded(name: str, fingerprint: str, thoroughly: bool = False) -> ImageSet | None:
    """The decoded arrays of this content, mapped read-only; None where they are missing, damaged or changed.

    Args:
        thoroughly: hash the arrays even if their sizes and times have not changed.
    """
    folder = _decoded_folder(name, fingerprint)
    if cache.read_decoded(folder, thoroughly) is None:
        return None
    try:
        return ImageSet(*(np.asarray(np.load(folder / f"{array}.npy", mmap_mode="r")) for array in ARRAYS))
    except (OSError, ValueError, EOFError):
        return None


def keep_decoded(name: str, fingerprint: str, images: ImageSet) -> ImageSet:
    """Write decoded arrays into the cache. Returns them mapped from there, or unchanged if they cannot be written."""
    files = {f"{array}.npy": functools.partial(_save, getattr(images, array)) for array in ARRAYS}
    try:
        cache.write_decoded(_decoded_folder(name, fingerprint), files)
    except OSError:  # a full disk or a read-only cache: the arrays in memory serve as well
        return images
    return decoded(name, fingerprint) or images


def _save(array: NDArray[np.generic], path: Path) -> None:
    np.save(path, array, allow_pickle=False)


def _decoded_folder(name: str, fingerprint: str) -> Path:
    return cache_folder() / "decoded" / f"{name}-{fingerprint}"
