"""A registry of classes by name: clray's own, those that installed packages list, and those that a reference names.

The file of a class is imported when the class is first looked up.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar, get_args

from clray import own_code
from clray.own_code import OwnCodeError

T = TypeVar("T")


class Registry(Mapping[str, type[T]], Generic[T]):
    """A mapping from names to classes. Its own names are listed; references (``clray.own_code``) are found, too.

    Args:
        package: the package that holds the classes' files.
        targets: name to ``module:Class`` within the package.
        base: ``module:Class`` of the class that those from outside clray are derived from, by its full name; empty
            where none may come from there.
        group: the entry points of installed packages: ``clray.methods``, ``clray.benchmarks`` or ``clray.networks``.
    """

    def __init__(self, package: str, targets: Mapping[str, str], base: str = "", group: str = "") -> None:
        self.package, self.targets, self.base, self.group = package, dict(targets), base, group

    def module_of(self, name: str) -> str:
        """The full name of the module that holds a class.

        Raises:
            KeyError: the name is unknown.
            OwnCodeError: a reference's folder is not known here.
        """
        if (reference := self._reference(name)) is not None:
            return own_code.module_of(reference)
        return f"{self.package}.{self.targets[name].partition(':')[0]}"

    def __getitem__(self, name: str) -> type[T]:
        if (reference := self._reference(name)) is not None:
            return self._checked(own_code.find(reference), name)
        return getattr(importlib.import_module(self.module_of(name)), self.targets[name].partition(":")[2])

    def _reference(self, name: str) -> str | None:
        """The reference that a name is, or that an installed package lists; None for the names of clray."""
        if not self.base or name in self.targets:
            return None
        if own_code.is_reference(name):
            return name
        listed = own_code.listed(self.group).get(name) if self.group else None
        return listed.value if listed is not None else None

    def _checked(self, found: Any, name: str) -> Any:
        module, _, base = self.base.partition(":")
        above = getattr(importlib.import_module(module), base)
        if not issubclass(found, above):
            raise OwnCodeError(f"{name}: the class must be derived from {base} of {module}")
        if "Settings" in above.__annotations__ and not hasattr(getattr(found, "Settings", None), "model_fields"):
            raise OwnCodeError(
                f"{name}: the class needs a class `Settings` with its hyper-parameters, derived from the settings "
                "that go with its base class; docs/your_method.md has an example of each kind"
            )
        field = getattr(found, "model_fields", {}).get("name")
        if field is not None and field.annotation is not str and name not in get_args(field.annotation):
            raise OwnCodeError(f"{name}: the class's field must be `name: str`: it holds this reference")
        return found

    def fits(self, name: str) -> bool:
        """True where a name that an installed package lists is one of a class for this registry."""
        try:
            return bool(self[name])
        except (OwnCodeError, KeyError):
            return False

    @property
    def listed(self) -> dict[str, str]:
        """The references that installed packages list, by name; those whose class belongs to another track are not."""
        points = own_code.listed(self.group) if self.group else {}
        return {name: point.value for name, point in points.items() if name not in self.targets and self.fits(name)}

    def __iter__(self) -> Iterator[str]:
        yield from self.targets
        yield from self.listed

    def __len__(self) -> int:
        return len(self.targets) + len(self.listed)

    def __contains__(self, name: object) -> bool:
        if name in self.targets:
            return True
        if not isinstance(name, str) or not self.base:
            return False
        return own_code.is_reference(name) or (name in own_code.listed(self.group) and not self._is_of_another(name))

    def _is_of_another(self, name: str) -> bool:
        """True where a name that an installed package lists is one of a class for another track.

        False where its class cannot be had at all: to get it then raises the error that says why.
        """
        try:
            own_code.find(own_code.listed(self.group)[name].value)
        except (OwnCodeError, KeyError):
            return False
        return not self.fits(name)
