"""Publishes a sweep while it runs, from a separate process: the sweep does not depend on it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clray.atomic import write_atomically
from clray.dashboards import Dashboard
from clray.errors import StoreError
from clray.tracking.login import TrackingError
from clray.tracking.publication import Publication, PublicationResult
from clray.tracking.publisher import RESET_SECONDS, Publisher, own_folders, scratch_folder
from clray.tracking.wandb_runs import end_service, first_line

POLL_SECONDS = 5.0
RETRY_SECONDS = (30.0, 300.0)
"""Seconds until the next pass after a pass that failed: the first time, and at most."""

FINAL_UPDATE = "final.json"
"""The file through which the publisher gets its ``FinalUpdate``."""
Tables = Mapping[str, Mapping[str, str]]
"""The finished tables of each sweep, by the sweep's name: a text for each file name."""


@dataclass(frozen=True)
class FinalUpdate:
    """The last message to a follower: the sweeps' tables, and the page with their verdicts."""

    tables: Tables = field(default_factory=dict)
    dashboard: Dashboard | None = None

    @classmethod
    def of_plain(cls, data: Mapping[str, Any]) -> FinalUpdate:
        """The inverse of ``dataclasses.asdict``."""
        return cls(data["tables"], Dashboard.of_plain(data["dashboard"]) if data["dashboard"] else None)


def follow(
    publications: Sequence[Publication],
    stop_requested: Callable[[], FinalUpdate | None],
    report: Callable[[Sequence[PublicationResult], str], None] = lambda outcomes, error: None,
    poll: float = POLL_SECONDS,
    folder: str | None = None,
    dashboard: Dashboard | None = None,
) -> list[PublicationResult]:
    """Publish sweeps while they run: running trials are shown live, and finished when their record is there.

    Args:
        stop_requested: called before each pass. None means to go on; a ``FinalUpdate`` means to make one last pass over
            all records and to stop.
        report: called after every change with the outcomes, and with the error that kept the last pass from being
            complete; the error is empty where there was none.
        poll: seconds between two passes.
        folder: a folder that wandb may write to while it is online; by default the system's temporary folder.
        dashboard: the page to make as soon as there is a first run.
    """
    error = ""
    retry = 0.0
    shown = None

    def report_all() -> None:
        report([publisher.result() for publisher in publishers], error)

    with scratch_folder(folder) as scratch, own_folders(scratch, publications):
        publishers = [Publisher(publication, scratch, report_all) for publication in publications]
        while True:
            final = stop_requested()
            error = ""
            for publisher in publishers:
                try:
                    publisher.look(every_record=final is not None)
                    if final and (files := final.tables.get(publisher.publication.sweep)):
                        publisher.table(files)
                except (TrackingError, StoreError, OSError) as problem:
                    error = str(problem)
            wanted = (final and final.dashboard) or dashboard
            if wanted and wanted != shown and not error and any(publisher.reached for publisher in publishers):
                publishers[0].page(wanted)
                shown = wanted
            report_all()
            if error or any(publisher.failed_now for publisher in publishers):
                for publisher in publishers:
                    publisher.close()
                end_service(RESET_SECONDS)
            if final is not None:
                break
            retry = min(max(2 * retry, RETRY_SECONDS[0]), RETRY_SECONDS[1]) if error else 0.0
            end = time.monotonic() + max(poll, retry)
            while time.monotonic() < end and stop_requested() is None:
                time.sleep(min(0.2, poll))
        for publisher in publishers:
            publisher.close()
    return [publisher.result() for publisher in publishers]


def write_json(path: Path, value: Any) -> None:
    """Replace a file as a whole."""
    write_atomically(path, json.dumps(value).encode(), flush=False)


def read_json(path: Path) -> Any:
    """The content of a file; None where it cannot be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


class Follower:
    """The process that publishes while a sweep runs. Its failures do not reach the sweep.

    Attributes:
        publications: the sweeps that it publishes.
        log: the file with its output; it is kept where something went wrong.
    """

    def __init__(
        self, publications: Sequence[Publication], poll: float = POLL_SECONDS, dashboard: Dashboard | None = None
    ) -> None:
        self.publications, self._dashboard = list(publications), dashboard
        self._process: subprocess.Popen[bytes] | None = None
        self._problem = ""
        self.log: Path | None = None
        try:
            self._start(poll)
        except OSError as error:
            self._problem = f"the publisher could not be started: {error}"

    def _start(self, poll: float) -> None:
        below = Path(self.publications[0].folder) / "published"
        below.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="follow-", dir=below))
        self.log = self._folder / "log.txt"
        job = {
            "publications": [asdict(publication) for publication in self.publications],
            "folder": str(self._folder),
            "dashboard": asdict(self._dashboard) if self._dashboard else None,
            "parent": os.getpid(),
            "poll": poll,
        }
        # The key reaches the process only through the environment. It must not use this process's wandb service.
        environment = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
        package = str(Path(__file__).resolve().parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, environment.get("PYTHONPATH")]))
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "clray.tracking"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches only the sweep, which then asks the publisher to end
            )
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError), self._process.stdin as job_input:
            job_input.write(json.dumps(job).encode())

    @property
    def pid(self) -> int | None:
        """The id of the process and of its process group; None where it could not be started."""
        return self._process.pid if self._process else None

    def stop(self, tables: Tables | None = None, timeout: float = 10.0, dashboard: Dashboard | None = None) -> str:
        """Ask the publisher to send the rest and to end, and wait for it. Never raises.

        After ``timeout`` seconds a publisher that still makes progress goes on in the background; any other is killed.

        Args:
            tables: the finished tables of the sweeps, by the sweep's name in its publication.
            timeout: seconds to wait.
            dashboard: the page as it is at the end.

        Returns:
            One line: how much was published, the reason why the rest was not, and the command that publishes it later.
        """
        try:
            return self._stop(FinalUpdate(tables or {}, dashboard), timeout)
        except Exception as error:  # a long sweep must not end in a traceback because of its tracking
            return f"W&B: {first_line(error)}; later: {self._again}"

    @property
    def _again(self) -> str:
        return "; ".join(dict.fromkeys(publication.again for publication in self.publications))

    def _stop(self, final: FinalUpdate, timeout: float) -> str:
        process = self._process
        if process is None:
            return f"W&B: {self._problem}; later: {self._again}"
        write_json(self._folder / FINAL_UPDATE, asdict(final))
        left = False
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            status = read_json(self._folder / "status.json") or {}
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

    def _total(self, left: bool) -> PublicationResult:
        """The outcome of all publications, as the process last reported it."""
        assert self._process
        status = read_json(self._folder / "status.json") or {}
        known = [PublicationResult(**outcome) for outcome in status.get("outcomes", [])]
        known = known or [PublicationResult(declared=len(p.variants)) for p in self.publications]
        problems = [status["error"]] if status.get("error") else []
        problems += [message for outcome in known for message in outcome.failures]
        code = self._process.returncode
        if not left and code not in (0, 1) and not problems:
            problems = [f"the publisher ended early (exit code {code})"]
        return PublicationResult(
            declared=sum(outcome.declared for outcome in known),
            sent=[trial for outcome in known for trial in outcome.sent],
            unchanged=[trial for outcome in known for trial in outcome.unchanged],
            busy=[trial for outcome in known for trial in outcome.busy],
            failures=list(dict.fromkeys(problems)),
            where=next((outcome.where for outcome in known if outcome.where), ""),
            page=next((outcome.page for outcome in known if outcome.page), ""),
            no_page=next((outcome.no_page for outcome in known if outcome.no_page), ""),
        )


def start(
    publications: Publication | Sequence[Publication], poll: float = POLL_SECONDS, dashboard: Dashboard | None = None
) -> Follower | None:
    """Publish one sweep or several while they run, from a separate process; None where the mode of all is ``off``.

    Args:
        poll: seconds between two passes over the store. wandb itself sends its data every 15 seconds.
        dashboard: the page to make as soon as there is a first run.
    """
    several = [publications] if isinstance(publications, Publication) else list(publications)
    several = [publication for publication in several if publication.mode != "off"]
    return Follower(several, poll, dashboard) if several else None
