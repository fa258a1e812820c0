"""Text classification: AG News, Amazon, DBPedia, Yahoo Answers, Yelp (Zhang, Zhao and LeCun 2015).

LAMOL took 115,000 examples for training and 7,600 for the test from each, as de Masson d'Autume et al. (2019) did. The
choice of examples is not published: here they are drawn with seed 0 and kept in the files' order; AG's test set has
exactly 7,600. The question has the form of LAMOL's AG and DBPedia; the stars of Amazon and Yelp have O-LoRA's names,
which is an assumption. A text is the row's fields after the class, joined by spaces; escaped line feeds become spaces
too. The stray backslashes of AG stay.

Without the published tables, O-LoRA's samples (Wang et al. 2023) are used as a substitute, which is never judged.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clray.errors import DataError
from clray.language.datasets.files import Files, Text, field
from clray.language.datasets.published import Form, Published, Splits
from clray.language.examples import Example

TRAIN, TEST = 115_000, 7_600
_SENTIMENTS = ("very negative", "negative", "neutral", "positive", "very positive")


class Table(NamedTuple):
    """A published table: its classes from 1, its columns after the class, and if their texts have escapes."""

    labels: tuple[str, ...]
    columns: tuple[str, ...]
    escaped: bool = False

    @property
    def question(self) -> str:
        return f"Is this sentence {', '.join(self.labels[:-1])}, or {self.labels[-1]}?"


TABLES = {
    "ag": Table(("World", "Sports", "Business", "Sci/Tech"), ("title", "description")),
    "amazon": Table(_SENTIMENTS, ("title", "review"), escaped=True),
    "dbpedia": Table(
        (
            "Company", "EducationalInstitution", "Artist", "Athlete", "OfficeHolder", "MeanOfTransportation",
            "Building", "NaturalPlace", "Village", "Animal", "Plant", "Album", "Film", "WrittenWork",
        ),
        ("title", "content"),
    ),
    "yahoo": Table(
        (
            "Society & Culture", "Science & Mathematics", "Health", "Education & Reference", "Computers & Internet",
            "Sports", "Business & Finance", "Entertainment & Music", "Family & Relationships", "Politics & Government",
        ),
        ("question title", "question", "best answer"),
        escaped=True,
    ),
    "yelp": Table(_SENTIMENTS, ("review",), escaped=True),
}  # fmt: skip


# --------------------------------------------------------------------------------------------------------------
# The published tables


def read(task: str, files: Files) -> Splits:
    test = _examples(task, files.text("test.csv"), "test", TEST)
    return _examples(task, files.text("train.csv"), "train", TRAIN), test, test


def _examples(task: str, text: Text, split: str, count: int) -> list[Example]:
    table = TABLES[task]
    rows = list(text.rows(("class", *table.columns)))
    for line, row in rows:
        if not row[0].isdecimal() or not 1 <= int(row[0]) <= len(table.labels):
            raise text.bad(line, f"class {row[0]!r}, expected 1 to {len(table.labels)}")
    examples = []
    for i in drawn(len(rows), count):
        label, *texts = rows[i][1]
        answer = table.labels[int(label) - 1]
        examples.append(Example(_plain(" ".join(texts), table), table.question, (answer,), f"{split}_{i}"))
    return examples


def drawn(total: int, count: int) -> list[int]:
    """The numbers of ``count`` rows, drawn with seed 0, in their order; all where there are no more."""
    if total <= count:
        return list(range(total))
    # RandomState draws the same in every version of NumPy; a Generator may not.
    return sorted(np.random.RandomState(0).permutation(total)[:count].tolist())


def _plain(text: str, table: Table) -> str:
    """A text on one line."""
    if table.escaped:
        text = text.replace("\\n", " ").replace('\\"', '"')
    return " ".join(text.split())


# --------------------------------------------------------------------------------------------------------------
# O-LoRA's samples


def read_samples(task: str, train: str, test: str, files: Files) -> Splits:
    tested = _sampled(task, files.text(test), "test")
    return _sampled(task, files.text(train), "train"), tested, tested


def read_one_sample(task: str, name: str, files: Files) -> Splits:
    """Read the examples where only one of the two files exists: every fifth of them is for the test."""
    examples = _sampled(task, files.text(name), "sample")
    test = examples[4::5]
    return [example for i, example in enumerate(examples) if i % 5 != 4], test, test


def _sampled(task: str, text: Text, split: str) -> list[Example]:
    table = TABLES[task]
    labels = {_spelt(label): label for label in table.labels} | {"scienceortechnology": "Sci/Tech"}
    document = text.json()
    if not isinstance(document, list):
        raise DataError(f"{text.where}: expected a list of examples")
    examples = []
    for i, item in enumerate(document):
        where = f"{text.where}: example {i}"
        label = labels.get(_spelt(field(item, "label", str, where)))
        if label is None or label not in table.labels:
            raise DataError(f"{where}: label {item['label']!r}, expected one of {', '.join(table.labels)}")
        lines = field(item, "sentence", str, where).split("\n")
        sentence = " ".join(line.removeprefix("Title:").removeprefix("Text:") for line in lines)
        examples.append(Example(_plain(sentence, table), table.question, (label,), f"{split}_{i}"))
    return examples


def _spelt(label: str) -> str:
    return label.replace(" ", "").lower()


# --------------------------------------------------------------------------------------------------------------
# The published forms

_DRAW = "which 115,000 and 7,600 rows LAMOL took is not published; these are drawn with seed 0"
_COLLECTION = "https://s3.amazonaws.com/fast-ai-nlp/"


def _tables(task: str, inner: str, sums: Sequence[str | None] = (None, None), address: str = "") -> Form:
    names = ("train.csv", "test.csv")
    return Form(
        task,
        dict(zip(names, sums, strict=True)),
        functools.partial(read, task),
        inner=inner,
        addresses={name: address + name for name in names} if address else {},
        unverified=_DRAW,
    )


def _archive(task: str, name: str, checksum: str) -> Form:
    return Form(
        task,
        {name: checksum},
        functools.partial(read, task),
        members=("train.csv", "test.csv"),
        addresses={name: _COLLECTION + name},
        unverified=_DRAW,
    )


def _samples(task: str, sums: dict[str, str | None]) -> Form:
    names, words = list(sums), "O-LoRA's samples, a substitute"
    reader = functools.partial(read_samples, task, names[0], names[-1])
    if len(names) == 1:
        words = "one of O-LoRA's two samples, cut into training and test, a substitute"
        reader = functools.partial(read_one_sample, task, names[0])
    return Form("tc_olora", sums, reader, partial=f"{words} for the 115,000 and 7,600 texts that LAMOL took")


_FAST_AI = "https://course.fast.ai/datasets"

AG = Published(
    origin="https://github.com/mhjabreel/CharCnn_Keras/tree/master/data/ag_news_csv",
    forms=(
        _tables(
            "ag",
            "ag_news_csv",
            (
                "76a0a2d2f92b286371fe4d4044640910a04a803fdd2538e0f3f29a5c6f6b672e",
                "521465c2428ed7f02f8d6db6ffdd4b5447c1c701962353eb2c40d548c3c85699",
            ),
            "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv/",
        ),
        _samples(
            "ag",
            {
                "TC_agnews_train.json": "935fe86eb687d3d09f8b4035103761a94ca15df65a0980b1e7da4346a45d7a2a",
                "TC_agnews_test.json": "4cbed43bd30eb2841b053a13cb7b2dc4a2692934fd03832402a53cf557778849",
            },
        ),
    ),
)
AMAZON = Published(
    origin=_FAST_AI,
    forms=(
        _tables("amazon", "amazon_review_full_csv"),
        _samples(
            "amazon",
            {
                "SC_amazon_train.json": "a77b7a84773ea16b2906c16eb4de05ea87f529b91d5e3209b43060306e02c05f",
                "SC_amazon_test.json": "0e3337b659505456dd62089f4099778043d409e54f6e9cacf35154e783fdb6a2",
            },
        ),
    ),
    advice="put train.csv and test.csv of amazon_review_full_csv (course.fast.ai) into CLRAY_DATA/lamol/amazon",
)
DBPEDIA = Published(
    origin=_FAST_AI,
    forms=(
        _tables("dbpedia", "dbpedia_csv"),
        _archive("dbpedia", "dbpedia_csv.tgz", "42db5221ddedddb673a4cabcc5f3a7d869714c878bcfe4ba94b29d14aa38e417"),
        _samples(
            "dbpedia",
            {"TC_dbpedia_test.json": "971c1a298668385042ce02b67444e1d45773ce0b8b22abbbc39a2592bbe7c255"},
        ),
    ),
)
YAHOO = Published(
    origin=_FAST_AI,
    forms=(
        _tables("yahoo", "yahoo_answers_csv"),
        _archive("yahoo", "yahoo_answers_csv.tgz", "2d4277855faf8b35259009425fa8f7fe1888b5644b47165508942d000f4c96ae"),
    ),
)
YELP = Published(
    origin=_FAST_AI,
    forms=(
        _tables("yelp", "yelp_review_full_csv"),
        _archive(
            "yelp", "yelp_review_full_csv.tgz", "56006b0a17a370f1e366504b1f2c3e3754e4a3dda17d3e718a885c552869a559"
        ),
        _samples("yelp", {"SC_yelp_train.json": "d1e7088dd79a418341a1aab21c177167d6b0f1a1c628ed1c66de15f439575de6"}),
    ),
)
