"""clray reproduces the tables of continual-learning papers, with a verdict for every cell.

From Python: ``load`` reads results, ``run`` runs trials, and ``table``, ``compare`` and ``leaderboard`` show results
beside published numbers and beside each other (``clray.api``, docs/python.md).

Importing this package loads nothing heavy: torch, ray, transformers and wandb are loaded where they are used.
"""

from typing import TYPE_CHECKING, Any

from clray.loaded_code import keep_sources

if TYPE_CHECKING:
    from clray.api import compare, leaderboard, load, run, table

__version__ = "0.1.0"

__all__ = ["__version__", "compare", "leaderboard", "load", "run", "table"]

keep_sources()  # before any other module of clray is imported


def __getattr__(name: str) -> Any:
    """The functions of ``clray.api``, which is loaded when the first of them is used."""
    if name in __all__:
        import importlib

        return getattr(importlib.import_module("clray.api"), name)
    raise AttributeError(f"module 'clray' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
