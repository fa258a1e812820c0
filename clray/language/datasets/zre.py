"""QA-ZRE (Levy et al. 2017): relations as questions, the first of the ten splits by relation; texts as in decaNLP.

A line has a relation, a question with XXX in place of the subject, the subject, a sentence, and any number of answers,
separated by tabs. Several answers become one text with commas; no answer becomes "Unanswerable".
"""

from __future__ import annotations

from clray.language.datasets.files import Files, Text
from clray.language.datasets.published import Form, Published, Splits
from clray.language.examples import Example

_MEMBERS = ("train.0", "dev.0", "test.0")


def read(files: Files) -> Splits:
    train, dev, test = (_examples(files.text(name), name.removesuffix(".0")) for name in _MEMBERS)
    return train, dev, test


def _examples(text: Text, split: str) -> list[Example]:
    examples: list[Example] = []
    for number, line in text.lines():
        fields = line.split("\t")
        if len(fields) < 4:
            raise text.bad(
                number, f"{len(fields)} fields between tabs, expected relation, question, subject, sentence, …"
            )
        _, question, subject, sentence, *answers = fields
        answer = ", ".join(answers) or "Unanswerable"
        examples.append(Example(sentence, question.replace("XXX", subject), (answer,), f"{split}_{len(examples)}"))
    return examples


_ARCHIVE = "relation_splits.tar.bz2"

ZRE = Published(
    origin="http://nlp.cs.washington.edu/zeroshot",
    forms=(
        Form(
            "zre",
            {_ARCHIVE: "e33d0e367b6e837370da17a2d09d217e0a92f8d180f7abb3fd543a2d1726b2b4"},
            read,
            members=_MEMBERS,
            addresses={_ARCHIVE: f"http://nlp.cs.washington.edu/zeroshot/{_ARCHIVE}"},
        ),
        Form("zre", dict.fromkeys(_MEMBERS), read, inner="relation_splits"),
    ),
)
