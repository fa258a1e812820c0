"""Launching what a plan has left to do: through Ray Tune, or in this process.

Both run the same ``Execution``. Ray schedules, packs and retries; what is finished, half-done or to do is read from
the store before, and only there. Launching again therefore completes what a former launch left, and launching twice at
once shares the work: a trial that another launch holds the lease on is left to it, and taken over if that one dies.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rich.console import Console

from clray import gpu
from clray.cluster.interrupt import Interrupt
from clray.cluster.progress import Progress
from clray.errors import ClusterError, StoreError
from clray.execution import CHECKPOINT_SECONDS, Execution, Task, describe_failure
from clray.leases import LeaseMonitor, RunsElsewhere
from clray.output import redacted
from clray.planning import Plan, Planned
from clray.provenance import is_fresh
from clray.record import Record
from clray.store import Problem, Store

RETRIES = 3
"""Times that Tune starts a pack again after its process died."""
ROUNDS = 10
"""Times that a trial whose process died is handed to Tune, as long as it comes farther each time."""
LOOK_SECONDS = 2.0
"""Between looks at the trials that other launches run."""
_PLAIN: dict[str, Any] = {"highlight": False, "soft_wrap": True, "markup": False}
"""How text that is not clray's own is printed."""


@dataclass
class Outcome:
    """How a launch ended.

    Attributes:
        finished: ids of the trials that it finished.
        elsewhere: id to who finished it, of those that another launch ran.
        failed: id to the reason.
        retried: id to the reason, of those that were given a larger share of a GPU.
        interrupted: the user stopped it.
    """

    finished: list[str] = field(default_factory=list)
    elsewhere: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    retried: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


@dataclass(frozen=True)
class Options:
    """How to run, none of which changes a number.

    Attributes:
        address: a Ray cluster's, None for an embedded Ray.
        gpu: a share of a GPU for each trial in place of the declared one.
        rerun_stale: also run trials whose records other code made.
        checkpoint_seconds: least time between checkpoints of a trial; 0 is one at every stop.
        cpus: logical CPUs of an embedded Ray; by default the cores that this process was given.
        gpus: logical GPUs of an embedded Ray; by default the machine's.
        require_gpu: a trial that asks for a GPU and would run on the CPU is an error.
    """

    address: str | None = None
    gpu: float | None = None
    rerun_stale: bool = False
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    cpus: float | None = None
    gpus: float | None = None
    require_gpu: bool = False


def run_here(plan: Plan, store: Store, console: Console, options: Options = Options()) -> Outcome:
    """Run what is left one after the other in this process, without Ray.

    Raises:
        ClusterError: a trial would have to have a GPU: there is none for it here.
    """
    trials = plan.left(options.rerun_stale)
    if any(_wants_gpu(planned, options) for planned in trials):
        _on_the_cpu("--local runs every trial on the CPU", options, console)
        if here := (gpu.names() or gpu.device_files()):
            console.print(f"A GPU is here and not used ({', '.join(here)}): without --local it would be.", **_PLAIN)
    with Progress(trials, len(plan.trials) - len(trials), 1, console) as progress, Interrupt() as interrupt:
        todo = [_place(planned, options, gpus=False) for planned in trials]
        launch = Launch(store, progress, interrupt, todo)
        with _stopped_at_once(launch):
            while todo:
                for placed in todo:
                    _run_one(launch, placed)
                    if launch.stopping():
                        break
                todo = _follow(launch)
    return launch.outcome


def run_on_ray(plan: Plan, store: Store, console: Console, options: Options = Options()) -> Outcome:
    """Run what is left through Ray Tune.

    Where the cluster's head dies, Ray ends this process: so then does this function, with a message, and exit code 1.

    Raises:
        ClusterError: Ray cannot be reached, or no machine of it has room for one of the trials.
    """
    trials = plan.left(options.rerun_stale)
    if not trials:
        return Outcome()
    from clray.cluster.session import machines, may_grow, session, watched, workers_as_started

    def say(line: str) -> None:
        console.print(line, **_PLAIN)

    with session(options.address, options.cpus, options.gpus, say) as ray, workers_as_started(options.address):
        offers = machines(ray, options.address)
        gpus = any(offer.get("GPU") for offer in offers)
        if any(_wants_gpu(planned, options) for planned in trials):
            gpus = gpus or (options.require_gpu and may_grow(ray, options.address))
            _check_gpus(gpus, options, console)
        todo = [_place(planned, options, gpus) for planned in trials]
        for resources in {tuple(p.resources.items()): p.resources for p in todo}.values():
            if (fault := _no_room(resources, offers)) and not may_grow(ray, options.address):
                raise ClusterError(f"{fault}; see 'resources' in the sweep file, or --gpu")
            if fault:
                say(f"{fault}: waiting for the cluster's autoscaler to start one")
        with (
            Progress(trials, len(plan.trials) - len(trials), _at_once(todo, offers), console) as progress,
            watched(ray, options.address, redacted(store.uri), progress.close),
            Interrupt() as interrupt,
        ):
            launch = Launch(store, progress, interrupt, todo, options.require_gpu)
            with _stopped_at_once(launch):
                while todo:
                    _run_all(launch, todo)
                    todo = _follow(launch)
    return launch.outcome


class Launch:
    """What the parts of one launch share: where it stands.

    Attributes:
        id: written into the leases on its trials.
        placed: all of its trials, by their ids.
        elsewhere: id to who runs it, of the trials that it left to others.
        larger: id to the share of a GPU that it is to be run with once more.
    """

    def __init__(
        self,
        store: Store,
        progress: Progress,
        interrupt: Interrupt,
        placed: Sequence[_Placed],
        require_gpu: bool = False,
    ) -> None:
        self.id, self.outcome, self.require_gpu = uuid.uuid4().hex, Outcome(), require_gpu
        self._remarks: set[str] = set()
        self.store, self.progress, self.interrupt = store, progress, interrupt
        self.elsewhere: dict[str, str] = {}
        self.larger: dict[str, float] = {}
        self.dead_leases: dict[str, str] = {}
        """The names of leases that were watched until they were dead, by the ids of their trials."""
        self.placed = {p.task.id: p for p in placed}

    def task(self, placed: _Placed) -> Task:
        """A trial as it is handed out in the name of this launch."""
        dead = self.dead_leases.get(placed.task.id, "")
        return replace(placed.task, launch=self.id, gpu=placed.resources.get("GPU", 0.0), dead_lease=dead)

    def stopping(self) -> bool:
        if self.interrupt.requested and not self.outcome.interrupted:
            self.outcome.interrupted = True
            self.progress.say("Stopping: trials save what they have. Ctrl-C again stops at once.")
        return self.outcome.interrupted

    def ended(self, id: str, how: dict[str, Any]) -> None:
        """A trial is over, as far as this launch goes; ``how`` is what ``PackTrainable.step`` or ``Execution`` says."""
        self.elsewhere.pop(id, None)
        if "metrics" in how:
            if "elsewhere" in how:
                self.outcome.elsewhere.setdefault(id, how["elsewhere"])
            elif id not in self.outcome.finished:
                self.outcome.finished.append(id)
        elif "elsewhere" in how:
            self.elsewhere[id] = how["elsewhere"]
            self.progress.elsewhere(id)
            return
        elif 0 < how.get("out_of_memory", 0) < 1 and id not in self.outcome.retried:
            self._enlarge(id, how["out_of_memory"])
            return
        else:
            self.outcome.failed[id] = how["error"]
        self.progress.ended(id, how)

    def remark(self, sentence: str) -> None:
        """Print what a worker tells about its machine, once."""
        if sentence not in self._remarks:
            self._remarks.add(sentence)
            self.progress.say(sentence)

    def _enlarge(self, id: str, share: float) -> None:
        """Once more, with fewer neighbours on its GPU: whichever of them took the memory, there will be more of it."""
        self.larger[id] = min(1.0, 2 * share)
        reason = (
            f"ran out of GPU memory with {gpu.share_words(share)}: once more with {gpu.share_words(self.larger[id])}"
        )
        self.outcome.retried[id] = reason
        self.progress.say(f"{self.placed[id].planned.name} {reason}")

    def fail(self, id: str, error: Exception) -> None:
        """Note a failure wherever one will look for it."""
        with contextlib.suppress(StoreError):  # it may be the reason of the failure
            declaration = self.placed[id].task.declaration
            self.store.write_failure(id, describe_failure(error) | {"declaration": declaration})
        self.ended(id, {"error": f"{type(error).__name__}: {error}"})

    def is_finished(self, task: Task) -> bool:
        """Whether the store has what the task is to make."""
        record = self.store.read(task.id)
        return isinstance(record, Record) and (not task.rerun or is_fresh(record))

    def failed_elsewhere(self, id: str) -> str | None:
        """Why the launch that ran a trial failed at it, if it did."""
        failure = self.store.failure(id)
        return None if failure is None or failure == self.placed[id].planned.failure else failure.get("error", "")

    def words(self, ids: Sequence[str]) -> str:
        """Some trials that others run, and who they are."""
        shown = ", ".join(f"{self.placed[id].planned.name} ({self.elsewhere[id]})" for id in ids[:5])
        return shown + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")


@contextlib.contextmanager
def _stopped_at_once(launch: Launch) -> Iterator[None]:
    """Within, the second Ctrl-C stops at once."""
    try:
        yield
    except KeyboardInterrupt:
        launch.outcome.interrupted = True


def _run_one(launch: Launch, placed: _Placed) -> None:
    """Run a trial in this process."""
    task, progress = launch.task(placed), launch.progress
    try:
        execution = Execution(task, launch.store)
        progress.told(task.id, execution.passed_over)
        while not execution.done and not launch.stopping():
            execution.step()
            progress.running(task.id, execution.progress, execution.resumed)
        execution.stop()
    except RunsElsewhere as elsewhere:
        launch.ended(task.id, {"elsewhere": elsewhere.lease.owner})
    except Exception as error:
        launch.fail(task.id, error)
    else:
        if execution.done:
            launch.ended(task.id, execution.ending)


def _run_all(launch: Launch, todo: Sequence[_Placed]) -> None:
    """Run trials on Ray, with the further attempts that some of them get."""
    reached: dict[str, float] = {}
    lost = _tune(launch, _packs(todo))
    for turn in range(1, ROUNDS):
        # A process that dies takes the rest of its pack along, whichever trial it was: each once more, alone. And Tune
        # counts the deaths of a pack's whole life: a trial that has come farther since the last one is not given up.
        again = [p for p in todo if p.task.id in lost and (_came_farther(launch, p, reached) or turn == 1 < p.pack)]
        if not again or launch.outcome.interrupted:
            break
        lost = {id: error for id, error in lost.items() if id not in {p.task.id for p in again}}
        lost |= _tune(launch, [[p] for p in again])
    larger = [[p.with_gpu(launch.larger.pop(p.task.id))] for p in todo if p.task.id in launch.larger]
    if larger and not launch.outcome.interrupted:
        lost |= _tune(launch, larger)
    for id, reason in lost.items():
        if not (id in launch.outcome.finished or id in launch.outcome.elsewhere or id in launch.outcome.failed):
            launch.fail(id, reason)


def _came_farther(launch: Launch, placed: _Placed, reached: dict[str, float]) -> bool:
    """Whether the store has more of a trial than when it was lost before; ``reached`` keeps how much."""
    id = placed.task.id
    try:
        record = launch.store.read(id, "running")
    except StoreError:
        return False
    progress = record.provenance.get("progress", 0.0) if isinstance(record, Record) else 0.0
    before, reached[id] = reached.get(id, 0.0), progress
    return progress > before


def _follow(launch: Launch) -> list[_Placed]:
    """Wait for the trials that others run. Returns those that they left unfinished, for this launch to do."""
    monitor = LeaseMonitor(launch.store, launch.id)
    if launch.elsewhere and not launch.outcome.interrupted:
        launch.progress.say(f"Waiting for what other launches run: {launch.words(sorted(launch.elsewhere))}")
    while launch.elsewhere and not launch.stopping():
        left = [id for id in sorted(launch.elsewhere) if not _goes_on(launch, id, monitor)]
        if left:
            launch.progress.say(f"Taking over what they left: {launch.words(left)}")
            for id in left:
                launch.dead_leases[id] = monitor.last_seen(id)
                del launch.elsewhere[id]
            return [launch.placed[id] for id in left]
        if launch.elsewhere:
            time.sleep(LOOK_SECONDS)
    return []


def _goes_on(launch: Launch, id: str, monitor: LeaseMonitor) -> bool:
    """Look at a trial that another launch runs. Returns whether nothing has to be done about it."""
    lease = monitor.live(id)
    if lease is not None:
        launch.elsewhere[id] = lease.owner
        launch.progress.running(id, lease.notes.get("progress", 0.0), elsewhere=True)
        return True
    # Looked for after the lease: it was let go once the record was there.
    if launch.is_finished(launch.placed[id].task):
        launch.ended(id, _ending(launch.store.read(id), launch.elsewhere[id]))
        return True
    if (reason := launch.failed_elsewhere(id)) is not None:
        launch.ended(id, {"error": f"{reason} (on {launch.elsewhere.pop(id)})"})
        return True
    return False


def _ending(record: Any, owner: str) -> dict[str, Any]:
    """What is shown of a trial that another launch finished."""
    facts = {"metrics": record.metrics, "seconds": record.provenance.get("seconds", 0.0), "resumed": 0.0}
    more = {key: value for key in ("gpu_memory", "diverged") if (value := record.provenance.get(key))}
    return {**facts, "elsewhere": owner, **more}


# --------------------------------------------------------------------------------------------------------------
# What goes where


@dataclass(frozen=True)
class _Placed:
    """A task, what it asks of a machine, and what is expected of it."""

    planned: Planned
    task: Task
    resources: dict[str, float]
    pack: int
    seconds: float

    def with_gpu(self, share: float) -> _Placed:
        """The same, with another share of a GPU."""
        return replace(self, resources={**self.resources, "GPU": share})


def _wants_gpu(planned: Planned, options: Options) -> float:
    return planned.cell.resources.gpu if options.gpu is None else options.gpu


def _place(planned: Planned, options: Options, gpus: bool) -> _Placed:
    asked = planned.cell.resources
    share = _wants_gpu(planned, options) if gpus else 0.0
    task = planned.task(
        device="cuda" if share else "cpu",
        checkpoint_seconds=options.checkpoint_seconds,
        rerun=planned.state == "stale",
    )
    return _Placed(planned, task, {"CPU": asked.cpu, **({"GPU": share} if share else {})}, asked.pack, planned.seconds)


def _fits(resources: dict[str, float], offer: dict[str, float]) -> bool:
    return all(offer.get(name, 0) >= amount for name, amount in resources.items())


def _no_room(resources: dict[str, float], offers: Sequence[dict[str, float]]) -> str:
    """Why a trial cannot be placed; empty where a machine has room for it."""
    if any(_fits(resources, offer) for offer in offers):
        return ""

    def words(offer: dict[str, float]) -> str:
        return " and ".join(f"{offer.get(name, 0):g} {name}s" for name in ("CPU", "GPU"))

    largest = max(offers, key=lambda offer: (offer.get("GPU", 0), offer.get("CPU", 0)), default={})
    return f"no machine has room for a trial that asks for {words(resources)}: the largest has {words(largest)}"


def _check_gpus(offered: bool, options: Options, console: Console) -> None:
    """Tell the user before the first trial that there is no GPU for those that ask for one, and why.

    Raises:
        ClusterError: each such trial has to have one.
    """
    from clray.cluster.session import embedded

    here = embedded(options.address)
    if not offered:
        if not here:
            reason = "no GPU here: no machine of the Ray cluster offers one"
        elif found := gpu.device_files():
            reason = f"a GPU is here and cannot be used ({', '.join(found)}): {gpu.why_unusable()}"
        else:
            reason = "no GPU here"
        _on_the_cpu(reason, options, console)
    elif here and options.require_gpu and not gpu.names():
        _on_the_cpu(gpu.why_unusable(), options, console)  # else the workers say so of their machines


def _on_the_cpu(reason: str, options: Options, console: Console) -> None:
    if options.require_gpu:
        raise ClusterError(f"--require-gpu: {reason}, and some of the trials ask for a share of a GPU")
    console.print(f"{reason[0].upper()}{reason[1:]}. Trials that ask for a share of a GPU run on the CPU.", **_PLAIN)


def _at_once(placed: Sequence[_Placed], offers: Sequence[dict[str, float]]) -> float:
    """How many trials run at the same time, by and large."""
    total = sum(p.seconds for p in placed)
    shares = []
    for name in ("CPU", "GPU"):
        asked = sum(p.seconds * p.resources.get(name, 0) for p in placed) / total
        if asked:
            shares.append(sum(offer.get(name, 0) for offer in offers) / asked)
    return min(shares)


def _packs(placed: Sequence[_Placed]) -> list[list[_Placed]]:
    """Tasks of one variant in packs of the declared size; the longest first, so that none is left over at the end."""
    kinds: dict[Any, list[_Placed]] = {}
    for item in placed:
        kinds.setdefault((item.task.sweep, item.task.variant, item.pack), []).append(item)
    packs = [items[i : i + pack] for (_, _, pack), items in kinds.items() for i in range(0, len(items), pack)]
    return sorted(packs, key=lambda pack: -sum(item.seconds for item in pack))


# --------------------------------------------------------------------------------------------------------------
# Ray Tune


def _tune(launch: Launch, packs: Sequence[list[_Placed]]) -> dict[str, Exception]:
    """Run packs as one Tune experiment: a grid over a list, under one key. Returns the trials it lost, and why."""
    from ray import tune

    from clray.cluster.trainable import PackTrainable, StopWhen, Watcher

    store, outcome = launch.store, launch.outcome
    watcher = Watcher(launch.ended, launch.progress.running, launch.progress.told, launch.remark)
    points = [
        json.dumps(
            {
                "tasks": [launch.task(p).to_dict() for p in pack],
                "resources": pack[0].resources,
                "require_gpu": launch.require_gpu,
            }
        )
        for pack in packs
    ]
    with _scratch() as scratch:
        run_config = tune.RunConfig(
            name="clray",
            storage_path=scratch,  # Tune's own state: of no use to us after this launch
            stop=StopWhen(launch.stopping),
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # ours are in the store
            callbacks=[watcher],
            verbose=0,
        )
        broken = None
        with _silenced():
            try:
                tune.Tuner(
                    PackTrainable,
                    param_space={"pack": tune.grid_search(points), "store": store.uri},
                    tune_config=tune.TuneConfig(reuse_actors=True, trial_dirname_creator=lambda t: t.trial_id),
                    run_config=run_config,
                ).fit()
            except Exception as error:  # Tune's own, of a full temporary folder, say: the store knows what is done
                broken = error
        errors = watcher.errors()
    lost: dict[str, Exception] = {}
    for id, task in ((p.task.id, p.task) for pack in packs for p in pack):
        if id in outcome.failed or id in outcome.elsewhere or id in launch.elsewhere or id in launch.larger:
            continue
        if launch.is_finished(task):
            if id not in outcome.finished:  # the report of it was lost
                outcome.finished.append(id)
        elif id in outcome.finished:
            outcome.finished.remove(id)
            lost[id] = _no_record(store, id)
        elif id in errors or not outcome.interrupted:
            lost[id] = _reason(errors[id]) if id in errors else _given_up(broken)
    return lost


def _no_record(store: Store, id: str) -> StoreError:
    """Why there is no record of a trial that a worker has finished."""
    found = store.read(id)
    if isinstance(found, Problem):
        return StoreError(f"it was finished, and its record torn since: {found.path}: {found.reason}")
    return StoreError(f"it was finished, but {redacted(store.uri)} here has no record: do all machines share it?")


def _given_up(broken: Exception | None) -> ClusterError:
    """Why Tune ended without having run a trial."""
    if broken is None:
        return ClusterError("Ray gave it up and did not say why")
    where = f" (its own notes lie in {tempfile.gettempdir()}; TMPDIR)" if isinstance(broken, OSError) else ""
    reason = ClusterError(f"Ray Tune ended early: {type(broken).__name__}: {_first_line(str(broken))}{where}")
    reason.__cause__ = broken
    return reason


def _reason(error: Exception | str) -> ClusterError:
    """Why Tune gave a pack up.

    Args:
        error: what it kept of the reason: an error, or the text of one.
    """
    from ray.exceptions import OutOfMemoryError, RayActorError

    if isinstance(error, str):
        return _told(error)
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, OutOfMemoryError):
        what = _MEMORY
    elif isinstance(cause, RayActorError):
        what = "its worker process died"
    else:
        what = f"{type(cause).__name__}:"
    reason = ClusterError(f"{RETRIES + 1} attempts: {what} {_first_line(str(cause))}".strip())
    reason.__cause__ = error  # the traceback in the store tells the rest
    return reason


_MEMORY = "the machine's memory ran out, and Ray ended its worker process:"
_HEADING = re.compile(r"^Failure # \d+ \(occurred at .*\)$", re.MULTILINE)
"""Begins each of a pack's failures in the text that Tune keeps of them."""


def _told(text: str) -> ClusterError:
    """Why Tune gave a pack up, where it kept a text alone: what Ray says of a worker, or a traceback."""
    last = _HEADING.split(text)[-1].strip()
    lines = [line for line in last.splitlines() if line.strip()] or ["Ray did not say why"]
    if "low on memory" in last or "OutOfMemoryError" in last:
        # The rest lists what else runs on the machine, command lines and all: that is nobody's business.
        return ClusterError(f"{RETRIES + 1} attempts: {_MEMORY} {lines[0]}")
    what = lines[0]
    if what.startswith("Traceback"):
        what = next((line for line in lines[1:] if not line.startswith(" ")), what)
    reason = ClusterError(f"{RETRIES + 1} attempts: {what.strip()}")
    reason.add_note(last)  # the traceback in the store tells it
    return reason


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")


@contextlib.contextmanager
def _scratch() -> Iterator[str]:
    """A folder for what Tune writes of itself.

    Raises:
        ClusterError: there is no place for temporary files.
    """
    try:
        folder = tempfile.mkdtemp(prefix="clray-tune-")
    except OSError as error:
        raise ClusterError(
            f"no folder for temporary files can be made ({error.strerror or error}): let TMPDIR name one that can be "
            "written, or use --local"
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Within, what Tune prints against its own settings goes nowhere: the screen belongs to the progress view."""
    logger = logging.getLogger("ray")
    handlers = logger.handlers
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        logger.handlers = [logging.NullHandler()]
        try:
            yield
        finally:
            logger.handlers = handlers
