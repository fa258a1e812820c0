"""The learners that methods train: a torch module with an optimizer, for streams of tasks or of classes, or perceptrons
by plain SGD on single examples.

A method declares the kind it needs (``learner_kind``), and so does a benchmark (``learner``).
"""

from __future__ import annotations

from typing import Any

from clray.registry import Registry

LEARNERS: Registry[Any] = Registry(
    __name__,
    {
        "module": "module:ModuleLearner",
        "incremental": "incremental:IncrementalLearner",
        "perceptron": "perceptron:PerceptronLearner",
    },
)
"""By kind. A class has ``check(trial, device)``, and ``of(trial, stream, draws, device)``, which makes the learner."""
