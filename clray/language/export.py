"""The artifacts of a trial: its scores in the official layout, its answers to the test questions, its pseudo-samples.

All three are JSON, and are read again without a model or a vocabulary.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from clray.errors import DataError

METRICS, SAMPLES, PREDICTIONS = "metrics.json", "samples.json", "predictions.json"
"""The names of the artifacts."""

Measured = list[dict[str, dict[str, float | None]]]
"""The scores in per cent by epoch, task and metric; None where a score was not finite."""


class PseudoSample(NamedTuple):
    """A pseudo-sample: an example of an earlier task that the model wrote.

    Attributes:
        before: the task that is trained next.
        of: the task whose examples it imitates.
        ids: its tokens, the generation token first.
        text: the same, decoded.
        question: its context and question, decoded; the whole text where it cannot be parsed.
        answer: its answer, decoded; None where it was dropped.
        dropped: the reason why it was not learned; empty where it was.
    """

    before: str
    of: str
    ids: list[int]
    text: str
    question: str
    answer: str | None
    dropped: str


class Prediction(NamedTuple):
    """The answer to a test question.

    Attributes:
        after: the task trained last.
        of: the task of the question.
        id: the example's id.
        answers: all correct answers, in the form in which they were compared.
        text: the model's answer, decoded.
    """

    after: str
    of: str
    id: str
    answers: list[str]
    text: str


class Tally(NamedTuple):
    """The numbers of pseudo-samples of one task that were written before another.

    Attributes:
        before, of: see ``PseudoSample``.
        kept: the number of samples that were learned.
        dropped: the number of the other samples, by the reason.
    """

    before: str
    of: str
    kept: int
    dropped: dict[str, int]


def tallies(samples: Iterable[PseudoSample]) -> list[Tally]:
    """Count samples: a tally for each pair of tasks, in the order of the samples."""
    reasons: dict[tuple[str, str], Counter[str]] = {}
    for sample in samples:
        reasons.setdefault((sample.before, sample.of), Counter())[sample.dropped] += 1
    return [Tally(*pair, counts.pop("", 0), dict(counts.most_common())) for pair, counts in reasons.items()]


def metrics_json(measured: Sequence[dict[str, dict[str, float]]]) -> bytes:
    """The official ``metrics.json`` of one trained task: a list over its epochs of ``{eval_task: {metric: value}}``.

    The official code tests the model of every epoch; a trial that tests the last one alone has a list of one.

    Args:
        measured: the same, in per cent. Numbers that are not finite are written as null: JSON does not have them.
    """
    written = [{task: _with_nulls(scores) for task, scores in epoch.items()} for epoch in measured]
    return json.dumps(written, indent=1, allow_nan=False).encode()


def _with_nulls(scores: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in scores.items()}


def samples_json(samples: Sequence[PseudoSample]) -> bytes:
    """The pseudo-samples as a JSON list of objects with the fields of ``PseudoSample``, one on each line."""
    return _lines(samples)


def predictions_json(predictions: Sequence[Prediction]) -> bytes:
    """The predictions as a JSON list of objects with the fields of ``Prediction``, one on each line."""
    return _lines(predictions)


def read_metrics(content: bytes, place: str = METRICS) -> Measured:
    """The inverse of ``metrics_json``; it also reads the official code's file.

    Args:
        place: the place of the content, for the error message.

    Raises:
        DataError: the content has another form.
    """
    return _read(Measured, content, place)


def read_samples(content: bytes, place: str = SAMPLES) -> list[PseudoSample]:
    """The inverse of ``samples_json``; raises DataError where the content has another form."""
    return _read(list[PseudoSample], content, place)


def read_predictions(content: bytes, place: str = PREDICTIONS) -> list[Prediction]:
    """The inverse of ``predictions_json``; raises DataError where the content has another form."""
    return _read(list[Prediction], content, place)


def _lines(rows: Sequence[PseudoSample] | Sequence[Prediction]) -> bytes:
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
