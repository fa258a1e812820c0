"""Leaderboards as text for the terminal, and as data for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clray.analysis.against_forms import direction, metric_data, source_note, variant_data
from clray.analysis.formatting import KINDS, SOURCES, claim_text, notes, ours_text
from clray.analysis.leaderboard import Board, Entry, Published, Ranked, other_models
from clray.analysis.terminal import notes_grid, problem_lines
from clray.analysis.verdict import ALPHA
from clray.loading import Paper
from clray.output import counted
from clray.store import Problem

if TYPE_CHECKING:
    from rich.console import RenderableType

HEAD = ("rank", "method", "mean ± sd (n)", "source")


def rank_text(ranked: Ranked) -> str:
    """The rank as ``3``, or as ``1–4`` where the differences to entries beside it are not decided."""
    return str(ranked.best) if ranked.best == ranked.worst else f"{ranked.best}–{ranked.worst}"


def mean_text(entry: Entry) -> str:
    """The mean as ``88.76 ± 1.35 (5)``; a published ± that is no standard deviation is followed by its kind."""
    if entry.published:
        claim = entry.published.claim
        return claim_text(claim, claim.kind != "sd" and claim.spread is not None) + entry.published.dagger
    assert entry.row is not None
    return ours_text(entry.row.cells[entry.metric])


def source_text(entry: Entry) -> str:
    """``own runs``, ``reference runs``, ``2 own, 3 reference``, or the paper and the place of a published number."""
    if entry.published:
        return f"published: {place_text(entry.published)}"
    assert entry.row is not None
    runs = entry.row.runs.runs
    shipped = sum(run.shipped for run in runs)
    if 0 < shipped < len(runs):
        return f"{len(runs) - shipped} own, {shipped} reference"
    return "reference runs" if shipped else "own runs"


def place_text(number: Published) -> str:
    """The paper and the place in it, as ``Riemer et al., ICLR 2019, Table 1``."""
    return ", ".join(filter(None, [short_paper(number.paper), number.claim.source]))


def short_paper(paper: Paper) -> str:
    first, *others = paper.authors.split(", ")
    return f"{first.split()[-1]}{' et al.' if others else ''}, {paper.venue}"


def lines_of(board: Board) -> list[list[str]]:
    """The cells of each entry, one for each of ``HEAD``; the notes name those without a run."""
    return [[rank_text(r), r.entry.label, mean_text(r.entry), source_text(r.entry)] for r in board.ranked]


def benchmark_text(board: Board) -> str:
    """The benchmark's name, its number of tasks, and the data."""
    tasks = board.setting.get("benchmark.tasks")
    count = counted(len(tasks) if isinstance(tasks, list) else tasks, "task") if tasks else ""
    name = str(board.setting.get("benchmark.name", board.setting["track"]))
    return ", ".join(filter(None, [name, count, board.setting.get("data") or "no run yet"]))


def board_notes(board: Board) -> list[tuple[str, str]]:
    """The notes that a reader needs beside the ranks."""
    text = (
        "one more than the number of entries that are better by a decided difference; 2–4: second to fourth, as the "
        f"differences between them are not decided. Each pair is tested (paired by seed and task order, else Welch's "
        f"t), {counted(board.tests, 'test')} corrected by Holm's method at level {ALPHA:g}"
    )
    lines = [("rank", text)] if board.ranked else []
    untested = [r.entry.label for r in board.ranked if not r.entry.variance]
    if untested:
        lines.append(("rank", f"no spread, so no test: {'; '.join(untested)}"))
    claims = [r.entry.published.claim for r in board.ranked if r.entry.published]
    kinds = dict.fromkeys(claim.kind or "unknown" for claim in claims if claim.spread is not None)
    if kinds:
        words = " or ".join(KINDS[kind] for kind in kinds)
        turned = "" if list(kinds) == ["sd"] else "; the tests turn it into a standard deviation over n - 1"
        lines.append(("±", f"published: {words}{turned}"))
    known = dict.fromkeys(claim.known for claim in claims)
    if words := " or ".join(SOURCES[k] for k in known if k in SOURCES):
        lines.append(("†", f"{words}: not read in the paper"))
    unmeasured = [e.label for e in board.waiting if e.row and e.row.runs.runs]
    lines += (
        [("missing", f"{board.waiting[0].metric} is not measured in {'; '.join(unmeasured)}")] if unmeasured else []
    )
    for table in board.tables:
        more = [*notes(table), *source_note(table)]
        where = f"{table.sweep}: " if len(board.tables) > 1 else ""
        lines += [(key, f"{where}{sentence}") for key, sentence in more if key != "±"]
    for model, labels in other_models(board).items():
        lines.append(("network", f"{model.replace(chr(34), '')}: {'; '.join(labels)}"))
    return lines + list(board.notes)


# --------------------------------------------------------------------------------------------------------------
# The terminal


def to_terminal(boards: Sequence[Board], metric: str, problems: Sequence[Problem] = ()) -> RenderableType:
    """The leaderboards as a ``rich`` renderable; 80 columns are enough."""
    from rich.console import Group
    from rich.table import Table as Grid
    from rich.text import Text

    parts: list[RenderableType] = [Text(direction(metric), style="bold")]
    for board in boards:
        parts += [Text(""), Text(benchmark_text(board), style="bold")]
        if board is not boards[0]:
            every = board.differs_from(boards[0])
            name = [setting for setting in every if setting.startswith("benchmark.name ")]
            differing = "; ".join(name or every)  # of another benchmark the other settings tell nothing
            parts.append(Text(f"another benchmark than the first, not comparable with it: {differing}", style="yellow"))
        grid = Grid(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
        for title, side in zip(HEAD, "rlrl", strict=True):
            fixed = title in ("rank", "mean ± sd (n)")
            grid.add_column(title, justify="right" if side == "r" else "left", no_wrap=fixed, overflow="fold")
        for cells in lines_of(board):
            grid.add_row(*(Text(cell, style="italic" if cells[3].startswith("published") else "") for cell in cells))
        parts += [*([grid] if board.ranked else []), Text(""), notes_grid(board_notes(board))]
    return Group(*parts, *problem_lines(problems))


# --------------------------------------------------------------------------------------------------------------
# Data for programs


def to_data(boards: Sequence[Board], metric: str, problems: Sequence[str] = ()) -> dict[str, Any]:
    """All leaderboards; None stands for a missing value, and numbers are in per cent."""
    return {
        "metric": {"name": metric, **metric_data([metric])[metric]},
        "alpha": ALPHA,
        "correction": "holm",
        "leaderboards": [_board_data(board, boards[0]) for board in boards],
        "problems": list(problems),
    }


def _board_data(board: Board, first: Board) -> dict[str, Any]:
    return {
        "benchmark": dict(board.setting),
        "differs_from_first": board.differs_from(first),
        "tests": board.tests,
        "entries": [
            *({"rank": r.best, "worst_rank": r.worst, **_entry_data(r.entry, board)} for r in board.ranked),
            *({"rank": None, "worst_rank": None, **_entry_data(entry, board)} for entry in board.waiting),
        ],
        "notes": [{"about": key, "text": text} for key, text in board_notes(board)],
    }


def _entry_data(entry: Entry, board: Board) -> dict[str, Any]:
    common = {"label": entry.label, "sweep": entry.sweep, "source": "published" if entry.published else "runs"}
    if entry.published:
        claim = entry.published.claim
        return common | {
            "mean": claim.mean,
            "spread": claim.spread,
            "spread_kind": claim.kind,
            "runs": claim.runs,
            "paper": entry.published.paper.title,
            "citation": short_paper(entry.published.paper),
            "place": claim.source,
            "known": claim.known,
        }
    assert entry.row is not None
    table = next(t for t in board.tables if any(row is entry.row for row in t.rows))
    data = variant_data(table, entry.row)
    sample = data["means"][entry.metric]
    account = ("variant", "expected_runs", "own_runs", "reference_runs", "stale_runs", "missing", "diverged")
    kind = "own" if not data["reference_runs"] else "reference" if not data["own_runs"] else "own and reference"
    return {
        **common,
        "source": kind,
        "mean": sample["mean"],
        "spread": sample["sd"],
        "spread_kind": "sd",
        "runs": sample["runs"],
        **{key: data[key] for key in account},
    }
