"""A leaderboard: the methods of several sweeps and the published numbers, ranked on each benchmark they share.

Entries stand together where their trials have the same benchmark settings and task orders, and read the same data. A
rank counts the entries that are better by a decided difference: each pair of entries is tested, and all pairs of a
benchmark are corrected together. So entries whose difference is not decided may share a rank, as at the WMT
translation tasks (Bojar et al. 2013).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from clray.analysis.benchmark_settings import Settings, benchmark_of, differing
from clray.analysis.comparison import ComparedRow, ComparedTable
from clray.analysis.gather import not_comparable_because
from clray.analysis.two_variants import gap, scale_of, t_test, variance_of_mean
from clray.analysis.verdict import ALPHA, Variance, holm, published, rounding
from clray.errors import DeclarationError
from clray.loading import Paper, name_of_declared
from clray.metrics import METRICS
from clray.reproduction import Claim, Reproduction, Row, Table
from clray.sweep import Sweep

MOST_ENTRIES = 200
"""The most entries of a leaderboard: each pair of them is tested."""


@dataclass(frozen=True)
class Published:
    """A published number, and the paper and the place where it stands."""

    claim: Claim
    paper: Paper
    draw: Variance | None = None
    """The variance between draws of the stream, where it was measured: the paper's draw is another one than ours."""

    @property
    def dagger(self) -> str:
        return "" if self.claim.known == "paper" else "†"


@dataclass(frozen=True)
class Entry:
    """A line of a leaderboard: a variant with its runs, or a published number.

    Attributes:
        label: the method's.
        metric: the one that is ranked by.
        row: the variant with its runs; None for a published number.
        published: None for runs.
        draw: the variance between draws of the stream for this variant; None where it was not measured.
        sweep: the name of the variant's sweep.
    """

    label: str
    metric: str
    sweep: str
    row: ComparedRow | None = None
    published: Published | None = None
    draw: Variance | None = None

    @property
    def mean(self) -> float | None:
        """The mean in per cent; None without any run."""
        if self.published:
            return self.published.claim.mean
        assert self.row is not None
        ours = self.row.cells[self.metric].ours
        return None if ours is None else ours.mean

    @property
    def place(self) -> tuple[Any, ...]:
        """The facts that tell a published number from others."""
        assert self.published is not None
        claim = self.published.claim
        return self.label, self.published.paper.title, claim.source, claim.mean

    @property
    def values(self) -> Mapping[Any, float]:
        return self.row.runs.values(self.metric) if self.row else {}

    @property
    def variance(self) -> list[Variance]:
        """The parts of the variance of its mean; none where there is no spread to test with."""
        if self.published:
            found = published(self.published.claim)
            parts = [Variance(found.variance_of_mean, found.n - 1)] if found else []
            return [*parts, rounding(self.published.claim)] if found else []
        return variance_of_mean(self.values)


@dataclass(frozen=True)
class Ranked:
    """An entry with its place.

    Attributes:
        best: one more than the number of entries that are better, their difference decided.
        worst: the number of entries less those that are worse, their difference decided.
    """

    entry: Entry
    best: int
    worst: int


@dataclass(frozen=True)
class Board:
    """The entries on one benchmark.

    Attributes:
        setting: track, benchmark, task orders and data, as a flat mapping of dotted keys.
        ranked: best mean first.
        waiting: the entries that no run measures the metric of.
        tests: the number of tests that are corrected together.
        tables: the tables of the variants, for the notes about their runs.
        notes: further notes.
    """

    setting: Settings
    ranked: Sequence[Ranked]
    waiting: Sequence[Entry]
    tests: int
    tables: Sequence[ComparedTable]
    notes: Sequence[tuple[str, str]] = ()

    def differs_from(self, other: Board) -> list[str]:
        """The settings that differ, each as ``benchmark.tasks 20 (the first: 5)``."""
        return differing(self.setting, other.setting, "the first")


# --------------------------------------------------------------------------------------------------------------
# Entries, by benchmark


@dataclass(frozen=True)
class Source:
    """A sweep of the leaderboard, with the reproduction that it is part of where it is one.

    Attributes:
        table: the variants with their runs.
        notes: what a reader must know about the runs.
    """

    name: str
    sweep: Sweep
    table: ComparedTable
    reproduction: Reproduction | None = None
    paper: Paper | None = None
    notes: Sequence[tuple[str, str]] = ()


def boards(sources: Iterable[Source], metric: str, alpha: float = ALPHA) -> list[Board]:
    """A leaderboard for each benchmark, in the order of the sweeps."""
    sources = list(sources)
    known = _data_of_benchmarks(sources)
    entries: dict[str, list[Entry]] = {}
    settings: dict[str, Settings] = {}
    tables: dict[str, list[ComparedTable]] = {}
    notes: dict[str, list[tuple[str, str]]] = {}
    seen: set[tuple[str, tuple[Any, ...]]] = set()
    for source in sources:
        printed = _published(source, metric)
        for row in source.table.rows:
            trials = tuple(sorted(c.trial.declaration for c in source.sweep.cells if c.variant == row.variant))
            benchmark = benchmark_of(source.sweep, row.variant)
            setting = {**benchmark, "data": _data(source) or known.get(_key(benchmark))}
            key = _key(setting)
            settings.setdefault(key, setting)
            group = entries.setdefault(key, [])
            if (key, trials) not in seen:  # the same trials may be declared in two sweeps
                seen.add((key, trials))
                draw = _draw(source, row.variant, metric)
                group.append(Entry(row.label, metric, source.sweep.name, row, draw=draw))
                if not any(table is source.table for table in tables.setdefault(key, [])):
                    tables[key].append(source.table)
                    notes.setdefault(key, []).extend([*source.notes, *_left_out(source, metric)])
            for entry in printed.get(row.variant, []):
                if (key, entry.place) not in seen:
                    seen.add((key, entry.place))
                    group.append(entry)
    return [_ranked(settings[key], entries[key], tables[key], notes[key], alpha) for key in entries]


def _key(setting: Settings) -> str:
    return json.dumps(setting, sort_keys=True, default=str)


def _data(source: Source) -> str | None:
    """The data that the runs read; None without any run."""
    data = source.table.gathered.data
    return f"{data.name} {data.fingerprint[:17]}" if data else None


def _data_of_benchmarks(sources: Iterable[Source]) -> dict[str, str]:
    """The data of the first runs on each benchmark: variants without any run stand with these."""
    found: dict[str, str] = {}
    for source in sources:
        for row in source.table.rows:
            if data := _data(source):
                found.setdefault(_key(benchmark_of(source.sweep, row.variant)), data)
    return found


def _published(source: Source, metric: str) -> dict[str, list[Entry]]:
    """The published numbers by variant; none where our runs are of another experiment than the published one."""
    if source.reproduction is None or source.paper is None or _reasons(source):
        return {}
    found: dict[str, list[Entry]] = {}
    for table, row in _rows(source):
        claim = source.reproduction.claim(table, row, metric)
        if claim is not None:
            number = Published(claim, source.paper, _draw(source, row.variant, metric))
            entry = Entry(row.label, metric, source.sweep.name, published=number)
            found.setdefault(row.variant, []).append(entry)
    return found


def _rows(source: Source) -> list[tuple[Table, Row]]:
    tables = source.reproduction.tables if source.reproduction else []
    own = [table for table in tables if name_of_declared(table.sweep) == source.sweep.name]
    return [(table, row) for table in own for row in table.rows]


def _draw(source: Source, variant: str, metric: str) -> Variance | None:
    for table, row in _rows(source):
        if row.variant == variant and table.benchmark_sd:
            sd = table.benchmark_sd.variants.get(variant, {}).get(metric)
            if sd is not None:
                return Variance(sd**2, table.benchmark_sd.draws - 1)
    return None


def _reasons(source: Source) -> list[str]:
    return not_comparable_because(source.sweep, source.table.gathered)


def _left_out(source: Source, metric: str) -> list[tuple[str, str]]:
    """Which published numbers have no line."""
    if any(metric in row.claims for _, row in _rows(source)) and (reasons := _reasons(source)):
        return [("published", f"the published numbers of {source.name} are left out: {', '.join(reasons)}")]
    others = dict.fromkeys(at for _, row in _rows(source) for at, claims in row.also.items() if metric in claims)
    text = f"`clray table {source.name}` has further published numbers for the same cells: {', '.join(others)}"
    return [("published", text)] if others else []


# --------------------------------------------------------------------------------------------------------------
# Ranks


def _ranked(
    setting: Settings,
    entries: Sequence[Entry],
    tables: Sequence[ComparedTable],
    notes: Sequence[tuple[str, str]],
    alpha: float,
) -> Board:
    measured = [entry for entry in entries if entry.mean is not None]
    if len(measured) > MOST_ENTRIES:
        problem = f"{len(measured)} entries on one benchmark; allowed: at most {MOST_ENTRIES}, each pair is tested"
        raise DeclarationError(f"{entries[0].sweep}: {problem}; --only names variants")
    sign = METRICS[entries[0].metric].sign
    ordered = sorted(measured, key=lambda entry: -sign * (entry.mean or 0.0))
    better, tests = decided_pairs(ordered, alpha)
    ranked = [
        Ranked(
            entry,
            1 + sum((j, i) in better for j in range(len(ordered))),
            len(ordered) - sum((i, j) in better for j in range(len(ordered))),
        )
        for i, entry in enumerate(ordered)
    ]
    waiting = [entry for entry in entries if entry.mean is None]
    return _told_apart(Board(setting, ranked, waiting, tests, tables, notes))


def decided_pairs(entries: Sequence[Entry], alpha: float = ALPHA) -> tuple[set[tuple[int, int]], int]:
    """The pairs (better, worse) of entries whose difference is decided, and the number of tests.

    Args:
        entries: best mean first.
    """
    p_values: dict[tuple[int, int], tuple[float, float]] = {}
    for i, entry in enumerate(entries):
        for j in range(i + 1, len(entries)):
            if found := difference(entry, entries[j]):
                p_values[i, j] = found
    corrected = holm([p for _, p in p_values.values()])
    better = set()
    for ((i, j), (value, _)), p in zip(p_values.items(), corrected, strict=True):
        if p < alpha and value:
            # Over pairs alone, the difference may have another sign than that of the means.
            first_is_better = (value > 0) != METRICS[entries[i].metric].lower_is_better
            better.add((i, j) if first_is_better else (j, i))
    return better, len(p_values)


def difference(a: Entry, b: Entry) -> tuple[float, float] | None:
    """The difference of two entries and its p; None where one of them has no spread.

    Runs are paired where they pair. The stream of a published number is another draw than ours, so that both numbers
    have a variance between draws; numbers of one paper are on the same draw, and those of two papers are not.
    """
    if a.values and b.values:
        found = gap(a.values, b.values)
        return None if found is None else (found.difference.value, found.p)
    if not a.variance or not b.variance:
        return None
    assert a.mean is not None
    assert b.mean is not None
    value = a.mean - b.mean
    scale = scale_of({(0, None): a.mean}, {(0, None): b.mean})
    found_difference, p, _ = t_test(value, [a.variance, [*b.variance, *_draws(a, b)]], scale)
    return found_difference.value, p


def _draws(a: Entry, b: Entry) -> list[Variance]:
    """The variance of a difference that comes from the draws of two streams; empty where both are on one draw."""
    papers = [entry.published.paper if entry.published else None for entry in (a, b)]
    if papers[0] == papers[1]:
        return []
    found = [d for e in (a, b) if (d := e.published.draw if e.published else e.draw)]
    if len(found) == 2 and found[0] == found[1]:  # one estimate, which is known no better for being used twice
        return [Variance(2 * found[0].value, found[0].df)]
    return found


def other_models(board: Board) -> dict[str, list[str]]:
    """The networks of the entries with runs, where there are several: the labels by the network."""
    found: dict[str, list[str]] = {}
    for ranked in board.ranked:
        row = ranked.entry.row
        trial = next((run.trial for run in row.runs.runs if run.trial), None) if row else None
        if trial:
            found.setdefault(json.dumps(trial.model, sort_keys=True), []).append(ranked.entry.label)
    return found if len(found) > 1 else {}


def _told_apart(board: Board) -> Board:
    """The board with each label that two variants share followed by the sweep's name."""
    labels = [(r.entry.label, r.entry.sweep) for r in board.ranked if r.entry.row]
    names = [label for label, _ in set(labels)]
    ranked = [
        replace(r, entry=replace(r.entry, label=f"{r.entry.label} ({r.entry.sweep})"))
        if r.entry.row and names.count(r.entry.label) > 1
        else r
        for r in board.ranked
    ]
    return replace(board, ranked=ranked)
