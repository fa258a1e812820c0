"""A launch runs the trials that a plan has left to do: here without Ray, in ``clray.cluster`` through Ray Tune.

Both run the same ``Execution``. The store alone says which trials are finished, half-done or to do. So a second launch
completes what the first one left, and two launches at once share the work: each leaves a trial to the other that holds
the lease on it, and takes the trial over if the other dies.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rich.console import Console

from clray import gpu
from clray.errors import ClusterError, StoreError
from clray.execution import Execution, describe_failure, failure_text
from clray.interrupt import Interrupt
from clray.leases import LeaseMonitor, RunsElsewhere
from clray.limits import hours_words
from clray.planning import Plan, Planned
from clray.progress import Progress
from clray.record import Record
from clray.store import Store
from clray.work import CHECKPOINT_SECONDS, Task, TrialEnd

LOOK_SECONDS = 2.0
"""Seconds between looks at the trials that other launches run."""
PLAIN: dict[str, Any] = {"highlight": False, "soft_wrap": True, "markup": False}
"""Arguments of ``Console.print`` for text that clray did not write."""


@dataclass
class Outcome:
    """The result of a launch.

    Attributes:
        finished: ids of the trials that it finished.
        elsewhere: of the trials that another launch ran, the id and who ran it.
        failed: of the trials that failed, the id and the reason.
        retried: of the trials that got a larger share of a GPU, the id and the reason.
        interrupted: the user stopped it, or its time was over.
        out_of_time: its time was over (``Options.deadline``).
    """

    finished: list[str] = field(default_factory=list)
    elsewhere: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    retried: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False
    out_of_time: bool = False


@dataclass(frozen=True)
class Deadline:
    """The end of the time that a command may take.

    Attributes:
        hours: the time that it may take.
        begun: the time of its beginning, by ``time.monotonic``.
    """

    hours: float
    begun: float = field(default_factory=time.monotonic)

    @property
    def over(self) -> bool:
        return time.monotonic() - self.begun >= 3600 * self.hours


@dataclass(frozen=True)
class Options:
    """Settings of a launch; none of them changes a number.

    Attributes:
        address: a Ray cluster's, None for an embedded Ray.
        gpu: a share of a GPU for each trial in place of the declared one.
        rerun_stale: also run trials whose records other code made.
        rerun_lacking: also run finished trials that lack something which their sweep asks to keep.
        checkpoint_seconds: least time between checkpoints of a trial; 0 is one at every stop.
        cpus: logical CPUs of an embedded Ray; by default the cores that this process was given.
        gpus: logical GPUs of an embedded Ray; by default the machine's.
        require_gpu: a trial that asks for a GPU and would run on the CPU is an error.
        deadline: the time after which the launch ends as if it was interrupted; None for no end.
        wait: wait for the trials that other launches run, and take over those that they leave.
    """

    address: str | None = None
    gpu: float | None = None
    rerun_stale: bool = False
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    cpus: float | None = None
    gpus: float | None = None
    require_gpu: bool = False
    deadline: Deadline | None = None
    wait: bool = True
    rerun_lacking: bool = False

    def left(self, plan: Plan) -> list[Planned]:
        """The trials of a plan that a launch with these options runs."""
        return plan.left(self.rerun_stale, self.rerun_lacking)

    def gpu_share(self, planned: Planned) -> float:
        """The share of a GPU that a trial asks for."""
        return planned.resources.gpu if self.gpu is None else self.gpu

    def task(self, planned: Planned, gpus: bool) -> Task:
        """A trial as it is handed to whoever runs it.

        Args:
            gpus: there are GPUs for those that ask for one.
        """
        share = self.gpu_share(planned) if gpus else 0.0
        return planned.task(
            device="cuda" if share else "cpu",
            gpu=share,
            checkpoint_seconds=self.checkpoint_seconds,
            rerun=planned.state == "stale",
            rerun_lacking=bool(planned.lacking),
        )

    def accept_cpu(self, reason: str, console: Console) -> None:
        """Tell the user that trials which ask for a GPU run on the CPU.

        Raises:
            ClusterError: the user does not want that.
        """
        if self.require_gpu:
            raise ClusterError(f"--require-gpu: {reason}, and some of the trials ask for a share of a GPU")
        console.print(f"{reason[0].upper()}{reason[1:]}. Trials that ask for a share of a GPU run on the CPU.", **PLAIN)


def run_here(plan: Plan, store: Store, console: Console, options: Options = Options()) -> Outcome:
    """Run what is left one after the other in this process, without Ray.

    Raises:
        ClusterError: a trial would have to have a GPU: there is none for it here.
    """
    trials = options.left(plan)
    if any(options.gpu_share(planned) for planned in trials):
        options.accept_cpu("--local runs every trial on the CPU", console)
        if here := (gpu.names() or gpu.device_files()):
            console.print(f"A GPU is here and not used ({', '.join(here)}): without --local it would be.", **PLAIN)
    with Progress(trials, len(plan.trials) - len(trials), 1, console) as progress, Interrupt() as interrupt:
        todo = [options.task(planned, gpus=False) for planned in trials]
        launch = Launch(store, progress, interrupt, trials, todo, options)
        with launch.stopped_at_once():
            while todo:
                for task in todo:
                    _run_one(launch, task)
                    if launch.stopping():
                        break
                todo = launch.follow()
    return launch.outcome


def _run_one(launch: Launch, task: Task) -> None:
    """Run a trial in this process."""
    progress = launch.progress
    try:
        execution = Execution(launch.assigned(task), launch.store)
        progress.told(task.id, execution.passed_over)
        while not execution.done and not launch.stopping():
            execution.step()
            progress.running(task.id, execution.progress, execution.resumed)
        execution.stop()
    except RunsElsewhere as elsewhere:
        launch.ended(task.id, TrialEnd.running(elsewhere.lease.owner))
    except Exception as error:
        launch.fail(task.id, error)
    else:
        if execution.done:
            launch.ended(task.id, execution.end)


class Launch:
    """The state of a launch, which its parts share.

    Attributes:
        id: written into the leases on its trials.
        trials: all of its trials, by their ids.
        tasks: these as they are handed out, by their ids.
        run_by_others: of the trials that it left to others, the id and who runs it.
        larger: of the trials that are to be run once more, the id and the share of a GPU that they get.
        dead_leases: the names of leases that were watched until they were dead, by the ids of their trials.
    """

    def __init__(
        self,
        store: Store,
        progress: Progress,
        interrupt: Interrupt,
        trials: Sequence[Planned],
        tasks: Sequence[Task],
        options: Options = Options(),
    ) -> None:
        self.id, self.outcome, self.options = uuid.uuid4().hex, Outcome(), options
        self._remarks: set[str] = set()
        self.store, self.progress, self.interrupt = store, progress, interrupt
        self.run_by_others: dict[str, str] = {}
        self.larger: dict[str, float] = {}
        self.dead_leases: dict[str, str] = {}
        self.trials = {planned.id: planned for planned in trials}
        self.tasks = {task.id: task for task in tasks}

    def assigned(self, task: Task) -> Task:
        """A task as it is handed out in the name of this launch."""
        return replace(task, launch=self.id, dead_lease=self.dead_leases.get(task.id, ""))

    def stopping(self) -> bool:
        """True once the user has stopped the launch, or its time is over."""
        if self.outcome.interrupted:
            return True
        deadline = self.options.deadline
        self.outcome.out_of_time = deadline is not None and deadline.over
        if self.interrupt.requested or self.outcome.out_of_time:
            self.outcome.interrupted = True
            over = f"{hours_words(deadline.hours)} (--max-hours) are over. " if deadline and deadline.over else ""
            self.progress.say(f"{over}Stopping: trials save what they have. Ctrl-C again stops at once.")
        return self.outcome.interrupted

    @contextlib.contextmanager
    def stopped_at_once(self) -> Iterator[None]:
        """Within, the second Ctrl-C stops at once."""
        try:
            yield
        except KeyboardInterrupt:
            self.outcome.interrupted = True

    def ended(self, trial: str, end: TrialEnd) -> None:
        """Note the end of a trial, as far as this launch goes; it may be noted more than once.

        Args:
            trial: its id.
        """
        self.run_by_others.pop(trial, None)
        if end.state == "running":
            self.run_by_others[trial] = end.owner
            self.progress.elsewhere(trial)
            return
        if end.state == "failed":
            if 0 < end.lacked_gpu < 1 and trial not in self.outcome.retried:
                self._enlarge(trial, end.lacked_gpu)
                return
            self.outcome.failed[trial] = end.error
        elif end.owner:
            self.outcome.elsewhere.setdefault(trial, end.owner)
        elif trial not in self.outcome.finished:
            self.outcome.finished.append(trial)
        self.progress.ended(trial, end)

    def remark(self, sentence: str) -> None:
        """Print a sentence of a worker about its machine, once."""
        if sentence not in self._remarks:
            self._remarks.add(sentence)
            self.progress.say(sentence)

    def _enlarge(self, trial: str, share: float) -> None:
        """Run a trial once more, with fewer neighbours on its GPU, whichever of them took the memory."""
        self.larger[trial] = min(1.0, 2 * share)
        once_more = gpu.share_words(self.larger[trial])
        reason = f"ran out of GPU memory with {gpu.share_words(share)}: once more with {once_more}"
        self.outcome.retried[trial] = reason
        self.progress.say(f"{self.trials[trial].name} {reason}")

    def fail(self, trial: str, error: Exception) -> None:
        """Note a failure in the store and in the outcome."""
        with contextlib.suppress(StoreError):  # it may be the reason of the failure
            declaration = self.trials[trial].trial.declaration
            self.store.write_failure(trial, describe_failure(error) | {"declaration": declaration})
        self.ended(trial, TrialEnd.failed(failure_text(error)))

    def is_finished(self, task: Task) -> bool:
        """True where the store has the record that the task is to make."""
        return task.is_done(self.store.read(task.id), self.store)

    def follow(self) -> list[Task]:
        """Wait for the trials that others run. Returns those that they left unfinished, for this launch to do."""
        monitor = LeaseMonitor(self.store, self.id)
        if self.run_by_others and not self.options.wait:
            self.progress.say(f"Left to other launches (--no-wait): {self._words(sorted(self.run_by_others))}")
            return []
        if self.run_by_others and not self.outcome.interrupted:
            self.progress.say(f"Waiting for what other launches run: {self._words(sorted(self.run_by_others))}")
        while self.run_by_others and not self.stopping():
            left = [trial for trial in sorted(self.run_by_others) if not self._goes_on(trial, monitor)]
            if left:
                self.progress.say(f"Taking over what they left: {self._words(left)}")
                for trial in left:
                    self.dead_leases[trial] = monitor.last_seen(trial)
                    del self.run_by_others[trial]
                return [self.tasks[trial] for trial in left]
            if self.run_by_others:
                time.sleep(LOOK_SECONDS)
        return []

    def _goes_on(self, trial: str, monitor: LeaseMonitor) -> bool:
        """Look at a trial that another launch runs. Returns whether nothing has to be done about it."""
        lease = monitor.live(trial)
        if lease is not None:
            self.run_by_others[trial] = lease.owner
            self.progress.running(trial, lease.notes.get("progress", 0.0), elsewhere=True)
            return True
        # Looked for after the lease: it was let go once the record was there.
        if self.is_finished(self.tasks[trial]):
            record = self.store.read(trial)
            assert isinstance(record, Record)
            self.ended(trial, TrialEnd.of(record, owner=self.run_by_others[trial]))
            return True
        failure = self.store.failure(trial)
        if failure is not None and failure != self.trials[trial].failure:
            self.ended(trial, TrialEnd.failed(f"{failure.get('error', '')} (on {self.run_by_others[trial]})"))
            return True
        return False

    def _words(self, trials: Sequence[str]) -> str:
        """The names of trials that others run, and of who runs them."""
        shown = ", ".join(f"{self.trials[trial].name} ({self.run_by_others[trial]})" for trial in trials[:5])
        return shown + (f" and {len(trials) - 5} more" if len(trials) > 5 else "")
