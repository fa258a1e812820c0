"""Logical forms: the comparison of a query's meaning with that of the correct query (WikiSQL; Zhong et al. 2017).

LAMOL parses a query as decaNLP does, except for columns: a column's name may be misspelt, and the column with the most
similar name is taken. The parser repeats the errors of the official code, because a correct query that the code parses
wrongly (such as a value that contains "and", followed by another condition) is wrong in every published number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from clray.language.examples import Example

_AGGREGATIONS = ("", "max", "min", "count", "sum", "avg")
_COMPARISONS = ("=", ">", "<")
_COMPARISON = re.compile("[=><]")
_CONDITION = re.compile(r"(Col\d+ Cond\d+)")

Columns = list[tuple[str, int]]


def measure(predictions: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """``lfem``: the percentage of queries with the correct logical form. A query that cannot be parsed is wrong."""
    right = 0
    for prediction, example in zip(predictions, examples, strict=True):
        wanted = dict(example.gold["sql"])
        wanted["conds"] = [[*rest, str(value).lower().replace(" ", "")] for *rest, value in wanted["conds"]]
        try:
            right += logical_form(prediction, example.gold["header"]) == wanted
        except (ValueError, LookupError, ZeroDivisionError):
            continue
    return {"lfem": right / len(examples) * 100}


def logical_form(query: str, header: Sequence[str]) -> dict[str, Any]:
    """Parse a query to WikiSQL's form: the numbers ``sel`` and ``agg``, and ``conds`` as [column, comparison, value].

    Values have no spaces. Keywords are recognised only in lower case.

    Args:
        query: ``select [aggregation] column from table [where column = value and column > value …]``.
        header: the names of the table's columns.

    Raises:
        ValueError, LookupError, ZeroDivisionError: it cannot be parsed.
    """
    # The longest name first, so that a name is found before another one that it contains.
    columns = sorted(((name.lower(), i) for i, name in enumerate(header)), key=lambda column: -len(column[0]))
    selected, where, conditions = query.partition("where")
    words = selected.split()[1:-2]
    whole, behind_first = " ".join(words), " ".join(words[1:])
    likes = [likeness(name, text) for name, _ in columns for text in (whole, behind_first)]
    best = likes.index(max(likes))
    return {
        "sel": columns[best // 2][1],
        "agg": _AGGREGATIONS.index(words[0]) if best % 2 else 0,
        "conds": _conditions(conditions, columns) if where else [],
    }


def likeness(name: str, text: str) -> float:
    """The similarity of a text to a column's name: common letters in order as a share of the longer, and a run."""
    longer, shorter = max(len(name), len(text)), min(len(name), len(text))
    return _common_letters(name, text) / longer + _longest_run(name, text) / 1e4 - shorter / 1e8


def _common_letters(a: str, b: str) -> int:
    """The length of the longest common subsequence: each row of its table is the bits of a number (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for place, letter in enumerate(b):
        places[letter] = places.get(letter, 0) | 1 << place
    ones = row = (1 << len(b)) - 1
    for letter in a:
        matches = row & places.get(letter, 0)
        row = (row + matches | row - matches) & ones
    return len(b) - row.bit_count()


def _longest_run(name: str, text: str) -> int:
    """The longest run of equal letters that begins in ``name`` no earlier than in ``text``; others are not counted."""
    runs = (groupby(map(str.__eq__, name[shift:], text)) for shift in range(len(name)))
    return max((sum(run) for found in runs for equal, run in found if equal), default=0)


def _conditions(text: str, columns: Columns) -> list[list[Any]]:
    """Parse the part after ``where``: the columns' names are corrected, then it is read from left to right."""
    spelt = f" {_spelt_right(text, columns)} "
    for name, index in columns:
        spelt = spelt.replace(f" {name} ", f" Col{index} ")
    words = [f"Cond{_COMPARISONS.index(word)}" if word in _COMPARISONS else word for word in spelt.split()]
    read: list[list[Any]] = []
    for i, piece in enumerate(piece for piece in _CONDITION.split(" ".join(words)) if piece.strip()):
        if i % 2:
            read[-1].append(_value(piece.split(), columns))
        else:
            column, comparison = piece.split()[:2]
            read.append([int(column.replace("Col", "")), int(comparison.replace("Cond", ""))])
    return read


def _spelt_right(text: str, columns: Columns) -> str:
    """Replace every column's name in the conditions by the most similar name of the table.

    Names and values alternate, separated by the comparisons and by every "and" before the last comparison.
    """
    pieces = [piece.strip() for piece in _COMPARISON.split(text)]
    parts = [pieces[0], *(part for piece in pieces[1:-1] for part in piece.split("and")), pieces[-1]]
    for i in range(0, len(parts), 2):
        likes = [likeness(name, parts[i]) for name, _ in columns]
        parts[i] = columns[likes.index(max(likes))][0]
    for i, comparison in enumerate(_COMPARISON.findall(text)):
        parts[2 * i] += f" {comparison}"
    return " and ".join(f"{name} {value}" for name, value in zip(parts[::2], parts[1::2], strict=False))


def _value(words: list[str], columns: Columns) -> str:
    """A value without spaces; parts that were taken for a column or a comparison are restored."""
    if words[-1] == "and":
        words = words[:-1]
    names = {index: name for name, index in columns}
    for i, word in enumerate(words):
        if "Col" in word:
            words[i] = names[int(word.replace("Col", ""))]
        elif "Cond" in word:
            words[i] = _COMPARISONS[int(word.replace("Cond", ""))]
    return "".join(words).replace(" ", "")
