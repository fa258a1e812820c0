"""The language track's interface to clray: its benchmarks, its settings and its trials."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

from clray.documents import one_of
from clray.language import data as sources
from clray.language.methods import METHODS
from clray.track_interface import BenchmarkFamily
from clray.training import NO_OFFICIAL_DRAWS, Training
from clray.trial import SettingError, Trial, check_settings, declared_settings

PRECISIONS = ("float32", "bfloat16")
KEEPS: tuple[str, ...] = ()


def kinds() -> list[BenchmarkFamily]:
    """The one benchmark of the track; see ``Track``."""
    from clray.language.benchmarks import BENCHMARKS

    methods = {**METHODS.targets, **METHODS.listed}
    return [BenchmarkFamily("", tuple(BENCHMARKS), methods, ("lamol/two_tasks_small",))]


def resolve(declared: dict[str, Any]) -> dict[str, Any]:
    """Check a variant's settings and fill in the defaults; see ``Track``."""
    from clray.language.benchmarks import BENCHMARKS
    from clray.language.models import Settings

    name, method = declared["benchmark"].get("name"), declared["method"]
    if name not in BENCHMARKS:
        raise SettingError("benchmark", ["name"], f"{name!r} is not a benchmark; {one_of(str(name), BENCHMARKS)}")
    if method not in METHODS:
        raise SettingError("hyperparameters", ["method"], f"{method!r} is not a method; {one_of(str(method), METHODS)}")
    if (evaluate := declared.get("evaluate", "after_task")) != "after_task":
        raise SettingError("evaluate", [], f"{evaluate}: {name} allows only after_task")
    if declared.get("randomness", "clray") != "clray":
        raise SettingError("randomness", [], NO_OFFICIAL_DRAWS)
    benchmark = check_settings("benchmark", BENCHMARKS[name], declared["benchmark"])
    model = check_settings("model", Settings, declared["model"])
    settings = check_settings("hyperparameters", METHODS[method].Settings, declared["hyperparameters"])
    _refuse_empty_memories(benchmark, settings)
    return {
        "benchmark": declared_settings(benchmark),
        "model": declared_settings(model),
        "method": method,
        "hyperparameters": declared_settings(settings),
    }


def _refuse_empty_memories(benchmark: Any, settings: Any) -> None:
    """Check that a memory whose size is a share of the next task's has an example.

    Raises:
        SettingError: it would have none, and the method would be fine-tuning.
    """
    from clray.language.tasks import TASKS

    share = getattr(settings, "memory", None)
    if share is None:
        return
    for task in benchmark.tasks[1:]:
        sizes = TASKS[task].sizes
        known = [count for count in (sizes and sizes[0], benchmark.train_per_task) if count is not None]
        if known and min(known) * share < 1:
            raise SettingError(
                "hyperparameters",
                ["memory"],
                f"{share:g} of the {min(known)} training examples of {task} is less than one, so that the memory would "
                f"be empty; allowed: {math.ceil(1e6 / min(known)) / 1e6:g} or more",
            )


def data(trial: Trial, fetch: bool) -> dict[str, Any]:
    """The texts, and the weights or the vocabulary, that a trial would use here; see ``Track``."""
    from clray.language.models import Settings, describe

    texts = sources.locate(trial.benchmark["tasks"], fetch)
    model = describe(Settings(**trial.model), fetch)
    both = f"{texts['fingerprint']} {model['fingerprint']}"
    described = {
        "name": f"{texts['name']} and {model['name']}",
        "source": texts["source"],
        "fingerprint": hashlib.sha256(both.encode()).hexdigest(),
        "texts": texts,
        "model": model,
    }
    for remark in ("partial", "unverified"):
        said = [part[remark] for part in (texts, model) if remark in part]
        described |= {remark: "; ".join(said)} if said else {}
    return described


def train(trial: Trial, data: dict[str, Any], device: str) -> Training:
    """Make the trial; see ``Track``."""
    from clray.language.trial import LanguageTraining

    return LanguageTraining(trial, data, device)


def kept_files(what: str, training: Training, about: Mapping[str, Any]) -> dict[str, bytes]:
    """None: the track's trials keep all that they keep as artifacts; see ``Track``."""
    return {}


def modules_of(trial: Trial) -> list[str]:
    """The modules that a trial runs; see ``Track``."""
    from clray.language.benchmarks import BENCHMARKS

    modules = [METHODS.module_of(trial.method), "clray.language.trial"]
    benchmark = trial.benchmark["name"]
    return modules if benchmark in BENCHMARKS.targets else [*modules, BENCHMARKS.module_of(benchmark)]


_LENGTHS = {
    "squad1": 190,
    "squad2": 190,
    "wikisql": 110,
    "iwslt.en.de": 60,
    "cnn_dailymail": 900,
    "multinli.in.out": 60,
}
"""The approximate number of tokens of an example; other tasks have some hundred."""
_SHORT = ("sst", "srl", "srl_gs", "woz.en", "zre", "schema")
_CORE, _GPU = 5e10, 5e13
"""The operations per second of a core, and of a GPU in 16 bits."""
_UPDATE = 0.05
"""The seconds that an update of GPT-2 takes on a GPU at least, however small the batch is."""


def estimate(trial: Trial) -> float:
    """The seconds on one core, or for a pretrained model on one GPU; see ``Track``.

    It is computed, not measured: six operations for each parameter and token, and twice as many with the LM loss.
    """
    from clray.language.tasks import TASKS

    settings, model = trial.hyperparameters, trial.model
    scratch = model["name"] == "scratch"
    parameters = model["layers"] * 12 * model["width"] ** 2 + model["vocabulary_size"] * model["width"]
    tokens = updates = remembered = 0.0
    for task in trial.benchmark["tasks"]:
        count = (TASKS[task].sizes or (1000, 0, 0))[0]
        count = min(count, trial.benchmark["train_per_task"] or count)
        length = 40 if task in _SHORT else 12 if task.startswith("scan.") else _LENGTHS.get(task, 110)
        seen = count * settings["epochs"] * (1 + settings.get("gamma", 0))
        batch = max(count // settings["min_steps"], settings["min_batch"])
        tokens += seen * length * (1 + remembered / batch)
        updates += seen / batch * (1 + remembered / batch)
        remembered += count * settings.get("memory", 0)  # GEM processes the whole memory before every update
    operations = 6 * (parameters if scratch else 124e6) * tokens * (2 if trial.method == "lamol" else 1)
    return 20 + (operations / _CORE if scratch else operations / _GPU + updates * _UPDATE)
