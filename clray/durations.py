"""The time that trials are expected to take: from finished ones where there are any, else computed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from clray.record import Record
from clray.tracks import track
from clray.trial import Trial, short_hash


class Durations:
    """The expected time of trials.

    Args:
        records: finished trials. Of two records of a trial the later one counts.

    Attributes:
        records: those that tell their time, by the declaration of their trial.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self.records = {record.trial.declaration: record for record in records if record.undisturbed_seconds}
        by_settings: dict[str, list[float]] = defaultdict(list)
        for record in self.records.values():
            by_settings[_settings(record.trial)].append(record.undisturbed_seconds or 0.0)
        self._by_settings = {key: sum(seconds) / len(seconds) for key, seconds in by_settings.items()}

    def of(self, trial: Trial) -> float:
        """The seconds that a trial took or is expected to take, on cores that no other program uses.

        A trial takes what its record says; without a record, the mean of the trials that differ from it only by the
        seed and the order of the tasks; without these, what its track computes.
        """
        if (record := self.records.get(trial.declaration)) and (seconds := record.undisturbed_seconds):
            return seconds
        return self._by_settings.get(_settings(trial)) or track(trial.track).estimate(trial)


def _settings(trial: Trial) -> str:
    """A hash of what trials have in common that differ by the seed and the order of the tasks."""
    return short_hash(trial.model_dump(mode="json", exclude={"seed", "task_order"}))
