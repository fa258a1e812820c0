"""What is kept of a trial beside its record: its scores as the official code writes them, what was answered to every
test question, and the pseudo-samples that were learned in place of old examples or dropped.

All three are JSON, and read again from it without a model or a vocabulary.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from clray.errors import DataError

METRICS, SAMPLES, PREDICTIONS = "metrics.json", "samples.json", "predictions.json"
"""What they are called among a trial's artifacts."""

Measured = list[dict[str, dict[str, float | None]]]
"""By epoch, task and metric, in per cent; None for what was not finite."""


class Sample(NamedTuple):
    """A pseudo-sample: what the model wrote when it was asked for an example of a task that it had learned.

    Attributes:
        before: the task about to be trained.
        of: the task whose examples it should look like.
        ids: its tokens, the one that asked for it first.
        text: the same, decoded.
        question: its context and question, decoded; where they cannot be told from an answer, all of it.
        answer: its answer, decoded; None where it was dropped.
        dropped: why it was not learned; empty where it was.
    """

    before: str
    of: str
    ids: list[int]
    text: str
    question: str
    answer: str | None
    dropped: str


class Prediction(NamedTuple):
    """What was answered to a test question.

    Attributes:
        after: the task trained last.
        of: the task of the question.
        id: of the example.
        answers: all that count as right, in the form in which they were compared.
        text: what was written, decoded.
    """

    after: str
    of: str
    id: str
    answers: list[str]
    text: str


class Tally(NamedTuple):
    """How many pseudo-samples of one task were written before another, and what became of them.

    Attributes:
        before, of: as of ``Sample``.
        kept: those that were learned.
        dropped: the others, by the reason.
    """

    before: str
    of: str
    kept: int
    dropped: dict[str, int]


def tallies(samples: Iterable[Sample]) -> list[Tally]:
    """One for each pair of tasks, in the order in which the samples name them."""
    reasons: dict[tuple[str, str], Counter[str]] = {}
    for sample in samples:
        reasons.setdefault((sample.before, sample.of), Counter())[sample.dropped] += 1
    return [Tally(*pair, counts.pop("", 0), dict(counts.most_common())) for pair, counts in reasons.items()]


def metrics_json(measured: Sequence[dict[str, dict[str, float]]]) -> bytes:
    """The official ``metrics.json`` of one trained task: a list over its epochs of ``{eval_task: {metric: value}}``.

    The official code tests the model of every epoch; a trial that tests the last one alone has a list of one.

    Args:
        measured: the same, in per cent. What is not finite is written as null: JSON has no such number.
    """
    written = [{task: _with_nulls(scores) for task, scores in every.items()} for every in measured]
    return json.dumps(written, indent=1, allow_nan=False).encode()


def _with_nulls(scores: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in scores.items()}


def samples_json(samples: Sequence[Sample]) -> bytes:
    """The pseudo-samples as a list of objects with the fields of ``Sample``, one a line."""
    return _lines(samples)


def predictions_json(predictions: Sequence[Prediction]) -> bytes:
    """The predictions as a list of objects with the fields of ``Prediction``, one a line."""
    return _lines(predictions)


def read_metrics(content: bytes, place: str = METRICS) -> Measured:
    """The inverse of ``metrics_json``; reads the official code's own file too.

    Args:
        place: where the content stood, for the message.

    Raises:
        DataError: it is something else.
    """
    return _read(Measured, content, place)


def read_samples(content: bytes, place: str = SAMPLES) -> list[Sample]:
    """The inverse of ``samples_json``; raises DataError where the content is something else."""
    return _read(list[Sample], content, place)


def read_predictions(content: bytes, place: str = PREDICTIONS) -> list[Prediction]:
    """The inverse of ``predictions_json``; raises DataError where the content is something else."""
    return _read(list[Prediction], content, place)


def _lines(rows: Sequence[Sample] | Sequence[Prediction]) -> bytes:
    return b"[" + b",".join(b"\n" + json.dumps(row._asdict()).encode() for row in rows) + b"\n]\n"


def _read(form: Any, content: bytes, place: str) -> Any:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(form).validate_python(json.loads(content), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise DataError(f"{place}: {f'{key}: ' if key else ''}{first['msg']}") from None
    except ValueError as error:
        raise DataError(f"{place}: not JSON: {error}") from None
