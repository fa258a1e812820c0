"""The methods of the episodes track, one file each, and the list of their names.

A method is a ``base.EpisodeMethod``: it chooses its network, and the pairs of an episode that the network must answer.
Its file does not load torch until it makes the network, so that a sweep is planned quickly. To add one, write its file,
add its line below, and declare a variant that names it.
"""

from __future__ import annotations

from typing import Any

from clray.registry import Registry

METHODS: Registry[Any] = Registry(
    __name__,
    {"meta_seq2seq": "meta_seq2seq:MetaSeq2seq", "seq2seq": "seq2seq:Seq2seq"},
    base="clray.episodes.methods.base:EpisodeMethod",
    group="clray.methods",
)
"""A module is imported when one of its trials is planned or run."""
