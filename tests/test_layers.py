"""The layers of clray, drawn from its import statements: a module imports from lower floors and from its own.

Imports on one floor must not form a circle. Imports for type checkers alone do not count; imports within functions do.
The registry of the tracks loads a track by its name, so the registry and all modules that use it are above the tracks.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import clray
from clray import tracks

FLOORS = {
    "tools": """
        clray clray.loaded_code clray.errors clray.extras clray.atomic clray.metrics clray.folders clray.output
        clray.arrow clray.machine clray.gpu clray.console clray.cache clray.data_files clray.optim clray.divergence
        clray.settings clray.documents clray.interrupt clray.limits clray.own_code clray.imports clray.registry
    """,
    "trial": "clray.trial clray.training clray.track_interface",
    "tracks": "clray.vision.* clray.episodes.* clray.language.*",
    "declarations": """
        clray.tracks clray.selection clray.axes clray.suggestions clray.grid clray.task_orders clray.resources
        clray.sweep clray.phases
        clray.loading clray.reproduction clray.equal_code clray.provenance
    """,
    "store": """
        clray.stored clray.record clray.data_sets clray.storage clray.store clray.checkpoints clray.leases
        clray.work clray.execution clray.durations clray.planning clray.costs clray.dashboards clray.reference_runs
        clray.verification clray.tuning clray.testing clray.store_comparison clray.store_state clray.garbage
    """,
    "launch": """
        clray.progress clray.launch clray.testing clray.slurm clray.kubernetes clray.cluster.* clray.tracking.*
        clray.analysis.*
    """,
    "commands": "clray.api.* clray.commands.* clray.cli clray.reproduce clray.__main__",
}
"""The floors from the lowest to the highest, and the modules on each; a new module of the core has to be put on one."""


def module_of(file: Path, package: Path) -> str:
    parts = ("clray", *file.relative_to(package).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def files_in(package: Path) -> dict[str, Path]:
    """The files of a package by their modules; clray/analysis is a link, which rglob does not follow."""
    folders = [package, *(folder for folder in package.iterdir() if folder.is_symlink())]
    found = {module_of(file, package): file for folder in folders for file in folder.rglob("*.py")}
    return {module: file for module, file in found.items() if not module.startswith("clray.declared")}


def imported(file: Path) -> Iterator[str]:
    """The names that a file imports when it runs: of ``from a import b`` both a and a.b."""
    waiting: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield node.module


def arrows(files: Mapping[str, Path]) -> dict[str, set[str]]:
    """The modules that each module imports. A package's own name counts only where nothing within it is meant."""
    found: dict[str, set[str]] = {}
    for module, file in files.items():
        names = {name for name in imported(file) if name in files}
        within = {name.rpartition(".")[0] for name in names}
        found[module] = {name for name in names if name != module and not (name in within and is_package(name, files))}
    return found


def is_package(module: str, files: Mapping[str, Path]) -> bool:
    return files[module].name == "__init__.py"


def floor_of(module: str) -> int | None:
    for height, modules in enumerate(FLOORS.values()):
        for name in modules.split():
            if module == name or (name.endswith(".*") and f"{module}.".startswith(name[:-1])):
                return height
    return None


def going_up(imports: Mapping[str, set[str]]) -> list[str]:
    """The arrows to a higher floor."""
    return [
        f"{module} imports {other}"
        for module, others in sorted(imports.items())
        for other in sorted(others)
        if (floor_of(other) or 0) > (floor_of(module) or 0)
    ]


def circle(imports: Mapping[str, set[str]]) -> list[str]:
    """The modules of a circle, the first one again at the end; empty where there is none."""
    state: dict[str, str] = {}

    def visit(module: str, path: list[str]) -> list[str]:
        state[module] = "open"
        for other in sorted(imports[module]):
            if state.get(other) == "open":
                return [*path[path.index(other) :], other]
            if other not in state and (found := visit(other, [*path, other])):
                return found
        state[module] = "done"
        return []

    for module in sorted(imports):
        if module not in state and (found := visit(module, [module])):
            return found
    return []


FILES = files_in(Path(clray.__file__).parent)


def test_there_are_at_most_eight_floors():
    assert len(FLOORS) <= 8


def test_every_module_stands_on_a_floor():
    assert [module for module in sorted(FILES) if floor_of(module) is None] == []
    assert len(FILES) > 150


def test_no_import_goes_up():
    assert going_up(arrows(FILES)) == []


def test_no_imports_go_in_a_circle():
    assert circle(arrows(FILES)) == []


def test_the_registry_is_above_the_tracks_and_knows_each_of_them():
    above = floor_of("clray.tracks")
    for target in tracks.TRACKS.values():
        assert (floor_of(target) or 0) < above
    used = {module for module, others in arrows(FILES).items() if "clray.tracks" in others}
    assert not [module for module in used if (floor_of(module) or 0) < above]


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("import clray.cli", True),
        ("from clray import cli", True),
        ("def f():\n    from clray.cli import main", True),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from clray.cli import main", False),
        ("TYPE_CHECKING = False\nif TYPE_CHECKING:\n    pass\nelse:\n    import clray.cli", True),
    ],
)
def test_an_arrow_that_goes_up_is_named(tmp_path, text, counts):
    """Another file in the place of one on the lowest floor."""
    file = tmp_path / "optim.py"
    file.write_text(text)
    assert going_up(arrows({**FILES, "clray.optim": file})) == ["clray.optim imports clray.cli"] * counts


def test_a_circle_is_named(tmp_path):
    file = tmp_path / "errors.py"
    file.write_text("import clray.folders")
    found = circle(arrows({**FILES, "clray.errors": file}))
    assert {"clray.errors", "clray.folders"} == set(found)
