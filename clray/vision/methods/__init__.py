"""The methods of the vision track, one file each, and the list of their names.

A method is a class with a ``Settings`` schema for its hyper-parameters. It knows nothing of files, sweeps or Ray.
There are two kinds: some learn from one arriving example at a time (``Method`` below), others task by task, in
minibatches and epochs (``clray.vision.learner.TaskMethod``). To add one: write its file, add its line below, declare a
variant that names it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from clray.vision.engines import Workshop
    from clray.vision.models import Mlp, Weights
    from clray.vision.randomness import Randomness

STREAM_METHODS = {
    "online": "online:Online",
    "independent": "independent:Independent",
    "task_input": "task_input:TaskInput",
    "ewc": "ewc:Ewc",
    "gem": "gem:Gem",
    "er": "er:Er",
    "mer": "mer:Mer",
}
"""Of benchmarks that bring one example at a time."""

TASK_METHODS = {
    "naive": "naive:Naive",
    "stable_sgd": "stable_sgd:StableSgd",
    "ewc_online": "ewc_online:EwcOnline",
    "agem": "agem:AGem",
    "er_reservoir": "er_reservoir:ErReservoir",
    "multitask_cyclic": "multitask_cyclic:MultitaskCyclic",
}
"""Of benchmarks that bring a task at a time."""

METHODS = {**STREAM_METHODS, **TASK_METHODS}
"""Name to ``module:Class`` within this package; a module is imported when one of its trials is planned or run."""


class Settings(BaseModel):
    """The base of every method's hyper-parameters: unknown ones are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Method(Protocol):
    """What the loop over single examples asks of a method."""

    Settings: ClassVar[type[BaseModel]]

    def __init__(self, settings: Any, model: Mlp, workshop: Workshop, randomness: Randomness) -> None: ...

    def observe(self, position: int) -> None:
        """Learn from the stream's example at ``position``, the next one to arrive.

        Raises:
            FloatingPointError: a number that a step needs is not finite, and its text says which. The trial then ends
                as diverged.
        """
        ...

    def weights(self, task: int) -> Weights:
        """The weights that answer for a task of the stream, learned or not."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def find(name: str) -> Any:
    """The class of a method; KeyError where there is none."""
    module, _, attribute = METHODS[name].partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
