"""The loop of the episodes track: training, reports on validation episodes, and a test. One trial is a ``Training``."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from clray.divergence import NotFinite, all_finite
from clray.episodes import data as sources
from clray.episodes.benchmarks import BENCHMARKS, Benchmark, Drawn, Pairs, draw_allowed
from clray.episodes.evaluation import scores
from clray.episodes.learner import Learner, as_episode
from clray.episodes.methods import METHODS
from clray.episodes.methods.base import EpisodeMethod
from clray.episodes.models import Model
from clray.episodes.networks import Dropout
from clray.errors import DeclarationError, Diverged
from clray.metrics import Measurement
from clray.training import NO_OFFICIAL_DRAWS, generator, restoring
from clray.trial import Trial

_STOP_AFTER = 10.0
"""Seconds of training after which ``advance`` returns."""


class EpisodeTraining:
    """One trial.

    It reports at episode 1, at every multiple of ``evaluate`` and at the last episode: the mean loss since the last
    report and the accuracies on the validation episodes, which are drawn before training begins. The test follows.
    """

    def __init__(self, trial: Trial, data: dict[str, Any], device: str = "cpu") -> None:
        if trial.task_order is not None:
            raise DeclarationError("task_orders: episodes have no order of tasks; allowed: [identity]")
        if trial.randomness != "clray":
            raise DeclarationError(f"randomness: {NO_OFFICIAL_DRAWS}")
        self.trial, self.device = trial, device
        self.form = "eager" if trial.engine == "eager" else "fused"
        settings = BENCHMARKS[trial.benchmark["name"]](**trial.benchmark)
        self.benchmark: Benchmark = settings.build(sources.load(data))
        method = METHODS[trial.method]
        self.method: EpisodeMethod = method(method.Settings(**trial.hyperparameters))
        self.rng = generator(trial.seed, "episodes")
        self.validation = self.benchmark.validation(generator(trial.seed, "validation"))
        self.kept = {drawn.identifier for drawn in self.validation}
        self.learner = self._learner()
        self.losses, self.since = 0.0, 0
        """The sum of the losses since the last report, and the number of episodes since then."""
        self.diverged: list[Any] = []
        """The number of episodes when something was not finite, and its name; empty while everything is finite."""
        self.tested: list[float] = []
        """The accuracy on each episode of the test."""
        self._tests: list[Drawn] | None = None

    def _learner(self) -> Learner:
        model = Model(**self.trial.model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(generator(self.trial.seed, "weights").integers(2**32)))
            network = self.method.network(len(self.benchmark.commands), len(self.benchmark.actions), model)
        dropout = Dropout(model.dropout, generator(self.trial.seed, "dropout"), self.device)
        return Learner(network.to(self.device), self.method.settings, self.form, dropout)

    @property
    def episodes(self) -> int:
        """The number of training episodes of the trial."""
        return self.method.settings.episodes

    @property
    def progress(self) -> float:
        if self.learner.episodes < self.episodes:
            return 0.99 * self.learner.episodes / self.episodes
        return 1.0 if len(self.tested) == len(self._test_episodes()) else 0.99

    @property
    def facts(self) -> dict[str, Any]:
        count = sum(parameter.numel() for parameter in self.learner.network.parameters())
        return {"engine": self.form, "device": self.device, "parameters": count}

    def advance(self) -> list[Measurement]:
        """See ``clray.training.Training``.

        Raises:
            Diverged: an episode's loss, the weights at a report or a stop, or the scored answers are not finite. The
                measurements made before are returned first.
        """
        measured: list[Measurement] = []
        if not self.diverged:
            try:
                self._go_on(measured)
            except Diverged as error:
                self.diverged = [error.step, error.what]
        if self.diverged and not measured:
            step, what = self.diverged
            raise Diverged(step, 0, what)
        return measured

    def _go_on(self, measured: list[Measurement]) -> None:
        """Train to the next stop, and add the measurements to the list."""
        if self.learner.episodes == self.episodes:
            measured += self._test_next()
            return
        deadline = time.monotonic() + _STOP_AFTER
        while self.learner.episodes < self.episodes and time.monotonic() < deadline:
            self._learn_next()
            if self._report_is_due():
                measured += self._report()
        self._refuse_divergence()

    def _learn_next(self) -> None:
        drawn = draw_allowed(self.benchmark, self.rng, self.kept)
        asked = self.method.asked(drawn, self.benchmark)
        support = drawn.support if self.method.memory else None
        loss = self.learner.observe(as_episode(support, asked, self.benchmark, self.device))
        if not math.isfinite(loss):
            raise Diverged(self.learner.episodes, 0, "loss")
        self.losses += loss
        self.since += 1

    def _refuse_divergence(self) -> None:
        if not all_finite(self.learner.network.parameters()):
            raise Diverged(self.learner.episodes, 0, "weights")

    def _report_is_due(self) -> bool:
        done, interval = self.learner.episodes, self.trial.evaluate
        return done == self.episodes or (interval != "after_task" and (done == 1 or done % interval == 0))

    def _report(self) -> list[Measurement]:
        self._refuse_divergence()
        found = {"train_loss": self.losses / self.since}
        self.losses, self.since = 0.0, 0
        scored = [self._scores(drawn, self.method.asked(drawn, self.benchmark)) for drawn in self.validation]
        if scored:
            retrieval, generalize = zip(*scored, strict=True)
            found |= {"val_retrieval": _mean(retrieval), "val_generalize": _mean(generalize)}
        return [self._measured(name, value) for name, value in found.items() if value == value]

    def _test_next(self) -> list[Measurement]:
        """Test on the next episode; the last one gives the test's accuracy."""
        tests = self._test_episodes()
        drawn = tests[len(self.tested)]
        self.tested.append(self._scores(drawn, drawn.query)[1])
        return [self._measured("test_accuracy", _mean(self.tested))] if len(self.tested) == len(tests) else []

    def _scores(self, drawn: Drawn, asked: Pairs) -> tuple[float, float]:
        """See ``clray.episodes.evaluation.scores``."""
        try:
            return scores(self.learner, drawn, asked, self.benchmark, self.method.memory)
        except NotFinite:
            raise Diverged(self.learner.episodes, 0, "logits") from None

    def _test_episodes(self) -> list[Drawn]:
        if self._tests is None:
            self._tests = self.benchmark.tests(self.validation)
        return self._tests

    def _measured(self, metric: str, value: float) -> Measurement:
        return Measurement(self.learner.episodes, 1, 0, metric, value)

    def artifacts(self) -> dict[str, bytes]:
        """The network in the official layout as ``checkpoint.tar``, and an attention example as ``looks.json``."""
        from clray.episodes.export import attention_example, checkpoint

        validation = [(drawn, self.method.asked(drawn, self.benchmark)) for drawn in self.validation]
        return {
            "checkpoint.tar": checkpoint(self.trial, self.learner, self.benchmark, validation),
            "looks.json": attention_example(self.learner.network, self.benchmark, validation, self.method.memory),
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "learner": self.learner.state_dict(),
            "episodes": self.rng.bit_generator.state,
            "report": [self.losses, self.since],
            "tested": self.tested,
            "diverged": self.diverged,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with restoring(self.trial.method):
            self.learner.load_state_dict(state["learner"])
            self.rng.bit_generator.state = state["episodes"]
            self.losses, self.since = state["report"]
            self.tested = list(state["tested"])
            self.diverged = list(state["diverged"])


def _mean(values: Any) -> float:
    return sum(values) / len(values)
