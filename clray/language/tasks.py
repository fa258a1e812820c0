"""The tasks, with the official metric and LAMOL's number of examples of each.

Source of sizes and metrics: ``data_attrs.json`` and section 4 of LAMOL (Sun, Ho and Lee 2020).
"""

from __future__ import annotations

from typing import NamedTuple


class Task(NamedTuple):
    """One task.

    Attributes:
        title: the full name.
        metric: the official metric, a name of ``clray.language.scoring``.
        sizes: the numbers of examples for training, development and test in LAMOL; None for a task of clray's own.
    """

    title: str
    metric: str
    sizes: tuple[int, int, int] | None


TASKS: dict[str, Task] = {
    "sst": Task("sentiment, SST with two classes", "em", (6920, 872, 1821)),
    "srl": Task("semantic role labelling, QA-SRL 1", "nf1", (6414, 2183, 2201)),
    "woz.en": Task("goal-oriented dialogue, WOZ 2.0", "joint_goal_em", (2536, 830, 1646)),
    "squad1": Task("questions on a text, SQuAD 1.1", "nf1", (87599, 10570, 10570)),
    "squad2": Task("questions on a text, SQuAD 2.0", "nf1", (130319, 11873, 11873)),
    "wikisql": Task("SQL from a question, WikiSQL", "lfem", (56355, 8421, 15878)),
    "ag": Task("news in four classes, AG News", "em", (115000, 7600, 7600)),
    "amazon": Task("reviews in five classes, Amazon", "em", (115000, 7600, 7600)),
    "dbpedia": Task("articles in fourteen classes, DBPedia", "em", (115000, 7600, 7600)),
    "yahoo": Task("questions in ten classes, Yahoo Answers", "em", (115000, 7600, 7600)),
    "yelp": Task("reviews in five classes, Yelp", "em", (115000, 7600, 7600)),
    "iwslt.en.de": Task("translation, IWSLT 2016 English to German", "bleu", (196884, 993, 1305)),
    "cnn_dailymail": Task("summaries, CNN/Daily Mail", "rouge", (287227, 13368, 11490)),
    "multinli.in.out": Task("inference, MultiNLI", "em", (392702, 20000, 19643)),
    "zre": Task("relations, QA-ZRE", "corpus_f1", (840000, 600, 12000)),
    "schema": Task("pronouns, modified Winograd schemas", "em", (80, 82, 100)),
    # Tasks that LAMOL does not have: a substitute, and tasks that need no file.
    "srl_gs": Task("QA-SRL gold standard of 2020, in place of srl", "nf1", None),
    "scan.actions": Task("SCAN: the actions of a command, from the grammar", "em", None),
    "scan.first": Task("SCAN: the first action of a command, from the grammar", "em", None),
    "scan.count": Task("SCAN: how many actions a command has, from the grammar", "em", None),
}
"""All tasks by name; LAMOL's tasks have the names of its code."""
