"""One pass over a store: finished trials are published, and running ones are shown live."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from clray.dashboards import Dashboard
from clray.folders import home_folder
from clray.record import Record
from clray.store import Problem, Store
from clray.tracking.login import TrackingError, require_key, require_server, settings_file
from clray.tracking.notes import Notes
from clray.tracking.pages import send_page
from clray.tracking.publication import Publication, PublicationResult
from clray.tracking.table_artifacts import publish_table
from clray.tracking.wandb_runs import FINISH_SECONDS, TrialRun, end_service

RESET_SECONDS = 5.0
FAILURES_IN_A_ROW = 2
"""A pass ends after this many failures in a row: with a server that is down, not every trial is tried."""


class Publisher:
    """Publishes the trials of one sweep from a store, and remembers the open runs and the outcome of the others."""

    def __init__(self, publication: Publication, scratch: str, report: Callable[[], None] = lambda: None) -> None:
        self.publication, self._scratch, self._report = publication, scratch, report
        self._store = Store(publication.store)
        self._foreign: set[str] = set()
        self._runs: dict[str, TrialRun] = {}
        self._done: set[str] = set()
        self._failed: dict[str, str] = {}
        self._unflushed: dict[str, TrialRun] = {}
        self._in_a_row = 0
        self.failed_now = False
        self.outcome = PublicationResult(declared=len(publication.variants))

    def _record(self, trial_id: str, folder: str) -> Record | None:
        """The record of one of the sweep's trials; None for any other file."""
        if trial_id in self._foreign:
            return None
        record = self._store.read(trial_id, folder)
        if isinstance(record, Problem):
            self._failed[trial_id] = str(record)
        if not isinstance(record, Record):
            return None
        if record.trial.declaration not in self.publication.variants:
            self._foreign.add(trial_id)
            return None
        return record

    def _trial(self, trial_id: str, record: Record) -> TrialRun | None:
        """The trial's run with its lock, open or ready to be opened; None where another process has the lock."""
        if trial_id in self._runs:
            return self._runs[trial_id]
        notes = Notes(self.publication, trial_id)
        if not notes.acquire():
            if trial_id not in self.outcome.busy:
                self.outcome.busy.append(trial_id)
            return None
        return TrialRun(self.publication, notes, self._scratch)

    @contextlib.contextmanager
    def _attempt(self, trial_id: str) -> Iterator[None]:
        """Note a failure of one trial and go on; after several failures in a row, end the pass."""
        try:
            yield
        except TrackingError as error:
            self._failed[trial_id], self.failed_now = str(error), True
            if trial := self._runs.pop(trial_id, None):
                trial.close()
            self._in_a_row += 1
            if self._in_a_row >= FAILURES_IN_A_ROW:
                raise
        else:
            self._in_a_row = 0

    def _finished(self, trial_id: str) -> None:
        record = self._record(trial_id, "records")
        trial = self._trial(trial_id, record) if record else None
        if record is None or trial is None:
            return
        with self._attempt(trial_id):
            try:
                if trial_id not in self._runs and trial.unchanged(record):
                    self._settle(trial_id, trial, self.outcome.unchanged)
                    return
                if trial_id not in self._runs:
                    trial.open(record)
                trial.complete(record)
                if self.publication.mode == "offline":
                    self._unflushed[trial_id] = trial
                else:
                    trial.note()
                    self._settle(trial_id, trial, self.outcome.sent)
            finally:
                self._runs.pop(trial_id, None)
                if trial_id not in self._unflushed:
                    trial.close()

    def _flush(self) -> None:
        """Note the offline runs of this pass when they are on disk."""
        waiting, self._unflushed = self._unflushed, {}
        flushed = not waiting or end_service(FINISH_SECONDS)
        for trial_id, trial in waiting.items():
            if flushed:
                trial.note()
                self._settle(trial_id, trial, self.outcome.sent)
            else:
                self._failed[trial_id] = f"W&B: run {trial_id}: not on disk after {FINISH_SECONDS:.0f} seconds"
            trial.close()

    def _settle(self, trial_id: str, trial: TrialRun, ids: list[str]) -> None:
        self.outcome.where = self.outcome.where or trial.where
        self._done.add(trial_id)
        self._failed.pop(trial_id, None)
        if trial_id in self.outcome.busy:
            self.outcome.busy.remove(trial_id)
        if trial_id not in self.outcome.sent and trial_id not in ids:
            ids.append(trial_id)
        self._report()

    def _running(self, trial_id: str) -> None:
        """Show a running trial. A trial that was published before is not shown: it is published when it finishes."""
        record = self._record(trial_id, "running")
        trial = self._trial(trial_id, record) if record else None
        if record is None or trial is None:
            return
        if trial.published_before:
            trial.close()
            return
        with self._attempt(trial_id):
            if trial_id not in self._runs:
                self._runs[trial_id] = trial
                trial.open(record)
            trial.send(record)

    def look(self, every_record: bool) -> None:
        """Make one pass: publish finished trials and show running ones.

        Args:
            every_record: also read the records that an earlier pass has published, and show no running trials.

        Raises:
            TrackingError: the server cannot be reached, or refused several times in a row.
        """
        self.failed_now = False
        if self.publication.mode == "online":
            require_server()
        running = self._store.running()
        if not every_record and self.publication.mode == "online":
            for trial_id in sorted(running):
                self._done.discard(trial_id)
                self._running(trial_id)
        try:
            for trial_id in sorted(self._store.finished()):
                if every_record or (trial_id not in running and trial_id not in self._done):
                    self._finished(trial_id)
        finally:
            self._flush()

    def table(self, files: Mapping[str, str]) -> None:
        """Publish a sweep's finished table: a text for each file name."""
        with self._attempt("table"):
            publish_table(self.publication, files, self._scratch)

    def page(self, dashboard: Dashboard) -> None:
        """Create or renew the page. The outcome holds the reason where that fails; nothing else depends on it."""
        try:
            self.outcome.page, self.outcome.no_page = send_page(self.publication, dashboard), ""
        except TrackingError as error:
            self.outcome.no_page = str(error)

    @property
    def reached(self) -> bool:
        """True where the server has a run of this sweep. Before that there is no project for a page."""
        return bool(self._runs or self.outcome.published)

    def close(self) -> None:
        """Close the runs of trials that did not finish."""
        for trial in self._runs.values():
            trial.close()
        self._runs.clear()

    def result(self) -> PublicationResult:
        """The outcome so far."""
        self.outcome.failures = list(dict.fromkeys(self._failed.values()))
        return self.outcome


@contextlib.contextmanager
def scratch_folder(below: str | None = None) -> Iterator[str]:
    """A temporary folder for the files that wandb writes while it is online; the store already holds their content."""
    folder = tempfile.mkdtemp(prefix="clray-wandb-", dir=below)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def own_folders(scratch: str, publications: Sequence[Publication]) -> Iterator[None]:
    """Give wandb other folders where the user's home cannot hold them. Folders from the environment stay as they are.

    Args:
        scratch: a folder that exists as long as wandb is in use.
        publications: the publications; an offline run refers to files until it is synced, so they lie beside the run.
    """
    lasting = [Path(publication.folder) / "wandb" for publication in publications if publication.mode == "offline"]
    folders = {
        "WANDB_DATA_DIR": (lasting or [Path(scratch)])[0] / "data",
        "WANDB_CACHE_DIR": Path(scratch) / "cache",
        "WANDB_CONFIG_DIR": Path(scratch) / "config",
    }
    own = {name: str(folders[name]) for name, path in _at_home().items() if name not in os.environ and not _holds(path)}
    if home_folder() is None:
        own["HOME"] = scratch  # wandb reads it even where it does not need it
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            os.environ.pop(name, None)


def _at_home() -> dict[str, Path | None]:
    """The folders that wandb writes to by default, by the variable that changes them; None where there is no home."""
    import platformdirs

    if home_folder() is None:
        return dict.fromkeys(("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"))
    settings = settings_file()
    return {
        "WANDB_DATA_DIR": Path(platformdirs.user_data_dir("wandb")),
        "WANDB_CACHE_DIR": Path(platformdirs.user_cache_dir("wandb")),
        "WANDB_CONFIG_DIR": settings and settings.parent,
    }


def _holds(folder: Path | None) -> bool:
    """True where a folder can be written to or created, or where it holds settings, which are only read."""
    if folder is None:
        return False
    try:
        if (folder / "settings").is_file():
            return True
        existing = next(place for place in (folder, *folder.parents) if place.exists())
    except OSError:
        return False
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def publish(
    publication: Publication, table: Mapping[str, str] | None = None, dashboard: Dashboard | None = None
) -> PublicationResult:
    """Publish every finished trial of a sweep, and its table, now and in this process.

    Publishing again sends only what has changed. Nothing is printed. The calling process must have no open W&B runs of
    its own: they would be ended.

    Args:
        table: the sweep's table as text by file name, such as ``{"table.md": …, "table.csv": …}``.
        dashboard: the page to create or renew after the runs.

    Raises:
        TrackingError: there is no key, or the server cannot be reached or refuses. The message says how much was
            published and how to publish the rest. Failures of single trials are in the outcome instead.
    """
    if publication.mode == "off":
        return PublicationResult(declared=len(publication.variants))
    if publication.mode == "online":
        require_key()
    with scratch_folder() as scratch, own_folders(scratch, [publication]), muted():
        publisher = Publisher(publication, scratch)
        try:
            publisher.look(every_record=True)
            if table:
                publisher.table(table)
            if dashboard:
                publisher.page(dashboard)
        except TrackingError as error:
            outcome = publisher.result()
            outcome.failures = list(dict.fromkeys([*outcome.failures, str(error)]))
            raise TrackingError(outcome.message(publication.again)) from None
        except OSError as error:
            raise TrackingError(f"W&B: {cannot_be_written(error, publication.folder)}") from None
        finally:
            publisher.close()
            if publisher.result().failures:
                end_service(RESET_SECONDS)
    return publisher.result()


def cannot_be_written(error: OSError, folder: str) -> str:
    """A message that names the file or folder that cannot be written, and the reason.

    Args:
        folder: the folder to name where the error names none.
    """
    if error.strerror is None:
        return str(error)  # an error that wandb made, which names the folder
    return f"{error.filename or folder}: cannot be written: {error.strerror}"


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Keep wandb's messages off the user's terminal; its settings do not silence all of them."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
