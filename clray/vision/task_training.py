"""Training task by task, in minibatches and epochs: one trial on a task-incremental benchmark as a ``Training``."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from clray.errors import CheckpointError, DeclarationError, Diverged
from clray.metrics import Measurement
from clray.training import generator
from clray.trial import Trial
from clray.vision import data as sources
from clray.vision import hessian
from clray.vision.learner import Batch, Learner, TaskMethod
from clray.vision.methods import find
from clray.vision.networks import NETWORKS
from clray.vision.tag import Tag
from clray.vision.task_benchmarks import TASK_BENCHMARKS, TaskStream, hold_out
from clray.vision.task_randomness import ClrayTaskRandomness, OfficialTaskRandomness, TaskRandomness

_STOP_AFTER = 10.0
"""Seconds after which ``advance`` returns, in the middle of a task, or of an evaluation between two tasks."""


def build_stream(trial: Trial, data: dict[str, Any], device: str, randomness: TaskRandomness) -> TaskStream:
    """The trial's tasks in its order, on its device."""
    settings = TASK_BENCHMARKS[trial.benchmark["name"]](**trial.benchmark)
    names = settings.datasets
    images = {names[0]: sources.load(data)} if len(names) == 1 else sources.load_all(data)
    stream = settings.build(images, randomness.benchmark)
    if settings.validation:
        stream = hold_out(stream, randomness.benchmark)
    if trial.task_order is not None:
        stream = stream.reordered(trial.task_order)
    return stream.to(device)


class TaskTraining:
    """One trial: every visit of a task, epoch by epoch, with an evaluation on the tasks seen after each visit."""

    def __init__(self, trial: Trial, data: dict[str, Any], device: str = "cpu") -> None:
        self.trial, self.device = trial, device
        kind = OfficialTaskRandomness if trial.randomness == "official" else ClrayTaskRandomness
        self.randomness: TaskRandomness = kind(trial.seed, device)
        self.settings = TASK_BENCHMARKS[trial.benchmark["name"]](**trial.benchmark)
        self.stream = build_stream(trial, data, device, self.randomness)
        self._see_that_every_task_fills_a_batch()
        network = NETWORKS[trial.model["name"]](**trial.model)
        self.learner = Learner(network, self.stream, self.randomness, plain=trial.engine == "eager")
        method = find(trial.method)
        self.method: TaskMethod = method(method.Settings(**trial.hyperparameters), self.learner)
        self.schedule = self.method.schedule()
        self.visit = self.epoch = self.batch = self.step = 0
        self.order = torch.empty(0, dtype=torch.int64)
        """The images of this epoch in their order; empty where it has not begun."""
        self.unscored: list[int] = []
        """Tasks whose accuracy is still to be measured after the last visit."""
        self.curvature_due = False
        """Whether the curvature is to be measured after that, at the task just learned."""
        self.origin: list[torch.Tensor] | None = None
        """All parameters at the end of the first task, where displacements are measured."""

    def _see_that_every_task_fills_a_batch(self) -> None:
        batch, fewest = self.trial.hyperparameters["batch"], min(len(m) for m in self.stream.train.members)
        if self.stream.drops_last and fewest < batch:
            name = self.trial.benchmark["name"]
            raise DeclarationError(
                f"{name} leaves out a last batch that is not full, and a task has only {fewest} images here: "
                f"batch must be at most {fewest} (it is {batch})"
            )

    @property
    def progress(self) -> float:
        if self.visit == len(self.schedule):
            return 1.0 - 1e-9 if self._measuring else 1.0
        images = max(self._images(), 1)
        done = self.epoch + min(self.batch * self.trial.hyperparameters["batch"], images) / images
        return min((self.visit + done / self.settings.epochs) / len(self.schedule), 1 - 1e-9)

    @property
    def facts(self) -> dict[str, Any]:
        optimizer = type(self.learner.optimizer)
        engine = "fused" if optimizer is Tag else "eager"
        return {"engine": engine, "optimizer": optimizer.__name__, "device": self.device}

    def _images(self) -> int:
        return len(self.stream.train.members[self.schedule[self.visit]])

    @property
    def _measuring(self) -> bool:
        return bool(self.unscored) or self.curvature_due

    def advance(self) -> list[Measurement]:
        deadline = time.monotonic() + _STOP_AFTER
        with self.randomness.training():
            if not self._measuring:
                while self._batches_left():
                    self._train_on_next()
                    if time.monotonic() > deadline:
                        self._check_weights(self.schedule[self.visit])
                        return []
                self._end_visit()
            return self._measure(deadline)

    def _batches_left(self) -> bool:
        """Whether this visit has another minibatch: begins its epochs one after the other."""
        while self.epoch < self.settings.epochs:
            if not len(self.order):
                self._begin_epoch()
            size, rest = self.trial.hyperparameters["batch"], len(self.order)
            rest -= self.batch * size
            if rest >= size or (rest > 0 and not self.stream.drops_last):
                return True
            self.epoch, self.batch, self.order = self.epoch + 1, 0, self.order[:0]
        return False

    def _begin_epoch(self) -> None:
        self.method.begin_epoch(self.schedule[self.visit])
        what = f"visit {self.visit}, epoch {self.epoch}"
        self.order = self.randomness.order(what, self._images(), self.stream.shuffles)

    def _train_on_next(self) -> None:
        size, task = self.trial.hyperparameters["batch"], self.schedule[self.visit]
        indices = self.order[self.batch * size : (self.batch + 1) * size].to(self.stream.device)
        x, y = self.stream.batch(task, indices)
        try:
            self.method.observe(Batch(task, indices, x, y))
        except FloatingPointError as error:
            raise Diverged(self.step, task, str(error)) from None
        self.batch += 1
        self.step += len(indices)

    def _end_visit(self) -> None:
        task = self.schedule[self.visit]
        self._check_weights(task)
        try:
            self.method.end_task(task)
        except FloatingPointError as error:
            raise Diverged(self.step, task, str(error)) from None
        self.visit, self.epoch, self.batch, self.order = self.visit + 1, 0, 0, self.order[:0]
        once = len(self.schedule) == self.stream.task_count
        if once or self.visit == len(self.schedule):
            # Tasks visited again and again have no accuracy matrix: of them only the end counts.
            self.unscored = self._seen()
            self.curvature_due = self.settings.curvature is not None

    def _seen(self) -> list[int]:
        """The tasks that were visited, each once, in the order of their first visits."""
        return list(dict.fromkeys(self.schedule[: self.visit]))

    def _check_weights(self, task: int) -> None:
        """See that the network's weights, and what else its module keeps, are finite.

        Raises:
            Diverged: some are not; ``task`` is the one that was being learned.
        """
        kept = [*self.learner.module.parameters(), *self.learner.module.buffers()]
        if not torch.stack([part.isfinite().all() for part in kept]).all():
            raise Diverged(self.step, task, "weights")

    def _measure(self, deadline: float) -> list[Measurement]:
        """What is left to be measured after a visit: tasks as far as the time allows, the curvature by itself."""
        if not self._measuring:
            return []
        task, trained = self.schedule[self.visit - 1], len(self._seen())
        self._check_weights(task)
        if not self.unscored:
            self.curvature_due = False
            return self._landscape(task, trained)
        measured: list[Measurement] = []
        while not measured or (self.unscored and time.monotonic() <= deadline):
            scored = self.unscored.pop(0)
            measured.append(Measurement(self.step, trained, scored, "accuracy", self.learner.accuracy(scored)))
        return measured

    def _landscape(self, task: int, trained: int) -> list[Measurement]:
        """Eigenvalues at the task just learned, and how far the parameters went since the first one was."""
        curvature = self.settings.curvature
        assert curvature is not None
        here = [p.detach().clone() for p in self.learner.parameters]
        if self.origin is None:
            self.origin = here
        count = len(self.stream.test.members[task])
        chosen = torch.arange(min(curvature.images or count, count), device=self.stream.device)
        x, y = self.stream.batch(task, chosen, "test")
        begin, end = self.stream.heads[task]
        rng = torch.Generator().manual_seed(int(generator(self.trial.seed, f"Hessian {trained}").integers(2**32)))
        found = hessian.measure(self.learner.module, x, y - begin, curvature, rng, lambda out: out[:, begin:end])
        found |= {
            "displacement": hessian.displacement(here, self.origin),
            "relative_displacement": hessian.relative_displacement(here, self.origin),
        }
        if odd := [name for name, value in found.items() if not math.isfinite(value)]:
            raise Diverged(self.step, task, ", ".join(odd))
        return [Measurement(self.step, trained, task, name, value) for name, value in found.items()]

    def state_dict(self) -> dict[str, Any]:
        return {
            "at": [self.visit, self.epoch, self.batch, self.step],
            "order": self.order,
            "unmeasured": [list(self.unscored), self.curvature_due],
            "origin": self.origin,
            "randomness": self.randomness.state_dict(),
            "learner": self.learner.state_dict(),
            "method": self.method.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        try:
            self.visit, self.epoch, self.batch, self.step = state["at"]
            self.order = state["order"]
            self.unscored, self.curvature_due = list(state["unmeasured"][0]), state["unmeasured"][1]
            origin = state["origin"]
            self.origin = None if origin is None else [part.to(self.device) for part in origin]
            if len(self.order):
                self.method.begin_epoch(self.schedule[self.visit])
            self.learner.load_state_dict(state["learner"])
            self.method.load_state_dict(state["method"])
            self.randomness.load_state_dict(state["randomness"])
        except (KeyError, IndexError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"this is no checkpoint of a {self.trial.method} trial: {error!r}") from None
