"""The cost of a table: the core and GPU hours of its trials, from records where there are any, else computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from clray.output import counted
from clray.record import Record
from clray.sweep import Cell, Sweep
from clray.tracks import track


@dataclass(frozen=True)
class Cost:
    """The cost of a reproduction's trials, each counted once.

    Attributes:
        trials: how many they are.
        measured: how many of them have a record that says what it took.
        core_hours: of all of them: measured seconds, and computed ones for the others, times the cores they ask for.
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


def cost(name: str, title: str, sweeps: Iterable[Sweep], records: Mapping[str, Record]) -> Cost:
    """The cost of a reproduction's sweeps.

    Args:
        records: finished ones, by their trial's declaration.
    """
    cells = {cell.trial.declaration: cell for sweep in sweeps for cell in sweep.cells}
    known = {key: seconds for key in cells if (seconds := _seconds(records.get(key)))}
    took = {key: known.get(key) or track(cell.trial.track).estimate(cell.trial) for key, cell in cells.items()}

    def hours(keys: Iterable[str], share: str) -> float:
        return sum(took[key] * _share(cells[key], share) for key in keys) / 3600

    machines = (records[key].provenance.get("machine") or {} for key in known)
    processors = sorted({str(machine["processor"]) for machine in machines if "processor" in machine})
    return Cost(
        name, title, len(cells), len(known), hours(cells, "cpu"), hours(known, "cpu"), hours(cells, "gpu"), processors
    )


def _seconds(record: Record | None) -> float | None:
    return record.undisturbed_seconds if record else None


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
