"""The tuning phase of a sweep: the same variants and grids on other classes, with other seeds."""

from __future__ import annotations

from clray.errors import DeclarationError
from clray.sweep import Sweep

NAME_ENDS = ", tuning phase"
"""The end of the name of a tuning phase, so that its runs are not taken for those of the evaluation."""
_MOST_NAMED = 20
"""The most classes that an error names."""


def tuning_phase(sweep: Sweep) -> Sweep:
    """The tuning phase that a sweep declares. The sweep itself is the evaluation.

    Raises:
        DeclarationError: it declares no tuning, a class or a seed is in both phases, or it asks for too many tasks.
    """
    if sweep.tuning is None:
        raise DeclarationError(
            f"{sweep.place() or sweep.name}: this sweep declares no tuning phase (a key 'tuning'; docs/tuning.md shows "
            "how, and the sweep online/tuning_mnist has one)"
        )
    if sweep.track != "vision":
        raise DeclarationError(f"{sweep.place('tuning')}: tuning phases are for the track vision, not {sweep.track}")
    both = sorted(set(sweep.seeds) & set(sweep.tuning.seeds))
    if both:
        named = ", ".join(map(str, both))
        raise DeclarationError(
            f"{sweep.place('tuning', 'seeds')}: seeds of both phases: {named}; allowed: seeds that the evaluation does "
            "not have, so that no class order and no initial weights are in both"
        )
    phase = sweep.tuning_phase()
    phase._name += NAME_ENDS
    _refuse_shared_classes(phase, sweep)
    for cell in sweep.cells:
        tasks = cell.trial.benchmark.get("tasks", 1)
        if sweep.tuning.first_tasks is not None and sweep.tuning.first_tasks >= tasks:
            raise DeclarationError(
                f"{sweep.place('tuning', 'first_tasks')}: {sweep.tuning.first_tasks}, and {cell.variant} has only "
                f"{tasks} tasks; allowed: fewer, so that other tasks follow"
            )
    return phase


def _refuse_shared_classes(phase: Sweep, evaluation: Sweep) -> None:
    from clray.vision.disjoint import labels_of, shared_classes

    sets = [labels_of(cell.trial for cell in of.cells) for of in (phase, evaluation)]
    if both := shared_classes(*sets):
        named = "; ".join(f"{dataset} {_named(labels)}" for dataset, labels in both.items())
        raise DeclarationError(
            f"{evaluation.place('tuning')}: classes of both phases: {named}; allowed: classes for tuning that "
            "are not evaluated (benchmark.classes, or another dataset)"
        )


def _named(labels: set[int]) -> str:
    first = sorted(labels)
    more = f" and {len(first) - _MOST_NAMED} more" if len(first) > _MOST_NAMED else ""
    return ", ".join(map(str, first[:_MOST_NAMED])) + more
