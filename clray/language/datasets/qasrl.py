"""QA-SRL 1, Wikipedia (He, Lewis and Zettlemoyer 2015): questions about a verb's arguments, answered by spans.

The block of a sentence begins with its id and its number of verbs, then the sentence. Each verb has a line with its
position, the verb and its number of questions, then a line for each question: seven slots, a question mark, the answers
between ``###``. An empty line ends the block. Texts are joined from tokens as in decaNLP, which replaces its marks in
the order of a Python set, different in every run; here "n't" comes first.
"""

from __future__ import annotations

from clray.language.datasets.files import Files, Text
from clray.language.datasets.published import Form, Published, Splits
from clray.language.examples import Example

_SOURCE = "https://dada.cs.washington.edu/qasrl/data/"
_FILES: dict[str, str | None] = {
    "wiki1.train.qa": "f927417e94e67b7ae17e33dd882989a5556d7ff37376f8bf5c78ece7d17a6c64",
    "wiki1.dev.qa": "caa94beaaf22304422cdc1a2fd8732b1a47401c9555a81e1f4da81e0a7557a8b",
    "wiki1.test.qa": "b43a998344fbd520955fb8f0f7b3691ace363daa8628552cf5cf5c8d84df6cca",
}

_BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LAB-": "<", "-RAB-": ">", "-AMP-": "&", "%pw": " "}
_CLOSING = (" n't ", " .", " ,", " ;", " !", " ?", " :", " )", " 'll", " %", " 't", " 's", " 'm", " 'd", " 're")
_OPENING = ("( ", "$ ")
_DROPPED = ("``", "`", "''", "“", "”", " '")


def untokenised(text: str) -> str:
    """A text with its punctuation joined to the words, and without its quotation marks."""
    text = " ".join(text.split())
    for written, meant in _BRACKETS.items():
        text = text.replace(written, meant)
    for mark in _CLOSING:
        text = text.replace(mark, mark.lstrip())
    for mark in _OPENING:
        text = text.replace(mark, mark.rstrip())
    text = text.replace(" - ", "-")
    for mark in _DROPPED:
        text = text.replace(mark, "")
    return " ".join(text.split())


_AMENDED = {
    "Darcy Burner": (
        "Darcy Burner and other 2008 Democratic congressional candidates, in cooperation with some retired national "
        "security officials"
    ),
    "E Street Band": "plan to work with the E Street Band again in the future",
    "an electric sender": "an electronic sender",
    "the US army": "the US Army",
    "Rather than name the": "rather die than name the cause of his disease to his father",
}
"""decaNLP's replacements for five answers of the published files that are not in their sentences."""


def _in_sentence(answer: str, sentence: str) -> str:
    """The answer in the sentence's spelling, where it is found."""
    others = [answer, answer[:1].lower() + answer[1:], answer[:1].upper() + answer[1:]]
    others += [right for wrong, right in _AMENDED.items() if wrong in answer]
    return next((other for other in (*others, answer.lower()) if other in sentence), answer)


def read(files: Files) -> Splits:
    train, dev, test = (_examples(files.text(f"wiki1.{split}.qa"), split) for split in ("train", "dev", "test"))
    return train, dev, test


def _examples(text: Text, split: str) -> list[Example]:
    examples: list[Example] = []
    sentence: str | None = None
    begun = owed = 0  # if a block has begun; the number of questions still to come for its last verb
    for number, line in text.lines():
        fields = [field.strip() for field in line.split("\t")]
        if not line.strip():
            if owed or (begun and sentence is None):
                raise text.bad(
                    number, f"the block ends, but {f'{owed} questions' if owed else 'its sentence'} should come"
                )
            begun, sentence = 0, None
        elif not begun:
            if len(fields) != 2 or not fields[1].isdigit():
                raise text.bad(number, f"expected a sentence's id and its number of verbs, found {line:.60}")
            begun = 1
        elif sentence is None:
            sentence = untokenised(line)
        elif owed:
            examples.append(_example(text, number, fields, sentence, f"{split}_{len(examples)}"))
            owed -= 1
        elif len(fields) == 3 and fields[0].isdigit() and fields[2].isdigit():
            owed = int(fields[2])
        else:
            raise text.bad(number, f"expected a verb's place, itself and its number of questions, found {line:.60}")
    if owed:
        raise text.bad(number, f"the file ends, but {owed} questions should come")
    return examples


def _example(text: Text, number: int, fields: list[str], sentence: str, name: str) -> Example:
    if len(fields) != 9 or fields[7] != "?":
        raise text.bad(number, f"expected seven slots, '?' and answers between tabs, found {len(fields)} fields")
    question = untokenised(" ".join(slot for slot in fields[:7] if slot != "_") + " ?")
    answers = tuple(_in_sentence(untokenised(answer), sentence) for answer in fields[8].split("###"))
    if not all(answers):
        raise text.bad(number, "an answer is empty")
    return Example(sentence, question, answers, name)


SRL = Published(
    origin="https://dada.cs.washington.edu/qasrl",
    forms=(Form("srl", _FILES, read, addresses={name: _SOURCE + name for name in _FILES}),),
)
