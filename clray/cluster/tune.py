"""A launch through Ray Tune, which schedules packs of trials, and restarts a pack whose process died."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.console import Console

from clray import gpu
from clray.cluster.placement import packs, room_missing, trials_at_once
from clray.errors import ClusterError, StoreError
from clray.extras import require_ray
from clray.interrupt import Interrupt
from clray.launch import PLAIN, Launch, Options, Outcome
from clray.output import redacted
from clray.planning import Plan
from clray.progress import Progress
from clray.record import Record
from clray.store import Problem, Store
from clray.work import Task

RETRIES = 3
"""The number of times that Tune restarts a pack whose process died."""
ROUNDS = 10
"""The most times that a trial whose process dies is given to Tune, as long as it makes progress each time."""


def run_on_ray(plan: Plan, store: Store, console: Console, options: Options = Options()) -> Outcome:
    """Run the trials of a plan that are left, through Ray Tune.

    Where the cluster's head dies, Ray's C++ code ends this process a minute later. A new launch continues the trials.

    Raises:
        ClusterError: Ray cannot be reached, or no machine of it has room for one of the trials.
        ExtraMissing: Ray is not installed here.
    """
    trials = options.left(plan)
    if not trials:
        return Outcome()
    require_ray()
    from clray.cluster.session import machines, may_grow, session

    def say(line: str) -> None:
        console.print(line, **PLAIN)

    with session(options.address, options.cpus, options.gpus, say) as ray:
        offers = machines(ray, options.address)
        gpus = any(offer.get("GPU") for offer in offers)
        if any(options.gpu_share(planned) for planned in trials):
            gpus = gpus or (options.require_gpu and may_grow(ray, options.address))
            _check_gpus(gpus, options, console)
        todo = [options.task(planned, gpus) for planned in trials]
        for resources in {tuple(task.resources.items()): task.resources for task in todo}.values():
            if (fault := room_missing(resources, offers)) and not may_grow(ray, options.address):
                raise ClusterError(f"{fault}; see 'resources' in the sweep file, or --gpu")
            if fault:
                say(f"{fault}: waiting for the cluster's autoscaler to start one")
        at_once = trials_at_once(todo, {planned.id: planned for planned in trials}, offers)
        with (
            Progress(trials, len(plan.trials) - len(trials), at_once, console) as progress,
            Interrupt() as interrupt,
        ):
            launch = Launch(store, progress, interrupt, trials, todo, options)
            with launch.stopped_at_once():
                while todo:
                    _run_all(launch, todo)
                    todo = launch.follow()
    return launch.outcome


def _check_gpus(offered: bool, options: Options, console: Console) -> None:
    """Tell the user, before the first trial, if no GPU can be used by trials that ask for one, and why.

    Raises:
        ClusterError: these trials must have a GPU (``--require-gpu``).
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
        options.accept_cpu(reason, console)
    elif here and options.require_gpu and not gpu.names():
        options.accept_cpu(gpu.why_unusable(), console)  # on a cluster, each worker reports its machine


def _run_all(launch: Launch, todo: Sequence[Task]) -> None:
    """Run trials on Ray, some of them more than once where an attempt fails."""
    reached: dict[str, float] = {}
    lost = _tune(launch, packs(todo, launch.trials))
    for turn in range(1, ROUNDS):
        # Where a process dies, all of its pack is lost: each of these trials is run once more, alone. Tune also
        # counts all deaths of a pack: a trial that has made progress since the last one is run again.
        again = [
            task
            for task in todo
            if task.id in lost
            and (_came_farther(launch, task, reached) or turn == 1 < launch.trials[task.id].resources.pack)
        ]
        if not again or launch.outcome.interrupted:
            break
        lost = {trial: error for trial, error in lost.items() if trial not in {task.id for task in again}}
        lost |= _tune(launch, [[task] for task in again])
    larger = [[replace(task, gpu=launch.larger.pop(task.id))] for task in todo if task.id in launch.larger]
    if larger and not launch.outcome.interrupted:
        lost |= _tune(launch, larger)
    outcome = launch.outcome
    for trial, reason in lost.items():
        if not (trial in outcome.finished or trial in outcome.elsewhere or trial in outcome.failed):
            launch.fail(trial, reason)


def _came_farther(launch: Launch, task: Task, reached: dict[str, float]) -> bool:
    """True where a trial has made progress in the store since it was lost before; ``reached`` keeps the progress."""
    try:
        record = launch.store.read(task.id, "running")
    except StoreError:
        return False
    progress = record.provenance.get("progress", 0.0) if isinstance(record, Record) else 0.0
    before, reached[task.id] = reached.get(task.id, 0.0), progress
    return progress > before


def _tune(launch: Launch, made: Sequence[list[Task]]) -> dict[str, Exception]:
    """Run packs as one Tune experiment, a grid over one key. Returns the trials that it lost, with the reasons."""
    from ray import tune

    from clray.cluster.trainable import Pack, PackTrainable, StopWhen, Watcher

    store, outcome = launch.store, launch.outcome
    watcher = Watcher(launch.ended, launch.progress.running, launch.progress.told, launch.remark)
    points = [Pack([launch.assigned(task) for task in pack], launch.options.require_gpu).to_json() for pack in made]
    with _scratch() as scratch:
        run_config = tune.RunConfig(
            name="clray",
            storage_path=scratch,  # Tune's own state, which is of no use after this launch
            stop=StopWhen(launch.stopping),
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # clray's are in the store
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
            except Exception as error:  # of Tune itself, such as a full temporary folder; the store has the results
                broken = error
        errors = watcher.errors()
    lost: dict[str, Exception] = {}
    for task in (task for pack in made for task in pack):
        trial = task.id
        left = (outcome.failed, outcome.elsewhere, launch.run_by_others, launch.larger)
        if any(trial in known for known in left):
            continue
        if launch.is_finished(task):
            if trial not in outcome.finished:  # its report was lost
                outcome.finished.append(trial)
        elif trial in outcome.finished:
            outcome.finished.remove(trial)
            lost[trial] = _record_missing(store, trial)
        elif trial in errors or not outcome.interrupted:
            lost[trial] = _reason(errors[trial]) if trial in errors else _given_up(broken)
    return lost


def _record_missing(store: Store, trial: str) -> StoreError:
    """The reason why there is no record of a trial that a worker has finished."""
    found = store.read(trial)
    if isinstance(found, Problem):
        return StoreError(f"it was finished, and its record torn since: {found.path}: {found.reason}")
    return StoreError(f"it was finished, but {redacted(store.uri)} here has no record: do all machines share it?")


def _given_up(broken: Exception | None) -> ClusterError:
    """The reason why Tune ended without having run a trial."""
    if broken is None:
        return ClusterError("Ray gave it up and did not say why")
    where = f" (its own files are in {tempfile.gettempdir()}, see TMPDIR)" if isinstance(broken, OSError) else ""
    reason = ClusterError(f"Ray Tune ended early: {type(broken).__name__}: {_first_line(str(broken))}{where}")
    reason.__cause__ = broken
    return reason


def _reason(error: Exception | str) -> ClusterError:
    """The reason why Tune gave a pack up.

    Args:
        error: the error that Tune kept, or its text.
    """
    from ray.exceptions import OutOfMemoryError, RayActorError

    if isinstance(error, str):
        return _reason_of_text(error)
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, OutOfMemoryError):
        what = _MEMORY
    elif isinstance(cause, RayActorError):
        what = "its worker process died"
    else:
        what = f"{type(cause).__name__}:"
    reason = ClusterError(f"{RETRIES + 1} attempts: {what} {_first_line(str(cause))}".strip())
    reason.__cause__ = error  # the traceback in the store shows the rest
    return reason


_MEMORY = "the machine's memory ran out, and Ray ended its worker process:"
_HEADING = re.compile(r"^Failure # \d+ \(occurred at .*\)$", re.MULTILINE)
"""The line that begins each failure of a pack in the text that Tune keeps."""


def _reason_of_text(text: str) -> ClusterError:
    """The reason why Tune gave a pack up, from the text that it kept: Ray's words about a worker, or a traceback."""
    last = _HEADING.split(text)[-1].strip()
    lines = [line for line in last.splitlines() if line.strip()] or ["Ray did not say why"]
    if "low on memory" in last or "OutOfMemoryError" in last:
        # The rest lists the machine's other processes with their command lines, which must not be shown to others.
        return ClusterError(f"{RETRIES + 1} attempts: {_MEMORY} {lines[0]}")
    what = lines[0]
    if what.startswith("Traceback"):
        what = next((line for line in lines[1:] if not line.startswith(" ")), what)
    reason = ClusterError(f"{RETRIES + 1} attempts: {what.strip()}")
    reason.add_note(last)  # so that the traceback in the store shows it
    return reason


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")


@contextlib.contextmanager
def _scratch() -> Iterator[str]:
    """A folder for Tune's own files.

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
    """For the duration of a ``with`` block, Tune prints nothing, so that only the progress view is on the screen."""
    logger = logging.getLogger("ray")
    handlers = logger.handlers
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        logger.handlers = [logging.NullHandler()]
        try:
            yield
        finally:
            logger.handlers = handlers
