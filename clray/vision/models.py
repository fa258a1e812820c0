"""Networks: their settings, and the weights a trial starts from."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from clray.vision.randomness import Randomness
from clray.vision.ranges import Hidden

Weights = list[NDArray[np.float32]]
"""A perceptron's weights [out, in] and biases [out] by turns, input layer first."""


class Mlp(BaseModel):
    """A perceptron with ReLU between its layers and biases throughout (MER: 784-100-100-10)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["mlp"]
    hidden: Hidden = [100, 100]

    def sizes(self, inputs: int, outputs: int, hidden: list[int] | None = None) -> list[int]:
        """Layer widths from input to output; ``hidden`` in place of the declared widths."""
        return [inputs, *(hidden or self.hidden), outputs]

    def initial(self, sizes: list[int], randomness: Randomness, initialisation: str = "xavier") -> Weights:
        """Fresh weights with zero biases: ``xavier`` (Glorot uniform, as MER has it) or ``linear`` (PyTorch's own)."""
        return randomness.weights(sizes, initialisation)


MODELS = {"mlp": Mlp}
