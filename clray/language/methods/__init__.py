"""The methods of the language track, one file each, and the list of their names.

A method is a ``base.LanguageMethod``: it decides what a task's training uses besides the task's own examples. Its file
does not load torch until it computes, so that a sweep is planned quickly. To add one, write its file, add its line
below, and declare a variant that names it.
"""

from __future__ import annotations

from typing import Any

from clray.registry import Registry

METHODS: Registry[Any] = Registry(
    __name__,
    {
        "lamol": "lamol:Lamol",
        "finetune": "finetune:Finetune",
        "multitask": "multitask:Multitask",
        "ewc": "ewc:Ewc",
        "mas": "mas:Mas",
        "gem": "gem:Gem",
    },
    base="clray.language.methods.base:LanguageMethod",
    group="clray.methods",
)
"""A module is imported when one of its trials is planned or run."""
