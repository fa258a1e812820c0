"""The methods of the episodes track, one file each, and the list of their names.

A method is a ``base.EpisodeMethod``: it chooses its network, and the pairs of an episode that the network must answer.
Its file does not load torch until it makes the network, so that a sweep is planned quickly. To add one, write its file,
add its line below, and declare a variant that names it.
"""

from __future__ import annotations

import importlib
from typing import Any

EPISODE_METHODS = {"meta_seq2seq": "meta_seq2seq:MetaSeq2seq"}
"""The methods for benchmarks whose episodes have a support set."""

SPLIT_METHODS = {"seq2seq": "seq2seq:Seq2seq"}
"""The methods for benchmarks with a training set and a test set."""

METHODS = {**EPISODE_METHODS, **SPLIT_METHODS}
"""Name to ``module:Class`` within this package; a module is imported when one of its trials is planned or run."""


def find(name: str) -> Any:
    """The class of a method; KeyError where there is none."""
    module, _, attribute = METHODS[name].partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
