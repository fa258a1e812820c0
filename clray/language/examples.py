"""The common form of all tasks' data: a context, a question about it, and its correct answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

SPLITS = ("train", "dev", "test")


class Example(NamedTuple):
    """One question.

    Attributes:
        context: the text that the question is about.
        question: the question; some tasks have the same one for every example.
        answers: all correct answers; the first one is learned. Never empty: a question without an answer has the
            answer "".
        id: unique in its task; a dialogue's turn has ``<dialogue>_<turn>``.
        gold: further data for scoring; None for most tasks. WOZ: the turn's answer in the form
            ``inform; request``. WikiSQL: ``{"sql": …, "header": […], "answer": …, "table": …}``.
    """

    context: str
    question: str
    answers: tuple[str, ...]
    id: str
    gold: Any = None


class TaskData(NamedTuple):
    """A task's examples.

    Attributes:
        name: a key of ``clray.language.tasks.TASKS``.
        train, dev, test: in the order of the published files. Where a task has only two sets, dev and test are one.
    """

    name: str
    train: list[Example]
    dev: list[Example]
    test: list[Example]

    def texts(self) -> Iterator[str]:
        """All texts of the training set."""
        for example in self.train:
            yield from (example.context, example.question, *example.answers[:1])
