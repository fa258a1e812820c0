"""LAMOL's own files from the authors' archive of converted data: every task in SQuAD's form.

They are in one folder, ``official``. WOZ and WikiSQL have a further file with the data that scoring needs for each test
example, in the order of the examples' ids.
"""

from __future__ import annotations

import functools
from typing import Any

from clray.errors import DataError
from clray.language.datasets.files import Files, field
from clray.language.datasets.multinli import SIZES as MULTINLI_SIZES
from clray.language.datasets.published import Form, Splits
from clray.language.datasets.squad import questions
from clray.language.examples import Example

_TWO = ("multinli.in.out", "ag", "amazon", "dbpedia", "yahoo", "yelp")
_GOLD = {"woz.en": "woz.en_answers.json", "wikisql": "wikisql_answers.json"}
_UNVERIFIED = "no checksum of the authors' files is published; the fingerprint says what was read"


def form(task: str) -> Form:
    """The form of the authors' files of a task."""
    names = _names(task)
    wanted = [*dict.fromkeys(names.values()), *([_GOLD[task]] if task in _GOLD else [])]
    return Form(
        "official",
        dict.fromkeys(wanted),
        functools.partial(read, task),
        unverified=_UNVERIFIED,
        sizes=MULTINLI_SIZES if task == "multinli.in.out" else None,
    )


def _names(task: str) -> dict[str, str]:
    """The names of a task's files for training, development and test."""
    if task in ("squad1", "squad2"):
        version = "v1.1" if task == "squad1" else "v2.0"
        pattern, splits = f"squad-{{}}-{version}.json", ("train", "dev", "dev")
    else:
        last = "dev" if task == "multinli.in.out" else "test"
        pattern, splits = f"{task}_to_squad-{{}}-v2.0.json", ("train", last if task in _TWO else "dev", last)
    return {split: pattern.format(part) for split, part in zip(("train", "dev", "test"), splits, strict=True)}


def read(task: str, files: Files) -> Splits:
    names = _names(task)
    train, test = (_examples(task, files, names[split], split) for split in ("train", "test"))
    dev = test if names["dev"] == names["test"] else _examples(task, files, names["dev"], "dev")
    return train, dev, test


def _examples(task: str, files: Files, name: str, split: str) -> list[Example]:
    text = files.text(name)
    examples = list(questions(text))
    if task not in _GOLD:
        return [Example(c, q, answers, f"{split}_{i}") for i, (c, q, answers, _) in enumerate(examples)]
    for _, _, _, key in examples:
        if not isinstance(key, int | str):
            raise DataError(f"{text.where}: an id is missing, or neither a number nor a string: {key!r}")
    examples.sort(key=lambda example: (_number(example[3]), str(example[3])))
    golds = _golds(task, files) if split == "test" else [None] * len(examples)
    if len(golds) != len(examples):
        raise DataError(f"{files.folder / _GOLD[task]}: {len(golds)} entries for {len(examples)} examples of {name}")
    return [
        Example(c, q, answers, *_scored(task, split, gold, answers[0], key))
        for (c, q, answers, key), gold in zip(examples, golds, strict=True)
    ]


def _number(key: int | str) -> float:
    """The sort key of an id: numbers come first, by size, and other ids after them."""
    return float(key) if str(key).isdecimal() else float("inf")


def _golds(task: str, files: Files) -> list[Any]:
    text = files.text(_GOLD[task])
    golds = text.json()
    if not isinstance(golds, list):
        raise DataError(f"{text.where}: expected a list")
    for i, gold in enumerate(golds):
        if task == "wikisql":
            for key, kind in (("sql", dict), ("header", list), ("answer", str)):
                field(gold, key, kind, f"{text.where}: entry {i}")
        elif not isinstance(gold, list) or len(gold) != 2 or not all(isinstance(each, str) for each in gold):
            raise DataError(f"{text.where}: entry {i} must be [turn, answer], found {gold!r:.60}")
    return golds


def _scored(task: str, split: str, gold: Any, answer: str, key: int | str) -> tuple[str, Any]:
    """An example's id, and its data for scoring. Only the test set has more than the answer."""
    if gold is None:
        return f"{split}_{key}", answer if task == "woz.en" else None
    if task == "woz.en":
        return f"{split}_{gold[0]}", gold[1]
    table = {"header": gold["header"]} | {k: v for k, v in gold.get("table", {}).items() if k == "id"}
    return f"{split}_{key}", {"sql": gold["sql"], "header": gold["header"], "answer": gold["answer"], "table": table}
