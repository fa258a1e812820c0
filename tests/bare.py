"""A Python that lacks packages: it finds no module of a distribution that clray was not asked to bring.

``sitecustomize`` hides top-level modules as if they were not installed. A folder that holds it, first in PYTHONPATH,
hides them in every process that is started with this variable.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
_CODE = """\
from importlib.machinery import PathFinder

HIDDEN = frozenset({hidden!r})
find_spec = PathFinder.find_spec


def find_what_is_left(name, path=None, target=None):
    return None if name.partition(".")[0] in HIDDEN else find_spec(name, path, target)


PathFinder.find_spec = find_what_is_left
"""


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(extra: str = "") -> list[Requirement]:
    """The requirements in pyproject.toml: those of the base installation, or of an extra alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [
        Requirement(text) for text in (project["optional-dependencies"][extra] if extra else project["dependencies"])
    ]


@cache
def installed_by(*extras: str) -> frozenset[str]:
    """The distributions that ``pip install clray[extras]`` brings, as far as they are here, by their plain names."""
    waiting = [*declared(), *(each for extra in extras for each in declared(extra))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        name, of = _plain(wanted.name), frozenset(wanted.extras)
        if (name, of) in seen:
            continue
        seen.add((name, of))
        if name == "clray":
            waiting += [each for extra in of for each in declared(extra)]
            continue
        try:
            needs = metadata.requires(wanted.name) or []
        except metadata.PackageNotFoundError:
            continue
        for need in map(Requirement, needs):
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in (*of, "")):
                waiting.append(need)
    return frozenset(name for name, _ in seen)


def others(*extras: str) -> set[str]:
    """The top-level modules here that are of no distribution which clray with these extras brings."""
    here = installed_by(*extras) | {"clray"}
    return {
        module
        for module, distributions in metadata.packages_distributions().items()
        if not here & set(map(_plain, distributions)) and module.isidentifier()
    }


def sitecustomize(hidden: Iterable[str]) -> str:
    """The text of a ``sitecustomize.py`` that hides top-level modules."""
    return _CODE.format(hidden=sorted(hidden))
