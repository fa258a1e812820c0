"""One pass over a store: every trial that finished is published, every one that runs is shown."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from clray.dashboards import Dashboard
from clray.record import Record
from clray.store import Problem, Store
from clray.tracking.dashboards import send_page
from clray.tracking.login import TrackingError, home, require_key, require_server, settings_file
from clray.tracking.notes import Notes
from clray.tracking.publication import Outcome, Publication
from clray.tracking.runs import FINISH_SECONDS, TrialRun, end_service
from clray.tracking.tables import publish_table

RESET_SECONDS = 5.0
FAILURES_IN_A_ROW = 2
"""After this many the rest of a pass is not tried: a server that is down is found out twice, not once a trial."""


class Publisher:
    """Publishes what a store holds of one sweep, and remembers which runs are open and what came of the others."""

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
        self.outcome = Outcome(declared=len(publication.variants))

    def _record(self, id: str, folder: str) -> Record | None:
        """The record of one of the sweep's trials; None for any other file."""
        if id in self._foreign:
            return None
        record = self._store.read(id, folder)
        if isinstance(record, Problem):
            self._failed[id] = str(record)
        if not isinstance(record, Record):
            return None
        if record.trial.declaration not in self.publication.variants:
            self._foreign.add(id)
            return None
        return record

    def _trial(self, id: str, record: Record) -> TrialRun | None:
        """The trial's run, locked and open or ready to be opened; None where another process has it."""
        if id in self._runs:
            return self._runs[id]
        notes = Notes(self.publication, id)
        if not notes.acquire():
            if id not in self.outcome.busy:
                self.outcome.busy.append(id)
            return None
        return TrialRun(self.publication, notes, self._scratch)

    @contextlib.contextmanager
    def _attempt(self, id: str) -> Iterator[None]:
        """Note a failure of one trial and go on; end the pass after several in a row."""
        try:
            yield
        except TrackingError as error:
            self._failed[id], self.failed_now = str(error), True
            if trial := self._runs.pop(id, None):
                trial.close()
            self._in_a_row += 1
            if self._in_a_row >= FAILURES_IN_A_ROW:
                raise
        else:
            self._in_a_row = 0

    def _finished(self, id: str) -> None:
        record = self._record(id, "records")
        trial = self._trial(id, record) if record else None
        if record is None or trial is None:
            return
        with self._attempt(id):
            try:
                if id not in self._runs and trial.unchanged(record):
                    self._settle(id, trial, self.outcome.unchanged)
                    return
                if id not in self._runs:
                    trial.open(record)
                trial.complete(record)
                if self.publication.mode == "offline":
                    self._unflushed[id] = trial
                else:
                    trial.note()
                    self._settle(id, trial, self.outcome.sent)
            finally:
                self._runs.pop(id, None)
                if id not in self._unflushed:
                    trial.close()

    def _flush(self) -> None:
        """Note the offline runs of this pass, once they are on disk."""
        waiting, self._unflushed = self._unflushed, {}
        flushed = not waiting or end_service(FINISH_SECONDS)
        for id, trial in waiting.items():
            if flushed:
                trial.note()
                self._settle(id, trial, self.outcome.sent)
            else:
                self._failed[id] = f"W&B: run {id}: not on disk after {FINISH_SECONDS:.0f} seconds"
            trial.close()

    def _settle(self, id: str, trial: TrialRun, ids: list[str]) -> None:
        self.outcome.where = self.outcome.where or trial.where
        self._done.add(id)
        self._failed.pop(id, None)
        if id in self.outcome.busy:
            self.outcome.busy.remove(id)
        if id not in self.outcome.sent and id not in ids:
            ids.append(id)
        self._report()

    def _running(self, id: str) -> None:
        """Show a running trial. One that was published before is not shown again until it is known to have changed."""
        record = self._record(id, "running")
        trial = self._trial(id, record) if record else None
        if record is None or trial is None:
            return
        if trial.published_before:
            trial.close()
            return
        with self._attempt(id):
            if id not in self._runs:
                self._runs[id] = trial
                trial.open(record)
            trial.send(record)

    def look(self, every: bool) -> None:
        """One pass: publish what finished and show what runs.

        Args:
            every: read also the records that were seen before, and leave running trials alone.

        Raises:
            TrackingError: the server cannot be reached, or refused several times in a row.
        """
        self.failed_now = False
        if self.publication.mode == "online":
            require_server()
        running = self._store.running()
        if not every and self.publication.mode == "online":
            for id in sorted(running):
                self._done.discard(id)
                self._running(id)
        try:
            for id in sorted(self._store.finished()):
                if every or (id not in running and id not in self._done):
                    self._finished(id)
        finally:
            self._flush()

    def table(self, files: Mapping[str, str]) -> None:
        """Publish a sweep's table, ready-made: text by file name."""
        with self._attempt("table"):
            publish_table(self.publication, files, self._scratch)

    def page(self, dashboard: Dashboard) -> None:
        """Create or renew the page; why that failed is in the outcome, and stands in the way of nothing."""
        try:
            self.outcome.page, self.outcome.no_page = send_page(self.publication, dashboard), ""
        except TrackingError as error:
            self.outcome.no_page = str(error)

    @property
    def reached(self) -> bool:
        """Whether the server has anything of this sweep: before that there is no project to make a page in."""
        return bool(self._runs or self.outcome.published)

    def close(self) -> None:
        """Close the runs of trials that did not finish."""
        for trial in self._runs.values():
            trial.close()
        self._runs.clear()

    def result(self) -> Outcome:
        self.outcome.failures = list(dict.fromkeys(self._failed.values()))
        return self.outcome


@contextlib.contextmanager
def scratch_folder(below: str | None = None) -> Iterator[str]:
    """A folder for what wandb writes while it is online: the store already holds all of it."""
    folder = tempfile.mkdtemp(prefix="clray-wandb-", dir=below)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def own_folders(scratch: str, publications: Sequence[Publication]) -> Iterator[None]:
    """Give wandb folders of its own where the user's home cannot hold them; what the environment names is kept.

    Args:
        scratch: a folder that is there as long as wandb is in use.
        publications: what is published; files that an offline run refers to until it is synced lie beside the run.
    """
    lasting = [Path(publication.folder) / "wandb" for publication in publications if publication.mode == "offline"]
    folders = {
        "WANDB_DATA_DIR": (lasting or [Path(scratch)])[0] / "data",
        "WANDB_CACHE_DIR": Path(scratch) / "cache",
        "WANDB_CONFIG_DIR": Path(scratch) / "config",
    }
    own = {name: str(folders[name]) for name, path in _at_home().items() if name not in os.environ and not _holds(path)}
    if home() is None:
        own["HOME"] = scratch  # wandb asks for it even where it does not need it
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            os.environ.pop(name, None)


def _at_home() -> dict[str, Path | None]:
    """Where wandb writes by default, by the variable that says otherwise; None where there is no such place."""
    import platformdirs

    if home() is None:
        return dict.fromkeys(("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"))
    settings = settings_file()
    return {
        "WANDB_DATA_DIR": Path(platformdirs.user_data_dir("wandb")),
        "WANDB_CACHE_DIR": Path(platformdirs.user_cache_dir("wandb")),
        "WANDB_CONFIG_DIR": settings and settings.parent,
    }


def _holds(folder: Path | None) -> bool:
    """Whether a folder is there, or can be made, and can be written to; or holds settings, which are only read."""
    if folder is None:
        return False
    try:
        if (folder / "settings").is_file():
            return True
        there = next(place for place in (folder, *folder.parents) if place.exists())
    except OSError:
        return False
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def publish(
    publication: Publication, table: Mapping[str, str] | None = None, dashboard: Dashboard | None = None
) -> Outcome:
    """Publish every finished trial of a sweep, and its table, now and in this process.

    Publishing again sends only what changed. Nothing is printed. W&B runs that the calling process has open itself are
    ended: this is for a process that has none.

    Args:
        table: the sweep's table as text by file name, such as ``{"table.md": …, "table.csv": …}``.
        dashboard: the page to create or renew, once the runs are there.

    Raises:
        TrackingError: no key, or the server cannot be reached or refuses; the message says how much was published and
            how to do the rest. A failure of single trials is in the outcome instead.
    """
    if publication.mode == "off":
        return Outcome(declared=len(publication.variants))
    if publication.mode == "online":
        require_key()
    with scratch_folder() as scratch, own_folders(scratch, [publication]), muted():
        publisher = Publisher(publication, scratch)
        try:
            publisher.look(every=True)
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
    """Which file or folder it is that an error is about, and why.

    Args:
        folder: what is written where the error names nothing.
    """
    if error.strerror is None:
        return str(error)  # of wandb's own making, which names the folder
    return f"{error.filename or folder}: cannot be written: {error.strerror}"


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Keep wandb's own messages, which its settings do not all silence, off the user's terminal."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
