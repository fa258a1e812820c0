"""The QA-SRL gold standard of 2020 (Roit et al.): Wikinews and Wikipedia, questions answered by spans.

It has no training set. Here both development files are for training, Wikinews' test file for development, and
Wikipedia's for the test: no sentence is in two of them. It is a substitute for QA-SRL 1 with its own name, ``srl_gs``.
"""

from __future__ import annotations

from clray.language.datasets.files import Files
from clray.language.datasets.published import Form, Published, Splits
from clray.language.datasets.qasrl import untokenised
from clray.language.examples import Example

_COLUMNS = (
    "qasrl_id", "verb_idx", "verb", "worker_id", "assign_id", "source_assign_id", "question", "is_redundant",
    "answer_range", "answer", "wh", "subj", "obj", "obj2", "aux", "prep", "verb_prefix", "is_passive", "is_negated",
    "verb_slot_inflection",
)  # fmt: skip
_PARTS = {"train": ("wikinews.dev", "wikipedia.dev"), "dev": ("wikinews.test",), "test": ("wikipedia.test",)}
_NAMES = [f"{part}.{kind}.csv" for parts in _PARTS.values() for part in parts for kind in ("gold", "sentences")]


def read(files: Files) -> Splits:
    train, dev, test = (_examples(files, split) for split in _PARTS)
    return train, dev, test


def _examples(files: Files, split: str) -> list[Example]:
    examples: list[Example] = []
    for part in _PARTS[split]:
        table = files.text(f"{part}.sentences.csv").rows(("qasrl_id", "tokens", "sentence"), header=True)
        sentences = {key: untokenised(sentence) for _, (key, _, sentence) in table}
        text = files.text(f"{part}.gold.csv")
        for line, row in text.rows(_COLUMNS, header=True):
            cells = dict(zip(_COLUMNS, row, strict=True))
            if cells["qasrl_id"] not in sentences:
                raise text.bad(line, f"{cells['qasrl_id']} is no sentence of {part}.sentences.csv")
            answers = tuple(untokenised(answer) for answer in cells["answer"].split("~!~"))
            if not all(answers):
                raise text.bad(line, "an answer is empty")
            name = f"{split}_{len(examples)}"
            examples.append(Example(sentences[cells["qasrl_id"]], cells["question"], answers, name))
    return examples


SRL_GS = Published(
    origin="https://github.com/plroit/qasrl-gs",
    forms=(
        Form(
            "srl_gs", dict.fromkeys(_NAMES), read, partial="the QA-SRL gold standard of 2020, a substitute for QA-SRL 1"
        ),
    ),
    advice=(
        "put data/gold/*.gold.csv and data/sentences/*.full.csv of github.com/plroit/qasrl-gs below "
        "CLRAY_DATA/lamol/srl_gs, the latter as *.sentences.csv"
    ),
)
