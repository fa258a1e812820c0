"""SST with two classes: comma-separated sentences, as decaNLP reads them (Socher et al. 2013; Radford et al. 2017)."""

from __future__ import annotations

from clray.language.datasets.files import Files, Text
from clray.language.datasets.published import Form, Published, Splits
from clray.language.examples import Example

QUESTION = "Is this review negative or positive?"
ANSWERS = {"0": "negative", "1": "positive"}

_SOURCE = "https://raw.githubusercontent.com/openai/generating-reviews-discovering-sentiment/master/data/"
_FILES: dict[str, str | None] = {
    "train_binary_sent.csv": "6003623bcb35aad3a446a265b8931b7ccab61fcc10f2e9c1fec916ff67c7be35",
    "dev_binary_sent.csv": "f34c4987fea208fefc2d62a1b42c83a766cbfc7ce58c2a878ef953cf91f01729",
    "test_binary_sent.csv": "519cea7ed4d22fe7ec4eccbb3d5ba6d88902a3b15ce129f476aa8364463a9fc7",
}


def read(files: Files) -> Splits:
    train, dev, test = (_examples(files.text(f"{split}_binary_sent.csv"), split) for split in ("train", "dev", "test"))
    return train, dev, test


def _examples(text: Text, split: str) -> list[Example]:
    examples: list[Example] = []
    for line, (label, sentence) in text.rows(("label", "sentence"), header=True):
        if label not in ANSWERS:
            raise text.bad(line, f"label {label!r}, expected 0 or 1")
        examples.append(Example(sentence, QUESTION, (ANSWERS[label],), f"{split}_{len(examples)}"))
    return examples


SST = Published(
    origin="https://github.com/openai/generating-reviews-discovering-sentiment",
    forms=(Form("sst", _FILES, read, addresses={name: _SOURCE + name for name in _FILES}),),
)
