"""Digests of code that gives the same numbers: a refactoring that changed no bit leaves its records fresh.

``equal_code.json`` holds pairs of digests (``clray.provenance.code_digest``). ``bench/same_bits.py`` compares two
revisions on one machine and adds a pair where every measurement and every final state is the same. Equality goes along
chains: with the pairs a-b and b-c, a record that a made counts as made by c.
"""

from __future__ import annotations

import functools
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from clray.atomic import write_atomically
from clray.errors import DeclarationError

FILE = Path(__file__).resolve().parent / "equal_code.json"
_DIGEST = re.compile(r"[0-9a-f]{16}")
_KEYS = ["one", "other", "reason"]


class EqualPair(NamedTuple):
    """Two digests of code that gave the same bits, and how this is known: the trial and the revisions compared."""

    one: str
    other: str
    reason: str


def read_pairs(file: Path = FILE) -> list[EqualPair]:
    """All pairs; none where the file does not exist.

    Raises:
        DeclarationError: the file holds something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise DeclarationError(f"{file}: cannot be read: {error}") from None
    if not isinstance(content, list):
        raise DeclarationError(f"{file}: expected a list of pairs")
    pairs = []
    for place, item in enumerate(content):
        if not isinstance(item, dict) or sorted(item) != _KEYS or not all(isinstance(v, str) for v in item.values()):
            raise DeclarationError(f"{file}: {place}: expected a mapping of {', '.join(_KEYS)} to texts")
        pair = EqualPair(**item)
        if problem := _problem(pair):
            raise DeclarationError(f"{file}: {place}: {problem}")
        pairs.append(pair)
    return pairs


def add_pair(one: str, other: str, reason: str, file: Path = FILE) -> bool:
    """Add a pair, unless the two digests are known to be equal already. Returns whether it was added.

    Args:
        one: the digest of the earlier code.
        other: the digest of the later code.
        reason: how it is known that both give the same bits, such as the trial and the revisions that were compared.

    Raises:
        DeclarationError: a digest is none, both are the same, or the reason is empty.
    """
    pair = EqualPair(one, other, reason)
    if problem := _problem(pair):
        raise DeclarationError(f"equal code: {problem}")
    pairs = read_pairs(file)
    if other in _classes(pairs).get(one, ()):
        return False
    lines = ",\n".join(json.dumps(p._asdict(), ensure_ascii=False) for p in [*pairs, pair])
    write_atomically(file, f"[\n{lines}\n]\n".encode())
    _shipped.cache_clear()
    return True


def is_equal(one: object, other: object) -> bool:
    """True where both are the same digest, or are known to name code that gives the same numbers."""
    return one == other or (isinstance(one, str) and other in _shipped().get(one, frozenset()))


def representative(digest: str) -> str:
    """The same digest for all that are known to name code that gives the same numbers: the smallest of them."""
    return min(_shipped().get(digest, (digest,)))


def _problem(pair: EqualPair) -> str:
    """Say why this is no pair; empty where it is one."""
    for digest in pair[:2]:
        if not _DIGEST.fullmatch(digest):
            return f"{digest[:50]!r} is not a digest: a digest is 16 of the letters 0-9 and a-f"
    if pair.one == pair.other:
        return f"{pair.one} stands on both sides"
    return "" if pair.reason.strip() else "the reason is empty"


def _classes(pairs: list[EqualPair]) -> dict[str, frozenset[str]]:
    """For each digest, all that are equal to it along chains of pairs, itself included."""
    beside: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        beside[pair.one].add(pair.other)
        beside[pair.other].add(pair.one)
    found: dict[str, frozenset[str]] = {}
    for digest in beside:
        if digest not in found:
            reached, waiting = {digest}, [digest]
            while waiting:
                new = beside[waiting.pop()] - reached
                reached |= new
                waiting += new
            found |= dict.fromkeys(reached, frozenset(reached))
    return found


@functools.cache
def _shipped() -> dict[str, frozenset[str]]:
    return _classes(read_pairs(FILE))
