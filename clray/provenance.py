"""What a record needs to be believed: the code that made it, the versions and the machine."""

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
from typing import Any

from clray import __version__, tracks
from clray.machine import cores_given, cores_of_machine

_PACKAGE = Path(__file__).resolve().parent
_SHARED = ("training.py", "optim.py")
"""Outside the tracks' folders, what a number depends on."""
_UNCOUNTED = ("data.py", "datasets", "export.py")
"""In a track's folder, what it does not depend on: the data that was read is in a trial's id, by its fingerprint, and
what is exported comes after all numbers."""
_VERSIONS = ("numpy", "torch", "numba", "pillow", "quadprog", "scipy", "transformers", "ray")


@functools.cache
def code_digest(track: str, method: str) -> str:
    """A hash of the code that determines a trial's numbers: the method's own file, the loop that trains it, and what
    these import of the track's folder and of what tracks share.

    Comments, docstrings and layout do not count, nor do the files of other methods and what only they import, the lists
    of what there is, the metrics (they are computed from the record), the cluster or the command line.

    Args:
        track: the folder of the track below the package.
        method: the module name of the method's file below ``methods/``.
    """
    loop = tracks.track(track).loop_of(method)
    files: set[Path] = set()
    waiting = [_PACKAGE / track / "methods" / f"{method}.py", _PACKAGE / track / f"{loop}.py"]
    while waiting:
        file = waiting.pop()
        if file not in files:
            files.add(file)
            waiting += [other for other in _imported(file) if _counts(other, track)]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(str(file.relative_to(_PACKAGE)).encode())
        digest.update(_meaning(file.read_text(encoding="utf-8")))
    return digest.hexdigest()[:16]


def _imported(file: Path) -> list[Path]:
    """The package's own files that a file's import statements name, wherever in it they stand."""
    found = []
    for name in _names_imported(file.read_text(encoding="utf-8")):
        package, *parts = name.split(".")
        if package == "clray" and parts:
            path = _PACKAGE.joinpath(*parts)
            found += [p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()]
    return found


@functools.lru_cache(maxsize=256)
def _names_imported(source: str) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def _counts(file: Path, track: str) -> bool:
    folder, *inside = file.relative_to(_PACKAGE).parts
    if not inside:
        return folder in _SHARED
    return folder == track and inside[0] not in (*_UNCOUNTED, "methods") and file.name != "__init__.py"


@functools.lru_cache(maxsize=256)
def _meaning(source: str) -> bytes:
    """A hash of the source's syntax tree without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).digest()


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


def provenance(track: str, method: str) -> dict[str, Any]:
    """All of it, for a record written by this process."""
    return {
        "clray": __version__,
        "code": code_digest(track, method),
        "git": git_state(),
        "python": platform.python_version(),
        "packages": {name: version for name in _VERSIONS if (version := _version(name))},
        "machine": machine(),
    }
