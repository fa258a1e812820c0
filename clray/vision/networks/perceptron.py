"""The perceptron of the methods that learn from one example at a time; see ``clray.vision.learners.perceptron``."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from clray.vision.ranges import Hidden


class Perceptron(BaseModel):
    """A perceptron with ReLU between its layers and biases throughout (MER: 784-100-100-10)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["mlp"] = "mlp"
    hidden: Hidden = [100, 100]

    seconds_per_gradient: ClassVar[float] = 3.6e-6
    """Seconds that the gradient of one example takes on one core, roughly. For plans, as ``seconds_per_test``."""
    seconds_per_test: ClassVar[float] = 1e-6
    """Seconds that one test image takes."""

    def sizes(self, inputs: int, outputs: int, hidden: list[int] | None = None) -> list[int]:
        """Layer widths from input to output; ``hidden`` in place of the declared widths."""
        return [inputs, *(hidden or self.hidden), outputs]
