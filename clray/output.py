"""Printing, whoever wrote the text: letters that a terminal would obey are shown, letters that it lacks are replaced.

Names, paths and errors come from other people's files. They are printed as text and as nothing else: no markup, no
escape sequences, no keys of a store's address. Nothing that is printed can end the program.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import math
import os
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from clray.atomic import write_atomically
from clray.errors import ClrayError

STAND_INS = {
    "±": "+/-",
    "−": "-",
    "–": "-",
    "—": "-",
    "…": "...",
    "→": "->",
    "†": "*",
    "‡": "**",
    "×": "x",
    "·": ".",
    "≤": "<=",
    "≥": ">=",
    "α": "alpha",
    "β": "beta",
    "γ": "gamma",
    "λ": "lambda",
    "σ": "sigma",
}
"""Replacements of our own letters where the output has none of them."""

_OBEYED = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of what a terminal obeys or cannot draw: controls, directions, surrogates, line separators."""
_ADDRESS = re.compile(r"(?P<scheme>\b[A-Za-z][\w+.-]*://)[^\s/?#@\"',;<>()]*:[^\s?#@\"',;<>()]*@")
_PARAMETER = re.compile(r"(?P<name>[?&][\w.-]*(?:secret|token|password|sig|key)[\w.-]*=)[^\s&#'\"]+", re.IGNORECASE)


def counted(number: int, what: str) -> str:
    """A number of things, such as ``1 trial`` and ``2 trials``."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def visible(text: str, keep: str = "\n\t") -> str:
    """A text with its control characters and escape sequences spelt out, such as ``\\x1b[2J``.

    Args:
        keep: the control characters that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(_escape(c) if c not in keep and unicodedata.category(c) in _OBEYED else c for c in text)


def _escape(letter: str) -> str:
    return letter.encode("ascii", "backslashreplace").decode() if ord(letter) > 127 else repr(letter)[1:-1]


def redacted(text: str) -> str:
    """A text without the keys that the address of a store may hold: ``s3://***@bucket``."""
    return _PARAMETER.sub(r"\g<name>***", _ADDRESS.sub(r"\g<scheme>***@", text))


def shown(text: str) -> str:
    """A text as it may be printed: without keys, and with its control characters spelt out."""
    return visible(redacted(text))


def json_text(text: str) -> str:
    """A JSON document with escapes in place of what standard output lacks or a terminal would obey.

    Any reader of JSON reads the same from it.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"

    def written(found: re.Match[str]) -> str:
        letter = found[0]
        if ord(letter) < 0x80 or unicodedata.category(letter) in _OBEYED:
            return f"\\u{ord(letter):04x}" if ord(letter) < 0x10000 else json.dumps(letter)[1:-1]
        try:
            letter.encode(encoding)
        except UnicodeError:
            return json.dumps(letter)[1:-1]
        return letter

    return re.sub(r"[^\x00-\x7e]", written, text)


def finite(value: Any) -> Any:
    """Plain data with None in place of numbers that JSON cannot hold: NaN and the infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    return [finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def to_json(value: Any) -> str:
    """Plain data as an indented JSON document that any reader of JSON takes, and any terminal."""
    return json_text(json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False))


# --------------------------------------------------------------------------------------------------------------
# Standard output and standard error


def accept_every_letter() -> None:
    """Let standard output and standard error take any letter: what their encoding lacks gets a stand-in."""
    codecs.register_error("clray", _stand_in)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="clray")


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """The error handler of the codecs: see ``codecs.register_error``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(STAND_INS.get(c) or _escape(c) for c in error.object[error.start : error.end]), error.end


class OutputLost(ClrayError):
    """Printed text cannot be written: a full disk, most likely."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(f"the output cannot be written: {reason.strerror or reason}")


@contextlib.contextmanager
def arriving() -> Iterator[None]:
    """Within, standard output is written to, and to nothing else.

    Raises:
        OutputLost: it cannot be. Where its reader has ended, BrokenPipeError goes on to who ends the command quietly.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputLost(error) from None


def say(text: str, end: str = "\n") -> None:
    """Print a text to standard output, as it may be printed."""
    with arriving():
        print(shown(text), end=end)


def complain(line: str) -> None:
    """Print a line to standard error, where there is one that takes it."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        _give_up(sys.stderr)


def deliver() -> None:
    """Send what was printed on its way, and no more of it once that has failed.

    Raises:
        OutputLost, BrokenPipeError: as in ``arriving``.
    """
    try:
        with arriving():
            if sys.stdout is not None:
                sys.stdout.flush()
    except (OutputLost, BrokenPipeError):
        _give_up(sys.stdout)
        raise


def _give_up(stream: TextIO) -> None:
    """Send what is left in a stream to nowhere, so that Python does not fail over it at its own end."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


# --------------------------------------------------------------------------------------------------------------
# Files


def write_file(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write a file that the user named, whole or not at all. Returns its path.

    A link stays a link, and what is no regular file (``/dev/stdout``, a pipe) is written into, not replaced.

    Raises:
        ClrayError: it cannot be written, or the folder that it is to lie in does not exist.
    """
    target = Path(path)
    try:
        if target.exists() and not target.is_file() and not target.is_dir():
            with open(target, "wb") as stream:
                stream.write(content)
            return target
        real = Path(os.path.realpath(target))
        if real.is_dir():
            raise IsADirectoryError("it is a folder: name a file")
        if not real.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {real.parent}")
        write_atomically(real, content)
    except (OSError, ValueError) as error:
        raise ClrayError(f"{target}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
    return target
