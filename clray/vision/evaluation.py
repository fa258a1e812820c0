"""The measurements of a trial: when they are taken, and on which experiences."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from clray.errors import Diverged
from clray.metrics import Measurement
from clray.vision.methods.base import Method
from clray.vision.plan import Plan
from clray.vision.stream import Stream

if TYPE_CHECKING:
    from clray.vision.landscape import Landscape


class Evaluator:
    """Takes a trial's measurements: accuracies, and the loss around the weights where a benchmark asks for it.

    Accuracies are measured after every visit of an experience and, where the trial says so, also every N examples.
    Where experiences are visited more than once there is no accuracy matrix: then they are measured at the end only,
    and every N examples as ``interim_accuracy``, from which no metric is computed. Where experiences share classes
    (``Stream.tested``), the classes that have arrived are measured in place of the experiences.

    Args:
        stream: the trial's stream.
        method: counts its right answers on a group of test images.
        plan: tells which experiences have been seen.
        every: number of examples between measurements within visits; None for no such measurements.
        before_training: measure once before anything is learned.
        unseen: measure all experiences; otherwise those whose visits have begun.
        landscape: measures the loss around the weights after a visit, at the experience just learned.
        seen: each measurement every N examples ends with ``seen_accuracy``, over all groups that it measured.
    """

    def __init__(
        self,
        stream: Stream,
        method: Method,
        plan: Plan,
        every: int | None,
        before_training: bool,
        unseen: bool,
        landscape: Landscape | None,
        seen: bool = False,
    ) -> None:
        self._stream, self._method, self._plan = stream, method, plan
        self._every, self._unseen, self._landscape, self._seen = every, unseen, landscape, seen
        self._unmeasured: list[int] = []
        """Groups of test images whose accuracy is still to be measured."""
        self._landscape_due = False
        self._tally: list[int] | None = None
        """Right answers and test images of the measurement every N examples that is being taken."""
        if before_training:
            self._unmeasured = self._wanted()

    @property
    def due(self) -> bool:
        """True while a measurement must be taken before training goes on."""
        return bool(self._unmeasured) or self._landscape_due

    def until_due(self, step: int) -> int | None:
        """The number of examples until the next measurement within a visit; None where there is none."""
        return None if self._every is None else self._every - step % self._every

    def after_batch(self, step: int, size: int) -> None:
        """Note that a batch of ``size`` examples was learned. ``step`` counts all examples so far, with this batch."""
        if self._every is not None and step // self._every > (step - size) // self._every:
            self._unmeasured = self._wanted()
            self._tally = [0, 0] if self._seen else None

    def after_visit(self) -> None:
        if not self._plan.revisits or self._plan.over:
            self._unmeasured = self._wanted()
            self._landscape_due = self._landscape is not None

    def _wanted(self) -> list[int]:
        if self._unseen:
            return list(range(len(self._stream.groups)))
        return self._plan.seen if self._stream.tested is None else self._plan.seen_labels

    def measure(self, step: int, last: int, deadline: float) -> list[Measurement]:
        """Take measurements that are due: accuracies until the deadline (at least one), then the loss around the
        weights.

        Args:
            step: number of examples learned so far.
            last: the experience that was learned last.
            deadline: a time of ``time.monotonic``.
        """
        if not self.due:
            return []
        trained = len(self._plan.seen)
        if not self._unmeasured:
            self._landscape_due = False
            return self._measure_landscape(step, last, trained)
        measured: list[Measurement] = []
        early = "interim_" if self._plan.revisits and not self._plan.over else ""
        while not measured or (self._unmeasured and time.monotonic() <= deadline):
            group = self._unmeasured.pop(0)
            divisor = self._stream.groups[group].accuracy_divisor
            counts = self._method.counts(group)
            measured += (
                Measurement(step, trained, group, early + name, right / divisor) for name, right in counts.items()
            )
            if self._tally is not None:
                self._tally = [self._tally[0] + counts["accuracy"], self._tally[1] + divisor]
        if self._tally is not None and not self._unmeasured:
            right, images = self._tally
            measured.append(Measurement(step, trained, trained - 1, "seen_accuracy", right / images))
            self._tally = None
        return measured

    def _measure_landscape(self, step: int, experience: int, trained: int) -> list[Measurement]:
        assert self._landscape is not None
        found = self._landscape.measure(self._method.learner, experience, trained)
        if odd := [name for name, value in found.items() if not math.isfinite(value)]:
            raise Diverged(step, experience, ", ".join(odd))
        return [Measurement(step, trained, experience, name, value) for name, value in found.items()]

    def state_dict(self) -> dict[str, Any]:
        landscape = None if self._landscape is None else self._landscape.state_dict()
        return {
            "unmeasured": list(self._unmeasured),
            "landscape_due": self._landscape_due,
            "landscape": landscape,
            "tally": self._tally,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._unmeasured, self._landscape_due = list(state["unmeasured"]), state["landscape_due"]
        self._tally = None if state["tally"] is None else [int(count) for count in state["tally"]]
        if self._landscape is not None:
            self._landscape.load_state_dict(state["landscape"], self._stream.device)
