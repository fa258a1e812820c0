"""The publisher: sends the trials of a results store to Weights & Biases, each as one run.

It reads the store and nothing else, so training never knows about it: it can die, hang or be absent without touching
a sweep, and what it did not send is sent later from the same records (``clray publish NAME``). While a sweep runs it
lives in a process of its own (``start``), which follows the store until it is told to stop or its parent is gone.

A trial's run has the trial's id. Row ``k`` of its history is always W&B step ``k``, and a resumed run tells the step
it has come to, so that publishing again, from here or elsewhere, sends what is missing and no row twice. W&B cannot
rewrite history: where a trial was run again and its numbers changed, a new run ``ID-rerun2`` is made and the earlier
one stays. What was published to the end is noted in ``published/ID.json`` below the folder, and not sent again.

This is the only file that imports wandb, and it does so when a run is opened.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import fcntl
import hashlib
import io
import json
import math
import netrc
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from clray.errors import ClrayError, StoreError
from clray.metrics import accuracy_matrix
from clray.results import Problem, Record, Store
from clray.spec import Selection, Sweep

Mode = Literal["online", "offline", "off"]
PROJECT = "clray"
CLOUD = "https://api.wandb.ai"

CONNECT_SECONDS = 10.0
INIT_SECONDS = 20.0
FINISH_SECONDS = 60.0
CONFIRM_SECONDS = 10.0
RESET_SECONDS = 5.0
FAILURES_IN_A_ROW = 2
"""After this many the rest of a pass is not tried: a server that is down is found out twice, not once a trial."""
POLL_SECONDS = 5.0
RETRY_SECONDS = (30.0, 300.0)
"""How long the follower waits after a pass that failed: the first time, and at most."""

_MATRIX = "accuracy_matrix"
_RERUNS = 20


class TrackingError(ClrayError):
    """W&B cannot be used as asked: no key, no server, or a server that refuses."""


# --------------------------------------------------------------------------------------------------------------
# Who is logged in, and where


def base_url() -> str:
    """The W&B server: WANDB_BASE_URL, else the one that ``wandb login --host`` noted, else the public one."""
    if url := os.environ.get("WANDB_BASE_URL"):
        return url.rstrip("/")
    folder = Path(os.environ.get("WANDB_CONFIG_DIR") or Path.home() / ".config" / "wandb")
    noted = configparser.ConfigParser(interpolation=None)
    with contextlib.suppress(configparser.Error, OSError, UnicodeDecodeError):
        noted.read(folder / "settings")
    return noted.get("default", "base_url", fallback=CLOUD).rstrip("/")


def logged_in() -> bool:
    """Whether a key for the server is at hand (environment or netrc). Asks nobody and opens no connection."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    path = os.environ.get("NETRC") or str(Path.home() / ".netrc")
    try:
        found = netrc.netrc(os.path.expanduser(path)).authenticators(urllib.parse.urlsplit(base_url()).netloc)
    except (OSError, netrc.NetrcParseError):
        return False
    return bool(found and found[2])


def default_mode() -> Mode:
    """What a sweep does where nothing was said: WANDB_MODE, else ``online`` when logged in, else ``off``."""
    asked = os.environ.get("WANDB_MODE", "").lower()
    if asked == "offline":
        return "offline"
    if asked in ("disabled", "dryrun") or not logged_in():
        return "off"
    return "online"


def _require_key() -> None:
    if not logged_in():
        raise TrackingError(
            f"W&B: no API key for {base_url()}: run `wandb login` or set WANDB_API_KEY, "
            "or use --wandb offline (runs are kept on disk) or --wandb off"
        )


def _require_server() -> None:
    """Finds out in no time what wandb would take ``INIT_SECONDS`` a run to notice."""
    url = urllib.parse.urlsplit(base_url())
    if urllib.request.getproxies():
        return  # then the way to the server is the proxy's affair
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection((url.hostname or "", port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise TrackingError(f"W&B: {base_url()} cannot be reached: {error}") from None


# --------------------------------------------------------------------------------------------------------------
# What is published


@dataclass(frozen=True)
class Publication:
    """A sweep's trials, the store their records are in, and where they are published.

    Attributes:
        sweep: its name, and for a changed sweep (``--quick``, ``--set``) the change's suffix: the W&B group.
        variants: each trial's variant by the trial's ``declaration``.
        store: the store's URI.
        mode: ``online`` or ``offline``.
        project: the W&B project.
        entity: the W&B user or team; None for the key's own.
        folder: a local folder: offline runs go to ``wandb/`` in it, notes of what was published to ``published/``.
        paper: the paper's key: a tag.
        table: the reproduction or table it belongs to: a tag where given.
        again: the command that publishes the sweep later.
    """

    sweep: str
    variants: dict[str, str]
    store: str
    mode: Mode
    project: str
    entity: str | None
    folder: str
    paper: str = ""
    table: str = ""
    again: str = ""

    @classmethod
    def of(
        cls,
        sweep: Sweep,
        store: Store,
        mode: Mode,
        *,
        project: str | None = None,
        entity: str | None = None,
        folder: str | os.PathLike[str] | None = None,
        table: str = "",
        again: str | None = None,
    ) -> Publication:
        """The publication of a sweep; what is not given is taken from WANDB_PROJECT and WANDB_ENTITY.

        Raises:
            TrackingError: the mode is ``online`` and there is no key. Nothing was started or written then.
        """
        if mode == "online":
            _require_key()
        local = "://" not in store.uri or store.uri.startswith("file://")
        changed = Selection(quick=sweep.selection.quick, set=sweep.selection.set)
        return cls(
            sweep=sweep.name + changed.suffix,
            variants={cell.trial.declaration: cell.variant for cell in sweep.cells},
            store=store.uri,
            mode=mode,
            project=project or os.environ.get("WANDB_PROJECT") or PROJECT,
            entity=entity or os.environ.get("WANDB_ENTITY") or None,
            folder=str(Path(folder or (store.path() if local else ".")).resolve()),
            paper=sweep.paper,
            table=table,
            again=again if again is not None else f"clray publish {sweep.name} --wandb {mode}",
        )

    @property
    def target(self) -> str:
        """Where the runs go, as noted of each published trial."""
        return f"{base_url() if self.mode == 'online' else 'offline'} {self.entity or ''}/{self.project}"


@dataclass
class Outcome:
    """What a pass over the store came to.

    Attributes:
        declared: trials of the sweep.
        sent: ids that were published to the end.
        unchanged: ids that were published before and have not changed since.
        busy: ids that another process is publishing.
        failures: one message a trial (or table) that could not be published.
        where: the project's page, or the folder of offline runs.
    """

    declared: int = 0
    sent: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    where: str = ""

    @property
    def published(self) -> int:
        return len(set(self.sent) | set(self.unchanged))

    def message(self, again: str = "") -> str:
        """One line for the user: what was published, what was not, why, and the command that does it later."""
        text = f"W&B: {self.published} of {self.declared} trials published"
        if self.sent and self.unchanged:
            text += f" ({len(self.sent)} now, {len(self.unchanged)} before)"
        if self.where:
            text += f": {self.where}"
        if self.busy:
            text += f"; {len(self.busy)} left to the process that is publishing them"
        if self.failures:
            more = len(self.failures) - 1
            text += f"; {self.failures[0].removeprefix('W&B: ')}" + (f" (and {more} more)" if more else "")
        if again and (self.failures or self.published < self.declared):
            text += f"; the rest later: {again}"
        return text


def history(record: Record) -> list[dict[str, float]]:
    """A record as rows of a W&B history, one for each point at which tasks were evaluated, in that order.

    A row holds ``examples`` (training examples seen), ``trained_tasks``, and for every metric ``METRIC/task_03``,
    ``METRIC/mean`` over all tasks that were evaluated and ``METRIC/mean_seen`` over those whose training has begun.
    """
    points: dict[tuple[int, int], dict[str, dict[int, float]]] = {}
    for m in record.measurements:
        points.setdefault((m.step, m.trained_tasks), {}).setdefault(m.metric, {})[m.eval_task] = m.value
    rows = []
    for (step, trained), metrics in points.items():
        row: dict[str, float] = {"examples": step, "trained_tasks": trained}
        for metric, values in metrics.items():
            row |= {f"{metric}/task_{task:02d}": value for task, value in sorted(values.items())}
            row[f"{metric}/mean"] = fmean(values.values())
            if seen := [value for task, value in values.items() if task < trained]:
                row[f"{metric}/mean_seen"] = fmean(seen)
        rows.append(row)
    return rows


def _matrix_rows(record: Record) -> list[list[float]]:
    """The accuracy matrix as (trained_tasks, eval_task, accuracy), the baseline under 0 trained tasks."""
    R, b = accuracy_matrix(record.measurements)
    rows = [[0, task, float(value)] for task, value in enumerate(b)]
    rows += [[i + 1, j, float(R[i, j])] for i in range(len(R)) for j in range(len(R))]
    return [row for row in rows if math.isfinite(row[2])]


def _config(record: Record, sweep: str, variant: str) -> dict[str, Any]:
    labels = {"sweep": sweep, "variant": variant, "data": record.data, "provenance": record.provenance}
    return {**record.trial.model_dump(mode="json"), **labels}


def _summary(record: Record) -> dict[str, Any]:
    seconds = record.provenance.get("seconds")
    return {**record.metrics, "status": record.status, **({} if seconds is None else {"seconds": seconds})}


def _name(record: Record, variant: str) -> str:
    order = record.trial.task_order
    return f"{variant}/{record.trial.seed}" + ("" if order is None else f"/order {'-'.join(map(str, order))}")[:80]


def _tags(publication: Publication, record: Record) -> list[str]:
    source, seed = str(record.data.get("source") or ""), f"seed:{record.trial.seed}"
    tags = [publication.paper, publication.table, seed, source, f"sweep:{publication.sweep}"]
    return list(dict.fromkeys(tag[:64] for tag in tags if tag))  # W&B refuses longer ones


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


# --------------------------------------------------------------------------------------------------------------
# Notes of what was published


class _Notes:
    """What is known of a run's publications: one small file, and a lock so that one process at a time sends it."""

    def __init__(self, publication: Publication, id: str) -> None:
        self._target = publication.target
        self._path = Path(publication.folder) / "published" / f"{id}.json"
        self._lock: io.TextIOWrapper | None = None

    def acquire(self) -> bool:
        """Take the lock; False where another process has it. The system drops it when a process is killed."""
        path = self._path.parent / "locks" / self._path.stem
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(path, "a")  # noqa: SIM115 - held until release
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return False
        except OSError:
            pass  # a file system without locks: then only one publisher at a time is safe
        self._lock = lock
        return True

    def release(self) -> None:
        if self._lock:
            self._lock.close()
            self._lock = None

    def _all(self) -> dict[str, dict[str, Any]]:
        try:
            notes = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}  # a lost or torn note costs a look at the server, no row
        return notes if isinstance(notes, dict) else {}

    def read(self) -> dict[str, Any]:
        """The note of the last publication to this target; empty where there is none."""
        return self._all().get(self._target, {})

    def write(self, note: dict[str, Any]) -> None:
        temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps({**self._all(), self._target: note}, indent=1))
        os.replace(temporary, self._path)

    def elsewhere(self) -> set[str]:
        """The folders of offline runs that belong to other targets."""
        return {note.get("directory", "") for target, note in self._all().items() if target != self._target}


# --------------------------------------------------------------------------------------------------------------
# One run


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


def _open(publication: Publication, id: str, scratch: str, **facts: Any) -> Any:
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
        raise TrackingError(f"W&B: run {id}: {_first_line(error)}") from None


def _finish(run: Any, exit_code: int) -> None:
    try:
        run.finish(exit_code=exit_code)
    except Exception as error:  # wandb names no common base for what finish raises
        raise TrackingError(f"W&B: run {run.id}: not sent to the end: {_first_line(error)}") from None


def _confirm(run: Any, rows: int) -> None:
    """Ask the server how many rows it holds: wandb's ``finish`` succeeds also where uploads were refused."""
    import wandb

    deadline = time.monotonic() + CONFIRM_SECONDS
    held: Any = None
    while True:
        try:
            found = wandb.Api(timeout=int(INIT_SECONDS)).run(f"{run.entity}/{run.project}/{run.id}")
            held = getattr(found, "historyLineCount", None)
        except Exception as error:  # the public API raises what its parts raise
            raise TrackingError(f"W&B: run {run.id}: sent, but not confirmed: {_first_line(error)}") from None
        if held is None or held >= rows:
            return
        if time.monotonic() > deadline:
            raise TrackingError(f"W&B: run {run.id}: the server holds {held} of {rows} rows")
        time.sleep(0.5)


def _end_service(seconds: float) -> bool:
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


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _offline_folders(publication: Publication, id: str) -> Iterator[Path]:
    """The folders of an offline run: wandb appends a count where two runs begin within one second."""
    pattern = re.compile(rf"offline-run-\d+_\d+-{re.escape(id)}(-\d+)?")
    for path in (Path(publication.folder) / "wandb").glob(f"offline-run-*-{id}*"):
        if pattern.fullmatch(path.name):
            yield path


def _directory(publication: Publication, run: Any) -> str:
    return "" if publication.mode == "online" else Path(run.settings.sync_dir).name


def _discard(publication: Publication, id: str, notes: _Notes) -> None:
    """Remove this target's earlier or half-written offline folders of a run that is about to be written whole."""
    kept = notes.elsewhere()
    for path in _offline_folders(publication, id):
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)


class _TrialRun:
    """A trial's W&B run while it is open here. The notes are locked as long."""

    def __init__(self, publication: Publication, notes: _Notes, scratch: str) -> None:
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
            "name": _name(record, labels["job_type"]),
            "tags": list(dict.fromkeys([*self._note.get("tags", []), *_tags(self._publication, record)])),
            "config": _config(record, labels["group"], labels["job_type"]),
        }

    def _content(self, record: Record) -> str:
        return _digest([history(record), self._facts(record), _summary(record)])

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
        if self._note and self._note["rows"] != _digest(rows):
            first += 1
        for number in range(first, first + _RERUNS):
            self._number = number
            id = record.id if number == 1 else f"{record.id}-rerun{number}"
            if self._publication.mode == "offline":
                _discard(self._publication, id, self._notes)
            self._run = _open(self._publication, id, self._scratch, **self._facts(record))
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
        closed = _MATRIX in self._last
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
        if self._sent == len(rows):
            # The matrix has a row of its own after the last, so that a run that was shown live gets it too.
            table = wandb.Table(columns=["trained_tasks", "eval_task", "accuracy"], data=_matrix_rows(record))
            self._run.log({_MATRIX: table}, step=self._sent, commit=True)
        self._run.summary.update(_summary(record))
        run, self._run = self._run, None
        _finish(run, 0)
        if self._publication.mode == "online":
            _confirm(run, len(rows) + 1)
        facts = self._facts(record)
        self._note = {
            "run": run.id,
            "run_number": self._number,
            "rows": _digest(rows),
            "content": self._content(record),
            "directory": _directory(self._publication, run),
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
            _finish(run, exit_code)

    def close(self) -> None:
        """Let go of the trial, whatever happened."""
        with contextlib.suppress(TrackingError):
            self.abandon(1)
        self._notes.release()


# --------------------------------------------------------------------------------------------------------------
# A pass over the store


class _Publisher:
    """Publishes what a store holds of one sweep, and remembers which runs are open and what came of the others."""

    def __init__(self, publication: Publication, scratch: str, report: Callable[[], None] = lambda: None) -> None:
        self.publication, self._scratch, self._report = publication, scratch, report
        self._store = Store(publication.store)
        self._foreign: set[str] = set()
        self._runs: dict[str, _TrialRun] = {}
        self._done: set[str] = set()
        self._failed: dict[str, str] = {}
        self._unflushed: dict[str, _TrialRun] = {}
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

    def _trial(self, id: str, record: Record) -> _TrialRun | None:
        """The trial's run, locked and open or ready to be opened; None where another process has it."""
        if id in self._runs:
            return self._runs[id]
        notes = _Notes(self.publication, id)
        if not notes.acquire():
            if id not in self.outcome.busy:
                self.outcome.busy.append(id)
            return None
        return _TrialRun(self.publication, notes, self._scratch)

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
        flushed = not waiting or _end_service(FINISH_SECONDS)
        for id, trial in waiting.items():
            if flushed:
                trial.note()
                self._settle(id, trial, self.outcome.sent)
            else:
                self._failed[id] = f"W&B: run {id}: not on disk after {FINISH_SECONDS:.0f} seconds"
            trial.close()

    def _settle(self, id: str, trial: _TrialRun, ids: list[str]) -> None:
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
            _require_server()
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
            _publish_table(self.publication, files, self._scratch)

    def close(self) -> None:
        """Close the runs of trials that did not finish."""
        for trial in self._runs.values():
            trial.close()
        self._runs.clear()

    def result(self) -> Outcome:
        self.outcome.failures = list(dict.fromkeys(self._failed.values()))
        return self.outcome


def _publish_table(publication: Publication, files: Mapping[str, str], scratch: str) -> None:
    """Log a sweep's table as an artifact of type ``table``, from one run that is always the same for the sweep."""
    id = "table-" + hashlib.sha256(publication.sweep.encode()).hexdigest()[:12]
    notes, content = _Notes(publication, id), _digest(dict(files))
    if not notes.acquire():
        return
    try:
        note = notes.read()
        folders = [path.name for path in _offline_folders(publication, id)] + [""]
        if note.get("content") == content and note["directory"] in folders:
            return
        if publication.mode == "offline":
            _discard(publication, id, notes)
        run = _log_table(publication, id, files, scratch)
        if publication.mode == "offline" and not _end_service(FINISH_SECONDS):
            raise TrackingError(f"W&B: run {id}: not on disk after {FINISH_SECONDS:.0f} seconds")
        notes.write({"run": id, "content": content, "directory": _directory(publication, run)})
    finally:
        notes.release()


def _log_table(publication: Publication, id: str, files: Mapping[str, str], scratch: str) -> Any:
    import wandb

    artifact = wandb.Artifact(re.sub(r"[^\w.-]", "-", publication.sweep) + "-table", type="table")
    for name, text in files.items():
        with artifact.new_file(name, mode="w", encoding="utf-8") as file:
            file.write(text)
    tags = [tag[:64] for tag in (publication.paper, publication.table, f"sweep:{publication.sweep}") if tag]
    facts = {"name": f"{publication.sweep} table", "group": publication.sweep, "job_type": "table", "tags": tags}
    run = _open(publication, id, scratch, **facts)
    logged = run.log_artifact(artifact)
    if publication.mode == "online":
        _wait(logged, run)
    _finish(run, 0)
    return run


def _wait(artifact: Any, run: Any) -> None:
    try:
        artifact.wait(timeout=int(FINISH_SECONDS))
    except Exception as error:  # wandb names no common base for what wait raises
        with contextlib.suppress(TrackingError):
            _finish(run, 1)
        raise TrackingError(f"W&B: run {run.id}: the table was not sent: {_first_line(error)}") from None


@contextlib.contextmanager
def _scratch(below: str | None = None) -> Iterator[str]:
    """A folder for what wandb writes while it is online: the store already holds all of it."""
    folder = tempfile.mkdtemp(prefix="clray-wandb-", dir=below)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(publication: Publication, table: Mapping[str, str] | None = None) -> Outcome:
    """Publish every finished trial of a sweep, and its table, now and in this process.

    Publishing again sends only what changed. Nothing is printed. W&B runs that the calling process has open itself are
    ended: this is for a process that has none.

    Args:
        table: the sweep's table as text by file name, such as ``{"table.md": …, "table.csv": …}``.

    Raises:
        TrackingError: no key, or the server cannot be reached or refuses; the message says how much was published and
            how to do the rest. A failure of single trials is in the outcome instead.
    """
    if publication.mode == "off":
        return Outcome(declared=len(publication.variants))
    if publication.mode == "online":
        _require_key()
    with _scratch() as scratch, _muted():
        publisher = _Publisher(publication, scratch)
        try:
            publisher.look(every=True)
            if table:
                publisher.table(table)
        except TrackingError as error:
            outcome = publisher.result()
            outcome.failures = list(dict.fromkeys([*outcome.failures, str(error)]))
            raise TrackingError(outcome.message(publication.again)) from None
        except OSError as error:
            raise TrackingError(f"W&B: {publication.folder}: cannot be written: {error}") from None
        finally:
            publisher.close()
            if publisher.result().failures:
                _end_service(RESET_SECONDS)
    return publisher.result()


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """Keep wandb's own messages, which its settings do not all silence, off the user's terminal."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


# --------------------------------------------------------------------------------------------------------------
# Following a sweep while it runs

Tables = Mapping[str, Mapping[str, str]]
"""Tables ready-made, by the sweep's name: text by file name."""


def follow(
    publications: Sequence[Publication],
    orders: Callable[[], Tables | None],
    report: Callable[[Sequence[Outcome], str], None] = lambda outcomes, error: None,
    poll: float = POLL_SECONDS,
    folder: str | None = None,
) -> list[Outcome]:
    """Publish sweeps while they run: running trials live, each finished once its record is there.

    Args:
        orders: asked before each pass: None to go on; anything else, such as the sweeps' tables, ends the following
            with one last pass over all records.
        report: told of every change, and of what kept the last pass from being complete.
        poll: seconds between two passes.
        folder: where wandb may write while it is online; by default the system's folder for temporary files.
    """
    error = ""
    retry = 0.0

    def tell() -> None:
        report([publisher.result() for publisher in publishers], error)

    with _scratch(folder) as scratch:
        publishers = [_Publisher(publication, scratch, tell) for publication in publications]
        while True:
            tables = orders()
            error = ""
            for publisher in publishers:
                try:
                    publisher.look(every=tables is not None)
                    if tables and (files := tables.get(publisher.publication.sweep)):
                        publisher.table(files)
                except (TrackingError, StoreError, OSError) as problem:
                    error = str(problem)
            tell()
            if error or any(publisher.failed_now for publisher in publishers):
                for publisher in publishers:
                    publisher.close()
                _end_service(RESET_SECONDS)
            if tables is not None:
                break
            retry = min(max(2 * retry, RETRY_SECONDS[0]), RETRY_SECONDS[1]) if error else 0.0
            end = time.monotonic() + max(poll, retry)
            while time.monotonic() < end and orders() is None:
                time.sleep(min(0.2, poll))
        for publisher in publishers:
            publisher.close()
    return [publisher.result() for publisher in publishers]


def _write_json(path: Path, value: Any) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(value))
    os.replace(temporary, path)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


class Follower:
    """The process that publishes while a sweep runs. Nothing that befalls it reaches the sweep.

    Attributes:
        log: its output; kept where something went wrong.
    """

    def __init__(self, publications: Sequence[Publication], poll: float = POLL_SECONDS) -> None:
        self._publications = list(publications)
        self._process: subprocess.Popen[bytes] | None = None
        self._problem = ""
        self.log: Path | None = None
        try:
            self._start(poll)
        except OSError as error:
            self._problem = f"the publisher could not be started: {error}"

    def _start(self, poll: float) -> None:
        below = Path(self._publications[0].folder) / "published"
        below.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="follow-", dir=below))
        self.log = self._folder / "log.txt"
        job = {
            "publications": [asdict(publication) for publication in self._publications],
            "folder": str(self._folder),
            "parent": os.getpid(),
            "poll": poll,
        }
        # The key reaches the process through the environment alone. A wandb service of this process is not its own.
        environment = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
        package = str(Path(__file__).resolve().parent.parent)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, environment.get("PYTHONPATH")]))
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "clray.tracking"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # a Ctrl-C is for the sweep, which then tells the publisher to end
            )
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError), self._process.stdin as told:
            told.write(json.dumps(job).encode())

    @property
    def pid(self) -> int | None:
        """The process, also its process group; None where it could not be started."""
        return self._process.pid if self._process else None

    def stop(self, tables: Tables | None = None, timeout: float = 10.0) -> str:
        """Tell the publisher to send what is left and end; wait for it a little. Never raises.

        One that is getting on after ``timeout`` seconds is left to end by itself; one that is not is ended.

        Args:
            tables: the sweeps' tables, ready-made, by the sweep's name in its publication.
            timeout: seconds.

        Returns:
            One line: what was published, what was not, why, and the command that does it later.
        """
        try:
            return self._stop(tables or {}, timeout)
        except Exception as error:  # a sweep of hours does not end in a traceback over its tracking
            return f"W&B: {_first_line(error)}; later: {self._again}"

    @property
    def _again(self) -> str:
        return "; ".join(dict.fromkeys(publication.again for publication in self._publications))

    def _stop(self, tables: Tables, timeout: float) -> str:
        process = self._process
        if process is None:
            return f"W&B: {self._problem}; later: {self._again}"
        _write_json(self._folder / "orders.json", {name: dict(files) for name, files in tables.items()})
        left = False
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            status = _read_json(self._folder / "status.json") or {}
            left = bool(status.get("reached")) and not status.get("error")
            if not left:
                self._kill()
        total = self._total(left)
        if left:
            return f"{total.message()}; the publisher sends the rest in the background: {self.log}"
        for path in [self._folder] if not total.failures else self._folder.glob("clray-wandb-*"):
            shutil.rmtree(path, ignore_errors=True)
        if total.failures:
            return f"{total.message(self._again)}; log: {self.log}"
        return total.message(self._again)

    def _kill(self) -> None:
        assert self._process
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(5)

    def _total(self, left: bool) -> Outcome:
        """What all publications came to, as the process last told."""
        assert self._process
        status = _read_json(self._folder / "status.json") or {}
        known = [Outcome(**outcome) for outcome in status.get("outcomes", [])]
        known = known or [Outcome(declared=len(p.variants)) for p in self._publications]
        problems = [status["error"]] if status.get("error") else []
        problems += [message for outcome in known for message in outcome.failures]
        code = self._process.returncode
        if not left and code not in (0, 1) and not problems:
            problems = [f"the publisher ended early (exit code {code})"]
        return Outcome(
            declared=sum(outcome.declared for outcome in known),
            sent=[id for outcome in known for id in outcome.sent],
            unchanged=[id for outcome in known for id in outcome.unchanged],
            busy=[id for outcome in known for id in outcome.busy],
            failures=list(dict.fromkeys(problems)),
            where=next((outcome.where for outcome in known if outcome.where), ""),
        )


def start(publications: Publication | Sequence[Publication], poll: float = POLL_SECONDS) -> Follower | None:
    """Publish one sweep or several while they run, from a process of its own; None where all are ``off``.

    Args:
        poll: seconds between two looks at the store. wandb itself sends what it was given every 15 seconds.
    """
    several = [publications] if isinstance(publications, Publication) else list(publications)
    several = [publication for publication in several if publication.mode != "off"]
    return Follower(several, poll) if several else None


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m clray.tracking < JOB``: the process behind ``start``, not for the command line."""
    parser = argparse.ArgumentParser(prog="python -m clray.tracking", description=main.__doc__)
    parser.add_argument("job", nargs="?", type=argparse.FileType("r"), default=sys.stdin, help="JSON; default: stdin")
    job = json.load(parser.parse_args(argv).job)
    folder, parent = Path(job["folder"]), job["parent"]
    publications = [Publication(**publication) for publication in job["publications"]]

    def orders() -> Tables | None:
        told = _read_json(folder / "orders.json")
        return {} if told is None and os.getppid() != parent else told

    def report(outcomes: Sequence[Outcome], error: str) -> None:
        reached = any(outcome.sent or outcome.unchanged for outcome in outcomes)
        status = {"outcomes": [asdict(outcome) for outcome in outcomes], "error": error, "reached": reached}
        _write_json(folder / "status.json", status)
        if error:
            print(error, flush=True)

    outcomes = follow(publications, orders, report, job["poll"], str(folder))
    return 0 if all(outcome.published == outcome.declared and not outcome.failures for outcome in outcomes) else 1


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # wandb's exit hooks would wait for uploads that were already given up
