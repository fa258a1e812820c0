"""YAML files read with their places: a checked object, or one error that names file, line, key and allowed values."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from clray.errors import DeclarationError


def one_of(word: str, allowed: Iterable[str]) -> str:
    """The end of an error message: the nearest allowed word, and all of them."""
    allowed = list(allowed)
    near = difflib.get_close_matches(word, allowed, n=1)
    return (f"did you mean {near[0]!r}? " if near else "") + "allowed: " + ", ".join(allowed)


class UniqueKeyLoader(yaml.SafeLoader):
    """safe_load, except that a key written twice is an error: YAML would silently drop the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 1e-3 as a string; every user means the number.
UniqueKeyLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


class Document:
    """A YAML file's content, and the line on which each key stands."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DeclarationError(f"{path}: cannot be read: {error}") from None
        try:
            self.data: Any = yaml.load(text, UniqueKeyLoader)
            self._root = yaml.compose(text, yaml.SafeLoader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            place = f"{path}:{mark.line + 1}" if mark else str(path)
            problem = getattr(error, "problem", None) or str(error)
            raise DeclarationError(f"{place}: not valid YAML: {problem}") from None
        if not isinstance(self.data, dict):
            raise DeclarationError(f"{path}: expected a mapping of keys to values at the top")

    def place(self, keys: Sequence[Any]) -> str:
        """``file:line: a.b.c`` for a path of keys, as near as the file has it."""
        node, line = self._root, None
        for key in keys:
            if isinstance(node, yaml.MappingNode):
                found = [(k, v) for k, v in node.value if k.value == str(key)]
                if not found:
                    break
                line, node = found[0][0].start_mark.line + 1, found[0][1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
                node = node.value[key]
                line = node.start_mark.line + 1
            else:
                break
        where = f"{self.path}:{line}" if line else str(self.path)
        return f"{where}: {'.'.join(map(str, keys))}" if keys else where


def explain(error: ValidationError, place: Any) -> DeclarationError:
    """A pydantic error as clray's: one line a mistake, each with its place and what would be right.

    Args:
        error: what pydantic raised.
        place: a function from a path of keys to the text that names where it stands.
    """
    lines = []
    for item in error.errors():
        keys = [
            part for part in item["loc"] if not (isinstance(part, str) and ("[" in part or part.startswith("function")))
        ]
        message, context = item["msg"].removeprefix("Value error, "), item.get("ctx", {})
        if item["type"] == "extra_forbidden":
            message = "not a known key"
            if allowed := context.get("allowed"):
                message += f"; {allowed}"
        elif item["type"] == "missing":
            message = "this key is missing"
        elif item["type"] not in ("value_error",):
            message += f" (it is {item['input']!r})"
        lines.append(f"{place(keys)}: {message}")
    return DeclarationError("\n".join(dict.fromkeys(lines)))


class Declared(BaseModel):
    """A part of a declaration: unknown keys are errors that list the known ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _name_unknown_keys(cls, values: Any) -> Any:
        if isinstance(values, dict):
            known = [f.alias or n for n, f in cls.model_fields.items()]
            for key in values:
                if key not in known:
                    raise ValueError(f"{key!r} is not a known key; {one_of(str(key), known)}")
        return values
