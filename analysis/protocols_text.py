"""The comparison of the protocols of choosing hyper-parameters as text, and as data for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clray.analysis.comparison import ComparedTable
from clray.analysis.formatting import number
from clray.analysis.orders import Block
from clray.analysis.protocols import END, TWO_PHASES, Protocols
from clray.analysis.verdict import Sample, interval
from clray.grid import setting_text


def protocol_blocks(table: ComparedTable) -> list[Block]:
    """The comparison of the protocols below a table; empty without a tuning phase, or without any choice."""
    compared = table.protocols
    if compared is None or not any(choice.point for choice in compared.choices):
        return []
    labels = {row.variant: row.label for row in table.rows}
    return [Block("Ways of choosing the settings", *lines(compared, labels), "lllrrr", notes(compared, labels))]


def lines(compared: Protocols, labels: Mapping[str, str] = {}) -> tuple[list[str], list[list[str]]]:
    """Head and body of the table: a line for each method and protocol.

    Args:
        labels: those of the methods; a method without one goes by its name.
    """
    head = ["method", "chosen by", "setting", f"{compared.metric} ± 95% (n)", "rank", "regret"]
    body, previous = [], ""
    for choice in compared.choices:
        label = "" if choice.method == previous else labels.get(choice.method, choice.method)
        previous = choice.method
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


def notes(compared: Protocols, labels: Mapping[str, str] = {}) -> list[tuple[str, str]]:
    """The notes that a reader needs beside the table."""

    def shown(tau: float | None) -> str:
        return "not defined" if tau is None else number(tau, True)

    found = [
        ("result", "per cent, at the end of the evaluated streams, whatever chose the setting; mean ± t interval"),
        (END, "chosen by these very results, so they are better than new runs would be; its regret is 0"),
    ]
    if (count := compared.first_tasks) is not None:
        text = f"chosen by the results of the same runs after the first {count} tasks"
        found.append((f"first {count} tasks", text))
    tuned = ", ".join(f"{labels.get(method, method)} {number(mean)}" for method, mean in compared.tuning_means.items())
    text = f"chosen by the results on other classes alone; mean on these classes: {tuned or 'no runs'}"
    found += [(TWO_PHASES, text), ("regret", "points by which the best setting on the evaluated streams is better")]
    if any(choice.result is None for choice in compared.choices):
        found.append(("–", "nothing is chosen, or the chosen setting lacks runs"))
    if len({choice.method for choice in compared.choices}) > 1:
        taus = "; ".join(f"{one} and {other} {shown(tau)}" for (one, other), tau in compared.taus.items())
        found.append(("Kendall's tau", f"between rankings of the methods: {taus}"))
        text = "between the two-phase choices' results on the tuning classes and on the evaluated streams"
        found.append(("Kendall's tau", f"{text}: {shown(compared.tuning_tau)}"))
    return found


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
        "first_tasks": compared.first_tasks,
        "unfinished": list(compared.unfinished),
    }
