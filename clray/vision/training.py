"""The vision track's interface to clray: benchmarks, methods and networks, the settings of a trial, and its costs.

The training loop itself is ``clray.vision.trial``.

This module loads torch only when a trial is trained, so that planning a sweep is fast.
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
from clray.vision.benchmarks.base import Benchmark
from clray.vision.benchmarks.class_incremental import OfClasses
from clray.vision.benchmarks.in_epochs import InEpochs
from clray.vision.learners import LEARNERS
from clray.vision.methods import METHODS
from clray.vision.methods.base import LearnerKind, Method, ModuleMethod, PerceptronMethod
from clray.vision.networks import NETWORKS
from clray.vision.networks.perceptron import Perceptron

PRECISIONS = ("float32",)
KEEPS = ("weights",)


def methods_of(kind: LearnerKind) -> dict[str, str]:
    """The methods that train learners of one kind, in the form of ``METHODS.targets``."""
    every = {**METHODS.targets, **METHODS.listed}
    return {name: target for name, target in every.items() if METHODS[name].learner_kind == kind}


def benchmarks_of(kind: LearnerKind) -> tuple[str, ...]:
    """The benchmarks whose methods train learners of one kind."""
    return tuple(name for name, benchmark in BENCHMARKS.items() if benchmark.learner == kind)


def kinds() -> list[BenchmarkFamily]:
    """The families of benchmarks and methods that fit together; see ``Track``."""
    words: dict[LearnerKind, tuple[str, tuple[str, ...]]] = {
        "perceptron": ("one example at a time", ("mer/rotations",)),
        "module": ("task by task", ("tag/rotated_mnist", "tag/cifar100", "online/tiny_memories_cifar100")),
        "incremental": ("class by class", ("online/mnist",)),
    }
    return [
        BenchmarkFamily(what, benchmarks_of(kind), methods_of(kind), sweeps, kind == "perceptron")
        for kind, (what, sweeps) in words.items()
    ]


def resolve(declared: dict[str, Any]) -> dict[str, Any]:
    """Check a variant's settings and fill in the defaults; see ``Track``."""
    name = declared["benchmark"].get("name")
    if name not in BENCHMARKS:
        raise SettingError("benchmark", ["name"], f"{name!r} is not a benchmark; {one_of(str(name), BENCHMARKS)}")
    benchmark = BENCHMARKS[name]
    network = _network(benchmark.learner, declared["model"])
    method = _method(declared["method"], name, benchmark.learner)
    checked = check_settings("benchmark", benchmark, declared["benchmark"])
    model = check_settings("model", *network)
    settings = check_settings("hyperparameters", METHODS[method].Settings, declared["hyperparameters"])
    assert isinstance(checked, Benchmark)
    _check_data_sets(checked)
    _check_engine(declared, model, settings)
    _check_randomness(declared, checked)
    _check_counts(checked, settings)
    if checked.hides_boundaries and getattr(settings, "needs_boundaries", False):
        message = (
            f"hidden: {method} must be told which task a batch belongs to, with these settings; allowed here: given"
        )
        raise SettingError("benchmark", ["boundaries"], message)
    return {
        "benchmark": declared_settings(checked),
        "model": declared_settings(model),
        "method": method,
        "hyperparameters": declared_settings(settings),
    }


def _network(kind: LearnerKind, model: Mapping[str, Any]) -> tuple[type[BaseModel], Mapping[str, Any]]:
    """The schema of the declared network, and its settings."""
    if kind == "perceptron":
        model = {"name": "mlp", **model}
        if model["name"] != "mlp":
            message = f"{model['name']!r} is not a model for streams of single examples; {one_of('', ['mlp'])}"
            raise SettingError("model", ["name"], message)
        return Perceptron, model
    if "name" not in model:
        raise SettingError("model", ["name"], f"this setting is missing; {one_of('', NETWORKS)}")
    name = model["name"]
    if name not in NETWORKS:
        raise SettingError("model", ["name"], f"{name!r} is not a network; {one_of(str(name), NETWORKS)}")
    return NETWORKS[name], model


def _method(name: Any, benchmark: str, kind: LearnerKind) -> str:
    if name in METHODS and METHODS[name].learner_kind == kind:
        return name
    problem = f"{name!r} is not for {benchmark}" if name in METHODS else f"{name!r} is not a method"
    raise SettingError("hyperparameters", ["method"], f"{problem}; {one_of(str(name), methods_of(kind))}")


def _check_data_sets(benchmark: Benchmark) -> None:
    """Refuse a benchmark from outside clray that reads an image set which clray does not have."""
    for name in benchmark.datasets:
        if name not in sources.DATASETS:
            message = f"the `datasets` of {benchmark.name} hold {name!r}; {one_of(name, sources.DATASETS)}"
            raise SettingError("benchmark", ["name"], message)


def _check_engine(declared: Mapping[str, Any], model: BaseModel, settings: BaseModel) -> None:
    """Refuse ``engine: fused`` where no fused engine exists for the settings."""
    if declared.get("engine") != "fused":
        return
    if isinstance(model, Perceptron):
        if len(model.hidden) != 2:
            kernels = f"the kernels are for two hidden layers, and the model has {len(model.hidden)}"
            raise SettingError("engine", [], f"fused: {kernels}; allowed here: auto, eager")
    elif not getattr(settings, "optimizer", "").startswith("tag-"):
        raise SettingError("engine", [], "fused: only the TAG optimizers have a fused form; allowed: auto, eager")


def _check_randomness(declared: Mapping[str, Any], benchmark: Benchmark) -> None:
    """Refuse ``randomness: official`` where the official code's draws do not exist."""
    if declared.get("randomness") != "official":
        return
    if not benchmark.official:
        raise SettingError("randomness", [], f"official: {benchmark.name} has no official draws; allowed: clray")
    evaluate = declared.get("evaluate", "after_task")
    if benchmark.official_evaluation_draws:
        if evaluate != "after_task":
            message = (
                f"{evaluate}: an evaluation draws random numbers in the official code, so that randomness: official"
            )
            raise SettingError("evaluate", [], f"{message} allows only after_task")
        for i, seed in enumerate(declared.get("seeds", ())):
            if seed >= 2**32:
                message = f"{seed}: the official code's generators take seeds below 2**32, as randomness: official does"
                raise SettingError("seeds", [i], message)


def _check_counts(benchmark: Benchmark, settings: BaseModel) -> None:
    """Refuse numbers of images that do not fit together, as far as the declaration alone shows it."""
    if isinstance(benchmark, OfClasses):
        _check_counts_of_classes(benchmark, settings)
    declared = getattr(benchmark, "train_per_task", None)
    if declared is None:
        return
    kept = getattr(settings, "memories_per_task", 0)
    if kept > declared:
        message = f"{kept} is more than a task has: train_per_task is {declared}"
        raise SettingError("hyperparameters", ["memories_per_task"], message)
    shared = getattr(settings, "memories", 0)
    if getattr(settings, "memory", "") == "ring" and 0 < shared < benchmark.tasks:
        message = (
            f"{shared}: memory: ring divides them among {benchmark.tasks} tasks; allowed: {benchmark.tasks} or more"
        )
        raise SettingError("hyperparameters", ["memories"], message)
    if not isinstance(benchmark, InEpochs):
        return
    if benchmark.validation and declared < 10:
        message = f"validation holds out a tenth of a task's images, which takes at least 10 (it is {declared})"
        raise SettingError("benchmark", ["train_per_task"], message)
    trained = declared - declared // 10 if benchmark.validation else declared
    batch = getattr(settings, "batch", 1)
    if benchmark.drops_last and trained < batch:
        message = f"{benchmark.name} leaves out a last batch that is not full, and a task trains on only {trained} "
        raise SettingError("hyperparameters", ["batch"], f"{message}images: at most {trained} (it is {batch})")


def _check_counts_of_classes(benchmark: OfClasses, settings: BaseModel) -> None:
    """As ``_check_counts``, where images are counted by class."""
    declared = benchmark.train_per_class
    if declared is None:
        return
    if benchmark.validation and declared < 10:
        message = f"validation holds out a tenth of a class's images, which takes at least 10 (it is {declared})"
        raise SettingError("benchmark", ["train_per_class"], message)
    of_class = declared - declared // 10 if benchmark.validation else declared
    trained, batch = of_class * (benchmark.label_classes // benchmark.tasks), getattr(settings, "batch", 1)
    if getattr(benchmark, "drop_last", False) and trained < batch:
        message = f"drop_last leaves out a last batch that is not full, and a task trains on only {trained} images"
        raise SettingError("hyperparameters", ["batch"], f"{message}: at most {trained} (it is {batch})")


def data(trial: Trial, fetch: bool) -> dict[str, Any]:
    """Describe the data that a trial would read on this machine; see ``Track``."""
    benchmark = BENCHMARKS[trial.benchmark["name"]](**trial.benchmark)
    names, source = benchmark.datasets, benchmark.source
    return sources.locate(names[0], source, fetch) if len(names) == 1 else sources.locate_all(names, source, fetch)


def train(trial: Trial, data: dict[str, Any], device: str) -> Training:
    """A trial that is ready to begin; see ``Track``."""
    from clray.vision.trial import VisionTraining

    return VisionTraining(trial, data, device)


def kept_files(what: str, training: Training, about: Mapping[str, Any]) -> dict[str, bytes]:
    """The files that keep a trial's weights; see ``Track``."""
    from clray.vision.export import weights
    from clray.vision.trial import VisionTraining

    assert isinstance(training, VisionTraining)
    return weights(training, about)


def modules_of(trial: Trial) -> list[str]:
    """The modules whose code a trial runs; see ``Track``."""
    benchmark, kind = trial.benchmark["name"], METHODS[trial.method].learner_kind
    modules = ["clray.vision.trial", METHODS.module_of(trial.method), BENCHMARKS.module_of(benchmark)]
    modules.append(LEARNERS.module_of(kind))
    if kind != "perceptron":
        modules.append(NETWORKS.module_of(trial.model["name"]))
    if trial.randomness == "official":
        modules.append(BENCHMARKS[benchmark].official)
    return modules


def estimate(trial: Trial) -> float:
    """Estimate a trial's seconds on one core with the fastest engine, from docs/performance.md; see ``Track``."""
    benchmark = BENCHMARKS[trial.benchmark["name"]](**trial.benchmark)
    method: type[Method] = METHODS[trial.method]
    settings = method.Settings(**trial.hyperparameters)
    examples, tests = benchmark.examples_of_task, benchmark.tests_of_task
    if issubclass(method, PerceptronMethod):
        return _perceptron_seconds(trial, benchmark, method, settings, tests)
    assert issubclass(method, ModuleMethod)
    fixed, each = NETWORKS[trial.model["name"]].seconds
    each *= benchmark.image_cost
    batch = getattr(settings, "batch", 10)
    passes = getattr(settings, "passes_of_a_batch", method.passes) * getattr(settings, "iterations", 1)
    step = (fixed + each * batch) * passes + getattr(settings, "seconds_per_step", 0.0)
    learned = benchmark.tasks * getattr(settings, "cycles", 1) * benchmark.passes * examples
    return 5 + learned / batch * step + _evaluations(trial, benchmark, learned) * tests * each / 3


def _evaluations(trial: Trial, benchmark: Benchmark, learned: float) -> float:
    """The number of times that a task's test images are looked at, of ``learned`` examples in all."""
    tasks = benchmark.tasks
    of_one = tasks if benchmark.measures_unseen else (tasks + 1) / 2  # on average
    within = 0.0 if trial.evaluate == "after_task" else learned / trial.evaluate
    return (tasks + within) * of_one


def _perceptron_seconds(
    trial: Trial, benchmark: Benchmark, method: type[PerceptronMethod], settings: Any, tests: float
) -> float:
    examples = benchmark.examples_of_task * benchmark.tasks
    gradients = examples * method.gradients(settings) * Perceptron.seconds_per_gradient
    evaluations = _evaluations(trial, benchmark, examples) * tests * Perceptron.seconds_per_test
    return 3 + gradients + evaluations + method.further_seconds(settings, examples, benchmark.tasks)
