"""``clray samples``: the pseudo-samples that a language model wrote for its replay."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from clray.commands.options import Results
from clray.commands.target import store_at, terminal, trial_id
from clray.errors import ClrayError, DeclarationError
from clray.output import say

if TYPE_CHECKING:
    from clray.console import PlainConsole
    from clray.language.export import PseudoSample, Tally
    from clray.store import Store


def _pseudo_samples(trial: str, store: Store) -> list[PseudoSample]:
    """The pseudo-samples stored for a finished trial."""
    from clray.language import export
    from clray.store import Problem

    record = store.read(trial) or store.read(trial, "running")
    if isinstance(record, Problem):
        raise ClrayError(str(record))
    if record is None:
        failure = store.failure(trial)
        if failure is not None:
            raise ClrayError(f"{trial}: it has no pseudo-samples, its last attempt failed: {failure.get('error')}")
        begun = "it is not finished, and " if trial in store.leased() else ""
        raise ClrayError(f"{trial}: {begun}no record of such a trial is in {store.uri}")
    if record.trial.track != "language":
        raise ClrayError(f"{trial}: a trial of track {record.trial.track}; only track language has pseudo-samples")
    if record.status != "finished":
        share = 100 * record.provenance.get("progress", 0)
        raise ClrayError(f"{trial}: it is not finished, but at {share:.0f}%: its pseudo-samples are written at its end")
    content = store.read_artifact(trial, export.SAMPLES)
    if content is None:
        missing = record.provenance.get("missing_artifacts")
        if missing:
            raise ClrayError(f"{trial}: its pseudo-samples could not be kept: {missing}")
        raise ClrayError(f"{trial}: its method, {record.trial.method}, keeps no pseudo-samples")
    return export.read_samples(content, store.path("artifacts", f"{trial}.{export.SAMPLES}"))


def _on_one_line(text: str, longest: int = 300) -> str:
    """A text that a model wrote, without control characters; the middle of a long one is left out."""
    plain = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text.strip())
    half = longest // 2
    return plain if len(plain) <= longest else f"{plain[:half]} … {plain[-half:]}"


def samples_command(
    trial: Annotated[str, typer.Argument(metavar="TRIAL", help="The id of a finished trial of track language.")],
    task: Annotated[
        str | None, typer.Option("--task", metavar="TASK", help="Only those that should look like its examples.")
    ] = None,
    count: Annotated[
        int | None,
        typer.Option("--count", min=0, help="How many of a task, before each new one. Default: 5; with --json all."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    results: Results = "results",
) -> None:
    """Show the text that a language model wrote to learn in place of old examples: kept or dropped, and why."""
    from clray.documents import one_of
    from clray.language.export import tallies

    samples = _pseudo_samples(trial_id(trial), store_at(results, reading=True))
    tasks = dict.fromkeys(sample.of for sample in samples)
    if task is not None and task not in tasks:
        raise DeclarationError(f"--task {task}: no pseudo-samples are of it; {one_of(task, tasks)}")
    samples = [sample for sample in samples if task is None or sample.of == task]
    groups = {(t.before, t.of): t for t in tallies(samples)}
    members = {pair: [s for s in samples if (s.before, s.of) == pair] for pair in groups}
    if as_json:
        shown = [sample._asdict() for group in members.values() for sample in group[:count]]
        say(json.dumps({"trial": trial, "counts": [t._asdict() for t in groups.values()], "samples": shown}))
        return
    console, kept = terminal(), sum(tally.kept for tally in groups.values())
    counts = f"{len(samples)} pseudo-samples, {kept} kept, {len(samples) - kept} dropped"
    console.print(f"{trial}: {counts if samples else 'no pseudo-samples were written'}")
    for pair, tally in groups.items():
        _show_samples(tally, members[pair][: 5 if count is None else count], console)


def _show_samples(tally: Tally, samples: list[PseudoSample], console: PlainConsole) -> None:
    """Print the number of pseudo-samples of a task before another one, and some of them."""
    from rich.table import Table
    from rich.text import Text

    reasons = "".join(f", {number} dropped ({reason})" for reason, number in tally.dropped.items())
    console.print(f"\n{tally.of}, before {tally.before}: {tally.kept} kept{reasons}")
    table = Table(show_lines=True)
    for heading in ("context and question", "answer"):
        table.add_column(heading, overflow="fold")
    for sample in samples:
        reason = Text(f"dropped: {sample.dropped}", "red")
        answer = reason if sample.dropped else Text(_on_one_line(sample.answer or ""))
        table.add_row(Text(_on_one_line(sample.question)), answer)
    if samples:
        console.print(table)
