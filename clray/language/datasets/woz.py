"""WOZ 2.0, English: JSON dialogues as published with the neural belief tracker (Mrkšić et al. 2017; Wen et al. 2017).

The question about a turn is the change of the dialogue's state. The answer is ``slot: value, slot: value; request,
request`` with the slots that the previous turn did not have, and ``None`` without a change; conversion as in decaNLP.
"""

from __future__ import annotations

from typing import Any

from clray.errors import DataError
from clray.language.datasets.files import Files, Text, field
from clray.language.datasets.published import Form, Published, Splits
from clray.language.examples import Example

QUESTION = "What is the change in state?"

_SOURCE = "https://raw.githubusercontent.com/nmrksic/neural-belief-tracker/master/data/woz/"
_FILES: dict[str, str | None] = {
    "woz_train_en.json": "7cd9e971553e5f3e80bb0c93164bf4c619c7f49f45d636a0512474cdeb074485",
    "woz_validate_en.json": "ae1ea9067fd05c0179d349f140b38de1b2db587d5bfcb4f99ef0d77474ab00ad",
    "woz_test_en.json": "3673e433b21a6b0d74e9144bd059e64b29bc3e1c5dc0e18654a98ec597c0d72c",
}


def read(files: Files) -> Splits:
    train, dev, test = (
        _examples(files.text(f"woz_{name}_en.json"), split)
        for name, split in (("train", "train"), ("validate", "dev"), ("test", "test"))
    )
    return train, dev, test


def _examples(text: Text, split: str) -> list[Example]:
    dialogues = text.json()
    if not isinstance(dialogues, list):
        raise DataError(f"{text.where}: expected a list of dialogues")
    examples = []
    for number, dialogue in enumerate(dialogues):
        known: list[list[str]] = []
        for turn, said in enumerate(field(dialogue, "dialogue", list, f"{text.where}: dialogue {number}")):
            place = f"{text.where}: dialogue {number}, turn {turn}"
            informed, requested = _state(field(said, "belief_state", list, place), place)
            answer = _answer([slot for slot in informed if slot not in known], requested)
            known = informed
            context = _context(field(said, "system_acts", list, place), field(said, "transcript", str, place))
            examples.append(Example(context, QUESTION, (answer,), f"{split}_en_{number}_{turn}", answer))
    return examples


def _context(acts: list[Any], transcript: str) -> str:
    """The system's acts and the user's words, on one line."""
    done = ", ".join(": ".join(act) if isinstance(act, list) else act for act in acts)
    return " ".join((f"{done} -- {transcript}" if done else transcript).split())


def _state(belief: list[Any], where: str) -> tuple[list[list[str]], list[str]]:
    """The slots that the user has set, and those that the user has requested."""
    informed, requested = [], []
    for item in belief:
        for slot in item.get("slots", []) if isinstance(item, dict) else []:
            if not isinstance(slot, list) or len(slot) != 2:
                raise DataError(f"{where}: a slot must be [name, value], found {slot!r}")
            if field(item, "act", str, where) == "inform":
                informed.append(slot)
            else:
                requested.append(slot[1])
    return informed, requested


def _answer(informed: list[list[str]], requested: list[str]) -> str:
    if not informed and not requested:
        return "None"
    return (
        ", ".join(f"{name}: {value}" for name, value in informed) + ";" + " " * bool(requested) + ", ".join(requested)
    )


WOZ = Published(
    origin="https://github.com/nmrksic/neural-belief-tracker",
    forms=(Form("woz.en", _FILES, read, addresses={name: _SOURCE + name for name in _FILES}),),
)
