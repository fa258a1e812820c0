"""When a trial is measured, and on what."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from clray.errors import Diverged
from clray.metrics import Measurement
from clray.training import generator
from clray.vision import hessian
from clray.vision.hessian import Curvature
from clray.vision.methods.base import Method
from clray.vision.plan import Plan
from clray.vision.stream import Stream


class Evaluator:
    """The measurements of a trial: accuracies, and the curvature where the benchmark asks for it.

    Experiences are measured after every visit of one and, where a trial says so, every N examples. Where experiences
    are visited again and again there is no accuracy matrix: then only the end counts, and every N examples.

    Args:
        stream: the trial's.
        method: answers for the experiences.
        plan: says which experiences have been seen.
        every: examples between measurements within visits; None for none.
        before_training: measure once before anything is learned.
        unseen: measure all experiences; otherwise those whose visits have begun.
        curvature: what is measured of the Hessian after a visit, at the experience just learned.
        seed: the trial's, for the Hessian's solver.
    """

    def __init__(
        self,
        stream: Stream,
        method: Method,
        plan: Plan,
        every: int | None,
        before_training: bool,
        unseen: bool,
        curvature: Curvature | None,
        seed: int,
    ) -> None:
        self._stream, self._method, self._plan = stream, method, plan
        self._every, self._unseen, self._curvature, self._seed = every, unseen, curvature, seed
        self._unmeasured: list[int] = []
        """Experiences whose accuracy is still to be measured."""
        self._curvature_due = False
        self._origin: list[Tensor] | None = None
        """All parameters after the first visit, from where displacements are measured."""
        if before_training:
            self._unmeasured = self._wanted()

    @property
    def due(self) -> bool:
        """Something is left to be measured before the trial goes on."""
        return bool(self._unmeasured) or self._curvature_due

    def until_due(self, step: int) -> int | None:
        """Examples until the next measurement within a visit; None where there is none."""
        return None if self._every is None else self._every - step % self._every

    def after_batch(self, step: int, size: int) -> None:
        """A batch of ``size`` examples was learned, with which ``step`` are learned altogether."""
        if self._every is not None and step // self._every > (step - size) // self._every:
            self._unmeasured = self._wanted()

    def after_visit(self) -> None:
        if not self._plan.revisits or self._plan.over:
            self._unmeasured = self._wanted()
            self._curvature_due = self._curvature is not None

    def _wanted(self) -> list[int]:
        return list(range(len(self._stream.experiences))) if self._unseen else self._plan.seen

    def measure(self, step: int, last: int, deadline: float) -> list[Measurement]:
        """Some of what is due: accuracies as far as the time allows, at least one, and the curvature by itself.

        Args:
            step: examples learned.
            last: the experience that was learned last.
            deadline: a time of ``time.monotonic``.
        """
        if not self.due:
            return []
        trained = len(self._plan.seen)
        if not self._unmeasured:
            self._curvature_due = False
            return self._measure_curvature(step, last, trained)
        measured: list[Measurement] = []
        while not measured or (self._unmeasured and time.monotonic() <= deadline):
            experience = self._unmeasured.pop(0)
            right = self._method.correct(experience)
            accuracy = right / self._stream.experiences[experience].accuracy_divisor
            measured.append(Measurement(step, trained, experience, "accuracy", accuracy))
        return measured

    def _measure_curvature(self, step: int, experience: int, trained: int) -> list[Measurement]:
        """Eigenvalues at the experience just learned, and how far the parameters went since the first one was."""
        learner, curvature = self._method.learner, self._curvature
        assert curvature is not None
        here = [p.detach().clone() for p in learner.parameters]
        if self._origin is None:
            self._origin = here
        x, y = self._stream.tests(experience, 0, curvature.images)
        begin, end = self._stream.experiences[experience].logits
        rng = torch.Generator().manual_seed(int(generator(self._seed, f"Hessian {trained}").integers(2**32)))
        found = hessian.measure(learner.module, x, y - begin, curvature, rng, lambda out: out[:, begin:end])
        found |= {
            "displacement": hessian.displacement(here, self._origin),
            "relative_displacement": hessian.relative_displacement(here, self._origin),
        }
        if odd := [name for name, value in found.items() if not math.isfinite(value)]:
            raise Diverged(step, experience, ", ".join(odd))
        return [Measurement(step, trained, experience, name, value) for name, value in found.items()]

    def state_dict(self) -> dict[str, Any]:
        unmeasured = list(self._unmeasured)
        return {"unmeasured": unmeasured, "curvature_due": self._curvature_due, "origin": self._origin}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._unmeasured, self._curvature_due = list(state["unmeasured"]), state["curvature_due"]
        origin = state["origin"]
        self._origin = None if origin is None else [part.to(self._stream.device) for part in origin]
