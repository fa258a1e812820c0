"""How much the way of choosing hyper-parameters changes the result of each method, and the ranking of the methods.

Three protocols choose a point of each method's grid:

* end of stream: the best result on the evaluated streams themselves, as most papers do;
* first k tasks: the best result after the first k tasks of these streams;
* two phases: the best result on other classes, frozen before the evaluation.

All are judged by the same number, the result of the chosen point at the end of the evaluated streams.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from clray.analysis.gather import Gathered, Results, gather
from clray.analysis.runs import Run
from clray.analysis.searches import best_of
from clray.analysis.verdict import Sample, sample
from clray.grid import point_of
from clray.metrics import METRICS, summarize
from clray.phases import tuning_phase
from clray.sweep import Sweep

END, TWO_PHASES = "end of stream", "two phases"
Values = Mapping[str, Sequence[float]]
"""The results of the runs of each point of a grid, in per cent; none where the point takes no part."""


@dataclass(frozen=True)
class PhaseResults:
    """The results of the points of all methods.

    Attributes:
        tuning, evaluation: on the tuning data and on the evaluated data.
        first: after the first tasks of the evaluated streams; None where the sweep does not ask for it.
    """

    tuning: Values
    evaluation: Values
    first: Values | None


@dataclass(frozen=True)
class Choice:
    """The choice of one protocol for one method.

    Attributes:
        point: the name of the point; None where no point has all its runs.
        setting: its axes and values.
        result: of its runs at the end of the evaluated streams.
        rank: of the method among all, by the mean of the result; equal means share the better rank.
        regret: by how many points the best setting on these streams is better than this choice.
    """

    protocol: str
    method: str
    point: str | None
    setting: Mapping[str, Any]
    result: Sample | None
    rank: int | None = None
    regret: float | None = None


@dataclass(frozen=True)
class Protocols:
    """The choices of several protocols.

    Attributes:
        choices: method by method, in the order of the protocols.
        taus: Kendall's tau between the results of the methods under two protocols; None where it is not defined.
        tuning_tau: the same between the results of the two-phase choices on the tuning data and on the evaluated data.
        tuning_means: the result of the two-phase choices on the tuning data, by method.
        first_tasks: the number of tasks after which the protocol of that name chooses; None without it.
        tuning_runs, evaluation_runs: the runs of both phases; None where results alone were compared.
        unfinished: the methods that lack a tuning run, so that the two phases choose nothing for them yet.
    """

    metric: str
    protocols: Sequence[str]
    choices: Sequence[Choice]
    taus: Mapping[tuple[str, str], float | None]
    tuning_tau: float | None
    tuning_means: Mapping[str, float]
    first_tasks: int | None = None
    tuning_runs: Gathered | None = None
    evaluation_runs: Gathered | None = None
    unfinished: Sequence[str] = ()

    @property
    def runs(self) -> list[Run]:
        """All runs of both phases."""
        return [run for phase in (self.tuning_runs, self.evaluation_runs) if phase for run in phase.runs]

    def chosen(self, method: str) -> Choice:
        """The choice of the two phases for a method."""
        return next(c for c in self.choices if c.method == method and c.protocol == TWO_PHASES)


def points_by_method(sweep: Sweep) -> dict[str, list[str]]:
    """The points of each variant's grid, in grid order; a variant without a grid is its own only point."""
    found: dict[str, list[str]] = {}
    for name, _ in sweep.variant_settings():
        found.setdefault(name.split("@")[0], []).append(name)
    return found


def results(gathered: Gathered, metric: str, first_tasks: int | None = None) -> dict[str, list[float]]:
    """The results of the runs of each point, in per cent. A point that lacks a run, or of which a run diverged, has
    none.

    Args:
        first_tasks: the results after so many tasks, on these tasks alone.
    """
    found = {}
    for name, runs in gathered.variants.items():
        if first_tasks is None:
            found[name] = runs.all_values(metric)
        else:
            values = [v for run in runs.runs if (v := after_tasks(run, metric, first_tasks)) is not None]
            found[name] = values if runs.complete and len(values) == runs.expected else []
    return found


def after_tasks(run: Run, metric: str, count: int) -> float | None:
    """A metric as if a run had ended after so many tasks, in per cent; None where it was not measured."""
    first = [m for m in run.measurements if m.trained_tasks <= count and (run.by_class or m.eval_task < count)]
    value = summarize(first, count if run.by_class else None).get(metric)
    return None if value is None else 100 * value


def choose(methods: Mapping[str, Sequence[str]], values: Values, metric: str) -> dict[str, str | None]:
    """The point of each method with the best mean; the earlier one of two that are equally good."""
    return {method: best_of({p: values[p] for p in points}, metric) for method, points in methods.items()}


def results_of_phases(sweep: Sweep, tuned: Gathered, evaluated: Gathered) -> PhaseResults:
    """The results of the points of a sweep with a tuning phase, from the runs of its tuning phase and its own."""
    rule = sweep.tuning
    assert rule is not None
    first = None if rule.first_tasks is None else results(evaluated, rule.metric, rule.first_tasks)
    return PhaseResults(results(tuned, rule.metric), results(evaluated, rule.metric), first)


def runs_of_phases(phase: Sweep, sweep: Sweep, records: Results) -> tuple[Gathered, Gathered]:
    """The runs of all points of a sweep: of its tuning phase, and its own."""
    names = [name for name, _ in sweep.variant_settings()]
    return gather(phase, names, records), gather(sweep, names, records)


def protocols_of(sweep: Sweep, records: Results) -> Protocols:
    """Compare the protocols with the runs that are there. The two phases choose for each method whose tuning runs have
    all ended.

    Args:
        sweep: the evaluation.
        records: of both phases.

    Raises:
        DeclarationError: as of ``tuning_phase``.
    """
    assert sweep.tuning is not None
    tuned, evaluated = runs_of_phases(tuning_phase(sweep), sweep, records)
    found, methods = results_of_phases(sweep, tuned, evaluated), points_by_method(sweep)
    unfinished = [method for method, points in methods.items() if any(tuned.variants[p].missing for p in points)]
    ready = {method: points for method, points in methods.items() if method not in unfinished}
    chosen = choose(ready, found.tuning, sweep.tuning.metric)
    frozen = {method: point for method, point in chosen.items() if point is not None}
    compared = compare_protocols(sweep, frozen, found.tuning, found.evaluation, found.first)
    return replace(compared, tuning_runs=tuned, evaluation_runs=evaluated, unfinished=unfinished)


def at_choices(sweep: Sweep, filling: Mapping[str, Sequence[str]], records: Results) -> tuple[Sweep, Protocols]:
    """A sweep with each of some variants under its own name: as it is, or at the point that the tuning phase chooses.

    A variant for which nothing is chosen is not in the sweep.

    Args:
        sweep: the evaluation.
        filling: by variant, the points of the grid among which the tuning phase chooses, or the variant itself.
        records: of both phases.

    Returns:
        The sweep, and the comparison of the protocols for the variants with a choice.

    Raises:
        DeclarationError: as of ``tuning_phase``.
    """
    every = dict(sweep.variant_settings())
    grids = {variant: points for variant, points in filling.items() if list(points) != [variant]}
    protocols = protocols_of(sweep.with_variants({p: every[p] for points in grids.values() for p in points}), records)
    chosen = {variant: protocols.chosen(variant).point if variant in grids else variant for variant in filling}
    return sweep.with_named_variants({v: every[point] for v, point in chosen.items() if point}), protocols


def compare_protocols(
    sweep: Sweep, frozen: Mapping[str, str], tuning: Values, evaluation: Values, first: Values | None = None
) -> Protocols:
    """Compare what the protocols choose.

    Args:
        sweep: the evaluation.
        frozen: the points that were chosen on the tuning data, by method.
        tuning, evaluation: the results on the tuning data and on the evaluated data.
        first: the results after the first tasks of the evaluated streams.
    """
    assert sweep.tuning is not None
    metric, methods, settings = sweep.tuning.metric, points_by_method(sweep), dict(sweep.variant_settings())
    best = choose(methods, evaluation, metric)
    chosen: dict[str, Mapping[str, str | None]] = {END: best}
    if first is not None:
        chosen[f"first {sweep.tuning.first_tasks} tasks"] = choose(methods, first, metric)
    chosen[TWO_PHASES] = dict(frozen)
    sign = METRICS[metric].sign
    found: dict[tuple[str, str], Choice] = {}
    for protocol, points in chosen.items():
        of_method = {m: sample(evaluation[p]) if (p := points.get(m)) and evaluation[p] else None for m in methods}
        ranks = _ranks({m: sign * result.mean for m, result in of_method.items() if result})
        for method, result in of_method.items():
            point, top = points.get(method), best[method]
            regret = sign * (sample(evaluation[top]).mean - result.mean) if result and top else None
            setting = point_of(point, settings[point]) if point else {}
            found[protocol, method] = Choice(protocol, method, point, setting, result, ranks.get(method), regret)
    means = {p: {m: c.result.mean for m in methods if (c := found[p, m]).result} for p in chosen}
    tuned = {m: sample(tuning[p]).mean for m, p in frozen.items() if tuning.get(p)}
    return Protocols(
        metric,
        list(chosen),
        [found[protocol, method] for method in methods for protocol in chosen],
        {(one, other): kendall(means[one], means[other]) for one, other in combinations(chosen, 2)},
        kendall(tuned, means[TWO_PHASES]),
        tuned,
        sweep.tuning.first_tasks if first is not None else None,
    )


def _ranks(goodness: Mapping[str, float]) -> dict[str, int]:
    return {name: 1 + sum(other > value for other in goodness.values()) for name, value in goodness.items()}


def kendall(one: Mapping[str, float], other: Mapping[str, float]) -> float | None:
    """Kendall's tau-b between two results of the same methods; None for fewer than two methods, or where all of one
    result are equal."""
    from scipy import stats

    names = [name for name in one if name in other]
    if len(names) < 2:
        return None
    tau = float(stats.kendalltau([one[n] for n in names], [other[n] for n in names]).statistic)
    return None if math.isnan(tau) else tau
