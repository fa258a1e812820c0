"""The W&B run of a trial: it is opened, filled from a record, finished, and confirmed by the server.

This file, ``table_artifacts.py`` and ``pages.py`` are the only ones that import wandb, and only when they use it.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
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
ROWS = "_rows"
"""A column of the history: the digest of all rows up to this one. W&B hides columns that begin with an underscore."""


def _settings(publication: Publication) -> Any:
    """Settings with which wandb prints nothing and sends nothing about this machine and process."""
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


def open_run(publication: Publication, run_id: str, scratch: str, **labels: Any) -> Any:
    """Open a W&B run, or resume it online where it exists.

    Raises:
        TrackingError: the server cannot be reached or refuses.
    """
    import wandb

    online = publication.mode == "online"
    try:
        return wandb.init(
            id=run_id,
            project=publication.project,
            entity=publication.entity,
            mode="online" if online else "offline",
            resume="allow" if online else None,
            dir=scratch if online else publication.folder,
            settings=_settings(publication),
            **labels,
        )
    except Exception as error:  # wandb names no common base for what init raises
        raise TrackingError(f"W&B: run {run_id}: {first_line(error)}") from None


@contextlib.contextmanager
def sending(run: Any) -> Iterator[None]:
    """A context for giving wandb something to send.

    Raises:
        TrackingError: wandb cannot take it, for example because a folder of its own cannot be written.
    """
    try:
        yield
    except Exception as error:  # wandb names no common base for what these raise
        raise TrackingError(f"W&B: run {run.id}: not sent to the end: {first_line(error)}") from None


def finish(run: Any, exit_code: int) -> None:
    """Close a run; an exit code other than 0 marks it as failed.

    Raises:
        TrackingError: wandb could not send all of it.
    """
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
    """Tag the run that holds a trial's earlier numbers, so that no page counts the trial twice.

    Args:
        earlier: the id of that run, in the project of ``run``.
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
    """End wandb's service process; the next run starts another one.

    An offline run is on disk only after that, because ``finish`` returns before its file is flushed. And after a
    failure the service holds the failed run's id, and an upload of it may never end.

    Returns:
        True where the service ended within this number of seconds.
    """
    wandb = sys.modules.get("wandb")
    if wandb is None:
        return True
    end = threading.Thread(target=wandb.teardown, args=(0,), daemon=True)
    end.start()
    end.join(seconds)
    return not end.is_alive()


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def offline_folders(publication: Publication, run_id: str) -> Iterator[Path]:
    """The folders of an offline run: wandb appends a count where two runs begin within one second."""
    pattern = re.compile(rf"offline-run-\d+_\d+-{re.escape(run_id)}(-\d+)?")
    for path in (Path(publication.folder) / "wandb").glob(f"offline-run-*-{run_id}*"):
        if pattern.fullmatch(path.name):
            yield path


def folder_name(publication: Publication, run: Any) -> str:
    return "" if publication.mode == "online" else Path(run.settings.sync_dir).name


def discard(publication: Publication, run_id: str, notes: Notes) -> None:
    """Remove this target's earlier or half-written offline folders of a run that is about to be written again."""
    kept = notes.folders_of_other_targets()
    for path in offline_folders(publication, run_id):
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)


class TrialRun:
    """The W&B run of a trial while this process publishes it. Its notes are locked for that time."""

    def __init__(self, publication: Publication, notes: Notes, scratch: str) -> None:
        self._publication, self._notes, self._scratch = publication, notes, scratch
        self._note = notes.read()
        self._run: Any = None
        self._sent = 0
        self._sent_digest: str | None = None

    def _labels(self, record: Record) -> dict[str, Any]:
        """The run's name, group, job type, tags and configuration.

        A trial that several sweeps share keeps the group and the variant of the first sweep, and has the tags of all.
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
        return digest([history(record), self._labels(record), summary_of(record)])

    def unchanged(self, record: Record) -> bool:
        """True where exactly this content was published completely before."""
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
        """Open the trial's W&B run, or a second one where the first holds other numbers than this record.

        W&B cannot rewrite history. So a finished trial with other numbers gets a second run, whose id is the trial's id
        and the digest of its rows. A running trial with other numbers gets no run until it has finished.
        """
        rows = history(record)
        if not self._note:
            self._open(record, record.id)
            if self._continues(record):
                return
            self.abandon(0)
        elif self._note["rows"] == digest(rows):
            self._open(record, self._note["run"])
            self._sent_digest = digest(rows[: self._sent])  # the note says that the run holds these rows
            return
        if record.status == "finished":
            self._open(record, f"{record.id}-rows-{digest(rows)}")

    def _open(self, record: Record, run_id: str) -> None:
        if self._publication.mode == "offline":
            discard(self._publication, run_id, self._notes)
        self._run = open_run(self._publication, run_id, self._scratch, **self._labels(record))
        self._sent = int(self._run.starting_step)
        self._sent_digest = self._run.summary.get(ROWS) if self._sent else None
        self._defined: set[str] = set()

    def _continues(self, record: Record) -> bool:
        """True where the rows that the open run holds are the first rows of this record."""
        rows = history(record)
        if record.status != "finished" and self._sent > len(rows):
            return True  # the trial went back to its checkpoint: it will come to these rows again
        # A published run has one row more, with the matrix.
        return self._sent <= len(rows) + 1 and (not self._sent or self._sent_digest == digest(rows[: self._sent]))

    def send(self, record: Record) -> None:
        """Send the rows that are new. A last row that is shorter than the one before is sent when it is complete."""
        rows = history(record)
        if record.status != "finished" and len(rows) > 1 and len(rows[-1]) < len(rows[-2]):
            rows = rows[:-1]
        if self._run is not None and not self._continues(record):
            self.abandon(1)
        if self._run is None and record.status == "finished":
            self.open(record)
        if self._run is None:
            return
        with sending(self._run):
            for metric in sorted({m.metric for m in record.measurements} - self._defined):
                self._run.define_metric(f"{metric}/*", step_metric="examples")
                self._defined.add(metric)
            for step in range(self._sent, len(rows)):
                self._sent_digest = digest(rows[: step + 1])
                self._run.log({**rows[step], ROWS: self._sent_digest}, step=step, commit=True)
                self._sent = step + 1

    def complete(self, record: Record) -> None:
        """Send the missing rows of a finished trial and close its run. Call ``note`` to count it as published."""
        import wandb

        rows = history(record)
        self.send(record)
        with sending(self._run):
            if self._sent == len(rows):
                # The matrix has a row of its own after the last one, so that a run that was shown live gets it too.
                table = wandb.Table(columns=["trained_tasks", "eval_task", "accuracy"], data=matrix_rows(record))
                self._run.log({MATRIX: table}, step=self._sent, commit=True)
            self._run.summary.update(summary_of(record))
        run, self._run = self._run, None
        finish(run, 0)
        if self._publication.mode == "online":
            confirm(run, len(rows) + 1)
            if run.id != record.id and (earlier := self._note.get("run", record.id)) != run.id:
                supersede(run, earlier)
        labels = self._labels(record)
        self._note = {
            "run": run.id,
            "rows": digest(rows),
            "content": self._content(record),
            "directory": folder_name(self._publication, run),
            "tags": labels["tags"],
            "labels": {"group": labels["group"], "job_type": labels["job_type"]},
            "where": run.url.rsplit("/runs/", 1)[0] if run.url else str(Path(self._publication.folder) / "wandb"),
        }

    def note(self) -> None:
        """Note that the trial is published completely."""
        self._notes.write(self._note)

    def abandon(self, exit_code: int) -> None:
        """Close the run as failed; the next publication resumes it."""
        run, self._run = self._run, None
        if run is not None:
            finish(run, exit_code)

    def close(self) -> None:
        """Close the run and release the lock, whatever happened before."""
        with contextlib.suppress(TrackingError):
            self.abandon(1)
        self._notes.release()
