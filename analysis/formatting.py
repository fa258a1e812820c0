"""Numbers, cells and notes as text, shared by all forms of a comparison, so that every form shows the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from clray.analysis.comparison import ComparedCell, ComparedRow, ComparedTable, tally
from clray.analysis.failures import failed_notes
from clray.analysis.gather import Gathered
from clray.analysis.runs import Run, Runs
from clray.analysis.searches import ComparedSearch, ComparedSearches
from clray.analysis.verdict import ALPHA, NO_NUMBER, OUTCOMES, POWER
from clray.grid import setting_text
from clray.loading import Paper
from clray.metrics import METRICS
from clray.output import counted
from clray.reproduction import Claim

KINDS = {
    "sd": "standard deviation",
    "population sd": "population standard deviation (over n, compared as that over n - 1)",
    "sem": "standard error of the mean",
    "population sem": "standard error of the mean from a population standard deviation",
    "2 population sem": "two standard errors of the mean from a population standard deviation",
    "95% interval": "95% interval",
    "1.96 sem": "1.96 standard errors of the mean",
    "unknown": "spread of unknown kind",
}


SOURCES = {"authors": "from the authors' logs", "second-hand": "quoted by others", "recalled": "recalled"}


def number(value: float, sign: bool = False) -> str:
    """A number with two decimals and a true minus sign; zero has no sign, and NaN is ``?``."""
    if math.isnan(value):
        return "?"
    text = f"{value:+.2f}" if sign else f"{value:.2f}"
    if float(text) == 0:
        text = "0.00"
    return text.replace("-", "−")


def summary(cells: Iterable[ComparedCell]) -> str:
    """Count the outcomes as text. Outcomes against numbers that were not read in the paper follow, with a dagger."""
    parts = []
    for counts, dagger in zip(tally(cells), ("", "†"), strict=True):
        if total := counts.total():
            words = {
                "differs": "differ" if counts["differs"] != 1 else "differs",
                "consistent": "consistent (not decidable)",
            }
            rest = [f"{counts[o]} {words.get(o, o)}{dagger}" for o in OUTCOMES[1:] if counts[o]]
            first = [f"{counts['reproduced']} of {total} reproduced{dagger}"] if counts["not judged"] < total else []
            parts.append(", ".join(first + rest))
    return "; ".join(parts)


def paper_line(paper: Paper) -> str:
    first = paper.authors.split(",")[0]
    place = f", arXiv {paper.arxiv}" if paper.arxiv and "arXiv" not in paper.venue else ""
    return f"{first + ' et al.' if ',' in paper.authors else first}, {paper.venue}{place}"


def ours_text(cell: ComparedCell) -> str:
    """The judged runs as ``53.41 ± 1.20 (5)``, with a double dagger where a run has collapsed or diverged."""
    return runs_text(cell.runs, cell.metric)


def runs_text(runs: Runs | None, metric: str) -> str:
    """Runs as ``ours_text`` writes them; a dash for none."""
    if runs is None:
        return "–"
    mark = "‡" if runs.collapsed_runs or runs.diverged else ""
    if not runs.values(metric):
        return f"–{mark}"
    found = runs.sample(metric)
    spread = f" ± {number(found.sd)}" if found.n > 1 else ""
    return f"{number(found.mean)}{spread} ({found.n}){mark}"


def matrix_titles(table: ComparedTable) -> list[str]:
    """The titles of the columns of a table without published numbers: one a metric, or one for each kind of runs."""
    names = runs_names(table)
    return [f"{metric} {name}" if len(names) > 1 else metric for metric in table.metrics for name in names]


def matrix_texts(table: ComparedTable, row: ComparedRow) -> list[str]:
    """A row's runs, one text for each of ``matrix_titles``."""
    texts = []
    for metric in table.metrics:
        cell = row.cells[metric]
        texts += [runs_text(cell.reference, metric)] if table.shown == "both" else []
        texts.append(ours_text(cell))
    return texts


def number_texts(table: ComparedTable, cell: ComparedCell) -> list[str]:
    """The numbers of a cell, one for each of ``column_titles`` but the last."""
    several = len(published_kinds(table)) > 1
    reference = [runs_text(cell.reference, cell.metric)] if table.shown == "both" else []
    return [*reference, ours_text(cell), published_text(cell, several), difference_text(cell)]


def published_text(cell: ComparedCell, kind: bool = False) -> str:
    """The published number as ``53.38 ± 1.53 (5)†``; ``kind`` adds the kind of the ±."""
    return "–" if cell.claim is None else claim_text(cell.claim, kind) + cell.dagger


def claim_text(claim: Claim, kind: bool = False) -> str:
    """A published number as ``53.38 ± 1.53 (5)``; ``kind`` adds the kind of the ±."""
    spread = "?" if claim.spread is None else number(claim.spread) + (f" {claim.kind}" if kind else "")
    return f"{number(claim.mean)} ± {spread} ({claim.runs})"


def difference_text(cell: ComparedCell) -> str:
    """The difference and its 95% interval as ``+0.03 [−1.95, +2.01]``."""
    j = cell.judgement
    if j.difference is None:
        return ""
    ends = f" [{number(j.interval[0], True)}, {number(j.interval[1], True)}]" if j.interval else ""
    return number(j.difference, True) + ends


def verdict_text(cell: ComparedCell) -> str:
    """The verdict as ``reproduced†``; in brackets where it is not counted."""
    text = "" if cell.claim is None else cell.judgement.outcome + cell.dagger
    return f"({text})" if text and not cell.counted else text


def published_kinds(table: ComparedTable) -> list[str]:
    """The kinds of the published ± in a table."""
    claims = [cell.claim for _, cell in table.cells if cell.claim and cell.claim.spread is not None]
    return list(dict.fromkeys(claim.kind or "unknown" for claim in claims))


def notes(table: ComparedTable) -> list[tuple[str, str]]:
    """The notes that a reader needs beside the numbers, as pairs of a key and a sentence."""
    lines = [("runs", _runs_note(table)), *_tuning_notes(table), *_reference_notes(table), ("±", _spread_note(table))]
    lines += _missing_notes(table)
    lines += [("left out", f"not asked for: {'; '.join(table.left_out)}")] if table.left_out else []
    lines += _stale_notes(table)
    lines += _store_notes(table.gathered)
    lines += _collapsed_notes(table) + _diverged_notes(table)
    if table.judged:
        lines += _judging_notes(table)
    lines += _row_notes(table.rows)
    lines += [("note", f"{where}: {text}") for text, where in _claim_notes(table).items()]
    return lines


def _row_notes(rows: Sequence[ComparedRow] | Sequence[ComparedSearch]) -> list[tuple[str, str]]:
    """The notes of rows, each with all rows that have it."""
    labels: dict[str, list[str]] = {}
    for row in rows:
        labels.setdefault(row.note, []).append(row.label)
    where = {note: "every row" if len(own) == len(rows) > 1 else "; ".join(own) for note, own in labels.items()}
    return [("note", f"{where[note]}: {note}") for note in labels if note]


def _store_notes(gathered: Gathered) -> list[tuple[str, str]]:
    others = gathered.other_data_sets
    unused = [("data", f"not used: {other}, which has {other.records} of the runs") for other in others]
    return unused + [("code", mixture) for mixture in gathered.mixed_code]


def _stale_notes(table: ComparedTable) -> list[tuple[str, str]]:
    if not table.stale or table.shown == "reference":  # the note about reference runs tells of theirs
        return []
    text = f"{table.stale} of {len(table.runs)} runs are stale: other code made them than the code here"
    return [("stale", f"{text}; --rerun-stale runs them again")]


def stale_text(table: ComparedTable) -> str:
    """The number of stale runs as ``3 of 30 runs stale``; empty where none is."""
    return f"{table.stale} of {len(table.runs)} runs stale" if table.stale else ""


def _diverged_notes(table: ComparedTable) -> list[tuple[str, str]]:
    return [
        (
            "‡",
            f"{label}: {'; '.join(map(str, runs.diverged))} diverged: the loss or the weights were no longer "
            "finite, so there is no result, and no part of the mean",
        )
        for label, runs, _ in _shown_runs(table)
        if runs.diverged
    ]


def _runs_note(table: ComparedTable) -> str:
    expected, finished = sum(r.runs.expected for r in table.rows), sum(len(r.runs.runs) for r in table.rows)
    half = sum(r.runs.half_done for r in table.rows)
    lost = sum(len(r.runs.diverged) for r in table.rows)
    text = f"{finished} of {expected} finished" + (f", {half} half-done" if half else "")
    text += f", {lost} diverged" if lost else ""
    return text + (f", on {table.gathered.data}" if table.gathered.data else "")


def _tuning_notes(table: ComparedTable) -> list[tuple[str, str]]:
    """The runs of both phases where a tuning phase chooses settings, and the tuning data where it is other data."""
    if not table.protocols or not (tuned := table.protocols.tuning_runs):
        return []
    evaluated = table.protocols.evaluation_runs
    assert evaluated is not None
    text = f"{_ran(tuned)} runs of the tuning phase, and {_ran(evaluated)} of all settings afterwards"
    names = [data.fingerprint for data in (tuned.data, evaluated.data) if data]
    return [("tuning", text + (f"; tuned on {tuned.data}" if len(set(names)) > 1 else ""))]


def _ran(gathered: Gathered) -> str:
    """The number of finished runs of all variants, as ``132 (and 3 diverged) of 135``."""
    every = gathered.variants.values()
    lost = sum(len(runs.diverged) for runs in every)
    return f"{len(gathered.runs)}{f' (and {lost} diverged)' if lost else ''} of {sum(runs.expected for runs in every)}"


def _reference_notes(table: ComparedTable) -> list[tuple[str, str]]:
    """The origin of the reference runs where the table shows some, and their existence where it shows none."""
    if table.shown == "own":
        hint = "reference runs of this table ship with clray: --records both shows them beside these"
        return [("reference", hint)] if table.ships_reference else []
    runs, data = table.shipped_runs, (table.reference or table.gathered).data
    if not runs:
        return [("reference", "none of these trials is a reference run that ships with clray")]
    stale = sum(run.stale for run in runs)
    text = f"{counted(len(runs), 'run')} that {'ships' if len(runs) == 1 else 'ship'} with clray, {origin(runs)}"
    text += f"; {stale} of them are stale: other code made them than the code here" if stale else ""
    other = table.gathered.data and data and table.gathered.data.fingerprint != data.fingerprint
    return [("reference", text + (f"; on other data than yours: {data}" if other else ""))]


def origin(runs: Iterable[Run]) -> str:
    """The days, the processors and the code of runs, as far as their records say: ``made on 2026-11-28 on …``."""
    found = [(run.day, run.processor, run.commit) for run in runs]
    days, processors, commits = (sorted({line[i] for line in found} - {""}) for i in range(3))
    when = [f"on {days[0]}" if len(days) == 1 else f"from {days[0]} to {days[-1]}"] if days else []
    where = [f"on {' and '.join(processors)}"] if processors else []
    code = [f"by code that gives the same bits as that of {', '.join(commits)}"] if commits else []
    return " ".join(["made", *when, *where, *code])


def _missing_notes(table: ComparedTable) -> list[tuple[str, str]]:
    untouched = [
        r.label
        for r in table.rows
        # Without any expected run nothing is chosen yet, and the row's note says so.
        if r.runs.expected and not (r.runs.runs or r.runs.half_done or r.runs.failed or r.runs.diverged)
    ]
    lines = failed_notes(table.rows)
    lines += [("missing", f"not begun: {'; '.join(untouched)}")] if untouched else []
    begun = [r for r in table.rows if r.runs.missing and r.label not in untouched]
    return lines + [("missing", f"{row.label}: {row.runs.counted}, {row.runs.absent}") for row in begun]


def _spread_note(table: ComparedTable) -> str:
    names = runs_names(table)
    text = f"per cent; {' and '.join(names)}: mean ± standard deviation over runs (number of runs)"
    if not table.judged:
        return text
    kinds = " or ".join(KINDS[kind] for kind in published_kinds(table)) or "spread"
    published = f"published: mean ± {kinds} (number of runs)"
    return f"{text}; {published}; difference: {names[-1]} minus published, 95% Welch interval"


def _collapsed_notes(table: ComparedTable) -> list[tuple[str, str]]:
    return [
        (
            "‡",
            f"{label}: seed {', '.join(str(r.seed) for r in runs.collapsed_runs)} collapsed to guessing "
            f"({number(gathered.chance)} before training), and is part of the mean",
        )
        for label, runs, gathered in _shown_runs(table)
        if runs.collapsed_runs
    ]


def _shown_runs(table: ComparedTable) -> Iterator[tuple[str, Runs, Gathered]]:
    """The runs that each row shows, with a label: the judged ones, and the reference runs beside them."""
    for row in table.rows:
        yield row.label, row.runs, table.gathered
        if table.reference:
            yield f"{row.label}, reference runs", table.reference.variants[row.variant], table.reference


def _judging_notes(table: ComparedTable) -> list[tuple[str, str]]:
    lines = []
    if not table.not_comparable_because:
        lines += [("margin", f"{name} ±{margin.points:g}: {margin.reason}") for name, margin in table.margins.items()]
        if table.families:  # without a judged claim there is no test
            lines.append(("tests", _tests_note(table)))
        derived = [m for m in table.metrics if any(cell.derived for _, cell in table.cells if cell.metric == m)]
        for name in derived:
            others = " and ".join(METRICS[name].computed_from)
            lines.append(("( )", f"{name} follows from {others}: its verdict is shown and not counted"))
        uncounted = _grouped((row, cell, cell.uncounted) for row, cell in table.cells if cell.uncounted and cell.claim)
        lines += [
            ("( )", f"{cells}: {reason}; the verdicts are shown and not counted") for reason, cells in uncounted.items()
        ]
        if table.streams:
            draws = f"measured on {table.streams.draws} draws: {table.streams.reason}"
            text = "the stream itself varies between draws, and the published one is another draw than ours"
            lines.append(("stream", f"{text}; the tests include twice that variance, {draws}"))
        if any(cell.judgement.runs for _, cell in table.cells):
            lines.append(("more runs", MORE_RUNS))
    known = dict.fromkeys(cell.claim.known for _, cell in table.cells if cell.claim and cell.judgement.dagger)
    if known:
        words = " or ".join(SOURCES[k] for k in known if k in SOURCES)
        lines.append(("†", f"{words}: not read in the paper, so the verdict is on the number as we have it"))
    return lines


MORE_RUNS = (
    "the number of runs assumes that ours keep their mean and spread. To add these runs and to test again is a second "
    "test of the same numbers: by simulation the chance of a wrong verdict then grows from 5% to at most 10%"
)


def _tests_note(table: ComparedTable) -> str:
    families = ", ".join(f"{name} {count}" for name, count in table.families.items() if ", " not in name)
    text = (
        f"equal within the margin, or different, each at level {ALPHA:g}, corrected by Holm's method within a family "
        f"of claims ({families}); the intervals are not corrected; a printed number has the rounding error of its last "
        f"digit; the advised numbers of runs give a chance of {POWER:.0%}"
    )
    if any(cell.judgement.outcome == "consistent" for _, cell in table.cells):
        text += (
            "; consistent: our mean is inside the 95% prediction interval for a mean of as many runs as ours, made "
            "like theirs, and their runs are too few for any number of ours to decide"
        )
    return text


def _claim_notes(table: ComparedTable) -> dict[str, str]:
    """The remarks on published numbers, each with its cells."""
    return _grouped((row, cell, cell.claim.note) for row, cell in table.cells if cell.claim and cell.claim.note)


def undecided(cells: Iterable[tuple[ComparedRow, ComparedCell]], per_row: int = 0) -> dict[str, str]:
    """The reasons why cells are consistent, inconclusive or not judged, each with its cells.

    Args:
        per_row: see ``_grouped``.
    """
    return _grouped(
        (
            (row, cell, _without_width(cell))
            for row, cell in cells
            if cell.claim and cell.judgement.outcome in ("consistent", "inconclusive", "not judged")
        ),
        per_row,
    )


def _without_width(cell: ComparedCell) -> str:
    """The reason of a cell without the width of its interval, so that cells with the same reason can be grouped."""
    half, reason = cell.judgement.prediction, cell.judgement.reason
    return reason if half is None else reason.replace(f" (±{half:.2f})", "")


def _grouped(items: Iterable[tuple[ComparedRow, ComparedCell, str]], per_row: int = 0) -> dict[str, str]:
    """Group cells by their text: the text, then the cells as ``GEM RA, LA; MER BTI ±0.53``.

    Args:
        per_row: a row with so many cells is named by its label alone.
    """
    by_text: dict[str, dict[str, list[str]]] = {}
    for row, cell, text in items:
        half = cell.judgement.prediction if NO_NUMBER in text else None
        name = (cell.order or cell.metric) + (f" ±{number(half)}" if half is not None else "")
        by_text.setdefault(text, {}).setdefault(row.label, []).append(name)
    return {
        text: "; ".join(
            r if len(m) == per_row and "±" not in "".join(m) else f"{r} {', '.join(m)}" for r, m in rows.items()
        )
        for text, rows in by_text.items()
    }


def heading(table: ComparedTable | ComparedSearches) -> str:
    return f"{table.title} ({table.source})" if table.source else table.title


RUNS_TITLES = {
    "own": ["ours ± sd (n)"],
    "reference": ["reference ± sd (n)"],
    "both": ["reference ± sd (n)", "yours ± sd (n)"],
}


def runs_names(table: ComparedTable) -> list[str]:
    """The names of the runs that a table shows; the last ones are judged."""
    return [title.partition(" ")[0] for title in RUNS_TITLES[table.shown]]


def column_titles(table: ComparedTable) -> list[str]:
    """The titles of the columns with numbers, and last that of the verdicts."""
    kinds = published_kinds(table)
    published = f"published ± {kinds[0]} (n)" if len(kinds) == 1 else "published (n)"
    return [*RUNS_TITLES[table.shown], published, "difference", "verdict"]


def metric_definitions(names: Iterable[str]) -> dict[str, str]:
    """The title and the definition of each metric, by its name."""
    return {name: f"{METRICS[name].title} ({METRICS[name].definition})" for name in names}


# --------------------------------------------------------------------------------------------------------------
# Searches as text


def search_lines(group: ComparedSearches) -> tuple[list[str], list[list[str]]]:
    """Head and body of the printed searches: each has a line for its selected point, and one for the paper's."""
    body = []
    for row in group.rows:
        points = f"of {len(row.points)} points"
        if row.complete < len(row.points):
            points = f"{row.complete} {points} so far"
        chosen = row.points[row.selected] if row.selected else None
        setting = setting_text(row.settings[row.selected]) if row.selected else "–"
        body += [
            [row.label, "selected", setting, _mean_text(chosen, group.metric), points],
            [
                "",
                "published",
                setting_text(row.published),
                _mean_text(row.published_runs, group.metric),
                _place_text(row),
            ],
        ]
    return ["search", "", "setting", f"{group.metric} ± sd (n)", ""], body


def _mean_text(runs: Runs | None, metric: str) -> str:
    values = runs.values(metric) if runs else {}
    if runs is None or not values:
        return "–"
    ours = runs.sample(metric)
    return number(ours.mean) + (f" ± {number(ours.sd)}" if ours.n > 1 else "") + f" ({ours.n})"


def _place_text(row: ComparedSearch) -> str:
    """The place of the published choice: in the grid or not, and if it is selected here."""
    if not row.published_in_grid:
        return "not in the grid"
    return "selected here too" if row.agrees else "in the grid"


def search_notes(group: ComparedSearches) -> list[tuple[str, str]]:
    """The notes that a reader needs beside the searches, as pairs of a key and a sentence."""
    variants = group.gathered.variants.values()
    finished, expected = sum(len(v.runs) for v in variants), sum(v.expected for v in variants)
    half = sum(v.half_done for v in variants)
    lost = sum(len(v.diverged) for v in variants)
    runs = f"{finished} of {expected} finished" + (f", {half} half-done" if half else "")
    runs += f", {lost} diverged" if lost else ""
    data = group.gathered.data
    best = "lowest" if METRICS[group.metric].lower_is_better else "highest"
    measured = "validation data held out of each task's training data" if group.validation else "the test data"
    lines = [
        ("runs", runs + (f", on {data}" if data else "")),
        ("±", f"per cent, measured on {measured}; mean ± standard deviation over runs (number of runs)"),
        (
            "selected",
            f"the point with the {best} mean {group.metric}, the first in grid order where several are best; points "
            "that lack runs, or of which a run diverged, take no part",
        ),
    ]
    lines += [("left out", f"not asked for: {'; '.join(group.left_out)}")] if group.left_out else []
    lines += _store_notes(group.gathered)
    return lines + _row_notes(group.rows)
