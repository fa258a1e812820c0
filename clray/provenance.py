"""What a record needs to be believed: the code that made it, the versions and the machine."""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import platform
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from clray import __version__

_PACKAGE = Path(__file__).resolve().parent
_SHARED = ("training.py", "optim.py")
_VERSIONS = ("numpy", "torch", "numba", "pillow", "quadprog", "scipy", "transformers", "ray")


@functools.cache
def code_digest(track: str, method: str) -> str:
    """A hash of the code that determines a trial's numbers: what tracks share, the track, and the method's own file.

    Comments, docstrings and layout do not count, nor do the files of other methods, the lists of what there is, the
    metrics (they are computed from the record), the cluster or the command line.

    Args:
        track: the folder of the track below the package.
        method: the module name of the method's file below ``methods/``.
    """
    folder = _PACKAGE / track
    files = [_PACKAGE / name for name in _SHARED if (_PACKAGE / name).exists()]
    files += [f for f in sorted(folder.rglob("*.py")) if f.parent.name != "methods" or f.stem == method]
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file.relative_to(_PACKAGE)).encode())
        digest.update(_meaning(file.read_text(encoding="utf-8")).encode())
    return digest.hexdigest()[:16]


def _meaning(source: str) -> str:
    """The source's syntax tree without docstrings."""
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
    return ast.dump(tree)


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


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    """The machine this process runs on; the GPU's name only where torch is loaded and sees one."""
    facts: dict[str, Any] = {
        "host": socket.gethostname(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
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
