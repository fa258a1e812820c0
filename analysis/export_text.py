"""A comparison as Markdown and as LaTeX."""

from __future__ import annotations

from collections.abc import Sequence

from clray.analysis.blocks import blocks
from clray.analysis.comparison import ComparedTable, Comparison
from clray.analysis.formatting import (
    column_titles,
    heading,
    matrix_texts,
    matrix_titles,
    notes,
    number_texts,
    paper_line,
    search_lines,
    search_notes,
    stale_text,
    summary,
    verdict_text,
)


def to_markdown(comparison: Comparison) -> str:
    """The comparison as GitHub's Markdown."""
    parts = [f"## {escaped(comparison.title)}"]
    if comparison.paper:
        parts.append(f"{escaped(comparison.paper.title)}. {escaped(paper_line(comparison.paper))}.")
    parts.append("\n".join(f"    {command}" for command in comparison.commands[:2]))
    parts.append(tables_as_markdown(comparison))
    if comparison.problems:
        parts.append("### Files that could not be used")
        parts.append("\n".join(f"- `{problem.path}`: {escaped(problem.reason)}" for problem in comparison.problems))
    return "\n\n".join(part for part in parts if part) + "\n"


def tables_as_markdown(comparison: Comparison) -> str:
    """The tables and searches of a comparison with their notes, without a head."""
    parts = []
    for table in comparison.tables:
        parts.append(f"### {escaped(heading(table))}")
        if table.warning:
            parts.append(f"**{escaped(table.warning)}**")
        if table.judged:
            parts.append(_summed_up(table) + ".")
        parts.append(_pipes(*_lines(table)))
        parts.append(_listed(notes(table)))
        for block in blocks(table):
            title = f"#### {escaped(block.title)}"
            parts += [title, _pipes(block.head, block.body, block.columns), _listed(block.notes)]
    for group in comparison.searches:
        parts.append(f"### {escaped(heading(group))}")
        if group.warning:
            parts.append(f"**{escaped(group.warning)}**")
        parts += [_pipes(*search_lines(group), _SEARCH_COLUMNS), _listed(search_notes(group))]
    return "\n\n".join(part for part in parts if part)


def _summed_up(table: ComparedTable) -> str:
    """The number of each outcome, and the number of stale runs, as text."""
    return ". ".join(filter(None, [summary(cell for _, cell in table.cells), stale_text(table)]))


def _listed(remarks: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"- {key}: {escaped(sentence)}" for key, sentence in remarks)


_SEARCH_COLUMNS = "lllrl"


def _lines(table: ComparedTable) -> tuple[list[str], list[list[str]], str]:
    """Head, body and alignment of a table: a line for each cell, or for each variant where nothing was published."""
    if not table.judged:
        titles = matrix_titles(table)
        return (
            ["method", *titles],
            [[row.label, *matrix_texts(table, row)] for row in table.rows],
            "l" + "r" * len(titles),
        )
    body = [
        [
            row.label if cell.metric == table.metrics[0] else "",
            cell.metric,
            *number_texts(table, cell),
            verdict_text(cell),
            cell.judgement.reason if cell.claim else "",
        ]
        for row, cell in table.over_all
    ]
    titles = column_titles(table)
    return ["method", "metric", *titles, ""], body, "ll" + "r" * (len(titles) - 1) + "ll"


def _pipes(head: Sequence[str], body: Sequence[Sequence[str]], columns: str) -> str:
    rule = ["---:" if side == "r" else "---" for side in columns]
    return "\n".join("| " + " | ".join(map(escaped, line)) + " |" for line in [head, rule, *body])


def escaped(text: str) -> str:
    """The text with the characters escaped that Markdown would read as marks."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


_LATEX = {
    "\\": r"\textbackslash{}",
    **{c: "\\" + c for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "−": "$-$",
    "±": r"$\pm$",
    "–": "--",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
    "…": r"\ldots{}",
    "×": r"$\times$",
    "→": r"$\rightarrow$",
    "γ": r"$\gamma$",
    "λ": r"$\lambda$",
}


def tex(text: str) -> str:
    """Escape the characters that LaTeX would read as commands."""
    return "".join(_LATEX.get(character, character) for character in text)


def to_latex(comparison: Comparison) -> str:
    """The comparison as LaTeX tables; the preamble needs ``\\usepackage{booktabs}``."""
    parts = [f"% {comparison.commands[1]} --format latex", r"% needs \usepackage{booktabs}"]
    for table in comparison.tables:
        head, body, columns = _lines(table)
        if table.judged:  # the reasons are too long for a printed table
            head, body, columns = head[:-1], [line[:-1] for line in body], columns[:-1]
        caption = ". ".join(filter(None, [table.warning, heading(table), _summed_up(table)]))
        parts += _latex_table(columns, head, body, caption, notes(table))
        for block in blocks(table):
            caption = ". ".join(filter(None, [table.warning, heading(table), block.title]))
            parts += _latex_table(block.columns, block.head, block.body, caption, block.notes)
    for group in comparison.searches:
        caption = ". ".join(filter(None, [group.warning, heading(group)]))
        parts += _latex_table(_SEARCH_COLUMNS, *search_lines(group), caption, search_notes(group))
    return "\n".join(parts) + "\n"


def _latex_table(
    columns: str, head: Sequence[str], body: Sequence[Sequence[str]], caption: str, remarks: Sequence[tuple[str, str]]
) -> list[str]:
    foot = r" \\ ".join(f"{tex(key)}: {tex(sentence)}." for key, sentence in remarks)
    return [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{tex(caption + '.')}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(map(tex, head)) + r" \\",
        r"\midrule",
        *(" & ".join(map(tex, line)) + r" \\" for line in body),
        r"\bottomrule",
        r"\end{tabular}",
        rf"\par\footnotesize\raggedright {foot}",
        r"\end{table}",
    ]
