"""Reading declarations: finding a sweep's file, checking it, and laying a selection such as ``--set`` on it.

A declaration is a YAML file. Reading one gives a checked object or one error that names the file, the line, the key
and the allowed values.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clray.documents import (
    MOST_DEPTH,
    Declared,
    Document,
    Wrong,
    explain,
    is_there,
    misread,
    one_of,
    read_value,
    shorter,
    shown,
)
from clray.errors import DeclarationError
from clray.grid import merged
from clray.selection import Origin, Selection, named_by
from clray.sweep import Sweep

# --------------------------------------------------------------------------------------------------------------
# Where declarations live


def declared_root() -> Path:
    """The folder that holds ``sweeps/`` and ``reproduce/``: the checkout's own, or the copy inside the package."""
    package = Path(__file__).resolve().parent
    for root in (package.parent, package / "declared"):
        if (root / "sweeps").is_dir() and (root / "reproduce").is_dir():
            return root
    raise DeclarationError(f"{package}: this installation holds no sweeps/ and reproduce/: install clray again")


def sweep_names() -> list[str]:
    """The sweeps that ship with clray, as ``paper/name``."""
    root = declared_root() / "sweeps"
    return sorted(str(path.relative_to(root).with_suffix("")) for path in root.rglob("*.yaml"))


def reproduction_names() -> list[str]:
    """The reproductions that ship with clray."""
    return sorted(path.stem for path in (declared_root() / "reproduce").glob("*.yaml") if path.stem != "papers")


class Paper(Declared):
    """A paper, for the head of a report."""

    title: str
    authors: str
    venue: str
    arxiv: str = ""
    """Its number there; empty where it has none."""
    code: str
    """The official code."""
    commit: str = ""
    """The revision of the code that was read for clray; empty where none was."""


def papers() -> dict[str, Paper]:
    """reproduce/papers.yaml by key."""
    document = Document(declared_root() / "reproduce" / "papers.yaml")
    try:
        return {key: Paper.model_validate(value) for key, value in document.data.items()}
    except ValidationError as error:
        raise explain(error, document.place) from None


# --------------------------------------------------------------------------------------------------------------
# Sweeps

Reader = Callable[[str | Path, Selection], tuple[Sweep, tuple[str, ...]]]
"""The type of ``read_sweep``, or of a function that does the same and remembers what it has read."""


def find_sweep(name: str) -> Path:
    """The file of a sweep, given its path or its name among those that ship with clray.

    Raises:
        DeclarationError: there is neither.
    """
    shipped = declared_root() / "sweeps" / f"{name.removeprefix('sweeps/').removesuffix('.yaml')}.yaml"
    for path in (Path(name), shipped):
        if os.path.isfile(path):
            return path
    if name and is_there(Path(name)):
        return Path(name)  # a folder or a pipe, or one may not look: who reads it is told
    problem = f"no such sweep file, and no such sweep here; {one_of(name, sweep_names(), 'clray list')}"
    raise DeclarationError(f"{shorter(name) or repr(name)}: {problem}")


def load_sweep(name: str | Path, selection: Selection = Selection(), read: Reader | None = None) -> Sweep:
    """Read a sweep file and apply a selection to it.

    Args:
        read: reads the file; ``functools.cache(read_sweep)`` where one command needs the same sweep several times.

    Raises:
        DeclarationError: naming file, line, key and the allowed values.
    """
    sweep, quick_only = (read or read_sweep)(name, selection)
    only = selection.only or quick_only
    if only:
        chosen = dict(sweep.variant_settings())
        named = _variants_named(sweep, only, selection)
        if named <= set(sweep.variants):
            sweep = sweep.with_whole_variants(named)
        else:
            sweep = sweep.with_variants({n: s for n, s in chosen.items() if n in named or n.split("@")[0] in named})
    _ = sweep.cells  # so that a wrong setting is an error now
    return sweep


def _variants_named(sweep: Sweep, only: Iterable[str], selection: Selection) -> set[str]:
    """The variants, and points of grids, that items of ``--only`` or of ``quick.only`` name.

    Raises:
        DeclarationError: an item names none.
    """
    points: dict[str, Any] = {}
    named: set[str] = set()
    for item in only:
        if found := named_by(item, sweep.variants):
            named.update(found)
            continue
        points = points or dict(sweep.variant_settings())
        if not (found := named_by(item, points)):
            known = points if "@" in item or selection.only_flag != "--only" else sweep.variants
            said = f"{selection.only_flag} {shorter(item)}" if selection.only else f"quick.only: {shown(item)}"
            place = sweep.place() if selection.only else sweep.place("quick", "only").rpartition(": ")[0]
            raise DeclarationError(f"{place}: {said}: no such variant; {one_of(item, known)}")
        named.update(found)
    return named


def variant_names(name: str | Path, selection: Selection = Selection()) -> list[str]:
    """The names of a sweep's variants and of the points of their grids, whichever of them are selected."""
    sweep, _ = read_sweep(name, selection)
    return list(dict.fromkeys([*sweep.variants, *dict(sweep.variant_settings())]))


def read_sweep(name: str | Path, selection: Selection) -> tuple[Sweep, tuple[str, ...]]:
    """A sweep with all its variants, not looked into yet; and those its quick form keeps, if that was asked for."""
    path = find_sweep(str(name))
    document = Document(path)
    data = document.data
    quick_only: tuple[str, ...] = ()
    if selection.quick:
        if "quick" not in data:
            raise DeclarationError(f"{path}: --quick: this sweep declares no quick form (a key 'quick')")
        data, quick_only = _quick_form(document)
    flags: list[tuple[tuple[str, ...], str]] = []
    if selection.set:
        data = copy.deepcopy(data)
        flags += [(_assign(data, item), f"--set {shorter(item)}") for item in selection.set]
    if selection.seeds:
        data = {**data, "seeds": list(selection.seeds)}
        flags.append((("seeds",), shorter("--seeds " + ",".join(map(str, selection.seeds)))))
    sweep = _checked(data, Origin(document, selection, flags))
    if data.get("quick") and not selection.quick:
        quick = Selection(quick=True)  # so that a mistake there is an error now
        form, only = _quick_form(document)
        _variants_named(_checked(form, Origin(document, quick, ())), only, quick)
    sweep._name = _name_of(path)
    sweep._selection = selection
    return sweep, quick_only


def name_of_declared(sweep: str) -> str:
    """The name of the sweep that a reproduction's table names: one that ships with clray, or a file."""
    return _name_of(Path(sweep)) if sweep.endswith((".yaml", ".yml")) else sweep


def _name_of(path: Path) -> str:
    """The name of the sweep in a file: its path among the sweeps of clray, else the file's name without its ending.

    A file ``sweep.yaml`` has the name of its folder: ``clray init`` names all files so, and two methods must not
    overwrite each other's page, nor look like one sweep in the store.
    """
    path = path.resolve()
    shipped = (declared_root() / "sweeps").resolve()
    if path.is_relative_to(shipped):
        return str(path.relative_to(shipped).with_suffix(""))
    return (path.parent.name if path.name == "sweep.yaml" else "") or path.stem


def _checked(data: dict[str, Any], source: Origin) -> Sweep:
    """A sweep file's content as a sweep that makes sense as a whole."""
    try:
        sweep = Sweep(**data)
    except ValidationError as error:
        raise explain(error, source.place, data) from None
    for keys, problem in misread(data, sweep.model_dump()):
        raise DeclarationError(f"{source.place(keys)}: {problem}")
    sweep._source = source
    sweep.look_over(papers() if sweep.paper else ())
    return sweep


def _quick_form(document: Document) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A file's content with its quick form laid on it, and the variants that this keeps; none where it keeps all.

    Raises:
        DeclarationError: the quick form is none.
    """
    quick = document.data["quick"]
    allowed = [*(field for field in Sweep.model_fields if field != "quick"), "only"]
    if not isinstance(quick, dict):
        raise DeclarationError(f"{document.place(['quick'])}: expected keys of this file, such as {{seeds: [0]}}")
    for key in quick:
        if key not in allowed:
            place = document.place(["quick", key])
            raise DeclarationError(f"{place}: not a key that --quick can change; {one_of(key, allowed)}")
    quick = dict(quick)
    only = quick.pop("only", None)
    if "only" in document.data["quick"] and not (
        isinstance(only, list) and only and all(isinstance(name, str) for name in only)
    ):
        place = document.place(["quick", "only"])
        raise DeclarationError(f"{place}: expected a list of variants, such as [first, second] (it is {shown(only)})")
    return merged(document.data, quick), tuple(only or ())


def _assign(data: dict[str, Any], item: str) -> tuple[str, ...]:
    """Apply one ``--set a.b.c=value`` to the content of a sweep file; the value is read as YAML. Returns the keys."""
    name, equals, text = item.partition("=")
    flag = f"--set {shorter(item)}"
    variants = data.get("variants")
    variants = variants if isinstance(variants, dict) else {}
    keys = _keys(name, variants)
    if not equals or not all(keys):
        raise DeclarationError(f"{flag}: expected KEY=VALUE, such as benchmark.tasks=5")
    if len(keys) > MOST_DEPTH:
        raise DeclarationError(f"{flag}: {len(keys)} keys; allowed: at most {MOST_DEPTH}")
    try:
        value = read_value(text)
    except Wrong as error:
        raise DeclarationError(f"{flag}: {error}") from None
    if keys[0] not in Sweep.model_fields:
        raise DeclarationError(f"{flag}: {shown(keys[0])} is not a known key; {one_of(keys[0], Sweep.model_fields)}")
    if keys[0] == "quick":
        raise DeclarationError(f"{flag}: the quick form stays as it is declared; set the key itself beside --quick")
    if keys[0] == "variants" and len(keys) > 1 and keys[1] not in variants:
        raise DeclarationError(f"{flag}: no variant {shown(keys[1])}; {one_of(keys[1], variants)}")
    node = data
    for key in keys[:-1]:
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise DeclarationError(f"{flag}: {shown(key)} holds no keys")
    node[keys[-1]] = value
    return tuple(keys)


def _keys(name: str, variants: Any) -> list[str]:
    """The keys of a dotted name; a variant's own name may hold dots, too."""
    first, dot, rest = name.partition(".")
    if first != "variants" or not dot:
        return name.split(".")
    named = [known for known in variants if rest == known or rest.startswith(f"{known}.")]
    if not named:
        return name.split(".")
    variant = max(named, key=len)
    below = rest[len(variant) + 1 :]
    return [first, variant, *(below.split(".") if below else [])]
