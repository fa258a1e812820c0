"""The cost of a table: the core and GPU hours of its trials."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clray.durations import Durations
from clray.output import counted
from clray.sweep import Cell, Sweep


@dataclass(frozen=True)
class Cost:
    """The cost of a reproduction's trials, each counted once.

    Attributes:
        trials: how many they are.
        measured: how many of them have a record that says what it took.
        core_hours: of all of them: the seconds they took or are expected to take, times the cores they ask for.
        measured_core_hours: the part of these that was measured.
        gpu_hours: seconds times the share of a GPU that is asked for, where one is; zero for trials of CPUs alone.
        processors: those that the measured trials ran on.
    """

    name: str
    title: str
    trials: int
    measured: int
    core_hours: float
    measured_core_hours: float
    gpu_hours: float
    processors: Sequence[str] = ()


def cost(name: str, title: str, sweeps: Iterable[Sweep], durations: Durations) -> Cost:
    """The cost of a reproduction's sweeps."""
    cells = {cell.trial.declaration: cell for sweep in sweeps for cell in sweep.cells}
    known = [key for key in cells if key in durations.records]
    took = {key: durations.of(cell.trial) for key, cell in cells.items()}

    def hours(keys: Iterable[str], share: str) -> float:
        return sum(took[key] * _share(cells[key], share) for key in keys) / 3600

    machines = (durations.records[key].provenance.get("machine") or {} for key in known)
    processors = sorted({str(machine["processor"]) for machine in machines if "processor" in machine})
    return Cost(
        name, title, len(cells), len(known), hours(cells, "cpu"), hours(known, "cpu"), hours(cells, "gpu"), processors
    )


def _share(cell: Cell, what: str) -> float:
    return cell.resources.cpu if what == "cpu" else cell.resources.gpu


def markdown(costs: Sequence[Cost]) -> str:
    """The costs as a table in Markdown."""
    lines = ["| table | trials | core hours | of them measured | GPU hours |", "|---|---:|---:|---:|---:|"]
    for c in costs:
        measured = f"{c.measured_core_hours:.2f} ({counted(c.measured, 'trial')})" if c.measured else "none: computed"
        gpu = f"{c.gpu_hours:.1f}" if c.gpu_hours else "none"
        lines.append(f"| `{c.name}`: {c.title} | {c.trials} | {c.core_hours:.2f} | {measured} | {gpu} |")
    processors = sorted({processor for c in costs for processor in c.processors})
    if processors:
        lines += ["", f"Measured on: {'; '.join(processors)}."]
    return "\n".join(lines) + "\n"
