"""CNN/Daily Mail (Hermann et al. 2015; See et al. 2017): an article's highlights are its summary; texts as in decaNLP.

The stories are in two archives, each named by the SHA-1 of its address; lists of addresses define the sets.
"""

from __future__ import annotations

import hashlib
import unicodedata

from clray.errors import DataError
from clray.language.datasets.files import Files, Text, decoded, each
from clray.language.datasets.published import Form, Published, Splits
from clray.language.examples import Example

QUESTION = "What is the summary?"
_PAPERS = ("cnn", "dailymail")
_LISTS = {"train": "training", "dev": "validation", "test": "test"}
_ENDS = (".", "!", "?", "...", "'", "`", '"', "\u2019", "\u201d", ")")


def read(files: Files) -> Splits:
    train, dev, test = ([] for _ in _LISTS)  # type: list[Example], list[Example], list[Example]
    splits = dict(zip(_LISTS, (train, dev, test), strict=True))
    for paper in _PAPERS:
        told = _stories(files, paper)
        for split, examples in splits.items():
            for article, summary in told[split]:
                examples.append(Example(article, QUESTION, (summary,), f"{split}_{len(examples)}"))
    return train, dev, test


def _stories(files: Files, paper: str) -> dict[str, list[tuple[str, str]]]:
    """The article and the summary of every listed story, by split, in the order of the lists."""
    listed = {split: _listed(files, f"{paper}_wayback_{name}_urls.txt") for split, name in _LISTS.items()}
    archive = files.folder / f"{paper}_stories.tgz"
    wanted = {name for names in listed.values() for name in names}
    found = {
        name: _told(Text(f"{archive}: {name}", decoded(f"{archive}: {name}", raw)))
        for name, raw in each(archive, wanted)
    }
    missing = sorted(wanted - found.keys())
    if missing:
        raise DataError(f"{archive}: {len(missing)} listed stories are not in it, {missing[0]} for one")
    return {split: [found[name] for name in names] for split, names in listed.items()}


def _listed(files: Files, name: str) -> list[str]:
    addresses = [line.strip() for _, line in files.text(name).lines()]
    return [f"{hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()}.story" for url in addresses]


def _told(text: Text) -> tuple[str, str]:
    """A story's article and its highlights, each on one line."""
    article: list[str] = []
    highlights: list[str] = []
    part = article
    for number, line in text.lines():
        line = line.strip()
        if line.startswith("@highlight"):
            part = highlights
        elif "@highlight" in line:
            raise text.bad(number, "@highlight within a line")
        elif line:
            part.append(line if line.endswith(_ENDS) else f"{line}.")
    told, summary = (unicodedata.normalize("NFKC", " ".join(lines)) for lines in (article, highlights))
    return told, summary


_NAMES = [f"{p}_stories.tgz" for p in _PAPERS]
_NAMES += [f"{p}_wayback_{name}_urls.txt" for p in _PAPERS for name in _LISTS.values()]

CNN_DAILYMAIL = Published(
    origin="https://github.com/abisee/cnn-dailymail",
    forms=(Form("cnn_dailymail", dict.fromkeys(_NAMES), read),),
    advice=(
        "put cnn_stories.tgz and dailymail_stories.tgz (cs.nyu.edu/~kcho/DMQA) and the six lists of addresses "
        "(github.com/abisee/cnn-dailymail, url_lists) into CLRAY_DATA/lamol/cnn_dailymail"
    ),
)
