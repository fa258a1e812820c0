"""clray reproduces the tables of continual-learning papers, with a verdict for every cell.

Importing this package loads nothing heavy: torch, ray, transformers and wandb are loaded where they are used.
"""

from clray.loaded_code import keep_sources

__version__ = "0.1.0"

keep_sources()  # before any other module of clray is imported
