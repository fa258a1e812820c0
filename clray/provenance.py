"""The provenance of a record: the code that made it, the versions and the machine."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import platform
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clray import __version__, own_code, tracks
from clray.equal_code import is_equal
from clray.errors import ClrayError
from clray.imports import names_imported
from clray.loaded_code import source_of
from clray.machine import cores_given, cores_of_machine

if TYPE_CHECKING:
    from clray.record import Record
    from clray.trial import Trial

_PACKAGE = Path(__file__).resolve().parent
_NO_NUMBERS = (
    "cache", "data_files", "documents", "errors", "folders", "gpu", "machine", "metrics", "output", "registry",
    "settings", "track_interface", "tracks", "trial",
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
    name), and everything within clray that these import. Of a method, benchmark or network of the user's own
    (``clray.own_code``) it is also what it imports from its folder or package. A module that is not loaded yet is read
    from its file. Comments, docstrings and layout do not count, nor do imports for type checkers alone, registries,
    other methods, the metrics, the store, the cluster or the command line.

    Once computed, the digest of the same modules stays the same in this process; see ``loaded_digest``.
    """
    return _kept_digest(tuple(tracks.track(trial.track).modules_of(trial)), _PACKAGE, own_code.edition())


def loaded_digest(trial: Trial) -> str:
    """As ``code_digest``, computed anew: it differs where a file was edited before this process imported it."""
    return _digest(tuple(tracks.track(trial.track).modules_of(trial)), _PACKAGE)


def is_fresh(record: Record) -> bool:
    """True where the code here made a record, or code that is known to give the same numbers (``clray.equal_code``).

    Where the code is not here, it is False.
    """
    return bool(freshness(record))


def freshness(record: Record) -> bool | None:
    """As ``is_fresh``; None for a method, benchmark or network of the user's own that this process has not met: a
    record names it, but not the folder that it is in."""
    try:
        return is_equal(record.provenance.get("code"), code_digest(record.trial))
    except (ClrayError, KeyError, TypeError, OSError):  # a method or benchmark that there is no more
        trial = record.trial
        names = (trial.method, trial.benchmark.get("name"), trial.model.get("name"))
        return None if any(map(own_code.is_reference, names)) else False


def files_of(trial: Trial) -> list[Path]:
    """The files that ``code_digest`` covers, in their order."""
    return list(_files(tuple(tracks.track(trial.track).modules_of(trial)), _PACKAGE).values())


def own_texts(trial: Trial) -> dict[str, Any]:
    """The files of the user's own code that a trial runs, for the processes that run it; see ``own_code.held_for``."""
    modules = tuple(tracks.track(trial.track).modules_of(trial))
    if all(module.startswith("clray.") for module in modules):
        return {}
    files = _files(modules, _PACKAGE)
    return own_code.held_for({n.removeprefix(own_code.LABEL): f for n, f in files.items() if own_code.LABEL in n})


def _digest(modules: tuple[str, ...], package: Path, edition: int = 0) -> str:
    """A hash of all that modules import.

    Args:
        edition: of the user's own code; another one makes ``_kept_digest`` compute anew.
    """
    digest = hashlib.sha256()
    for name, file in _files(modules, package).items():
        digest.update(name.encode())
        digest.update(_meaning(source_of(file)))
    return digest.hexdigest()[:16]


_kept_digest = functools.cache(_digest)


def _files(modules: tuple[str, ...], package: Path) -> dict[str, Path]:
    """The files of modules and of what they import, by their names in a digest: a path, or for own code the module."""
    found: dict[str, Path] = {}
    own = [module for module in modules if not module.startswith("clray.")]
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if any(own_code.is_own(module, root) for root in own):
            name, file = own_code.LABEL + module, own_code.source_file(module)
            waiting += [above] if (above := module.rpartition(".")[0]) else []  # its __init__ runs before it
        else:
            file = _file_of(module, package)
            name = str(file.relative_to(package)) if file is not None and _counts(module, file) else ""
        if name and file is not None and name not in found:
            found[name] = file
            within = module if file.name == "__init__.py" else module.rpartition(".")[0]
            waiting += names_imported(source_of(file), within)
    return dict(sorted(found.items(), key=lambda item: (item[0].startswith(own_code.LABEL), item[1])))


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
    """The processor's name: from the kernel, on macOS from ``sysctl``; else only its architecture."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            ask = ["sysctl", "-n", "machdep.cpu.brand_string"]
            if told := subprocess.run(ask, capture_output=True, text=True, timeout=10, check=True).stdout.strip():
                return told
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
