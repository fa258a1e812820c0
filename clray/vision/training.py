"""The vision track: what it tells of its settings, and which of its two training loops a trial is for.

``stream_training``: one example at a time (the MER family). ``task_training``: task by task, in minibatches and epochs
(Stable SGD, TAG and their baselines). A benchmark belongs to one of them, and so do a method and a network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from clray.documents import one_of
from clray.track_interface import BenchmarkFamily
from clray.training import Training
from clray.trial import SettingError, Trial, check_settings, declared_settings
from clray.vision import data as sources
from clray.vision.benchmarks import BENCHMARKS
from clray.vision.methods import METHODS, STREAM_METHODS, TASK_METHODS, find
from clray.vision.models import MODELS

PRECISIONS = ("float32",)


def kinds() -> list[BenchmarkFamily]:
    """What there is for either training loop; see ``Track``."""
    from clray.vision.task_benchmarks import TASK_BENCHMARKS

    by_task = ("tag/rotated_mnist", "tag/cifar100")
    return [
        BenchmarkFamily(
            "one example at a time", tuple(BENCHMARKS), STREAM_METHODS, "STREAM_METHODS", ("mer/rotations",)
        ),
        BenchmarkFamily("task by task", tuple(TASK_BENCHMARKS), TASK_METHODS, "TASK_METHODS", by_task),
    ]


def resolve(declared: dict[str, Any]) -> dict[str, Any]:
    """Check a variant's settings and fill in the defaults; see ``Track``."""
    name = declared["benchmark"].get("name")
    if name in BENCHMARKS:
        return _resolve_stream(declared)
    from clray.vision.task_benchmarks import TASK_BENCHMARKS

    if name in TASK_BENCHMARKS:
        return _resolve_tasks(declared)
    every = [*BENCHMARKS, *TASK_BENCHMARKS]
    raise SettingError("benchmark", ["name"], f"{name!r} is not a benchmark; {one_of(str(name), every)}")


def _resolve_stream(declared: dict[str, Any]) -> dict[str, Any]:
    benchmark, model = declared["benchmark"], {"name": "mlp", **declared["model"]}
    schema = _named("model", model["name"], MODELS, "a model for streams of single examples")
    method = _method(declared["method"], STREAM_METHODS, benchmark["name"])
    stream = check_settings("benchmark", BENCHMARKS[benchmark["name"]], benchmark)
    settings = check_settings("hyperparameters", find(method).Settings, declared["hyperparameters"])
    hidden = len(check_settings("model", schema, model).hidden)  # type: ignore[attr-defined]
    if declared.get("engine") == "fused" and hidden != 2:
        message = f"fused: the kernels are for two hidden layers, and the model has {hidden}; allowed here: auto, eager"
        raise SettingError("engine", [], message)
    kept = getattr(settings, "memories_per_task", 0)
    if kept > stream.train_per_task:  # type: ignore[attr-defined]
        raise SettingError(
            "hyperparameters",
            ["memories_per_task"],
            f"{kept} is more than a task has: train_per_task is {stream.train_per_task}",  # type: ignore[attr-defined]
        )
    return _resolved(stream, check_settings("model", schema, model), method, settings)


def _resolve_tasks(declared: dict[str, Any]) -> dict[str, Any]:
    from clray.vision.networks import NETWORKS
    from clray.vision.task_benchmarks import TASK_BENCHMARKS

    benchmark, model = declared["benchmark"], declared["model"]
    if "name" not in model:
        raise SettingError("model", ["name"], f"this setting is missing; {one_of('', NETWORKS)}")
    schema = _named("model", model["name"], NETWORKS, "a network")
    method = _method(declared["method"], TASK_METHODS, benchmark["name"])
    tasks = check_settings("benchmark", TASK_BENCHMARKS[benchmark["name"]], benchmark)
    network = check_settings("model", schema, model)
    settings = check_settings("hyperparameters", find(method).Settings, declared["hyperparameters"])
    _check_running(declared, benchmark["name"], getattr(settings, "optimizer", ""))
    _check_counts(tasks, settings)
    return _resolved(tasks, network, method, settings)


def _check_running(declared: Mapping[str, Any], benchmark: str, optimizer: str) -> None:
    """Refuse what the sweep says of all its variants where training task by task has it not."""
    evaluate = declared.get("evaluate", "after_task")
    if evaluate != "after_task":
        raise SettingError("evaluate", [], f"{evaluate}: {benchmark} allows only after_task")
    if declared.get("engine") == "fused" and not optimizer.startswith("tag-"):
        raise SettingError("engine", [], "fused: only the TAG optimizers have a fused form; allowed: auto, eager")
    for i, seed in enumerate(declared.get("seeds", ())):
        if declared.get("randomness") == "official" and seed >= 2**32:
            message = f"{seed}: the official code's generators take seeds below 2**32, as randomness: official does"
            raise SettingError("seeds", [i], message)


def _check_counts(tasks: Any, settings: Any) -> None:
    """Refuse numbers of images that do not go together, as far as they are declared rather than the data set's."""
    declared = tasks.train_per_task
    if declared is None:
        return
    if tasks.validation and declared < 10:
        message = f"validation holds out a tenth of a task's images, which takes at least 10 (it is {declared})"
        raise SettingError("benchmark", ["train_per_task"], message)
    kept = declared - declared // 10 if tasks.validation else declared
    if tasks.drops_last and kept < getattr(settings, "batch", 1):
        message = f"{tasks.name} leaves out a last batch that is not full, and a task trains on only {kept} images: "
        raise SettingError("hyperparameters", ["batch"], message + f"at most {kept} (it is {settings.batch})")


def _named(section: str, name: Any, known: Mapping[str, Any], what: str) -> Any:
    if name not in known:
        raise SettingError(section, ["name"], f"{name!r} is not {what}; {one_of(str(name), known)}")
    return known[name]


def _method(name: Any, known: Mapping[str, str], benchmark: str) -> str:
    if name not in METHODS:
        raise SettingError("hyperparameters", ["method"], f"{name!r} is not a method; {one_of(str(name), known)}")
    if name not in known:
        raise SettingError("hyperparameters", ["method"], f"{name!r} is not for {benchmark}; {one_of(name, known)}")
    return name


def _resolved(benchmark: BaseModel, model: BaseModel, method: str, settings: BaseModel) -> dict[str, Any]:
    return {
        "benchmark": declared_settings(benchmark),
        "model": declared_settings(model),
        "method": method,
        "hyperparameters": declared_settings(settings),
    }


def data(trial: Trial, fetch: bool) -> dict[str, Any]:
    """The data set a trial would read here; see ``Track``."""
    name, source = trial.benchmark["name"], trial.benchmark["source"]
    if name in BENCHMARKS:
        return sources.locate(trial.benchmark["dataset"], source, fetch)
    from clray.vision.task_benchmarks import TASK_BENCHMARKS

    names = TASK_BENCHMARKS[name](**trial.benchmark).datasets
    return sources.locate(names[0], source, fetch) if len(names) == 1 else sources.locate_all(names, source, fetch)


def train(trial: Trial, data: dict[str, Any], device: str) -> Training:
    """The trial, ready to begin."""
    if trial.benchmark["name"] in BENCHMARKS:
        from clray.vision.stream_training import StreamTraining

        return StreamTraining(trial, data, device)
    from clray.vision.task_training import TaskTraining

    return TaskTraining(trial, data, device)


def modules_of(trial: Trial) -> list[str]:
    """The modules that a trial runs; see ``Track``."""
    loop = "stream_training" if trial.benchmark["name"] in BENCHMARKS else "task_training"
    return [f"clray.vision.methods.{METHODS[trial.method].partition(':')[0]}", f"clray.vision.{loop}"]


def estimate(trial: Trial) -> float:
    """Seconds on one core with the fastest engine; see ``Track``. From docs/performance.md's figures."""
    return _estimate_stream(trial) if trial.benchmark["name"] in BENCHMARKS else _estimate_tasks(trial)


def _estimate_stream(trial: Trial) -> float:
    settings, tasks = trial.hyperparameters, trial.benchmark["tasks"]
    examples = tasks * trial.benchmark["train_per_task"]
    gradients = examples * (settings.get("replay_batch", 0) + 1) * settings.get("batches_per_example", 1)
    seconds = 3 + gradients * 3.6e-6 + tasks * tasks * 0.010
    if trial.method == "ewc":
        seconds += examples * 60e-6
    if trial.method == "gem":
        seconds += examples * (0.4e-3 + tasks / 2 * settings["memories_per_task"] * 7e-6)
    return seconds


def _estimate_tasks(trial: Trial) -> float:
    from clray.vision.networks import NETWORKS
    from clray.vision.task_benchmarks import TASK_BENCHMARKS

    benchmark, settings = TASK_BENCHMARKS[trial.benchmark["name"]](**trial.benchmark), trial.hyperparameters
    images, batch = benchmark.train_per_task or benchmark.images / benchmark.tasks, settings.get("batch", 10)
    visits = benchmark.tasks * settings.get("cycles", 1) * benchmark.epochs
    fixed, each = NETWORKS[trial.model["name"]].seconds
    each *= benchmark.pixels
    passes = {"er_reservoir": 2.0, "agem": 2.4}.get(trial.method, 1.0)
    step = (fixed + each * batch) * passes
    if settings.get("optimizer", "").startswith("tag-"):
        step += 0.003
    tests = benchmark.test_per_task or min(images / 5, 10_000)
    evaluations = benchmark.tasks * (benchmark.tasks + 1) / 2 * tests * each / 3
    return 5 + visits * images / batch * step + evaluations
