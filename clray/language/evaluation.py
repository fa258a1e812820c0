"""The test after each visit: a model answers the test questions of all tasks, and its answers are scored.

All tasks of the benchmark are tested, those to come included, as the official ``test.py`` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clray.language.encoding import Encoded, encode
from clray.language.examples import TaskData
from clray.language.learner import Learner
from clray.language.scoring import as_compared, official, score
from clray.metrics import Measurement


class Evaluation:
    """The test of a trial, which can stop and go on between two batches of questions.

    Args:
        tasks: all tasks, in the order of learning.
        at_once: the number of tokens, questions and answers, that are processed together. It changes the time that a
            test takes, and the answers only where rounding decides.
    """

    def __init__(self, learner: Learner, tasks: Sequence[TaskData], at_once: int) -> None:
        self.learner, self.tasks, self._at_once = learner, tasks, at_once
        self.answers: list[list[str]] = [[] for _ in tasks]
        """The answers of the present test for each task, in the order of ``_questions``."""
        self.scores: list[dict[str, dict[str, float]]] = []
        """The scores of every task after each visit, in per cent."""
        self.predictions: dict[str, list[str]] = {}
        """The answers of the last test for each task, in the order of the test examples."""
        self._encoded: dict[int, list[Encoded]] = {}
        self._longest_answers: dict[int, int] = {}

    @property
    def progress(self) -> float:
        """The share of the present test that is done, 0 to 1."""
        return sum(map(len, self.answers)) / max(sum(len(task.test) for task in self.tasks), 1)

    @property
    def unfinished(self) -> int | None:
        """The first task with unanswered questions; None where the present test is complete."""
        places = range(len(self.tasks))
        return next((task for task in places if len(self.answers[task]) < len(self._questions(task))), None)

    def begin(self) -> None:
        """Begin a new test."""
        self.answers = [[] for _ in self.tasks]

    def answer_next(self, task: int, visit: int) -> None:
        """Answer the next batch of a task's questions.

        Raises:
            Diverged: the model's logits are not finite.
        """
        questions = self._questions(task)
        begin = len(self.answers[task])
        room = max(self._answer_room(task, row) for row in questions)
        at_once = max(self._at_once // (len(questions[-1].cq) + room), 1)
        part = questions[begin : begin + at_once]
        found = self.learner.write(
            [row.cq for row in part],
            [row.id for row in part],
            f"answers {visit} {task}",
            self.learner.settings.answer_top_k,
            [self._answer_room(task, row) for row in part],
        )
        self.answers[task] += [self.learner.vocabulary.decode(ids) for ids in found]

    def measure(self, trained: int) -> list[Measurement]:
        """Score a complete test.

        Args:
            trained: the number of tasks learned so far.
        """
        measured: list[Measurement] = []
        self.scores.append({})
        for task, data in enumerate(self.tasks):
            answers = [""] * len(data.test)
            for row, answer in zip(self._questions(task), self.answers[task], strict=True):
                answers[row.id] = answer
            self.predictions[data.name] = answers
            scores = score(data.name, answers, [as_compared(e, self.learner.vocabulary) for e in data.test])
            self.scores[-1][data.name] = scores
            found = {"accuracy": scores[official(data.name)], **scores}
            seen = self.learner.examples
            measured += [Measurement(seen, trained, task, name, value / 100) for name, value in found.items()]
        return measured

    def _questions(self, task: int) -> list[Encoded]:
        """A task's test questions, the shortest first; their ``id`` is their place among the test examples."""
        if task not in self._encoded:
            vocabulary, longest = self.learner.vocabulary, self.learner.longest
            token = vocabulary.eos  # no question holds a generation token
            options: dict[str, Any] = {"use_sep": self.learner.settings.use_sep, "test": True}
            rows = [encode(example, vocabulary, token, longest, **options) for example in self.tasks[task].test]
            rows = [row._replace(id=i) for i, row in enumerate(rows)]
            self._encoded[task] = sorted(rows, key=lambda row: len(row.cq))
        return self._encoded[task]

    def _answer_room(self, task: int, row: Encoded) -> int:
        """The most tokens of an answer: as many as the task's longest correct answer has."""
        return min(self._longest_answer(task), self.learner.longest - len(row.cq))

    def _longest_answer(self, task: int) -> int:
        if task not in self._longest_answers:
            vocabulary = self.learner.vocabulary
            joined = [[vocabulary.encode(answer) for answer in example.answers] for example in self.tasks[task].test]
            self._longest_answers[task] = max((sum(map(len, parts)) + len(parts) - 1 for parts in joined), default=0)
        return self._longest_answers[task]
