"""The episodes track's interface to clray: its benchmarks, its settings and its trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clray.documents import one_of
from clray.episodes import data as sources
from clray.episodes.methods import METHODS
from clray.episodes.methods.base import Kind
from clray.own_code import is_reference
from clray.track_interface import BenchmarkFamily
from clray.training import NO_OFFICIAL_DRAWS, Training
from clray.trial import SettingError, Trial, check_settings, declared_settings, short_hash

PRECISIONS = ("float32",)
KEEPS: tuple[str, ...] = ()


def kinds() -> list[BenchmarkFamily]:
    """The benchmarks with a support set, and those without; see ``Track``."""
    words: dict[Kind, tuple[str, str]] = {
        "episodes": ("by episodes", "metaseq2seq/mutual_exclusivity"),
        "split": ("on a training set and a test set", "metaseq2seq/add_jump_permutation"),
    }
    return [
        BenchmarkFamily(what, _benchmarks(kind), methods_of(kind), (sweep,), True)
        for kind, (what, sweep) in words.items()
    ]


def _benchmarks(kind: Kind) -> tuple[str, ...]:
    from clray.episodes.benchmarks import BENCHMARKS

    return tuple(name for name, benchmark in BENCHMARKS.items() if benchmark.kind == kind)


def methods_of(kind: Kind) -> dict[str, str]:
    """The methods for benchmarks of one kind, in the form of ``METHODS.targets``."""
    every = {**METHODS.targets, **METHODS.listed}
    return {name: target for name, target in every.items() if METHODS[name].kind == kind}


def resolve(declared: dict[str, Any]) -> dict[str, Any]:
    """Check a variant's settings and fill in the defaults; see ``Track``."""
    from clray.episodes.benchmarks import BENCHMARKS
    from clray.episodes.models import Model

    name, method = declared["benchmark"].get("name"), declared["method"]
    if name not in BENCHMARKS:
        raise SettingError("benchmark", ["name"], f"{name!r} is not a benchmark; {one_of(str(name), BENCHMARKS)}")
    kind = BENCHMARKS[name].kind
    if method not in METHODS or METHODS[method].kind != kind:
        problem = f"{method!r} is not for {name}" if method in METHODS else f"{method!r} is not a method"
        raise SettingError("hyperparameters", ["method"], f"{problem}; {one_of(str(method), methods_of(kind))}")
    if declared.get("randomness", "clray") != "clray":
        raise SettingError("randomness", [], NO_OFFICIAL_DRAWS)
    if declared.get("task_orders", ["identity"]) != ["identity"]:
        raise SettingError("task_orders", [], "episodes have no order of tasks; allowed: [identity]")
    benchmark = check_settings("benchmark", BENCHMARKS[name], declared["benchmark"])
    model = check_settings("model", Model, declared["model"])
    settings = check_settings("hyperparameters", METHODS[method].Settings, declared["hyperparameters"])
    return {
        "benchmark": declared_settings(benchmark),
        "model": declared_settings(model),
        "method": method,
        "hyperparameters": declared_settings(settings),
    }


def data(trial: Trial, fetch: bool) -> dict[str, Any]:
    """The data a trial would use here; see ``Track``."""
    name = trial.benchmark["name"]
    if is_reference(name):  # a benchmark of the user's own makes its pairs itself
        return {"name": name, "source": "grammar", "fingerprint": short_hash(name)}
    return sources.locate(name, "simple" if trial.benchmark.get("split") == "simple" else None)


def train(trial: Trial, data: dict[str, Any], device: str) -> Training:
    """Make the trial; see ``Track``."""
    from clray.episodes.trial import EpisodeTraining

    return EpisodeTraining(trial, data, device)


def kept_files(what: str, training: Training, about: Mapping[str, Any]) -> dict[str, bytes]:
    """None: the track's trials keep all that they keep as artifacts; see ``Track``."""
    return {}


def modules_of(trial: Trial) -> list[str]:
    """The modules that a trial runs; see ``Track``."""
    from clray.episodes.benchmarks import BENCHMARKS

    modules = [METHODS.module_of(trial.method), "clray.episodes.trial"]
    benchmark = trial.benchmark["name"]
    return modules if benchmark in BENCHMARKS.targets else [*modules, BENCHMARKS.module_of(benchmark)]


_SYMBOLS = {
    "mutual_exclusivity": (118, 106),
    "scan_prim_permutation": (792, 612),
    "scan_prim_augmentation": (792, 612),
    "scan_around_right": (792, 612),
    "scan_length": (2540, 1090),
    "scan_split": (330, 612),
}
"""The numbers of symbols that an episode's encoders read and its decoder writes, with default settings."""


def estimate(trial: Trial) -> float:
    """The seconds on one core, from the figures of bench/episodes.py; see ``Track``."""
    read, written = _SYMBOLS.get(trial.benchmark["name"], (500, 500))
    width = (trial.model["embedding"] / 200) ** 2
    episode = 0.015 + width * (read * 0.00016 + written * 0.00011)
    return 5 + trial.hyperparameters["episodes"] * episode
