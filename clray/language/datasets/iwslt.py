"""IWSLT 2016, English to German (Cettolo et al.): TED talks; texts as in decaNLP.

Training: ``train.tags`` without its tagged lines; development: the talks of 2013; test: those of 2014.
"""

from __future__ import annotations

from xml.etree import ElementTree

from clray.errors import DataError
from clray.language.datasets.files import Files
from clray.language.datasets.published import Form, Published, Splits
from clray.language.examples import Example

QUESTION = "Translate from English to German"
_TAGS = ("<url", "<keywords", "<talkid", "<description", "<reviewer", "<translator", "<title", "<speaker")
_TALKS = {"dev": "IWSLT16.TED.tst2013.en-de.{}.xml", "test": "IWSLT16.TED.tst2014.en-de.{}.xml"}
_TRAIN = "train.tags.en-de.{}"


def read(files: Files) -> Splits:
    train, dev, test = (_pairs(files, name, split) for split, name in {"train": _TRAIN, **_TALKS}.items())
    return train, dev, test


def _pairs(files: Files, name: str, split: str) -> list[Example]:
    """The sentences that have a translation, in their order."""
    english, german = (_sentences(files, name.format(language)) for language in ("en", "de"))
    if len(english) != len(german):
        raise DataError(
            f"{files.folder}: {name.format('en')} has {len(english)} sentences, {name.format('de')} has {len(german)}"
        )
    both = [(source, target) for source, target in zip(english, german, strict=True) if source and target]
    return [Example(source, QUESTION, (target,), f"{split}_{i}") for i, (source, target) in enumerate(both)]


def _sentences(files: Files, name: str) -> list[str]:
    text = files.text(name)
    if not name.endswith(".xml"):
        return [line.strip() for _, line in text.lines() if not any(tag in line for tag in _TAGS)]
    try:
        root = ElementTree.fromstring(text.content.strip())
    except ElementTree.ParseError as error:
        raise text.bad(error.position[0], f"not XML: {error}") from None
    return [(sentence.text or "").strip() for sentence in root.iterfind("./*/doc/seg")]


_MEMBERS = tuple(name.format(language) for name in (_TRAIN, *_TALKS.values()) for language in ("en", "de"))

IWSLT = Published(
    origin="https://wit3.fbk.eu/2016-01",
    forms=(
        Form("iwslt.en.de", dict.fromkeys(_MEMBERS), read, inner="en-de"),
        Form("iwslt.en.de", {"en-de.tgz": None}, read, members=_MEMBERS),
    ),
    advice="put texts/en/de/en-de.tgz of WIT3's archive 2016-01 (wit3.fbk.eu) into CLRAY_DATA/lamol/iwslt.en.de",
)
