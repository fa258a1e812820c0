"""SQuAD 1.1 and 2.0: the published JSON as it is (Rajpurkar et al. 2016; Rajpurkar, Jia and Liang 2018).

A question without an answer has the answer "". The test sets are not public: the development set is both.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from clray.errors import DataError
from clray.language.datasets.files import Files, Text, field
from clray.language.datasets.published import Form, Published, Splits
from clray.language.examples import Example

_SOURCE = "https://rajpurkar.github.io/SQuAD-explorer/dataset/"


def questions(text: Text) -> Iterator[tuple[str, str, tuple[str, ...], Any]]:
    """The context, the text, the answers and the id of every question in a file of SQuAD's form.

    Raises:
        DataError: the file has another form.
    """
    for d, article in enumerate(field(text.json(), "data", list, text.where)):
        for p, paragraph in enumerate(field(article, "paragraphs", list, f"{text.where}: data[{d}]")):
            where = f"{text.where}: data[{d}].paragraphs[{p}]"
            context = field(paragraph, "context", str, where)
            for q, asked in enumerate(field(paragraph, "qas", list, where)):
                place = f"{where}.qas[{q}]"
                answers = [field(a, "text", str, place) for a in field(asked, "answers", list, place)]
                if not answers and not asked.get("is_impossible"):
                    raise DataError(f"{place}: no answers, and is_impossible does not say so")
                yield context, field(asked, "question", str, place), tuple(answers) or ("",), asked.get("id")


def read(version: str, files: Files) -> Splits:
    train, test = (
        [
            Example(context, question, answers, str(key))
            for context, question, answers, key in questions(files.text(f"{part}-{version}.json"))
        ]
        for part in ("train", "dev")
    )
    return train, test, test


def _published(task: str, version: str, train: str, dev: str) -> Published:
    sums: dict[str, str | None] = {f"train-{version}.json": train, f"dev-{version}.json": dev}
    form = Form(task, sums, functools.partial(read, version), addresses={name: _SOURCE + name for name in sums})
    return Published(origin="https://rajpurkar.github.io/SQuAD-explorer", forms=(form,))


SQUAD1 = _published(
    "squad1",
    "v1.1",
    train="3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955",
    dev="95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9",
)
SQUAD2 = _published(
    "squad2",
    "v2.0",
    train="68dcfbb971bd3e96d5b46c7177b16c1a4e7d4bdef19fb204502738552dede002",
    dev="80a5225e94905956a6446d296ca1093975c4d3b3260f1d6c8f68bc2ab77182d8",
)
