"""``clray gc``: shows the files that a results store does not need any more, and deletes them."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from clray.commands.answers import require_writable
from clray.commands.options import Results
from clray.commands.target import RESULTS, store_at, terminal
from clray.errors import DeclarationError
from clray.output import json_text, redacted, say

if TYPE_CHECKING:
    from clray.console import PlainConsole
    from clray.garbage import Deleted, Found, Garbage
    from clray.store import Store

_EXAMPLES = 5
"""The files of a kind that are named; ``--all`` names every one."""


def gc_command(
    results: Results = RESULTS,
    delete: Annotated[bool, typer.Option("--delete", help="Delete what is shown, without a question.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="KIND[,KIND…]",
            help="Only these kinds: checkpoints, stale, temporary, superseded, leases, cache.",
        ),
    ] = None,
    cache_days: Annotated[
        float,
        typer.Option(
            "--cache-days", min=0, metavar="N", help="Days without a reader after which cached data is unused."
        ),
    ] = 90,
    every: Annotated[
        bool, typer.Option("--all", help="Name every file, not only the first ones of each kind.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else; ask nothing.")
    ] = False,
) -> None:
    """Show what a results store does not need any more, with sizes; delete it with --delete, or after a question.

    Kinds: checkpoints and failures of finished trials; stale checkpoints, which the code here would not continue;
    temporary files that killed processes left an hour ago or more; superseded records; leases whose process is gone;
    cached data sets of this machine that nobody has read for 90 days. Records, checkpoints from which a trial would
    continue, trials that a live process runs, and files that clray did not write are never touched. Without --delete,
    and where no terminal can answer, nothing is deleted.
    """
    from clray import garbage

    kinds = _kinds(only)
    store, console = store_at(results), terminal()
    if "://" not in results and results != RESULTS and not os.path.isdir(store.path()):
        raise DeclarationError(f"--results {results}: no such folder")
    found = garbage.find(store, kinds, cache_days)
    if not as_json:
        _show(found, store, console, every)
    agreed = delete or (bool(found.garbage) and not as_json and _asked(found.garbage))
    done = None
    if agreed and found.garbage:
        if any(one.relative for one in found.garbage):
            require_writable(store)
        done = garbage.delete(store, found.garbage)
    if as_json:
        _print_json(found, done, store)
    elif done is not None:
        console.print(f"deleted: {_counted(done.garbage)}")
        for trial, reason in done.passed_over.items():
            console.print(f"passed over: {trial}: {reason}", soft_wrap=True)
    elif found.garbage:
        console.print("Nothing was deleted. The same command with --delete deletes this.")


def _kinds(only: list[str] | None) -> list[str]:
    """The kinds of ``--only``; all of them without it.

    Raises:
        DeclarationError: one of them is not a kind.
    """
    from clray.documents import one_of
    from clray.garbage import KINDS

    chosen = [kind.strip() for item in only or () for kind in item.split(",")]
    for kind in chosen:
        if kind not in KINDS:
            raise DeclarationError(f"--only {kind!r}: not a kind of file; {one_of(kind, KINDS)}")
    return chosen or list(KINDS)


def _asked(garbage: list[Garbage]) -> bool:
    """Ask whether to delete; False where no terminal can answer."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    return typer.confirm(f"Delete {_counted(garbage)}?")


def _counted(garbage: list[Garbage]) -> str:
    from clray.garbage import total

    return f"{len(garbage)} files, {_bytes(total(garbage))}"


def _bytes(size: float) -> str:
    """A size for people."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def _show(found: Found, store: Store, console: PlainConsole, every: bool) -> None:
    from clray.garbage import KINDS

    console.print(f"{store.uri}: {_counted(found.garbage)} that nobody needs", soft_wrap=True)
    for kind, what in KINDS.items():
        of_kind = [one for one in found.garbage if one.kind == kind]
        if not of_kind:
            continue
        console.print(f"{kind}: {_counted(of_kind)}: {what}", style="bold", soft_wrap=True)
        shown = of_kind if every else of_kind[:_EXAMPLES]
        for one in shown:
            console.print(f"  {_bytes(one.size):>9}  {one.relative or one.path}", soft_wrap=True)
        if len(of_kind) > len(shown):
            console.print(f"  and {len(of_kind) - len(shown)} more (--all names them)")
    for lease in found.held:
        console.print(f"left alone: {lease.trial}, which {lease.owner} runs", soft_wrap=True)


def _print_json(found: Found, done: Deleted | None, store: Store) -> None:
    from clray.garbage import KINDS, total

    by_kind = {kind: [one for one in found.garbage if one.kind == kind] for kind in KINDS}
    deleted = {one.path for one in done.garbage} if done else set()
    data = {
        "store": redacted(store.uri),
        "kinds": {kind: {"files": len(of), "bytes": total(of)} for kind, of in by_kind.items()},
        "files": [
            {
                "kind": one.kind, "path": redacted(one.path), "bytes": one.size, "trial": one.trial or None,
                "deleted": one.path in deleted,
            }
            for one in found.garbage
        ],
        "held": [{"trial": lease.trial, "by": lease.owner} for lease in found.held],
        "passed_over": done.passed_over if done else {},
    }  # fmt: skip
    say(json_text(json.dumps(data, ensure_ascii=False)))
