"""The table of the lifelong-learning metrics below a table, and the experts among its runs.

It is shown where accuracies were measured while tasks were learned (``evaluate: N``). Relative performance and sample
efficiency need single-task experts. These are runs of the same sweep by the same method with the same settings and
seed, on a stream whose only task has the classes of one of the tasks::

    variants:
      er:       {method: ocl_er, lr: 0.05, memories: 500}
      er-alone: {method: ocl_er, lr: 0.05, memories: 500, benchmark: {tasks: 1},
                 grid: {benchmark.classes: [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]}}

This works where the class order is that of the labels or a list, because a drawn order is not known before the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from clray.analysis.comparison import ComparedTable
from clray.analysis.formatting import number
from clray.analysis.lifelong import TITLES, Curve, curve_of, has_curves, of_run
from clray.analysis.orders import Block
from clray.analysis.runs import Run
from clray.analysis.verdict import sample
from clray.trial import Trial

_OF_CLASSES = ("classes", "class_order", "tasks")
"""The settings of a benchmark in which an expert differs from the stream of its task."""


def lifelong_blocks(table: ComparedTable) -> list[Block]:
    """The table of the lifelong-learning metrics; empty where no run has them."""
    every = [run for row in table.rows for run in row.runs.runs]
    found = {}
    for row in table.rows:
        lives = [life(run, every) for run in row.runs.runs if has_life(run)]
        if lives:
            found[row.label] = lives
    names = [name for name in TITLES if any(name in one for lives in found.values() for one in lives)]
    if not names:
        return []
    body = [
        [label, *(_text(one[name] for one in lives if name in one) for name in names)] for label, lives in found.items()
    ]
    notes = [(TITLES[name][0], TITLES[name][1]) for name in names]
    text = "accuracies on a task, those of its experts among them, are brought to 1 to 101 first"
    notes.append(("scale", f"{text}; mean ± sd over runs; more is better"))
    without = [label for label, lives in found.items() if not any("relative_performance" in one for one in lives)]
    if without:
        which = "" if len(without) == len(found) else f" of {'; '.join(without)}"
        text = "RP and SE need runs of the same method on each task alone, and there are none here"
        notes.append(("experts", text + which))
    head = ["method", *(TITLES[name][0] for name in names)]
    return [Block("Lifelong-learning metrics", head, body, "l" + "r" * len(names), notes)]


def _text(values: Iterable[float]) -> str:
    found = sample(list(values))
    if not found.n:
        return "–"
    return number(found.mean) + (f" ± {number(found.sd)}" if found.n > 1 else "")


def has_life(run: Run) -> bool:
    """True for a run over several tasks whose accuracies were measured while tasks were learned."""
    return len(run.matrix) > 1 and not run.by_class and has_curves(run.measurements)


def life(run: Run, others: Iterable[Run] = ()) -> dict[str, float]:
    """The lifelong-learning metrics of a run; with those that need experts where ``others`` holds some of its."""
    return of_run(run.measurements, experts_of(run, others))


def experts_of(run: Run, others: Iterable[Run]) -> dict[int, list[Curve]]:
    """The learning curves of a run's single-task experts, by task."""
    if run.trial is None:
        return {}
    tasks = classes_of_tasks(run.trial.benchmark)
    same = _without_classes(run.trial)
    found: dict[int, list[Curve]] = {}
    for other in others:
        if other.trial is None or other.trial.benchmark.get("tasks") != 1 or _without_classes(other.trial) != same:
            continue
        alone = classes_of_tasks(other.trial.benchmark)
        if alone and alone[0] in tasks and len(curve := curve_of(other.measurements, 0)):
            found.setdefault(tasks.index(alone[0]), []).append(curve)
    return found


def _without_classes(trial: Trial) -> dict[str, Any]:
    declared = trial.model_dump(mode="json")
    declared["benchmark"] = {k: v for k, v in declared["benchmark"].items() if k not in _OF_CLASSES}
    return declared


def classes_of_tasks(benchmark: Mapping[str, Any]) -> list[frozenset[int]]:
    """The classes of each task, by their labels in the data set; empty where the declaration does not say."""
    from clray.vision.benchmarks.class_incremental import CLASSES

    classes, order, tasks = (benchmark.get(key) for key in ("classes", "class_order", "tasks"))
    known = classes or range(CLASSES.get(str(benchmark.get("dataset")), 0))
    labels = order if isinstance(order, list) else sorted(known) if order == "labels" else []
    if not labels or not isinstance(tasks, int) or len(labels) % tasks:
        return []
    each = len(labels) // tasks
    return [frozenset(labels[t * each : (t + 1) * each]) for t in range(tasks)]
