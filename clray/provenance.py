"""The provenance of a record: the code that made it, the versions and the machine."""

from __future__ import annotations

import ast
import functools
import hashlib
import platform
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clray import __version__, tracks
from clray.equal_code import is_equal
from clray.errors import ClrayError
from clray.loaded_code import source_of
from clray.machine import cores_given, cores_of_machine

if TYPE_CHECKING:
    from clray.record import Record
    from clray.trial import Trial

_PACKAGE = Path(__file__).resolve().parent
_NO_NUMBERS = (
    "cache", "data_files", "documents", "errors", "folders", "gpu", "machine", "metrics", "output", "settings",
    "track_interface", "tracks", "trial",
)  # fmt: skip
"""Modules directly below the package that tracks import and that change no number. Metrics are among them: they are
computed from the record. A module that is not listed here counts."""
_NO_NUMBERS_IN_TRACK = ("data", "export")
"""Modules of a track that change no number: the data that was read is in a trial's id, by its fingerprint, and files
are exported after all numbers. Whatever is done with the data afterwards stands in other modules, and counts."""
_REGISTRIES = ("methods", "benchmarks", "networks", "learners")
"""Packages of a track whose ``__init__`` only lists what there is."""
_VERSIONS = ("numpy", "torch", "numba", "pillow", "quadprog", "scipy", "transformers", "ray")


def code_digest(trial: Trial) -> str:
    """A hash of the code that determines a trial's numbers, as this process has loaded it.

    That code is what the track's ``modules_of`` names (the method, the training loop, and what the trial chooses by
    name), and everything within clray that these import. A module that is not loaded yet is read from its file.
    Comments, docstrings and layout do not count, nor do imports for type checkers alone, registries, other methods, the
    metrics, the store, the cluster or the command line.

    Once computed, the digest of the same modules stays the same in this process; see ``loaded_digest``.
    """
    return _kept_digest(tuple(tracks.track(trial.track).modules_of(trial)), _PACKAGE)


def loaded_digest(trial: Trial) -> str:
    """As ``code_digest``, computed anew: it differs where a file was edited before this process imported it."""
    return _digest(tuple(tracks.track(trial.track).modules_of(trial)), _PACKAGE)


def is_fresh(record: Record) -> bool:
    """True where the code here made a record, or code that is known to give the same numbers (``clray.equal_code``)."""
    try:
        return is_equal(record.provenance.get("code"), code_digest(record.trial))
    except (ClrayError, KeyError, TypeError, OSError):  # a method or benchmark that there is no more
        return False


def files_of(trial: Trial) -> list[Path]:
    """The files that ``code_digest`` covers, in their order."""
    return _files(tuple(tracks.track(trial.track).modules_of(trial)), _PACKAGE)


def _digest(modules: tuple[str, ...], package: Path) -> str:
    digest = hashlib.sha256()
    for file in _files(modules, package):
        digest.update(str(file.relative_to(package)).encode())
        digest.update(_meaning(source_of(file)))
    return digest.hexdigest()[:16]


_kept_digest = functools.cache(_digest)


def _files(modules: tuple[str, ...], package: Path) -> list[Path]:
    files: set[Path] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        file = _file_of(name, package)
        if file is not None and file not in files and _counts(name, file):
            files.add(file)
            waiting += _names_imported(source_of(file))
    return sorted(files)


def _file_of(module: str, package: Path) -> Path | None:
    """The file of a module of clray; None for any other name."""
    root, *parts = module.split(".")
    if root != "clray" or not parts:
        return None
    path = package.joinpath(*parts)
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _counts(module: str, file: Path) -> bool:
    _, first, *inside = module.split(".")
    if not inside:
        return first not in _NO_NUMBERS
    if first not in tracks.TRACKS:
        return True
    return inside[0] not in _NO_NUMBERS_IN_TRACK and not (file.name == "__init__.py" and inside[0] in _REGISTRIES)


@functools.lru_cache(maxsize=512)
def _names_imported(source: bytes) -> list[str]:
    """The names that a text imports, except for type checkers alone; of ``from a import b`` both a and a.b."""
    names: list[str] = []
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
        elif not isinstance(node, ast.expr):
            waiting += ast.iter_child_nodes(node)
    return names


@functools.lru_cache(maxsize=512)
def _meaning(source: bytes) -> bytes:
    """A hash of the source's syntax tree without docstrings, those below attributes included."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            statements = getattr(node, field, None)
            if isinstance(statements, list):
                setattr(node, field, [one for one in statements if not _is_docstring(one)])
    return hashlib.sha256(ast.dump(tree).encode()).digest()


def _is_docstring(statement: ast.AST) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


@functools.cache
def git_state() -> dict[str, Any]:
    """The checkout's commit and whether it had uncommitted changes; empty for an installed package."""
    if not (_PACKAGE.parent / ".git").exists():
        return {}
    try:
        ask = functools.partial(
            subprocess.run, cwd=_PACKAGE.parent, capture_output=True, text=True, timeout=10, check=True
        )
        commit = ask(["git", "rev-parse", "HEAD"]).stdout.strip()
        changed = bool(ask(["git", "status", "--porcelain", "--untracked-files=no"]).stdout.strip())
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": commit, "uncommitted_changes": changed}


@functools.cache
def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@functools.cache
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    """The machine this process runs on, its cores and those that the process was given of them.

    The GPU's name is told only where torch is loaded and sees one.
    """
    facts: dict[str, Any] = {
        "host": socket.gethostname(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": cores_of_machine(),
        "cores_given": cores_given(),
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def provenance(code: str) -> dict[str, Any]:
    """All of it, for a record written by this process.

    Args:
        code: the digest of the code that makes the record.
    """
    return {
        "clray": __version__,
        "code": code,
        "git": git_state(),
        "python": platform.python_version(),
        "packages": {name: version for name in _VERSIONS if (version := _version(name))},
        "machine": machine(),
    }
