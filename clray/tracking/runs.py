"""A W&B run: opened, filled from a record, finished, and confirmed by the server.

This file, ``tables.py`` and ``dashboards.py`` beside it are the only ones that import wandb, when they use it.
"""

from __future__ import annotations

import contextlib
import math
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clray.record import Record
from clray.tracking.content import config_of, digest, history, matrix_rows, name_of, summary_of, tags_of
from clray.tracking.login import TrackingError
from clray.tracking.notes import Notes
from clray.tracking.publication import SUPERSEDED, Publication

INIT_SECONDS = 20.0
FINISH_SECONDS = 60.0
CONFIRM_SECONDS = 10.0
MATRIX = "accuracy_matrix"
_RERUNS = 20


def _settings(publication: Publication) -> Any:
    """wandb as a mute messenger: what it finds out about this machine and process is not about the trial."""
    import wandb

    wanted: dict[str, Any] = {
        "allow_val_change": True,
        "console": "off",
        "disable_code": True,
        "disable_git": True,
        "finish_timeout": FINISH_SECONDS,
        "finish_timeout_raises": True,
        "init_timeout": INIT_SECONDS,
        "quiet": True,
        "reinit": "create_new",
        "save_code": False,
        "show_warnings": False,
        "silent": True,
        "x_disable_machine_info": True,
        "x_disable_meta": True,
        "x_disable_stats": True,
        "x_file_stream_retry_max": 3,
        "x_file_stream_retry_wait_max_seconds": 5,
        "x_graphql_retry_max": 3,
        "x_graphql_retry_wait_max_seconds": 5,
        "x_save_requirements": False,
        "x_skip_transaction_log": publication.mode == "online",  # the record is on disk already
    }
    return wandb.Settings(**{key: value for key, value in wanted.items() if key in wandb.Settings.model_fields})


def open_run(publication: Publication, id: str, scratch: str, **facts: Any) -> Any:
    """Open a W&B run, or resume it online where it exists.

    Raises:
        TrackingError: the server cannot be reached or refuses.
    """
    import wandb

    online = publication.mode == "online"
    try:
        return wandb.init(
            id=id,
            project=publication.project,
            entity=publication.entity,
            mode="online" if online else "offline",
            resume="allow" if online else None,
            dir=scratch if online else publication.folder,
            settings=_settings(publication),
            **facts,
        )
    except Exception as error:  # wandb names no common base for what init raises
        raise TrackingError(f"W&B: run {id}: {first_line(error)}") from None


@contextlib.contextmanager
def sending(run: Any) -> Iterator[None]:
    """Within, wandb is given something to send.

    Raises:
        TrackingError: it cannot take it, as a folder of its own cannot be written.
    """
    try:
        yield
    except Exception as error:  # wandb names no common base for what these raise
        raise TrackingError(f"W&B: run {run.id}: not sent to the end: {first_line(error)}") from None


def finish(run: Any, exit_code: int) -> None:
    with sending(run):
        run.finish(exit_code=exit_code)


def confirm(run: Any, rows: int) -> None:
    """Ask the server how many rows it holds: wandb's ``finish`` succeeds also where uploads were refused."""
    import wandb

    deadline = time.monotonic() + CONFIRM_SECONDS
    held: Any = None
    while True:
        try:
            found = wandb.Api(timeout=int(INIT_SECONDS)).run(f"{run.entity}/{run.project}/{run.id}")
            held = getattr(found, "historyLineCount", None)
        except Exception as error:  # the public API raises what its parts raise
            raise TrackingError(f"W&B: run {run.id}: sent, but not confirmed: {first_line(error)}") from None
        if held is None or held >= rows:
            return
        if time.monotonic() > deadline:
            raise TrackingError(f"W&B: run {run.id}: the server holds {held} of {rows} rows")
        time.sleep(0.5)


def supersede(run: Any, earlier: str) -> None:
    """Tag the run of a trial's earlier numbers, so that no page counts the trial twice.

    Args:
        earlier: the run's id, in the project of ``run``.
    """
    import wandb

    try:
        found = wandb.Api(timeout=int(INIT_SECONDS)).run(f"{run.entity}/{run.project}/{earlier}")
        if SUPERSEDED not in found.tags:
            found.tags = [*found.tags, SUPERSEDED]
            found.update()
    except Exception as error:  # the public API raises what its parts raise
        raise TrackingError(f"W&B: run {earlier}: not marked as {SUPERSEDED}: {first_line(error)}") from None


def end_service(seconds: float) -> bool:
    """End wandb's service process, and say whether it ended in time; the next run starts another.

    An offline run is on disk only after that: ``finish`` returns before its file is flushed. And after a failure the
    service holds the failed run's id, and may never be done with an upload.
    """
    wandb = sys.modules.get("wandb")
    if wandb is None:
        return True
    end = threading.Thread(target=wandb.teardown, args=(0,), daemon=True)
    end.start()
    end.join(seconds)
    return not end.is_alive()


def _same(sent: Any, value: float) -> bool:
    """W&B writes what is not finite as text; all else comes back as it was sent."""
    return not math.isfinite(value) or (isinstance(sent, int | float) and math.isclose(sent, value, rel_tol=1e-9))


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def offline_folders(publication: Publication, id: str) -> Iterator[Path]:
    """The folders of an offline run: wandb appends a count where two runs begin within one second."""
    pattern = re.compile(rf"offline-run-\d+_\d+-{re.escape(id)}(-\d+)?")
    for path in (Path(publication.folder) / "wandb").glob(f"offline-run-*-{id}*"):
        if pattern.fullmatch(path.name):
            yield path


def folder_name(publication: Publication, run: Any) -> str:
    return "" if publication.mode == "online" else Path(run.settings.sync_dir).name


def discard(publication: Publication, id: str, notes: Notes) -> None:
    """Remove this target's earlier or half-written offline folders of a run that is about to be written whole."""
    kept = notes.elsewhere()
    for path in offline_folders(publication, id):
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)


class TrialRun:
    """A trial's W&B run while it is open here. The notes are locked as long."""

    def __init__(self, publication: Publication, notes: Notes, scratch: str) -> None:
        self._publication, self._notes, self._scratch = publication, notes, scratch
        self._note = notes.read()
        self._run: Any = None
        self._sent = 0
        self._last: Mapping[str, Any] = {}

    def _facts(self, record: Record) -> dict[str, Any]:
        """What the run is called and filed under.

        A trial that several sweeps share keeps the group and variant of the first, and carries the tags of all.
        """
        labels = {"group": self._publication.sweep, "job_type": self._publication.variants[record.trial.declaration]}
        if self._note and self._note["labels"]["group"] != labels["group"]:
            labels = self._note["labels"]
        return {
            **labels,
            "name": name_of(record, labels["job_type"]),
            "tags": list(dict.fromkeys([*self._note.get("tags", []), *tags_of(self._publication, record)])),
            "config": config_of(record, labels["group"], labels["job_type"]),
        }

    def _content(self, record: Record) -> str:
        return digest([history(record), self._facts(record), summary_of(record)])

    def unchanged(self, record: Record) -> bool:
        """Whether exactly this was published to the end before."""
        if self._note.get("content") != self._content(record):
            return False
        folder = self._note.get("directory")
        return not folder or (Path(self._publication.folder) / "wandb" / folder).is_dir()

    @property
    def published_before(self) -> bool:
        return bool(self._note)

    @property
    def where(self) -> str:
        return self._note.get("where", "")

    def open(self, record: Record) -> None:
        """Open the run, or the first ``-rerun`` of it whose history this record continues."""
        rows = history(record)
        first = self._note.get("run_number", 1)
        if self._note and self._note["rows"] != digest(rows):
            first += 1
        for number in range(first, first + _RERUNS):
            self._number = number
            id = record.id if number == 1 else f"{record.id}-rerun{number}"
            if self._publication.mode == "offline":
                discard(self._publication, id, self._notes)
            self._run = open_run(self._publication, id, self._scratch, **self._facts(record))
            self._sent = int(self._run.starting_step)
            self._last = dict(self._run.summary) if self._sent else {}
            if self._continues(rows, finished=record.status == "finished"):
                break
            self.abandon(0)
        self._defined: set[str] = set()

    def _continues(self, rows: Sequence[Mapping[str, Any]], finished: bool) -> bool:
        """Whether the last row that was sent stands at its place among ``rows``."""
        if not self._sent or not self._last:
            return self._sent <= len(rows) + 1
        closed = MATRIX in self._last
        if closed != (self._sent == len(rows) + 1) and (finished or closed):
            return False
        at = self._sent - 1 - closed
        if at >= len(rows):
            return not finished  # a trial that went back to its checkpoint: it will come to this row again
        return at < 0 or all(_same(self._last.get(key), value) for key, value in rows[at].items())

    def send(self, record: Record) -> None:
        """Send the rows that are new. A last row that is still shorter than the one before waits for its rest."""
        rows = history(record)
        if record.status != "finished" and len(rows) > 1 and len(rows[-1]) < len(rows[-2]):
            rows = rows[:-1]
        if not self._continues(rows, finished=record.status == "finished"):
            self.abandon(1)
            self.open(record)
        with sending(self._run):
            for metric in sorted({m.metric for m in record.measurements} - self._defined):
                self._run.define_metric(f"{metric}/*", step_metric="examples")
                self._defined.add(metric)
            for step in range(self._sent, len(rows)):
                self._run.log(rows[step], step=step, commit=True)
                self._sent, self._last = step + 1, rows[step]

    def complete(self, record: Record) -> None:
        """Send what is missing of a finished trial and close the run. It counts as published once that is noted."""
        import wandb

        rows = history(record)
        self.send(record)
        with sending(self._run):
            if self._sent == len(rows):
                # The matrix has a row of its own after the last, so that a run that was shown live gets it too.
                table = wandb.Table(columns=["trained_tasks", "eval_task", "accuracy"], data=matrix_rows(record))
                self._run.log({MATRIX: table}, step=self._sent, commit=True)
            self._run.summary.update(summary_of(record))
        run, self._run = self._run, None
        finish(run, 0)
        if self._publication.mode == "online":
            confirm(run, len(rows) + 1)
            if self._number > 1:
                supersede(run, record.id if self._number == 2 else f"{record.id}-rerun{self._number - 1}")
        facts = self._facts(record)
        self._note = {
            "run": run.id,
            "run_number": self._number,
            "rows": digest(rows),
            "content": self._content(record),
            "directory": folder_name(self._publication, run),
            "tags": facts["tags"],
            "labels": {"group": facts["group"], "job_type": facts["job_type"]},
            "where": run.url.rsplit("/runs/", 1)[0] if run.url else str(Path(self._publication.folder) / "wandb"),
        }

    def note(self) -> None:
        """Note that the trial is published to the end."""
        self._notes.write(self._note)

    def abandon(self, exit_code: int) -> None:
        """Close the run as failed; the next publication resumes it."""
        run, self._run = self._run, None
        if run is not None:
            finish(run, exit_code)

    def close(self) -> None:
        """Let go of the trial, whatever happened."""
        with contextlib.suppress(TrackingError):
            self.abandon(1)
        self._notes.release()
