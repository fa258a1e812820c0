"""Launching what a plan has left to do: through Ray Tune, or in this process.

Both run the same ``Execution``. Ray schedules, packs and retries; what is finished, half-done or to do is read from
the store before, and only there. Launching again therefore completes what a former launch left.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from clray.cluster.progress import Progress
from clray.errors import ClusterError
from clray.execution import CHECKPOINT_SECONDS, Execution, describe_failure
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
    outcome = Outcome()
    trials = plan.left(options.rerun_stale)
    with Progress(trials, len(plan.trials) - len(trials), 1, console) as progress:
        for planned in trials:
            execution = None
            try:
                execution = Execution(_task(planned, options, "cpu").task, store)
                while not execution.done:
                    execution.step()
                    progress.running(planned.id, execution.progress)
            except KeyboardInterrupt:
                if execution is not None and not execution.done:
                    execution.save()
                outcome.interrupted = True
                return outcome
            except Exception as error:
                with contextlib.suppress(Exception):
                    store.write_failure(planned.id, describe_failure(error))
                outcome.failed[planned.id] = f"{type(error).__name__}: {error}"
                progress.ended(planned.id, {"error": outcome.failed[planned.id]})
            else:
                outcome.finished.append(planned.id)
                progress.ended(planned.id, {"metrics": execution.metrics, "seconds": execution.seconds})
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
    from clray.cluster.session import session

    with session(options.address, options.cpus, options.gpus) as ray:
        capacity = ray.cluster_resources()
        groups: dict[tuple[float, float], list[_Placed]] = {}
        for planned in trials:
            placed = _task(planned, options, "cuda" if capacity.get("GPU") else "cpu")
            groups.setdefault((placed.cpu, placed.gpu), []).append(placed)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        for cpu, gpu in groups:
            _check_room(cpu, gpu, nodes)
        most = min(cpu for cpu, _ in groups)
        with Progress(trials, len(plan.trials) - len(trials), capacity.get("CPU", 1) / most, console) as progress:
            for (cpu, gpu), placed in groups.items():
                if not outcome.interrupted:
                    _tune(placed, cpu, gpu, store, progress, outcome, options)
    for planned in trials:
        if planned.id not in outcome.finished and planned.id not in outcome.failed and not outcome.interrupted:
            failure = store.failure(planned.id) or {}
            outcome.failed[planned.id] = failure.get("error", "its worker died and was not started again")
    return outcome


@dataclass(frozen=True)
class _Placed:
    """A task with what it asks of the machine."""

    task: Any
    cpu: float
    gpu: float
    pack: int


def _task(planned: Planned, options: Options, accelerator: str) -> _Placed:
    resources = planned.cell.resources
    gpu = (resources.gpu if options.gpu is None else options.gpu) if accelerator == "cuda" else 0.0
    task = planned.task(
        device="cuda" if gpu else "cpu",
        checkpoint_seconds=options.checkpoint_seconds,
        rerun=planned.state == "stale",
    )
    return _Placed(task, resources.cpu, gpu, resources.pack)


def _check_room(cpu: float, gpu: float, nodes: Sequence[dict[str, float]]) -> None:
    if any(node.get("CPU", 0) >= cpu and node.get("GPU", 0) >= gpu for node in nodes):
        return
    largest = max((node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes) if nodes else (0, 0)
    raise ClusterError(
        f"no machine has room for a trial that asks for {cpu:g} CPUs and {gpu:g} GPUs: the largest has "
        f"{largest[0]:g} CPUs and {largest[1]:g} GPUs; see 'resources' in the sweep file, or --gpu"
    )


def _packs(placed: Sequence[_Placed]) -> list[list[dict[str, Any]]]:
    """Tasks in packs of the declared size, those of one variant together."""
    packs: list[list[dict[str, Any]]] = []
    last: tuple[str, int] | None = None
    for item in placed:
        kind = (item.task.variant, item.pack)
        if kind != last or len(packs[-1]) >= item.pack:
            packs.append([])
        packs[-1].append(item.task.to_dict())
        last = kind
    return packs


def _tune(
    placed: Sequence[_Placed],
    cpu: float,
    gpu: float,
    store: Store,
    progress: Progress,
    outcome: Outcome,
    options: Options,
) -> None:
    """Run tasks of one size as one Tune experiment: one grid over a list, under one key."""
    from ray import tune

    from clray.cluster.trainable import PackTrainable, Watcher

    def ended(id: str, how: dict[str, Any]) -> None:
        progress.ended(id, how)
        if "error" in how:
            outcome.failed[id] = how["error"]
        elif id not in outcome.finished:
            outcome.finished.append(id)

    with tempfile.TemporaryDirectory(prefix="clray-tune-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(PackTrainable, tune.PlacementGroupFactory([_bundle(cpu, gpu)])),
            param_space={"pack": tune.grid_search(_packs(placed)), "store": store.uri},
            tune_config=tune.TuneConfig(reuse_actors=True, trial_dirname_creator=lambda t: t.trial_id),
            run_config=tune.RunConfig(
                name="clray",
                storage_path=scratch,  # Tune's own state: of no use to us after this launch
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # ours are in the store
                callbacks=[Watcher(ended, progress.running)],
                verbose=0,
            ),
        )
        log = Path(scratch) / "driver.log"
        with _output_to(log):
            try:
                tuner.fit()
            except KeyboardInterrupt:
                outcome.interrupted = True
    finished = store.finished()
    for item in placed:
        if item.task.id in finished and item.task.id not in outcome.finished and not item.task.rerun:
            outcome.finished.append(item.task.id)
            outcome.failed.pop(item.task.id, None)


def _bundle(cpu: float, gpu: float) -> dict[str, float]:
    return {"CPU": cpu, **({"GPU": gpu} if gpu else {})}


@contextlib.contextmanager
def _output_to(log: Path) -> Any:
    """Send what Tune prints, against its own settings, to a file: the screen belongs to the progress view."""
    import logging

    logger = logging.getLogger("ray")
    handlers = logger.handlers
    with open(log, "w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        logger.handlers = [logging.StreamHandler(file)]
        try:
            yield
        finally:
            logger.handlers = handlers


def workers(options: Options) -> int:
    """How many trials of one CPU an embedded Ray would run at once here."""
    return int(options.cpus or os.cpu_count() or 1)
