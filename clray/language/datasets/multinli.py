"""MultiNLI 1.0 (Williams, Nangia and Bowman 2018): inference between two sentences; texts as in decaNLP.

Its test sets are not public. As in LAMOL's code, both development sets together, the matched one first, are also the
test. Pairs without a majority label keep the published label "-".
"""

from __future__ import annotations

from clray.language.datasets.files import Files, field
from clray.language.datasets.published import Form, Published, Splits
from clray.language.examples import Example

_MEMBERS = tuple(f"multinli_1.0_{part}.jsonl" for part in ("train", "dev_matched", "dev_mismatched"))
_LABELS = ("entailment", "neutral", "contradiction", "-")
SIZES = (392702, 20000, 20000)


def read(files: Files) -> Splits:
    train, *tests = _MEMBERS
    test = _examples(files, tests, "test")
    return _examples(files, [train], "train"), test, test


def _examples(files: Files, names: list[str], split: str) -> list[Example]:
    examples: list[Example] = []
    for name in names:
        text = files.text(name)
        for line, pair in text.json_lines():
            where = f"{text.where}, line {line}"
            premise, hypothesis, label = (field(pair, k, str, where) for k in ("sentence1", "sentence2", "gold_label"))
            if label not in _LABELS:
                raise text.bad(line, f"gold_label {label!r}, expected one of {', '.join(_LABELS)}")
            question = f'Hypothesis: "{hypothesis}" -- entailment, neutral, or contradiction?'
            examples.append(Example(f'Premise: "{premise}"', question, (label,), f"{split}_{len(examples)}"))
    return examples


_ARCHIVE = "multinli_1.0.zip"

MULTINLI = Published(
    origin="https://www.nyu.edu/projects/bowman/multinli",
    forms=(
        Form(
            "multinli.in.out",
            {_ARCHIVE: "049f507b9e36b1fcb756cfd5aeb3b7a0cfcb84bf023793652987f7e7e0957822"},
            read,
            members=_MEMBERS,
            addresses={_ARCHIVE: f"https://cims.nyu.edu/~sbowman/multinli/{_ARCHIVE}"},
            sizes=SIZES,
        ),
        Form("multinli.in.out", dict.fromkeys(_MEMBERS), read, inner="multinli_1.0", sizes=SIZES),
    ),
)
