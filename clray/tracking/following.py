"""Publishing a sweep while it runs, from a process of its own that the sweep does not depend on."""

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
from clray.tracking.publication import Outcome, Publication
from clray.tracking.publisher import RESET_SECONDS, Publisher, own_folders, scratch_folder
from clray.tracking.runs import end_service, first_line

POLL_SECONDS = 5.0
RETRY_SECONDS = (30.0, 300.0)
"""How long the follower waits after a pass that failed: the first time, and at most."""

Tables = Mapping[str, Mapping[str, str]]
"""Tables ready-made, by the sweep's name: text by file name."""


@dataclass(frozen=True)
class Orders:
    """What a follower is told at the end: the sweeps' tables and the page with their verdicts."""

    tables: Tables = field(default_factory=dict)
    dashboard: Dashboard | None = None

    @classmethod
    def of_plain(cls, data: Mapping[str, Any]) -> Orders:
        """The inverse of ``dataclasses.asdict``."""
        return cls(data["tables"], Dashboard.of_plain(data["dashboard"]) if data["dashboard"] else None)


def follow(
    publications: Sequence[Publication],
    orders: Callable[[], Orders | None],
    report: Callable[[Sequence[Outcome], str], None] = lambda outcomes, error: None,
    poll: float = POLL_SECONDS,
    folder: str | None = None,
    dashboard: Dashboard | None = None,
) -> list[Outcome]:
    """Publish sweeps while they run: running trials live, each finished once its record is there.

    Args:
        orders: asked before each pass: None to go on; anything else ends the following with one last pass over all
            records.
        report: told of every change, and of what kept the last pass from being complete.
        poll: seconds between two passes.
        folder: where wandb may write while it is online; by default the system's folder for temporary files.
        dashboard: the page to have from the first run on.
    """
    error = ""
    retry = 0.0
    shown = None

    def tell() -> None:
        report([publisher.result() for publisher in publishers], error)

    with scratch_folder(folder) as scratch, own_folders(scratch, publications):
        publishers = [Publisher(publication, scratch, tell) for publication in publications]
        while True:
            told = orders()
            error = ""
            for publisher in publishers:
                try:
                    publisher.look(every=told is not None)
                    if told and (files := told.tables.get(publisher.publication.sweep)):
                        publisher.table(files)
                except (TrackingError, StoreError, OSError) as problem:
                    error = str(problem)
            wanted = (told and told.dashboard) or dashboard
            if wanted and wanted != shown and not error and any(publisher.reached for publisher in publishers):
                publishers[0].page(wanted)
                shown = wanted
            tell()
            if error or any(publisher.failed_now for publisher in publishers):
                for publisher in publishers:
                    publisher.close()
                end_service(RESET_SECONDS)
            if told is not None:
                break
            retry = min(max(2 * retry, RETRY_SECONDS[0]), RETRY_SECONDS[1]) if error else 0.0
            end = time.monotonic() + max(poll, retry)
            while time.monotonic() < end and orders() is None:
                time.sleep(min(0.2, poll))
        for publisher in publishers:
            publisher.close()
    return [publisher.result() for publisher in publishers]


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, json.dumps(value).encode(), flush=False)


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


class Follower:
    """The process that publishes while a sweep runs. Nothing that befalls it reaches the sweep.

    Attributes:
        publications: what it publishes.
        log: its output; kept where something went wrong.
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
        # The key reaches the process through the environment alone. A wandb service of this process is not its own.
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
                start_new_session=True,  # a Ctrl-C is for the sweep, which then tells the publisher to end
            )
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError), self._process.stdin as told:
            told.write(json.dumps(job).encode())

    @property
    def pid(self) -> int | None:
        """The process, also its process group; None where it could not be started."""
        return self._process.pid if self._process else None

    def stop(self, tables: Tables | None = None, timeout: float = 10.0, dashboard: Dashboard | None = None) -> str:
        """Tell the publisher to send what is left and end; wait for it a little. Never raises.

        One that is getting on after ``timeout`` seconds is left to end by itself; one that is not is ended.

        Args:
            tables: the sweeps' tables, ready-made, by the sweep's name in its publication.
            timeout: seconds.
            dashboard: the page as it is at the end.

        Returns:
            One line: what was published, what was not, why, and the command that does it later.
        """
        try:
            return self._stop(Orders(tables or {}, dashboard), timeout)
        except Exception as error:  # a sweep of hours does not end in a traceback over its tracking
            return f"W&B: {first_line(error)}; later: {self._again}"

    @property
    def _again(self) -> str:
        return "; ".join(dict.fromkeys(publication.again for publication in self.publications))

    def _stop(self, orders: Orders, timeout: float) -> str:
        process = self._process
        if process is None:
            return f"W&B: {self._problem}; later: {self._again}"
        write_json(self._folder / "orders.json", asdict(orders))
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

    def _total(self, left: bool) -> Outcome:
        """What all publications came to, as the process last told."""
        assert self._process
        status = read_json(self._folder / "status.json") or {}
        known = [Outcome(**outcome) for outcome in status.get("outcomes", [])]
        known = known or [Outcome(declared=len(p.variants)) for p in self.publications]
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
            page=next((outcome.page for outcome in known if outcome.page), ""),
            no_page=next((outcome.no_page for outcome in known if outcome.no_page), ""),
        )


def start(
    publications: Publication | Sequence[Publication], poll: float = POLL_SECONDS, dashboard: Dashboard | None = None
) -> Follower | None:
    """Publish one sweep or several while they run, from a process of its own; None where all are ``off``.

    Args:
        poll: seconds between two looks at the store. wandb itself sends what it was given every 15 seconds.
        dashboard: the page to have from the first run on.
    """
    several = [publications] if isinstance(publications, Publication) else list(publications)
    several = [publication for publication in several if publication.mode != "off"]
    return Follower(several, poll, dashboard) if several else None
