"""Launching what a plan has left to do: through Ray Tune, or in this process.

Both run the same ``Execution``. Ray schedules, packs and retries; what is finished, half-done or to do is read from
the store before, and only there. Launching again therefore completes what a former launch left.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from clray.cluster.interrupt import Interrupt
from clray.cluster.progress import Progress
from clray.errors import ClusterError, StoreError
from clray.execution import CHECKPOINT_SECONDS, Execution, Task, describe_failure
from clray.planning import Plan, Planned
from clray.results import Store

RETRIES = 3
"""Times that Tune starts a pack again after its process died."""


@dataclass
class Outcome:
    """How a launch ended.

    Attributes:
        finished: ids of the trials that it finished.
        failed: id to the reason.
        interrupted: the user stopped it.
    """

    finished: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


@dataclass(frozen=True)
class Options:
    """How to run, none of which changes a number.

    Attributes:
        address: a Ray cluster's, None for an embedded Ray.
        gpu: a share of a GPU for each trial in place of the declared one.
        rerun_stale: also run trials whose records other code made.
        checkpoint_seconds: least time between checkpoints of a trial.
        cpus: logical CPUs of an embedded Ray; by default the machine's.
        gpus: logical GPUs of an embedded Ray; by default the machine's.
    """

    address: str | None = None
    gpu: float | None = None
    rerun_stale: bool = False
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    cpus: float | None = None
    gpus: float | None = None


def run_here(plan: Plan, store: Store, console: Console, options: Options = Options()) -> Outcome:
    """Run what is left one after the other in this process, without Ray."""
    trials = plan.left(options.rerun_stale)
    outcome = Outcome()
    with (
        Progress(trials, len(plan.trials) - len(trials), 1, console) as progress,
        _interruptible(outcome) as interrupt,
    ):
        for planned in trials:
            try:
                execution = Execution(_place(planned, options, gpus=False).task, store)
                while not execution.done and not _stopping(interrupt, outcome, progress):
                    execution.step()
                    progress.running(planned.id, execution.progress, execution.resumed)
                if not execution.done:
                    execution.save()
            except Exception as error:
                _fail(planned.id, error, store, outcome, progress)
            else:
                if execution.done:
                    facts = {"seconds": execution.seconds, "resumed": execution.resumed}
                    outcome.finished.append(planned.id)
                    progress.ended(planned.id, {"metrics": execution.metrics, **facts})
            if _stopping(interrupt, outcome, progress):
                break
    return outcome


def run_on_ray(plan: Plan, store: Store, console: Console, options: Options = Options()) -> Outcome:
    """Run what is left through Ray Tune.

    Raises:
        ClusterError: Ray cannot be reached, or no machine of it has room for one of the trials.
    """
    outcome = Outcome()
    trials = plan.left(options.rerun_stale)
    if not trials:
        return outcome
    from clray.cluster.session import machines, session

    with session(options.address, options.cpus, options.gpus) as ray:
        offers = machines(ray, options.address)
        gpus = any(offer.get("GPU") for offer in offers)
        placed = [_place(planned, options, gpus) for planned in trials]
        for resources in {tuple(p.resources.items()): p.resources for p in placed}.values():
            _check_room(resources, offers)
        if not gpus and any(_wants_gpu(planned, options) for planned in trials):
            console.print("No GPU here: trials that ask for a share of one run on the CPU.")
        with (
            Progress(trials, len(plan.trials) - len(trials), _at_once(placed, offers), console) as progress,
            _interruptible(outcome) as interrupt,
        ):
            lost = _tune(_packs(placed), store, progress, outcome, interrupt)
            # A process that dies takes the rest of its pack along, whichever trial it was: each once more, alone.
            alone = [[p] for p in placed if p.task.id in lost and p.pack > 1]
            if alone and not outcome.interrupted:
                lost |= _tune(alone, store, progress, outcome, interrupt)
            for id, reason in lost.items():
                if id not in outcome.finished and id not in outcome.failed:
                    _fail(id, reason, store, outcome, progress)
    return outcome


@contextlib.contextmanager
def _interruptible(outcome: Outcome) -> Iterator[Interrupt]:
    """Within, the first Ctrl-C lets trials stop where they can continue from, and the second stops at once."""
    with Interrupt() as interrupt:
        try:
            yield interrupt
        except KeyboardInterrupt:
            outcome.interrupted = True


def _stopping(interrupt: Interrupt, outcome: Outcome, progress: Progress) -> bool:
    if interrupt.requested and not outcome.interrupted:
        outcome.interrupted = True
        progress.say("Stopping: trials save what they have. Ctrl-C again stops at once.")
    return outcome.interrupted


def _fail(id: str, error: Exception, store: Store, outcome: Outcome, progress: Progress) -> None:
    """Note a failure wherever one will look for it."""
    with contextlib.suppress(StoreError):  # it may be the reason of the failure
        store.write_failure(id, describe_failure(error))
    outcome.failed[id] = f"{type(error).__name__}: {error}"
    progress.ended(id, {"error": outcome.failed[id]})


# --------------------------------------------------------------------------------------------------------------
# What goes where


@dataclass(frozen=True)
class _Placed:
    """A task, what it asks of a machine, and what is expected of it."""

    task: Task
    resources: dict[str, float]
    pack: int
    seconds: float


def _wants_gpu(planned: Planned, options: Options) -> float:
    return planned.cell.resources.gpu if options.gpu is None else options.gpu


def _place(planned: Planned, options: Options, gpus: bool) -> _Placed:
    asked = planned.cell.resources
    gpu = _wants_gpu(planned, options) if gpus else 0.0
    task = planned.task(
        device="cuda" if gpu else "cpu",
        checkpoint_seconds=options.checkpoint_seconds,
        rerun=planned.state == "stale",
    )
    return _Placed(task, {"CPU": asked.cpu, **({"GPU": gpu} if gpu else {})}, asked.pack, planned.seconds)


def _fits(resources: dict[str, float], offer: dict[str, float]) -> bool:
    return all(offer.get(name, 0) >= amount for name, amount in resources.items())


def _check_room(resources: dict[str, float], offers: Sequence[dict[str, float]]) -> None:
    if any(_fits(resources, offer) for offer in offers):
        return

    def words(offer: dict[str, float]) -> str:
        return " and ".join(f"{offer.get(name, 0):g} {name}s" for name in ("CPU", "GPU"))

    largest = max(offers, key=lambda offer: (offer.get("GPU", 0), offer.get("CPU", 0)), default={})
    raise ClusterError(
        f"no machine has room for a trial that asks for {words(resources)}: the largest has {words(largest)}; "
        "see 'resources' in the sweep file, or --gpu"
    )


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


def _tune(
    packs: Sequence[list[_Placed]], store: Store, progress: Progress, outcome: Outcome, interrupt: Interrupt
) -> dict[str, Exception]:
    """Run packs as one Tune experiment: a grid over a list, under one key. Returns the trials it lost, and why."""
    from ray import tune

    from clray.cluster.trainable import PackTrainable, StopWhen, Watcher, made_by_this_code

    def ended(id: str, how: dict[str, Any]) -> None:
        if "error" in how:
            outcome.failed[id] = how["error"]
        elif id not in outcome.finished:
            outcome.finished.append(id)
        progress.ended(id, how)

    watcher = Watcher(ended, progress.running)
    points = [{"tasks": [item.task.to_dict() for item in pack], "resources": pack[0].resources} for pack in packs]
    with tempfile.TemporaryDirectory(prefix="clray-tune-") as scratch:
        tuner = tune.Tuner(
            PackTrainable,
            param_space={"pack": tune.grid_search(points), "store": store.uri},
            tune_config=tune.TuneConfig(reuse_actors=True, trial_dirname_creator=lambda t: t.trial_id),
            run_config=tune.RunConfig(
                name="clray",
                storage_path=scratch,  # Tune's own state: of no use to us after this launch
                stop=StopWhen(lambda: _stopping(interrupt, outcome, progress)),
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # ours are in the store
                callbacks=[watcher],
                verbose=0,
            ),
        )
        with _output_to(Path(scratch) / "driver.log"):
            tuner.fit()
        errors = watcher.errors()
    there = store.finished()
    lost: dict[str, Exception] = {}
    for task in (item.task for pack in packs for item in pack):
        if task.id in outcome.failed:
            continue
        if task.id in there and (not task.rerun or made_by_this_code(store.read(task.id))):
            if task.id not in outcome.finished:  # the report of it was lost
                outcome.finished.append(task.id)
        elif task.id in outcome.finished:
            outcome.finished.remove(task.id)
            lost[task.id] = StoreError(
                f"it was finished, but {store.uri} here has no record: do all machines share it?"
            )
        elif task.id in errors or not outcome.interrupted:
            lost[task.id] = _reason(errors.get(task.id))
    return lost


def _reason(error: Exception | None) -> ClusterError:
    """Why Tune gave a pack up."""
    from ray.exceptions import RayActorError

    if error is None:
        return ClusterError("Ray gave it up and did not say why")
    cause = getattr(error, "cause", None) or error
    what = "its worker process died" if isinstance(cause, RayActorError) else f"{type(cause).__name__}:"
    reason = ClusterError(f"{RETRIES + 1} attempts: {what} {next(iter(str(cause).strip().splitlines()), '')}".strip())
    reason.__cause__ = error  # the traceback in the store tells the rest
    return reason


@contextlib.contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Send what Tune prints, against its own settings, to a file: the screen belongs to the progress view."""
    logger = logging.getLogger("ray")
    handlers = logger.handlers
    with open(log, "w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        logger.handlers = [logging.StreamHandler(file)]
        try:
            yield
        finally:
            logger.handlers = handlers
