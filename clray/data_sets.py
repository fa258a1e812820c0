"""The data sets that records of the same trials were made on, and which of them to use.

A trial's id contains the fingerprint of the data that the trial read. So a store may hold records of one declaration on
several data sets. A plan and a table use the same one.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from clray.record import Record

EMBEDDED = "embedded"
"""The ``source`` of the small data set that ships in a dependency. Its numbers are never judged against a paper."""


@dataclass(frozen=True)
class DataSet:
    """A data set that trials of a table have read.

    Attributes:
        name: its name, or several names joined by commas.
        source: the places that it was read from, such as ``cache``.
        fingerprint: the hash that it is known by; that of the texts alone where several models read the same texts.
        records: the number of finished records on it.
        partial: the part of the published data that it is; empty where it is the whole.
        fingerprints: the fingerprints of its records, sorted: several where several models read the same texts.
    """

    name: str
    source: str
    fingerprint: str
    records: int
    partial: str
    fingerprints: Sequence[str]

    @property
    def embedded(self) -> bool:
        """True where all of it is the small embedded data set."""
        return self.source == EMBEDDED

    @property
    def not_comparable_because(self) -> list[str]:
        """The reasons why its numbers are not compared with a paper; empty where they are.

        A data set of several parts names the source of each part. One embedded part is enough.
        """
        parts = {part for joined in self.source.split(" and ") for part in joined.split(", ")}
        found = []
        if EMBEDDED in parts:
            found.append("embedded data" if self.embedded else "embedded data in place of a part")
        return found + ([f"only a part of the data: {self.partial}"] if self.partial else [])

    def __str__(self) -> str:
        return f"{self.name} ({self.source}, {self.fingerprint.removeprefix(f'{EMBEDDED}-')[:8]})"


def data_sets(records: Iterable[Record]) -> list[DataSet]:
    """The data sets of these records; the first is the one to use.

    Real data come before embedded data, whole data before a part, then more records before fewer. The last criterion is
    the fingerprint, so that the choice never depends on the order of files.

    A language trial also reads a model, whose weights or vocabulary are part of its data's fingerprint. Trials on the
    same texts stand together, whatever their models are. But where one declared model has several contents, each of
    them is a data set of its own, and only the first one stands with the other models.
    """
    by_fingerprint: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_fingerprint[record.data["fingerprint"]].append(record)
    contents = sorted((_data_set([f], [r.data for r in group]) for f, group in by_fingerprint.items()), key=_preference)
    taken: dict[str, set[str]] = defaultdict(set)
    together: dict[str, list[str]] = {}
    for content in contents:
        (fingerprint,) = content.fingerprints
        texts = _texts_of(by_fingerprint[fingerprint][0].data)
        models = {json.dumps(record.trial.model, sort_keys=True) for record in by_fingerprint[fingerprint]}
        key = fingerprint if texts is None or taken[texts] & models else f"texts {texts}"
        if texts is not None:
            taken[texts] |= models
        together.setdefault(key, []).append(fingerprint)
    found = [_data_set(group, [r.data for f in group for r in by_fingerprint[f]]) for group in together.values()]
    return sorted(found, key=_preference)


def _preference(data: DataSet) -> tuple[bool, bool, int, str]:
    return data.embedded, bool(data.not_comparable_because), -data.records, data.fingerprint


def data_set_of(data: Mapping[str, Any]) -> DataSet:
    """The data set of a trial, from its description as the track's ``data()`` gives it."""
    return replace(_data_set([data["fingerprint"]], [data]), records=0)


def _data_set(fingerprints: Sequence[str], descriptions: Sequence[Mapping[str, Any]]) -> DataSet:
    texts = _texts_of(descriptions[0])
    return DataSet(
        name=", ".join(sorted({str(data.get("name", "data")) for data in descriptions})),
        source=" and ".join(sorted({str(data.get("source", "unknown source")) for data in descriptions})),
        fingerprint=fingerprints[0] if texts is None or len(fingerprints) == 1 else texts,
        records=len(descriptions),
        partial=", ".join(sorted(filter(None, {_part(data) for data in descriptions}))),
        fingerprints=sorted(fingerprints),
    )


def _part(data: Mapping[str, Any]) -> str:
    """The part of the published data that a trial reads; empty where it is the whole.

    A model that begins with random weights is what the sweep declares, and no lack of data. Where a quick form or
    ``--set`` puts one in the place of a pretrained model, the selection says that this is another experiment.
    """
    model = data.get("model")
    if isinstance(model, Mapping) and model.get("name") == "scratch":
        data = data["texts"]
    return str(data.get("partial", ""))


def _texts_of(data: Mapping[str, Any]) -> str | None:
    """The fingerprint of the texts alone, where the data description has it."""
    texts = data.get("texts")
    fingerprint = texts.get("fingerprint") if isinstance(texts, Mapping) else None
    return fingerprint if isinstance(fingerprint, str) else None
