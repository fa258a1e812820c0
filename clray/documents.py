"""YAML files read with their places: a checked object, or one error that names file, line, key and allowed values.

A declaration is read by stricter rules than YAML's own. Its values are texts, finite numbers, yes and no, null, lists
and mappings; its keys are texts, and each stands once. Its size, its depth and what its aliases multiply to have
limits, so that no file takes more than a moment to refuse.
"""

from __future__ import annotations

import difflib
import math
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import Resolver
from yaml.scanner import Scanner

from clray.errors import DeclarationError
from clray.output import counted

MOST_BYTES = 2 * 2**20
"""The most bytes of a declaration's file; the largest that ships with clray has 8 KiB."""
MOST_VALUES = 50_000
"""The most keys and values of a file; each alias counts as all that it stands for. A text of more than 32 characters
counts as several."""
MOST_DEPTH = 40
"""The most levels of lists and mappings inside one another."""
MOST_LINES = 20
"""The most mistakes of one file that an error names."""
_INT64 = range(-(2**63), 2**63)


def shown(value: Any, most: int = 80) -> str:
    """A value for an error message: its ``repr``, cut where it is long."""
    if isinstance(value, int) and abs(value) >= 10**most:
        return f"a whole number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def one_of(word: str, allowed: Iterable[str], listed_by: str = "") -> str:
    """The end of an error message: the nearest allowed word, and all of them, or the first ones of very many.

    Args:
        listed_by: a command that lists the allowed words, which the message names instead of them.
    """
    allowed = list(allowed)
    near = difflib.get_close_matches(word[:200], allowed, n=3 if listed_by else 1)
    if listed_by:
        return (f"did you mean {' or '.join(map(repr, near))}? " if near else "") + f"{listed_by} shows all names"
    more = f" and {len(allowed) - 200} more" if len(allowed) > 200 else ""
    return (f"did you mean {near[0]!r}? " if near else "") + "allowed: " + ", ".join(allowed[:200]) + more


# --------------------------------------------------------------------------------------------------------------
# YAML text to nodes


class Wrong(Exception):
    """A mistake in a YAML text, with its place.

    Attributes:
        line: from 1; None where it is not known.
    """

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


class _LimitedComposer(Composer):
    """PyYAML's composer, which stops at content that is too deep, too large, or inside of itself."""

    peek_event: Callable[[], Any]  # of the parser that it is mixed with

    def __init__(self) -> None:
        super().__init__()
        self._depth = self._values = 0
        self._sizes: dict[str, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        before, line = self._values, event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in self.anchors and event.anchor not in self._sizes:
                raise Wrong(f"*{event.anchor} is inside the value that it names", line)
            self._values += self._sizes.get(str(event.anchor), 0)
        elif isinstance(event, yaml.ScalarEvent):
            self._values += 1 + len(event.value) // 32
        else:
            self._values += 1
        if self._values > MOST_VALUES:
            raise Wrong(f"more than {MOST_VALUES:,} keys and values, those of aliases included", line)
        if self._depth >= MOST_DEPTH:
            raise Wrong(f"lists and mappings are inside one another more than {MOST_DEPTH} times", line)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            self._sizes.setdefault(event.anchor, self._values - before)
        return node


class PythonLoader(_LimitedComposer, Reader, Scanner, Parser, Resolver):
    """Composes nodes where PyYAML was built without libyaml."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        _LimitedComposer.__init__(self)
        Resolver.__init__(self)


LOADERS: list[type] = [PythonLoader]
"""The classes that compose nodes, the best one last."""

if yaml.__with_libyaml__:
    from yaml.cyaml import CParser  # type: ignore[attr-defined]

    class CLoader(_LimitedComposer, CParser, Resolver):
        """Composes nodes from what libyaml parses, some ten times as fast."""

        def __init__(self, text: str) -> None:
            CParser.__init__(self, text)
            _LimitedComposer.__init__(self)
            Resolver.__init__(self)

    LOADERS.append(CLoader)

for _loader in LOADERS:
    # YAML 1.1 reads 1e-3 as a string; every user means the number.
    _loader.add_implicit_resolver(  # type: ignore[attr-defined]
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)[eE][-+]?\d+$"),
        list("-+0123456789."),
    )


def compose(text: str, loader: type | None = None) -> yaml.Node | None:
    """The nodes of a YAML text; None where it is empty.

    Raises:
        Wrong: it is not valid YAML, or beyond a limit.
    """
    if odd := Reader.NON_PRINTABLE.search(text):
        problem = f"not valid YAML: the character U+{ord(odd.group()):04X} is not allowed"
        raise Wrong(problem, text.count("\n", 0, odd.start()) + 1)
    try:
        return (loader or LOADERS[-1])(text).get_single_node()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        raise Wrong(f"not valid YAML: {problem}", mark.line + 1 if mark else None) from None
    except (ValueError, OverflowError) as error:  # an escape such as "\UFFFFFFFF", read without libyaml
        raise Wrong(f"not valid YAML: {error}") from None


# --------------------------------------------------------------------------------------------------------------
# Nodes to values

_SCALARS = SafeConstructor()
_TAG = "tag:yaml.org,2002:"
_KINDS = {"null": "nothing", "bool": "yes or no", "int": "a whole number", "float": "a number", "timestamp": "a date"}
"""YAML's tags in words."""
_READ: dict[str, Callable[[Any], Any]] = {
    f"{_TAG}null": _SCALARS.construct_yaml_null,
    f"{_TAG}bool": _SCALARS.construct_yaml_bool,
    f"{_TAG}int": _SCALARS.construct_yaml_int,
    f"{_TAG}float": _SCALARS.construct_yaml_float,
    f"{_TAG}str": _SCALARS.construct_yaml_str,
}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")


def control_character(text: str) -> str | None:
    """The first control character of a text, named as ``U+001B``; None where there is none.

    Line ends and tabs are allowed.
    """
    found = _CONTROL.search(text)
    return f"U+{ord(found.group()):04X}" if found else None


def construct(node: yaml.Node | None) -> Any:
    """The value that a node stands for. What aliases share in the file is a value of its own at each place.

    Raises:
        Wrong: a key is not a text or occurs twice, or a value has a type that a declaration cannot have.
    """
    if node is None:
        return None
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if node.tag not in (f"{_TAG}seq", f"{_TAG}map"):
        raise _wrong_tag(node)
    if isinstance(node, yaml.SequenceNode):
        return [construct(value) for value in node.value]
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = _key(key_node)
        if key in result:
            raise Wrong(f"not valid YAML: the key {shown(key)} stands twice", _line(key_node))
        result[key] = construct(value_node)
    return result


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _kind(node: yaml.Node) -> str:
    name = str(node.tag).removeprefix(_TAG)
    return _KINDS.get(name, name)


def _wrong_tag(node: yaml.Node) -> Wrong:
    return Wrong(f"the tag {shown(node.tag)} is not allowed; allowed: texts, numbers, lists and mappings", _line(node))


def _scalar(node: yaml.ScalarNode) -> Any:
    read = _READ.get(node.tag)
    if read is None:
        if node.tag in (f"{_TAG}timestamp", f"{_TAG}value", f"{_TAG}merge"):
            problem = f"{shown(node.value)} is read as {_kind(node)}: put it in quotes to make it a text"
            raise Wrong(problem, _line(node))
        raise _wrong_tag(node)
    try:
        value = read(node)
    except (ValueError, KeyError, yaml.YAMLError):
        problem = f"{shown(node.value)} is not {_kind(node)}: put it in quotes if it is meant as a text"
        raise Wrong(problem, _line(node)) from None
    if isinstance(value, float) and not math.isfinite(value):
        raise Wrong(f"{shown(node.value)} is not a finite number", _line(node))
    if isinstance(value, str) and (odd := control_character(value)):
        raise Wrong(f"{shown(value)} holds the control character {odd}", _line(node))
    return value


def _key(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        what = "list" if isinstance(node, yaml.SequenceNode) else "mapping"
        raise Wrong(f"a {what} stands where a key is expected; allowed as a key: a text", _line(node))
    if node.tag == f"{_TAG}merge":
        raise Wrong("the key <<, which merges mappings, is not read here: write the keys out", _line(node))
    if node.tag != f"{_TAG}str":
        quoted = f'"{node.value}"' if len(node.value) < 80 else '"…"'
        problem = f"the key {shown(node.value)} is read as {_kind(node)}, not as a text: put it in quotes: {quoted}"
        raise Wrong(problem, _line(node))
    return str(_scalar(node))


def read_value(text: str) -> Any:
    """The value of a YAML text that is not in a file, such as a flag's.

    Raises:
        Wrong: the text is not a valid value.
    """
    if len(text.encode(errors="replace")) > MOST_BYTES:
        raise Wrong(f"it is longer than {MOST_BYTES // 2**20} MiB")
    return construct(compose(text))


# --------------------------------------------------------------------------------------------------------------
# Files


def is_there(path: Path) -> bool:
    """True where a path names something, or where that cannot be found out: reading it then gives the reason."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True
    return True


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


class Document:
    """A YAML file's content, and the line of each key. A file is parsed once, until it changes.

    Attributes:
        data: the content, a mapping. It is shared, and must not be changed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            found = path.stat()
        except (OSError, ValueError) as error:
            raise DeclarationError(f"{shorter(path)}: cannot be read: {_reason(error)}") from None
        if not stat.S_ISREG(found.st_mode):
            what = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
            raise DeclarationError(f"{path}: cannot be read: it is {what}; expected a YAML file")
        if found.st_size > MOST_BYTES:
            size = f"{found.st_size / 2**20:,.1f} MiB"
            raise DeclarationError(f"{path}: it has {size}; a declaration has at most {MOST_BYTES // 2**20} MiB")
        self.data: dict[str, Any]
        stamp = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
        self.data, self._root = _parsed(path.absolute(), path, stamp)

    def line(self, keys: Sequence[Any]) -> tuple[int, int | None]:
        """The number of leading keys of a path that the file has, and the line of the last of these."""
        node, line = self._root, None
        for reached, key in enumerate(keys):
            if isinstance(node, yaml.MappingNode):
                found = [(k, v) for k, v in node.value if k.value == str(key)]
                if not found:
                    return reached, line
                line, node = found[0][0].start_mark.line + 1, found[0][1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and 0 <= key < len(node.value):
                node = node.value[key]
                line = node.start_mark.line + 1
            else:
                return reached, line
        return len(keys), line

    def has(self, keys: Sequence[Any]) -> bool:
        """True where the file has this path of keys."""
        return self.line(keys)[0] == len(keys)

    def place(self, keys: Sequence[Any]) -> str:
        """``file:line: a.b.c`` for a path of keys, as near as the file has it."""
        _, line = self.line(keys)
        where = f"{self.path}:{line}" if line else str(self.path)
        return f"{where}: {dotted(keys)}" if keys else where


@lru_cache(maxsize=256)
def _parsed(_: Path, path: Path, stamp: tuple[int, ...]) -> tuple[dict[str, Any], yaml.Node]:
    """A file's content and nodes.

    Args:
        path: for the error.
        stamp: identifies the state of the file.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)[:MOST_BYTES].decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DeclarationError(f"{path}: cannot be read: {_reason(error)}") from None
    try:
        root = compose(text)
        if not isinstance(root, yaml.MappingNode):
            raise Wrong("expected a mapping of keys to values at the top")
        return construct(root), root
    except Wrong as error:
        place = f"{path}:{error.line}" if error.line else str(path)
        raise DeclarationError(f"{place}: {error}") from None


def shorter(text: object, most: int = 200) -> str:
    """A name or path for an error message, cut where it is long, its control characters escaped."""
    words = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text)[: most + 1])
    return words if len(words) <= most else f"{words[: most - 1]}…"


def dotted(keys: Sequence[Any]) -> str:
    """A path of keys for an error message."""
    return ".".join(shorter(key) for key in keys)


# --------------------------------------------------------------------------------------------------------------
# Values to checked objects


def explain(error: ValidationError, place: Any, data: Any = None) -> DeclarationError:
    """A pydantic error as clray's: one line a mistake, each with its place and what would be right.

    Args:
        error: pydantic's error.
        place: a function from a path of keys to the text that names where it stands.
        data: the checked content, which tells keys from pydantic's own words in a path.
    """
    told: dict[tuple[str, str], list[str]] = {}
    for keys, item in _of_the_type_that_was_meant(error, data):
        said_all = item["type"] in ("missing", "value_error", _UNKNOWN_KEY)
        value = "" if said_all else f" (it is {shown(item['input'])})"
        message = "this key is missing" if item["type"] == "missing" else expected(item)
        told.setdefault((_where(place, keys, item), value), []).append(message)
    lines = [f"{where}: {_either(messages)}{value}" for (where, value), messages in told.items()]
    if len(lines) > MOST_LINES:
        lines = [*lines[:MOST_LINES], f"and {len(lines) - MOST_LINES} mistakes more"]
    return DeclarationError("\n".join(lines))


_UNKNOWN_KEY = "unknown_key"
"""The name of a mistake, beside pydantic's: ``Declared`` finds a key that it does not know."""


def _where(place: Any, keys: list[Any], item: Any) -> str:
    """The place of a mistake. That of an unknown key is the line of the key, and the path of what holds it."""
    if item["type"] != _UNKNOWN_KEY:
        return place(keys)
    inner = [*keys, item["ctx"]["key"]]
    return (place(inner).removesuffix(dotted(inner)) + dotted(keys)).removesuffix(": ")


_WHOLE, _NUMBER, _KEYS = "expected a whole number", "expected a number", "expected keys with values"
_TYPES = {
    "list_type": "expected a list", "tuple_type": "expected a list", "set_type": "expected a list",
    "dict_type": _KEYS, "model_type": _KEYS, "model_attributes_type": _KEYS, "dataclass_type": _KEYS,
    "string_type": "expected text", "bool_type": "expected true or false", "bool_parsing": "expected true or false",
    "int_type": _WHOLE, "int_parsing": _WHOLE, "int_from_float": _WHOLE,
    "float_type": _NUMBER, "float_parsing": _NUMBER,
}  # fmt: skip
"""What is said of a value of another type, by pydantic's name of the mistake."""


def expected(item: Any) -> str:
    """One of pydantic's mistakes in clray's words, such as ``expected a list``; what clray's own checks say stays."""
    if item["type"] in _TYPES:
        return _TYPES[item["type"]]
    if item["type"] in ("too_short", "too_long"):
        least = item["type"] == "too_short"
        bound = item["ctx"]["min_length" if least else "max_length"]
        return f"expected at {'least' if least else 'most'} {counted(bound, 'value')}"
    message = str(item["msg"]).removeprefix("Value error, ")
    if not message.startswith("Input should be "):
        return message
    rest = message.removeprefix("Input should be ")
    return f"{_NUMBER} {rest}" if rest.startswith(("greater", "less")) else f"expected {rest}"


def _of_the_type_that_was_meant(error: ValidationError, data: Any) -> list[tuple[list[Any], Any]]:
    """Pydantic's mistakes with their keys. Where a value may have several types, it names a mistake for each of them:
    where the value has one of these types, those about the others are left out."""
    every = [(keys_of(item, data), item) for item in error.errors(include_url=False)]

    def is_of_a_type(item: Any) -> bool:
        return item["type"] in _TYPES or item["type"] == "literal_error"

    def is_meant(keys: list[Any], item: Any) -> bool:
        """False where another type's mistake is within the value, or about what it says."""
        return not is_of_a_type(item) or not any(
            others[: len(keys)] == keys and (len(others) > len(keys) or not is_of_a_type(other))
            for others, other in every
        )

    return [(keys, item) for keys, item in every if is_meant(keys, item)]


def _either(messages: list[str]) -> str:
    """Join what is said of a value, for which several types may be allowed, to one sentence."""
    first, *others = dict.fromkeys(messages)
    return first + "".join(f", or {other.removeprefix('expected ')}" for other in others)


def keys_of(item: Any, data: Any = None) -> list[Any]:
    """The keys at which one of pydantic's mistakes stands, without the names of the types that it tried.

    Args:
        item: of ``ValidationError.errors()``.
        data: the checked content; without it those names are guessed.
    """
    keys, at, last = [], data, len(item["loc"]) - 1
    for i, part in enumerate(item["loc"]):
        if part in at if isinstance(at, Mapping) else isinstance(at, list) and part in range(len(at)):
            at = at[part]
        elif data is None and not (isinstance(part, str) and ("[" in part or part.startswith("function"))):
            pass
        elif not (i == last and item["type"] == "missing" and isinstance(at, Mapping)):
            continue
        keys.append(part)
    return keys


def misread(given: Any, taken: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Find values that pydantic has misread, and values that no trial can have: the keys, and the mistake.

    Args:
        given: the content of a file.
        taken: the values made of it, as ``model_dump`` gives them; values beyond those given are checked too.
        keys: where both stand.
    """
    if isinstance(taken, Mapping):
        inner = given if isinstance(given, Mapping) else {}
        for key, value in taken.items():
            yield from misread(inner.get(key), value, (*keys, key))
    elif isinstance(taken, list | tuple):
        alike = isinstance(given, list | tuple) and len(given) == len(taken)
        for i, value in enumerate(taken):
            yield from misread(given[i] if alike else None, value, (*keys, i))
    elif isinstance(given, bool) and isinstance(taken, int | float) and not isinstance(taken, bool):
        yield keys, f"expected a number (it is {given!r})"
    elif isinstance(taken, bool) and given is not None and not isinstance(given, bool):
        yield keys, f"expected true or false (it is {shown(given)})"
    elif isinstance(taken, float) and not math.isfinite(taken):
        yield keys, f"expected a finite number (it is {shown(taken)})"
    elif isinstance(taken, int) and taken not in _INT64:
        yield keys, f"expected a whole number of at most 64 bits (it is {shown(taken)})"


class Declared(BaseModel):
    """A part of a declaration: unknown keys are errors that list the known ones."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _name_unknown_keys(cls, values: Any) -> Any:
        if isinstance(values, dict):
            known = [f.alias or n for n, f in cls.model_fields.items()]
            for key in values:
                if key not in known:
                    said = f"{shown(key)} is not a known key; {one_of(str(key), known)}"
                    raise PydanticCustomError(_UNKNOWN_KEY, "{said}", {"said": said, "key": key})
        return values
