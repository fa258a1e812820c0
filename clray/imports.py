"""The names that a source text imports, read from its syntax tree: nothing is imported to find them."""

from __future__ import annotations

import ast
import functools


@functools.lru_cache(maxsize=512)
def names_imported(source: bytes, package: str) -> list[str]:
    """The names that a text imports, except for type checkers alone; of ``from a import b`` both a and a.b.

    Args:
        package: the package of the module that has the text, for imports with dots.
    """
    names: list[str] = []
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
        elif not isinstance(node, ast.expr):
            waiting += ast.iter_child_nodes(node)
    return names
