"""Measures the loss around a trial's weights: its curvature at the last experience, and how far the weights moved."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clray.training import generator
from clray.vision import hessian
from clray.vision.hessian import Curvature
from clray.vision.learners.module import ModuleLearner


class Landscape:
    """Takes these measurements after an experience was learned, and stores the weights after the first experience.

    Args:
        curvature: the settings of the Hessian's measurement.
        seed: the trial's seed, for the first vector of the eigenvalue solver.
    """

    def __init__(self, curvature: Curvature, seed: int) -> None:
        self._curvature, self._seed = curvature, seed
        self._origin: list[Tensor] | None = None
        """All parameters after the first experience."""

    def measure(self, learner: ModuleLearner, experience: int, trained: int) -> dict[str, float]:
        """The Hessian's eigenvalues at an experience's test images, and the displacements since the first experience.

        Args:
            learner: holds the network in its present state.
            experience: the experience just learned.
            trained: number of experiences learned so far.
        """
        here = [p.detach().clone() for p in learner.parameters]
        if self._origin is None:
            self._origin = here
        x, y = learner.stream.tests(experience, 0, self._curvature.images)
        begin, end = learner.stream.experiences[experience].logits
        rng = torch.Generator().manual_seed(int(generator(self._seed, f"Hessian {trained}").integers(2**32)))
        found = hessian.measure(learner.module, x, y - begin, self._curvature, rng, lambda out: out[:, begin:end])
        return found | {
            "displacement": hessian.displacement(here, self._origin),
            "relative_displacement": hessian.relative_displacement(here, self._origin),
        }

    def state_dict(self) -> dict[str, Any]:
        return {"origin": self._origin}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        origin = state["origin"]
        self._origin = None if origin is None else [part.to(device) for part in origin]
