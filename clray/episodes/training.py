"""The episodes track's interface to clray: its benchmarks, its settings and its trials."""

from __future__ import annotations

from typing import Any

from clray.documents import one_of
from clray.episodes import data as sources
from clray.episodes.methods import EPISODE_METHODS, METHODS, SPLIT_METHODS, find
from clray.track_interface import BenchmarkFamily
from clray.training import NO_OFFICIAL_DRAWS, Training
from clray.trial import SettingError, Trial, check_settings, declared_settings

PRECISIONS = ("float32",)


def kinds() -> list[BenchmarkFamily]:
    """The benchmarks with a support set, and those without; see ``Track``."""
    from clray.episodes.benchmarks import BENCHMARKS, ScanSplit

    splits = tuple(name for name, benchmark in BENCHMARKS.items() if benchmark is ScanSplit)
    episodes = tuple(name for name in BENCHMARKS if name not in splits)
    own, split = ("metaseq2seq/mutual_exclusivity",), ("metaseq2seq/add_jump_permutation",)
    return [
        BenchmarkFamily("by episodes", episodes, EPISODE_METHODS, "EPISODE_METHODS", own),
        BenchmarkFamily("on a training set and a test set", splits, SPLIT_METHODS, "SPLIT_METHODS", split),
    ]


def resolve(declared: dict[str, Any]) -> dict[str, Any]:
    """Check a variant's settings and fill in the defaults; see ``Track``."""
    from clray.episodes.benchmarks import BENCHMARKS, ScanSplit
    from clray.episodes.models import Model

    name, method = declared["benchmark"].get("name"), declared["method"]
    if name not in BENCHMARKS:
        raise SettingError("benchmark", ["name"], f"{name!r} is not a benchmark; {one_of(str(name), BENCHMARKS)}")
    known = SPLIT_METHODS if BENCHMARKS[name] is ScanSplit else EPISODE_METHODS
    if method not in METHODS:
        raise SettingError("hyperparameters", ["method"], f"{method!r} is not a method; {one_of(str(method), known)}")
    if method not in known:
        raise SettingError("hyperparameters", ["method"], f"{method!r} is not for {name}; {one_of(method, known)}")
    if declared.get("randomness", "clray") != "clray":
        raise SettingError("randomness", [], NO_OFFICIAL_DRAWS)
    if declared.get("task_orders", ["identity"]) != ["identity"]:
        raise SettingError("task_orders", [], "episodes have no order of tasks; allowed: [identity]")
    benchmark = check_settings("benchmark", BENCHMARKS[name], declared["benchmark"])
    model = check_settings("model", Model, declared["model"])
    settings = check_settings("hyperparameters", find(method).Settings, declared["hyperparameters"])
    return {
        "benchmark": declared_settings(benchmark),
        "model": declared_settings(model),
        "method": method,
        "hyperparameters": declared_settings(settings),
    }


def data(trial: Trial, fetch: bool) -> dict[str, Any]:
    """The data a trial would use here; see ``Track``."""
    name = trial.benchmark["name"]
    return sources.locate(name, "simple" if trial.benchmark.get("split") == "simple" else None)


def train(trial: Trial, data: dict[str, Any], device: str) -> Training:
    """Make the trial; see ``Track``."""
    from clray.episodes.trial import EpisodeTraining

    return EpisodeTraining(trial, data, device)


def modules_of(trial: Trial) -> list[str]:
    """The modules that a trial runs; see ``Track``."""
    return [f"clray.episodes.methods.{METHODS[trial.method].partition(':')[0]}", "clray.episodes.trial"]


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
    read, written = _SYMBOLS[trial.benchmark["name"]]
    width = (trial.model["embedding"] / 200) ** 2
    episode = 0.015 + width * (read * 0.00016 + written * 0.00011)
    return 5 + trial.hyperparameters["episodes"] * episode
