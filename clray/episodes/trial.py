"""Training by episodes: one trial as a ``Training``, its reports on validation episodes and its test at the end."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from clray.divergence import NotFinite, all_finite
from clray.episodes import data as sources
from clray.episodes.benchmarks import BENCHMARKS, Benchmark, Drawn, Pairs, draw_allowed
from clray.episodes.learner import EpisodeMethod, Learner, as_episode
from clray.episodes.methods import find
from clray.episodes.models import Dropout, Model
from clray.errors import CheckpointError, DeclarationError, Diverged
from clray.metrics import Measurement
from clray.spec import Trial
from clray.training import generator

_STOP_AFTER = 10.0
"""Seconds of training after which ``advance`` returns."""


class EpisodeTraining:
    """One trial.

    At episode 1, at every one that ``evaluate`` says and at the last one it reports the mean loss since the last report
    and the accuracies on the validation episodes, which are drawn before training begins; then comes the test.
    """

    def __init__(self, trial: Trial, data: dict[str, Any], device: str = "cpu") -> None:
        if trial.task_order is not None:
            raise DeclarationError("task_orders: episodes have no order of tasks; allowed: [identity]")
        if trial.randomness != "clray":
            raise DeclarationError("randomness: official: the official code draws without seeds; allowed: clray")
        self.trial, self.device = trial, device
        self.form = "eager" if trial.engine == "eager" else "fused"
        settings = BENCHMARKS[trial.benchmark["name"]](**trial.benchmark)
        self.benchmark: Benchmark = settings.build(sources.load(data))
        method = find(trial.method)
        self.method: EpisodeMethod = method(method.Settings(**trial.hyperparameters))
        self.rng = generator(trial.seed, "episodes")
        self.validation = self.benchmark.validation(generator(trial.seed, "validation"))
        self.kept = {drawn.identifier for drawn in self.validation}
        self.learner = self._learner()
        self.losses, self.since = 0.0, 0
        """Of the episodes since the last report: the sum of their losses, and how many they are."""
        self.diverged: list[Any] = []
        """How many episodes had been seen when something was not finite, and what; empty while all is."""
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
        """How many the trial has."""
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
            Diverged: an episode's loss, the weights at a report or a stop, or the answers that are scored are not
                finite. What was measured before is returned first.
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
        """To the next stop; what is measured on the way is added to the list."""
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
        done, every = self.learner.episodes, self.trial.evaluate
        return done == self.episodes or (every != "after_task" and (done == 1 or done % every == 0))

    def _report(self) -> list[Measurement]:
        self._refuse_divergence()
        found = {"train_loss": self.losses / self.since}
        self.losses, self.since = 0.0, 0
        scores = [self._scores(drawn, self.method.asked(drawn, self.benchmark)) for drawn in self.validation]
        if scores:
            retrieval, generalize = zip(*scores, strict=True)
            found |= {"val_retrieval": _mean(retrieval), "val_generalize": _mean(generalize)}
        return [self._measured(name, value) for name, value in found.items() if value == value]

    def _test_next(self) -> list[Measurement]:
        """The next episode of the test; with the last one, the test's accuracy."""
        tests = self._test_episodes()
        drawn = tests[len(self.tested)]
        self.tested.append(self._scores(drawn, drawn.query)[1])
        return [self._measured("test_accuracy", _mean(self.tested))] if len(self.tested) == len(tests) else []

    def _scores(self, drawn: Drawn, asked: Pairs) -> tuple[float, float]:
        """See ``Learner.scores``."""
        try:
            return self.learner.scores(drawn, asked, self.benchmark, self.method.memory)
        except NotFinite:
            raise Diverged(self.learner.episodes, 0, "logits") from None

    def _test_episodes(self) -> list[Drawn]:
        if self._tests is None:
            self._tests = self.benchmark.tests(self.validation)
        return self._tests

    def _measured(self, metric: str, value: float) -> Measurement:
        return Measurement(self.learner.episodes, 1, 0, metric, value)

    def artifacts(self) -> dict[str, bytes]:
        """The network in the official code's layout, as ``checkpoint.tar``, and what it looks at, as ``looks.json``."""
        from clray.episodes.export import checkpoint, looks

        return {"checkpoint.tar": checkpoint(self), "looks.json": looks(self)}

    def state_dict(self) -> dict[str, Any]:
        return {
            "learner": self.learner.state_dict(),
            "episodes": self.rng.bit_generator.state,
            "report": [self.losses, self.since],
            "tested": self.tested,
            "diverged": self.diverged,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        try:
            self.learner.load_state_dict(state["learner"])
            self.rng.bit_generator.state = state["episodes"]
            self.losses, self.since = state["report"]
            self.tested = list(state["tested"])
            self.diverged = list(state["diverged"])
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"this is no checkpoint of a {self.trial.method} trial: {error!r}") from None


def _mean(values: Any) -> float:
    return sum(values) / len(values)
