"""The tasks' data: the published files, and the readers of each form."""

from __future__ import annotations

import dataclasses

from clray.language.datasets import classification, official
from clray.language.datasets.cnn_dailymail import CNN_DAILYMAIL
from clray.language.datasets.embedded import TASKS as EMBEDDED
from clray.language.datasets.iwslt import IWSLT
from clray.language.datasets.multinli import MULTINLI
from clray.language.datasets.published import Published
from clray.language.datasets.qasrl import SRL
from clray.language.datasets.qasrl_gs import SRL_GS
from clray.language.datasets.schema import SCHEMA
from clray.language.datasets.squad import SQUAD1, SQUAD2
from clray.language.datasets.sst import SST
from clray.language.datasets.wikisql import WIKISQL
from clray.language.datasets.woz import WOZ
from clray.language.datasets.zre import ZRE

_LAMOL = {
    "sst": SST,
    "srl": SRL,
    "woz.en": WOZ,
    "squad1": SQUAD1,
    "squad2": SQUAD2,
    "wikisql": WIKISQL,
    "ag": classification.AG,
    "amazon": classification.AMAZON,
    "dbpedia": classification.DBPEDIA,
    "yahoo": classification.YAHOO,
    "yelp": classification.YELP,
    "iwslt.en.de": IWSLT,
    "cnn_dailymail": CNN_DAILYMAIL,
    "multinli.in.out": MULTINLI,
    "zre": ZRE,
    "schema": SCHEMA,
}


def _with_the_authors_files(task: str, published: Published) -> Published:
    """Put the authors' own files first: a user who has them wants to use them."""
    return dataclasses.replace(published, forms=(official.form(task), *published.forms))


PUBLISHED: dict[str, Published] = {
    **{task: _with_the_authors_files(task, published) for task, published in _LAMOL.items()},
    "srl_gs": SRL_GS,
    **{
        task: Published(origin="SCAN's grammar (Lake and Baroni 2018)", forms=(), advice="it needs no file")
        for task in EMBEDDED
    },
}
