"""Methods, benchmarks and networks that are not part of clray: in files beside a sweep file, and in installed packages.

A declaration names such a class by a reference, wherever it may name one of clray's:

- ``./mine.py:Mine``, a class in a file, by its path from the sweep file. In a trial this becomes
  ``my-method/mine.py:Mine``, with the name of the file's folder, which is the same on every machine. What lies beside
  the file is imported with a dot: ``from .losses import contrastive``.
- ``my_package.mine:Mine``, a class in a package that is installed.
- a name that an installed package lists as an entry point: ``mine = "my_package.mine:Mine"`` in one of the groups
  ``clray.methods``, ``clray.benchmarks`` and ``clray.networks``.

Files are imported as modules of the package ``clray_own``, in which each folder is a package of its own, so that two
folders may have files of the same name.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import json
import os
import re
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from clray import loaded_code
from clray.atomic import write_atomically
from clray.errors import DeclarationError, OtherCodeError
from clray.folders import private_folder
from clray.imports import names_imported

PACKAGE = "clray_own"
"""The package whose modules are the files beside sweep files."""

LABEL = "own:"
"""The beginning of such a module's name in a digest of code."""

_folders: dict[str, Path] = {}
"""The folders whose files this process may import, by their names."""


_edition = 0


class OwnCodeError(DeclarationError):
    """A reference names no class that could be used. The message names the file or the package."""


def is_reference(name: object) -> bool:
    """True for ``FILE.py:Class`` and ``package.module:Class``; no name within clray has a colon."""
    return isinstance(name, str) and ":" in name


def is_file_reference(name: str) -> bool:
    """True for ``FILE.py:Class``."""
    return name.rpartition(":")[0].endswith(".py")


# --------------------------------------------------------------------------------------------------------------
# From a declaration to a reference


def declared(reference: str, folder: Path) -> str:
    """The form of a reference that a trial holds, after its class was found to be there.

    Args:
        reference: as it is declared; a file's path is taken from ``folder``.
        folder: that of the sweep file.

    Raises:
        OwnCodeError: there is no such file, package or class.
    """
    if is_file_reference(reference):
        path, _, name = reference.rpartition(":")
        file = Path(os.path.abspath(folder / path))
        if not file.is_file():
            raise OwnCodeError(f"{reference}: there is no file {file}")
        if not file.stem.isidentifier():
            raise OwnCodeError(f"{reference}: a file to import is named with letters, digits and _ (it is {file.name})")
        folder_name = _add_folder(file.parent)
        _forget_edited(folder_name)
        reference = f"{folder_name}/{file.name}:{name}"
    find(reference)
    return reference


def _add_folder(folder: Path) -> str:
    """Let this process import the files of a folder. Returns its name.

    Raises:
        OwnCodeError: another folder of this name is in use.
    """
    name = folder.resolve().name or "root"
    if name in _folders and not _folders[name].exists():  # it was moved since
        forget()
    known = _folders.setdefault(name, folder)
    if not known.samefile(folder):
        raise OwnCodeError(
            f"two folders are named {name}, {known} and {folder}; trials know a folder by its name: rename one of them"
        )
    return name


def forget() -> None:
    """Forget all folders and what was imported from them, as a new process would."""
    global _edition
    if not _folders:
        return
    _folders.clear()
    for module in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[module]
    _edition += 1


def _forget_edited(name: str) -> None:
    """Let a folder's modules be imported anew where one of its files was edited after its import."""
    global _edition
    package = f"{_package(name, _folders[name])}."
    loaded = {module: sys.modules[module] for module in sys.modules if module.startswith(package)}
    files = [Path(module.__file__) for module in loaded.values() if module.__file__]
    if all(file.is_file() and file.read_bytes() == loaded_code.source_of(file) for file in files):
        return
    for module in loaded:
        del sys.modules[module]
    importlib.invalidate_caches()
    _edition += 1


def edition() -> int:
    """A number that rises when files that were edited are forgotten, to be imported anew."""
    return _edition


def _folder(name: str) -> Path:
    if name not in _folders:
        raise OwnCodeError(f"the folder {name} of this trial's own code is not known here: name the sweep file")
    return _folders[name]


# --------------------------------------------------------------------------------------------------------------
# From a reference to its class


def module_of(reference: str) -> str:
    """The name under which the module of a reference is imported.

    Raises:
        OwnCodeError: its folder is not known to this process.
    """
    module, _, name = reference.rpartition(":")
    if not module or not name.isidentifier():
        raise OwnCodeError(f"{reference}: expected FILE.py:Class or package.module:Class")
    if not is_file_reference(reference):
        if not all(part.isidentifier() for part in module.split(".")):
            raise OwnCodeError(f"{reference}: expected FILE.py:Class or package.module:Class")
        loaded_code.keep_sources(module.partition(".")[0])
        return module
    folder, _, file = module.rpartition("/")
    return f"{_package(folder, _folder(folder))}.{file.removesuffix('.py')}"


def _package(name: str, folder: Path) -> str:
    """The package whose modules are a folder's files; made at its first use."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    if plain != name:  # two names may look alike without their other characters
        plain += f"_{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    loaded_code.keep_sources(PACKAGE)
    for package, path in ((PACKAGE, []), (f"{PACKAGE}.{plain}", [str(folder)])):
        if package not in sys.modules:
            module = ModuleType(package)
            module.__path__ = path
            sys.modules[package] = module
    return f"{PACKAGE}.{plain}"


def find(reference: str) -> Any:
    """The class of a reference.

    Raises:
        OwnCodeError: its module cannot be imported, or has no such class.
    """
    name = reference.rpartition(":")[2]
    module = _imported(module_of(reference), reference)
    found = getattr(module, name, None)
    if not isinstance(found, type):
        there = sorted(n for n, each in vars(module).items() if _is_own_class(each, module.__name__))
        raise OwnCodeError(f"{reference}: there is no class {name}; allowed: {', '.join(there) or 'none is there'}")
    return found


def _is_own_class(value: Any, module: str) -> bool:
    return isinstance(value, type) and value.__module__ == module


def _imported(module: str, reference: str) -> ModuleType:
    """Import a module.

    Raises:
        OwnCodeError: it is not there, or its own code raised an error.
    """
    file = source_file(module)
    if file is None:
        raise OwnCodeError(
            f"{reference}: there is no module {module} here: install the package on every machine, or name the file: "
            f"./{module.rpartition('.')[2]}.py:{reference.rpartition(':')[2]}"
        )
    if module.startswith(f"{PACKAGE}."):
        _refuse_undotted(module)
    try:
        return importlib.import_module(module)
    except Exception as error:  # of the user's own code
        sys.modules.pop(module, None)
        place = _place_of(error, file)
        raise OwnCodeError(f"{place}: cannot be imported: {type(error).__name__}: {error}") from error


def _place_of(error: BaseException, file: Path) -> str:
    """The file, and the line in it at which an error arose."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    line, step = None, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == str(file):
            line = step.tb_lineno
        step = step.tb_next
    return f"{file}:{line}" if line else str(file)


def place_in(error: BaseException) -> str:
    """The innermost line of the user's own code that an error went through, as ``my-method/method.py:23``; empty where
    it went through none."""
    found, step = "", error.__traceback__
    while step is not None:
        module, file = str(step.tb_frame.f_globals.get("__name__")), Path(step.tb_frame.f_code.co_filename)
        if module.startswith(f"{PACKAGE}."):
            found = f"{file.parent.name}/{file.name}:{step.tb_lineno}"
        elif module.partition(".")[0] in loaded_code.packages() - {"clray"}:
            found = f"{module}:{step.tb_lineno}"
        step = step.tb_next
    return found


def _refuse_undotted(module: str) -> None:
    """Refuse imports that would look elsewhere for a file that lies beside: in a module, and in those that it imports.

    Raises:
        OwnCodeError: with the line, and what to write.
    """
    waiting, seen = [module], set()
    while waiting:
        module = waiting.pop()
        file = source_file(module) if module not in seen else None
        seen.add(module)
        if file is None:
            continue
        try:
            source = loaded_code.source_of(file)
            found = _undotted(source, file.parent)
        except (SyntaxError, ValueError, OSError):
            return  # the import itself says what is wrong
        if found:
            line, name = found
            raise OwnCodeError(
                f"{file}:{line}: {name} lies beside this file: import it with a dot, from .{name} import …"
            )
        package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        waiting += [name for name in names_imported(source, package) if name.startswith(f"{PACKAGE}.")]


def _undotted(source: bytes, folder: Path) -> tuple[int, str] | None:
    """The line of the first import without a dot of something that lies in a folder, and its name."""
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.append(node.module)
        for name in names:
            first = name.partition(".")[0]
            lies_there = any(path.is_file() for path in (folder / f"{first}.py", folder / first / "__init__.py"))
            if lies_there and first not in sys.stdlib_module_names:
                assert isinstance(node, ast.stmt)
                return node.lineno, name
    return None


def source_file(module: str) -> Path | None:
    """The file of a module of one's own; None where there is none. Nothing is imported to find it."""
    first, *parts = module.split(".")
    if first == PACKAGE:
        places = list(sys.modules[f"{PACKAGE}.{parts.pop(0)}"].__path__)
    else:
        try:
            spec = importlib.util.find_spec(first)
        except (ImportError, ValueError):
            return None
        if spec is None:
            return None
        if not parts:
            return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
        places = list(spec.submodule_search_locations or ())
    for place in places:
        path = Path(place, *parts)
        for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


def is_own(module: str, root: str) -> bool:
    """True where a module belongs to the same code of one's own as another.

    Args:
        root: the other one: a file's folder, or a package, is what they have in common.
    """
    parts = 2 if root.startswith(f"{PACKAGE}.") else 1
    return module.split(".")[:parts] == root.split(".")[:parts]


# --------------------------------------------------------------------------------------------------------------
# Entry points


@functools.cache
def listed(group: str) -> Mapping[str, metadata.EntryPoint]:
    """The classes that installed packages list, by name.

    Args:
        group: ``clray.methods``, ``clray.benchmarks`` or ``clray.networks``.
    """
    return {point.name: point for point in metadata.entry_points(group=group)}


# --------------------------------------------------------------------------------------------------------------
# To the processes that run trials


def adopt(texts: Mapping[str, Any]) -> None:
    """Let this process import files as the launch has read them.

    Args:
        texts: what ``held_for`` gave there.

    Where the folder is on this machine and holds the same texts, its own files are used. Elsewhere the texts are
    written into a folder for temporary files.

    Raises:
        OtherCodeError: there is no place for them.
    """
    for name, held in texts.items():
        if name in _folders:
            continue  # this process has read the folder itself; a record tells if its code is another
        folder = Path(held["folder"])
        _folders[name] = folder if _holds(folder, held["files"]) else _written(name, held["files"])


def _holds(folder: Path, files: Mapping[str, str]) -> bool:
    try:
        return all((folder / path).read_text(encoding="utf-8") == text for path, text in files.items())
    except (OSError, ValueError):
        return False


def _written(name: str, files: Mapping[str, str]) -> Path:
    digest = hashlib.sha256(json.dumps([name, files], sort_keys=True).encode()).hexdigest()[:16]
    above = private_folder("own_code")
    if above is None:
        raise OtherCodeError("no folder for temporary files can be made for the sweep's own code: see TMPDIR")
    folder = above / digest / name
    if not _holds(folder, files):
        try:
            for path, text in files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                write_atomically(folder / path, text.encode())
        except OSError as error:
            raise OtherCodeError(f"{folder}: the sweep's own code cannot be written: {error.strerror}") from None
    return folder


def held_for(files: Mapping[str, Path]) -> dict[str, Any]:
    """The texts of files of one's own, for ``adopt`` in the processes that run trials.

    Args:
        files: by the modules that they are imported as; those of installed packages are left out.

    Returns:
        by the name of a folder: ``folder``, its path here, and ``files``, the texts by their paths in it.
    """
    found: dict[str, Any] = {}
    for name, folder in _folders.items():
        package = f"{_package(name, folder)}."
        texts = {
            os.path.relpath(file, folder): loaded_code.source_of(file).decode()
            for module, file in files.items()
            if module.startswith(package)
        }
        if texts:
            found[name] = {"folder": str(folder), "files": texts}
    return found
