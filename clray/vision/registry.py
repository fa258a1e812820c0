"""A registry of classes by name. The file of a class is imported when the class is first looked up."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Mapping[str, type[T]], Generic[T]):
    """A mapping from names to classes.

    Args:
        package: the package that holds the classes' files.
        targets: name to ``module:Class`` within the package.
    """

    def __init__(self, package: str, targets: Mapping[str, str]) -> None:
        self.package, self.targets = package, dict(targets)

    def module_of(self, name: str) -> str:
        """The full name of the module that holds a class; KeyError for an unknown name."""
        return f"{self.package}.{self.targets[name].partition(':')[0]}"

    def __getitem__(self, name: str) -> type[T]:
        return getattr(importlib.import_module(self.module_of(name)), self.targets[name].partition(":")[2])

    def __iter__(self) -> Iterator[str]:
        return iter(self.targets)

    def __len__(self) -> int:
        return len(self.targets)

    def __contains__(self, name: object) -> bool:
        return name in self.targets
