"""Modified Winograd schemas of decaNLP (McCann et al. 2018): each makes two examples.

A schema is three lines and an empty one: a sentence and a question with ``[this/that]``, and the two answers. decaNLP
ignores the last schema of its file, because no empty line follows it, and reads a sentence with two such choices as one
long choice, which it splits at every slash. Both are repeated here, so that the examples are the same.
"""

from __future__ import annotations

import re

from clray.language.datasets.files import Files, Text
from clray.language.datasets.published import Form, Published, Splits
from clray.language.examples import Example

_SOURCE = "https://raw.githubusercontent.com/salesforce/decaNLP/master/local_data/schema.txt"
_FILES: dict[str, str | None] = {"schema.txt": "31da9bee05796bbe0f6c957f54d1eb82eb5c644a8ee59f2ff1fa890eff3885dd"}
_TRAIN, _TEST = 80, 100
_CHOICE = re.compile(r"\[(.*)\]")


def read(files: Files) -> Splits:
    made = _made(files.text("schema.txt"))
    parts = {"train": made[:_TRAIN], "dev": made[_TRAIN:-_TEST], "test": made[-_TEST:]}
    train, dev, test = (
        [Example(*texts, f"{split}_{i}") for i, texts in enumerate(examples)] for split, examples in parts.items()
    )
    return train, dev, test


def _made(text: Text) -> list[tuple[str, str, tuple[str]]]:
    made, block = [], []
    for number, line in text.lines():
        if line.strip():
            block.append(line.strip())
            continue
        if len(block) != 3:
            raise text.bad(number, f"a schema of {len(block)} lines ends here, expected sentence, question and answers")
        answers = block[2].split("/")
        sentences, questions = (_both(text, number, each) for each in block[:2])
        if len(answers) != 2:
            raise text.bad(number - 1, f"expected two answers with / between them, found {block[2]:.60}")
        for sentence, question, answer in zip(sentences, questions, answers, strict=True):
            made.append((sentence, f"{question} {answers[0]} or {answers[1]}?", (answer,)))
        block = []
    return made


def _both(text: Text, number: int, line: str) -> tuple[str, str]:
    """A line with the first choice, and with the second."""
    choice = _CHOICE.search(line)
    if choice is None:
        return line, line
    words = choice[1].split("/")
    if len(words) < 2:
        raise text.bad(number, f"the schema that ends here has no / between its choices: {choice[0]}")
    before, after = line[: choice.start()], line[choice.end() :]
    return before + words[0] + after, before + words[1] + after


SCHEMA = Published(
    origin="https://github.com/salesforce/decaNLP",
    forms=(Form("schema", _FILES, read, addresses={"schema.txt": _SOURCE}),),
)
