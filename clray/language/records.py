"""The one form that every task's data takes: a context, a question about it, and the answers that count as right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

SPLITS = ("train", "dev", "test")


class Example(NamedTuple):
    """One question.

    Attributes:
        context: what the question is about.
        question: the same for every example of some tasks.
        answers: all that count as right, the first of them the one that is learned. Never empty: a question that has
            no answer has the answer "".
        id: unique in its task; of a dialogue's turn ``<dialogue>_<turn>``.
        gold: what else scoring needs, as plain data; None for most tasks. WOZ: the turn's answer in the form
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
        """Every text of the training set."""
        for example in self.train:
            yield from (example.context, example.question, *example.answers[:1])
