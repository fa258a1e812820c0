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
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from clray.analysis.formatting import number, setting_text
from clray.analysis.gather import Gathered
from clray.analysis.runs import Run
from clray.analysis.searches import best_of
from clray.analysis.verdict import Sample, interval, sample
from clray.grid import point_of
from clray.metrics import METRICS, summarize
from clray.sweep import Sweep

END, TWO_PHASES = "end of stream", "two phases"
Values = Mapping[str, Sequence[float]]
"""The results of the runs of each point of a grid, in per cent; none where the point takes no part."""


@dataclass(frozen=True)
class Choice:
    """The choice of one protocol for one method.

    Attributes:
        point: the name of the point; None where no point has all its runs.
        setting: its axes and values.
        result: of its runs at the end of the evaluated streams.
        rank: of the method among all, by the mean of the result; equal means share the better rank.
        regret: the points that the best setting on these streams is better by.
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
    """

    metric: str
    protocols: Sequence[str]
    choices: Sequence[Choice]
    taus: Mapping[tuple[str, str], float | None]
    tuning_tau: float | None
    tuning_means: Mapping[str, float]


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
            values = [run.metrics[metric] for run in runs.runs if metric in run.metrics]
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
    lower = METRICS[metric].lower_is_better
    return {method: best_of({p: values[p] for p in points}, lower) for method, points in methods.items()}


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
    sign = -1 if METRICS[metric].lower_is_better else 1
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


# ----------------------------------------------------------------------------------------------------------------------
# As text


def lines(compared: Protocols) -> tuple[list[str], list[list[str]]]:
    """Head and body of the table: a line for each method and protocol."""
    head = ["method", "chosen by", "setting", f"{compared.metric} ± 95% (n)", "rank", "regret"]
    body, previous = [], ""
    for choice in compared.choices:
        label, previous = ("" if choice.method == previous else choice.method), choice.method
        setting = "–" if choice.point is None else setting_text(choice.setting) or "as declared"
        rank, regret = str(choice.rank or "–"), "–" if choice.regret is None else number(choice.regret)
        body.append([label, choice.protocol, setting, result_text(choice.result), rank, regret])
    return head, body


def result_text(result: Sample | None) -> str:
    """A mean with the half-width of its 95% interval, as ``53.41 ± 1.20 (5)``."""
    if result is None:
        return "–"
    ends = interval(result)
    half = f" ± {number((ends[1] - ends[0]) / 2)}" if ends else ""
    return f"{number(result.mean)}{half} ({result.n})"


def notes(compared: Protocols, sweep: Sweep) -> list[tuple[str, str]]:
    """The notes that a reader needs beside the table."""

    def shown(tau: float | None) -> str:
        return "not defined" if tau is None else number(tau, True)

    rule = sweep.tuning
    assert rule is not None
    taus = "; ".join(f"{one} and {other} {shown(tau)}" for (one, other), tau in compared.taus.items())
    found = [
        ("result", "per cent, at the end of the evaluated streams, whatever chose the setting; mean ± t interval"),
        (END, "chosen by these very results, so they are better than new runs would be; its regret is 0"),
    ]
    if rule.first_tasks is not None:
        text = f"chosen by the results of the same runs after the first {rule.first_tasks} tasks"
        found.append((f"first {rule.first_tasks} tasks", text))
    tuned = ", ".join(f"{method} {number(mean)}" for method, mean in compared.tuning_means.items())
    return [
        *found,
        (TWO_PHASES, f"chosen on other classes, and frozen before the evaluation; there: {tuned or 'no runs'}"),
        ("regret", "points by which the best setting on the evaluated streams is better"),
        ("Kendall's tau", f"between rankings of the methods: {taus}"),
        ("", f"of the two-phase choices on the tuning data and on the evaluated data: {shown(compared.tuning_tau)}"),
    ]


def as_data(compared: Protocols) -> dict[str, Any]:
    """The comparison for programs; None stands for a missing value."""
    return {
        "metric": compared.metric,
        "choices": [
            {
                "method": choice.method,
                "protocol": choice.protocol,
                "point": choice.point,
                "setting": dict(choice.setting),
                "mean": choice.result.mean if choice.result else None,
                "interval": interval(choice.result) if choice.result else None,
                "runs": choice.result.n if choice.result else 0,
                "rank": choice.rank,
                "regret": choice.regret,
            }
            for choice in compared.choices
        ],
        "kendall_tau": [{"between": list(pair), "tau": tau} for pair, tau in compared.taus.items()],
        "kendall_tau_of_phases": compared.tuning_tau,
        "on_tuning_data": dict(compared.tuning_means),
    }
