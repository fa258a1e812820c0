"""The training loop of the vision track: runs one trial as a ``Training`` (``clray.training``).

The loop has no code for a particular benchmark or method: their differences are in the plan, the evaluator and the
learner.
"""

from __future__ import annotations

import importlib
import time
from typing import Any

import numpy as np

from clray.errors import CheckpointError, DeclarationError, Diverged
from clray.metrics import Measurement
from clray.trial import Trial
from clray.vision import data as sources
from clray.vision.benchmarks import BENCHMARKS
from clray.vision.benchmarks.base import Benchmark
from clray.vision.draws import ClrayDraws, Draws
from clray.vision.evaluation import Evaluator
from clray.vision.learners import LEARNERS
from clray.vision.methods import METHODS
from clray.vision.methods.base import StepNotFinite
from clray.vision.plan import Plan
from clray.vision.stream import Stream

_STOP_AFTER = 10.0
"""Seconds after which ``advance`` returns, in the middle of a visit or of an evaluation."""
_AT_ONCE = 50
"""Examples that a method learns from in bulk before the clock is looked at."""


def draws_of(trial: Trial, benchmark: Benchmark, device: str) -> Draws:
    """The draws of clray, or those of the paper's official code, as ``trial.randomness`` says."""
    if trial.randomness == "clray":
        return ClrayDraws(trial.seed, device)
    return importlib.import_module(benchmark.official).OfficialDraws(trial.seed, device)


def stream_of(trial: Trial, benchmark: Benchmark, data: dict[str, Any], draws: Draws) -> Stream:
    """The trial's examples, on the CPU."""
    names = benchmark.datasets
    images = {names[0]: sources.load(data)} if len(names) == 1 else sources.load_all(data)
    return benchmark.stream(images, draws, trial.task_order)


class VisionTraining:
    """One trial: visits of experiences in batches, with evaluations between them.

    Args:
        trial: its declaration.
        data: the image sets, as ``clray.vision.training.data`` describes them.
        device: where images and networks are.

    Raises:
        DataError: this machine cannot provide the data, or it has fewer images than the benchmark asks for.
        DeclarationError: a setting does not fit the data or the device.
    """

    def __init__(self, trial: Trial, data: dict[str, Any], device: str = "cpu") -> None:
        self.trial, self.device = trial, device
        benchmark = BENCHMARKS[trial.benchmark["name"]](**trial.benchmark)
        method = METHODS[trial.method]
        learner = LEARNERS[method.learner_kind]
        learner.check(trial, device)
        self.draws = draws_of(trial, benchmark, device)
        self.stream = stream_of(trial, benchmark, data, self.draws).to(device)
        self.learner = learner.of(trial, self.stream, self.draws, device)
        self.method = method(method.Settings(**trial.hyperparameters), self.learner)
        self._check_batches(benchmark)
        self.step = 0
        """Examples learned so far."""
        self._last = 0
        """The experience that was learned last."""
        self._hidden = benchmark.hides_boundaries
        begin = (lambda experience: None) if self._hidden else self.method.begin
        size, passes = self.method.batch_size, benchmark.passes
        self.plan = Plan(self.stream, self.method.visits(), passes, size, self.draws, begin, self._hidden)
        self.evaluator = Evaluator(
            self.stream,
            self.method,
            self.plan,
            every=None if trial.evaluate == "after_task" else trial.evaluate,
            before_training=benchmark.measures_before_training,
            unseen=benchmark.measures_unseen,
            landscape=benchmark.landscape(trial.seed),
            seen=benchmark.measures_seen,
        )

    def _check_batches(self, benchmark: Benchmark) -> None:
        """Refuse a batch size larger than a task where short batches are left out: nothing would be learned."""
        batch, fewest = self.method.batch_size, min(len(e.examples) for e in self.stream.experiences)
        if self.stream.drops_last and fewest < batch:
            raise DeclarationError(
                f"{benchmark.name} leaves out a last batch that is not full, and a task has only {fewest} images here: "
                f"batch must be at most {fewest} (it is {batch})"
            )

    @property
    def progress(self) -> float:
        return 1.0 if self.plan.over and not self.evaluator.due else min(self.plan.done, 1 - 1e-9)

    @property
    def facts(self) -> dict[str, Any]:
        return {**self.learner.facts, "device": self.device}

    def advance(self) -> list[Measurement]:
        deadline = time.monotonic() + _STOP_AFTER
        with self.draws.training():
            if not self.evaluator.due:
                self._train(deadline)
            self._check_weights()
            return self.evaluator.measure(self.step, self._last, deadline)

    def _train(self, deadline: float) -> None:
        """Learn until a measurement is due, the trial is over, or the time is up."""
        while not self.plan.over:
            learned = self._learn()
            self.step += learned
            if self.plan.visit_is_over:
                self._end_visit()
            self.evaluator.after_batch(self.step, learned)
            if self.evaluator.due or time.monotonic() > deadline:
                return

    def _learn(self) -> int:
        """Learn from the next batch, or from several single examples at once. Returns the number of examples."""
        experience = self._last = self.plan.experience
        try:
            if self.method.in_bulk:
                due = self.evaluator.until_due(self.step)
                numbers = self.plan.next_singles(_AT_ONCE if due is None else min(_AT_ONCE, due))
                if numbers is None:
                    return 0
                self.method.learn(numbers)  # type: ignore[attr-defined]
                return len(numbers)
            batch = self.plan.next()
            if batch is None:
                return 0
            self.method.observe(batch)
            return len(batch)
        except FloatingPointError as error:
            before = error.learned if isinstance(error, StepNotFinite) else 0
            raise Diverged(self.step + before, experience, str(error)) from None

    def _end_visit(self) -> None:
        self._check_weights()
        if not self._hidden:
            try:
                self.method.end(self._last)
            except FloatingPointError as error:
                raise Diverged(self.step, self._last, str(error)) from None
        self.plan.end_visit()
        self.evaluator.after_visit()

    def _check_weights(self) -> None:
        """Check that the weights are finite.

        Raises:
            Diverged: some are not.
        """
        if not self.method.is_finite():
            raise Diverged(self.step, self._last, "weights")

    def state_dict(self) -> dict[str, Any]:
        return {
            "at": [self.step, self._last],
            "plan": self.plan.state_dict(),
            "evaluation": self.evaluator.state_dict(),
            "draws": self.draws.state_dict(),
            "learner": self.learner.state_dict(),
            "method": _tensors(self.method.state_dict()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        try:
            self.step, self._last = state["at"]
            self.plan.load_state_dict(state["plan"])
            self.evaluator.load_state_dict(state["evaluation"])
            self.learner.load_state_dict(state["learner"])
            self.method.load_state_dict(state["method"])
            self.draws.load_state_dict(state["draws"])
        except (KeyError, IndexError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"this is no checkpoint of a {self.trial.method} trial: {error!r}") from None


def _tensors(state: Any) -> Any:
    """Convert NumPy arrays to tensors and NumPy numbers to Python's, as ``torch.load(weights_only=True)`` requires."""
    import torch

    if isinstance(state, np.generic):
        return state.item()
    if isinstance(state, np.ndarray):
        return torch.from_numpy(state.copy())
    if isinstance(state, dict):
        return {key: _tensors(value) for key, value in state.items()}
    return [_tensors(value) for value in state] if isinstance(state, list | tuple) else state
