"""The pages about the reference runs: an index, and one page for each reproduction, from the shipped records alone.

No number on them is typed by hand. What the runs show in words is in a reproduction file's ``findings``, where ``{ewc
LA}`` stands for the mean and the standard deviation of the variant ``ewc``, ``{ewc LA published}`` for the published
number, and ``{ewc RA 25 other seeds}`` for that of another source. Where several sweeps fill the tables, a variant is
named with its sweep: ``{mer/rotations/gem-500 RA}``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clray.analysis import plots
from clray.analysis.comparison import (
    ComparedCell,
    ComparedRow,
    ComparedTable,
    Comparison,
    compare,
    tally,
)
from clray.analysis.export_text import escaped, tables_as_markdown
from clray.analysis.formatting import number, origin, paper_line, summary
from clray.analysis.runs import Run
from clray.analysis.verdict import OUTCOMES, Outcome
from clray.atomic import write_atomically
from clray.costs import Cost, cost
from clray.durations import Durations
from clray.errors import DeclarationError
from clray.loading import Paper, papers
from clray.output import counted
from clray.record import Record
from clray.reproduction import Reproduction
from clray.selection import Selection

MADE_BY = (
    "<!-- `make results` writes this page from the reference runs: change the reproduction file, not the page. -->"
)
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Page:
    """A reproduction with its reference runs, beside the published numbers."""

    reproduction: Reproduction
    comparison: Comparison
    cost: Cost
    """The hours of all its trials: measured where there is a reference run, else computed."""
    measured: Mapping[str, float]
    """The core hours of each trial that has a reference run, by its declaration: two tables may share a trial."""

    @property
    def name(self) -> str:
        return self.reproduction.name

    @property
    def runs(self) -> list[Run]:
        """All reference runs that its tables and searches show, each once."""
        found = [run for table in self.comparison.tables for run in table.runs]
        found += [run for group in self.comparison.searches for run in group.gathered.runs]
        return list({run.id: run for run in found}.values())

    @property
    def judged(self) -> list[ComparedCell]:
        """The cells of its tables that have a run."""
        return [cell for table in self.comparison.tables for _, cell in table.cells if cell.runs.runs]


def page_of(reproduction: Reproduction, records: Sequence[Record]) -> Page:
    """Compare the reference runs of a reproduction with the published numbers."""
    sweeps = reproduction.sweeps(Selection())
    comparison = compare(reproduction.name, sweeps, None, reproduction, None, records, "reference")
    durations = Durations(records)
    measured = {
        cell.trial.declaration: durations.of(cell.trial) * cell.resources.cpu / 3600
        for sweep in sweeps.values()
        for cell in sweep.cells
        if cell.trial.declaration in durations.records
    }
    hours = cost(reproduction.name, reproduction.title, sweeps.values(), durations)
    return Page(reproduction, comparison, hours, measured)


def write(pages: Sequence[Page], folder: Path) -> Iterator[Path]:
    """Write the index and all pages with their figures into a folder. Yields the path of each file.

    Raises:
        DeclarationError: a finding names something that its tables do not show, or the folder cannot be written.
    """
    files = {"README.md": index(pages)}
    for page in pages:
        files[f"{page.name}.md"] = markdown(page)
        files |= {name: text for name, (_, text) in figures(page).items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_atomically(folder / name, text.encode())
            yield folder / name
    except OSError as error:
        raise DeclarationError(f"{folder}: the pages cannot be written: {error.strerror or error}") from None


# --------------------------------------------------------------------------------------------------------------
# One reproduction


def markdown(page: Page) -> str:
    """The page about one reproduction."""
    comparison, reproduction = page.comparison, page.reproduction
    parts = [MADE_BY, f"# {escaped(reproduction.title)}"]
    if comparison.paper:
        parts.append(f"{escaped(comparison.paper.title)}. {escaped(paper_line(comparison.paper))}.")
    parts.append(_origin(page))
    commands = {
        f"clray table {page.name}": "prints this table",
        f"clray report {page.name}": "writes it as one HTML page with curves and every trial",
        f"clray verify {page.name}": "runs up to three of these trials again on your machine, and compares them",
        f"python -m clray.reproduce {page.name}": "makes your own runs",
    }
    width = max(map(len, commands))
    parts.append("\n".join(f"    {command:{width}}   # {what}" for command, what in commands.items()))
    if findings := found(page):
        parts += ["## Findings", "\n".join(f"- {finding}" for finding in findings)]
    for name, (caption, _) in figures(page).items():
        parts.append(f"![{caption}]({name})\n\n*{caption}.*")
    parts += ["## Tables", tables_as_markdown(comparison)]
    if reproduction.differences:
        listed = "\n".join(f"- {escaped(difference)}" for difference in reproduction.differences)
        parts += ["## Where paper and code differ, and what was run", listed]
    return "\n\n".join(parts) + "\n"


def _origin(page: Page) -> str:
    """Which runs these are, in a sentence or two."""
    of, hours = page.cost, page.cost.measured_core_hours
    were = "was" if of.measured == 1 else "were"
    text = f"{of.measured} of {of.trials} trials {were} run in {hours:.2g} core hours, {origin(page.runs)}."
    left = of.core_hours - hours
    return text + (f" The others would take about {left:.2g} core hours." if of.measured < of.trials else "")


def figures(page: Page) -> dict[str, tuple[str, str]]:
    """The page's figures by their file names, each as its caption and its SVG text."""
    drawn = {}
    for i, table in enumerate(page.comparison.tables):
        start = f"{page.name}-{i + 1}"
        if table.gathered.runs:
            title = escaped(table.title)
            drawn[f"{start}-runs.svg"] = (
                f"{title}: {_RUNS}{_PUBLISHED if table.judged else ''}",
                plots.standalone(plots.spreads(table, table.metrics, f"s{i}")),
            )
            if plots.has_curve(table, "accuracy/mean_seen"):
                drawn[f"{start}-curves.svg"] = (f"{title}: {_CURVES}", plots.standalone(plots.curves(table, f"c{i}")))
    return drawn


_RUNS = "each run is a dot, with the mean and one standard deviation"
_PUBLISHED = "; the published mean is a diamond"
_CURVES = "mean accuracy over the tasks seen so far"


def found(page: Page) -> list[str]:
    """The findings of a reproduction with their numbers filled in.

    Raises:
        DeclarationError: a placeholder names no cell with a run, or no published number.
    """

    def filled(i: int, text: str) -> str:
        place = page.reproduction.place("findings", i)
        return _PLACEHOLDER.sub(lambda match: _filled(page, match[1], place), text)

    return [filled(i, text) for i, text in enumerate(page.reproduction.findings)]


def _filled(page: Page, asked: str, place: str) -> str:
    variant, _, rest = asked.partition(" ")
    metric, _, which = rest.partition(" ")
    cells = [
        row.cells[metric]
        for table, row in _rows(page.comparison)
        if variant in (row.variant, f"{table.sweep}/{row.variant}") and metric in row.cells
    ]
    place = f"{place}: {{{asked}}}"
    if len(cells) != 1:
        raise DeclarationError(f"{place}: {len(cells)} cells are called so; allowed: '{{VARIANT METRIC}}' of one row")
    (cell,) = cells
    if not which:
        if cell.ours is None:
            raise DeclarationError(f"{place}: there is no reference run of it")
        return f"{number(cell.ours.mean)} ± {number(cell.ours.sd)}" if cell.ours.n > 1 else number(cell.ours.mean)
    claims = {name: other.claim for name, other in cell.others.items()} | (
        {"published": cell.claim} if cell.claim else {}
    )
    if which not in claims:
        raise DeclarationError(f"{place}: {which!r} is no source of a published number; allowed: {', '.join(claims)}")
    claim = claims[which]
    return number(claim.mean) + ("" if claim.spread is None else f" ± {number(claim.spread)}")


def _rows(comparison: Comparison) -> Iterator[tuple[ComparedTable, ComparedRow]]:
    return ((table, row) for table in comparison.tables for row in table.rows)


# --------------------------------------------------------------------------------------------------------------
# The index


def index(pages: Sequence[Page]) -> str:
    """The index: the verdicts by paper, the tables, the first finding of each, and what was not run."""
    parts = [MADE_BY, "# Results", _introduction(pages), "## Verdicts by paper", _by_paper(pages)]
    parts += ["## Tables", _tables(pages)]
    by_heading: dict[str, list[str]] = {}
    for page in pages:
        if findings := found(page):
            published = any(table.judged for table in page.comparison.tables)
            heading = _short(page.reproduction.cited) if published else _UNPUBLISHED
            more = f"{counted(len(findings) - 1, 'more finding')} and the table" if findings[1:] else "table"
            by_heading.setdefault(heading, []).append(
                f"- **{escaped(page.reproduction.title)}**: {findings[0]} ([{more}]({page.name}.md))"
            )
    if by_heading:
        parts.append("## Findings\n\nThe first of each table; its page has the others.")
        for heading in sorted(by_heading, key=lambda each: each == _UNPUBLISHED):
            parts += [f"### {escaped(heading)}", "\n".join(by_heading[heading])]
    return "\n\n".join(parts) + "\n"


_UNPUBLISHED = "Tables without published numbers"


def _introduction(pages: Sequence[Page]) -> str:
    measured = {trial: hours for page in pages for trial, hours in page.measured.items()}
    return (
        f"{len(measured)} trials in {sum(measured.values()):.2g} core hours, by the code of this repository; their "
        "records ship with it. "
        "`clray table NAME` shows the same tables, and `clray verify NAME` runs some of the trials again. A cell is "
        "one metric of one method. [docs/verdicts.md](../verdicts.md) explains the verdicts; a metric that follows "
        "from others of its table is not counted, nor is a row with settings that are known not to be the paper's or "
        "whose cells count elsewhere, and a dagger (†) marks numbers that we have not read in the paper."
    )


def _by_paper(pages: Sequence[Page]) -> str:
    """The outcomes of all cells with a run, by paper; those against numbers not read in the paper with a dagger."""
    counts: dict[str, list[Counter[Outcome]]] = {}
    for page in pages:
        counts.setdefault(_short(page.reproduction.cited), []).extend(tally(page.judged))
    lines = ["| paper | cells judged | " + " | ".join(_DECIDED) + " |", "|---" * (len(_DECIDED) + 2) + "|"]
    for paper, counters in counts.items():
        for dagger, some in (("", counters[::2]), ("†", counters[1::2])):
            of_paper: Counter[Outcome] = sum(some, Counter())
            total = sum(of_paper[outcome] for outcome in _DECIDED)
            if total:
                numbers = " | ".join(str(of_paper[outcome] or "–") for outcome in _DECIDED)
                lines.append(f"| {escaped(paper)}{dagger} | {total} | {numbers} |")
    return "\n".join(lines)


_DECIDED: Sequence[Outcome] = tuple(outcome for outcome in OUTCOMES if outcome != "not judged")


def _short(paper: Paper) -> str:
    return f"{paper.title} ({paper.authors.split(',')[0]} et al., {paper.venue})"


def _tables(pages: Sequence[Page]) -> str:
    lines = ["| reproduction | trials | core hours | left, core hours | verdicts |", "|---|---:|---:|---:|---|"]
    for page in pages:
        of = page.cost
        left = f"{of.core_hours - of.measured_core_hours:.2g}" if of.measured < of.trials else "–"
        verdicts = summary(page.judged) or "nothing published"
        lines.append(
            f"| [{escaped(page.reproduction.title)}]({page.name}.md) `{page.name}` | {of.measured} of {of.trials} | "
            f"{of.measured_core_hours:.2g} | {left} | {verdicts} |"
        )
    return "\n".join(lines)


def by_name(reproductions: Mapping[str, Reproduction], records: Mapping[str, Sequence[Record]]) -> list[Page]:
    """The pages of all reproductions with reference runs, by paper in the order of papers.yaml, then by name."""
    order = list(papers().values())
    pages = [page_of(reproductions[name], found) for name, found in records.items()]
    return sorted(pages, key=lambda page: (order.index(page.reproduction.cited), page.name))
