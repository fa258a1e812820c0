"""Keeps the source text of each module of clray and of the user's own code, as it was when this process imported it.

A record names the code that made it by a hash of the source. A file on disk may have been edited since the process
imported it, so the hash has to be of the text that was imported.

Python compiles a module from its file, or takes the compiled form from its cache where that names the file's present
size and time. This module reads the file just before. So it does not notice a file that is edited between these two
moments, nor a module that somebody changes after its import, by assignment or by executing another text in it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

_TEXTS: dict[str, bytes] = {}
"""The source of each imported module, by the path of its file."""

_ROOTS: set[str] = set()
"""The packages whose sources are kept."""


def source_of(file: Path) -> bytes:
    """The source that this process imported from a file, or the file's present content if it imported none.

    Raises:
        OSError: the file was not imported and cannot be read.
    """
    text = _TEXTS.get(str(file.resolve()))
    return file.read_bytes() if text is None else text


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType | None:
        with contextlib.suppress(OSError):  # the import itself says what is wrong
            _TEXTS[str(Path(self.path).resolve())] = self.get_data(self.path)
        return super().get_code(fullname)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in _ROOTS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def packages() -> frozenset[str]:
    """The packages whose sources are kept."""
    return frozenset(_ROOTS)


def keep_sources(package: str = "clray") -> None:
    """From now on keep the source of each module of a package that is imported; calling it again changes nothing."""
    _ROOTS.add(package)
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
