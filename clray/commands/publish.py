"""``clray publish``, and the publisher beside a launch: trials, tables and pages go to W&B."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clray.commands.options import Name, Only, Quick, Results, Seeds, Set, Tracking
from clray.commands.target import Target, selected, store_at, target_of
from clray.errors import ClrayError
from clray.extras import lacking, message, require
from clray.output import redacted, say

if TYPE_CHECKING:
    from clray.analysis import Comparison
    from clray.console import PlainConsole
    from clray.dashboards import Dashboard
    from clray.store import Store
    from clray.tracking import Follower


def _publications(
    target: Target, store: Store, mode: str, project: str | None = None, entity: str | None = None,
    page: bool | None = None, command: str = "publish",
) -> list[Any]:  # fmt: skip
    """What is published of a target.

    Args:
        command: the command of clray that publishes the rest later.
    """
    from clray.tracking import Publication

    table = target.name if target.reproduction else ""
    again = f"clray {command} {target.arguments} {' '.join(_flags(store, mode, project, entity, page))}"
    return [
        Publication.of(sweep, store, mode, project=project, entity=entity, table=table, again=again)  # type: ignore[arg-type]
        for sweep in target.sweeps.values()
    ]


def _flags(store: Store, mode: str, project: str | None, entity: str | None, page: bool | None) -> Iterator[str]:
    """The flags that publish the same again, from any folder and in any environment."""
    yield f"--results {shlex.quote(redacted(store.uri))} --wandb {mode}"
    for flag, name in (("project", project), ("entity", entity)):
        if name := name or os.environ.get(f"WANDB_{flag.upper()}"):
            yield f"--{flag} {shlex.quote(name)}"
    if page is not None:
        yield "--dashboard" if page else "--no-dashboard"


def _ready_tables(comparison: Comparison) -> dict[str, str]:
    from clray import analysis

    return {
        "table.md": analysis.to_markdown(comparison),
        "table.csv": analysis.to_csv(comparison),
        "table.json": analysis.to_json(comparison),
    }


@contextlib.contextmanager
def publishing(
    target: Target, store: Store, wandb: Tracking | None, console: PlainConsole, command: str
) -> Iterator[None]:
    """Publish a phase of a command that has several, while it runs; its table follows when it is over.

    Args:
        command: the name of the command, which publishes the rest when it is given again.
    """
    publisher = start_publisher(target, store, wandb, console, command)
    try:
        yield
    finally:
        if publisher:
            stop_publisher(publisher, target, target.compare(store), store, console)


def start_publisher(
    target: Target, store: Store, wandb: Tracking | None, console: PlainConsole, command: str = "publish"
) -> Follower | None:
    from clray.tracking import default_mode, start

    mode = wandb.value if wandb else default_mode()
    if mode == "off":
        return None
    if wandb:
        require("wandb", f"--wandb {mode}", "leave it out")
    if missing := lacking("wandb"):
        console.print(f"W&B: nothing is published: {message('wandb', 'it', missing)}", soft_wrap=True, markup=False)
        return None
    console.print(f"W&B: publishing {mode}")
    publications = _publications(target, store, mode, command=command)
    return start(publications, dashboard=_dashboard(target, store, mode))


def stop_publisher(
    publisher: Follower | None, target: Target, comparison: Comparison, store: Store, console: PlainConsole
) -> None:
    if publisher is None:
        return
    ready = _ready_tables(comparison)
    tables = {publication.sweep: ready for publication in publisher.publications}
    message = publisher.stop(tables, dashboard=_dashboard(target, store, publisher.publications[0].mode, comparison))
    console.print(message, soft_wrap=True)


def _dashboard(target: Target, store: Store, mode: str, comparison: Comparison | None = None) -> Dashboard:
    """The page of the whole target, so that a launch of a part does not leave a page of that part only.

    Where the rest cannot be loaded, for example because a ``--set`` does not fit it, the page shows the part.

    Args:
        mode: the mode of publishing. Offline there is no page, only the reason why.
        comparison: the target's, where there is one already.
    """
    asked = target.selection
    if mode == "online" and (asked.only or asked.seeds):
        with contextlib.suppress(ClrayError):
            whole = target_of(target.file, replace(asked, only=(), seeds=()), target.results)
            if whole.name == target.name:  # a phase of it has a page of its own
                return _page(whole, whole.compare(store))
    return _page(target, comparison or target.compare(store))


def _page(target: Target, comparison: Comparison) -> Dashboard:
    from clray import analysis
    from clray.dashboards import dashboard

    data = {table.title: table.gathered.data.fingerprints for table in comparison.tables if table.gathered.data}
    text, again = analysis.to_markdown(comparison), f"clray publish {target.arguments}"
    return dashboard(target.name, target.sweeps, target.reproduction, text, data, again)


def publish_command(
    name: Name, quick: Quick = False, only: Only = None, seeds: Seeds = None, set_: Set = None,
    results: Results = "results",
    wandb: Annotated[
        Tracking | None, typer.Option("--wandb", help="Where to. Default: as WANDB_MODE says, else online.")
    ] = None,
    project: Annotated[str | None, typer.Option("--project", help="Default: WANDB_PROJECT, else clray.")] = None,
    entity: Annotated[str | None, typer.Option("--entity", help="W&B user or team.")] = None,
    page: Annotated[
        bool | None,
        typer.Option("--dashboard/--no-dashboard", help="Make or renew its page at W&B. Default: where it can be."),
    ] = None,
) -> None:  # fmt: skip
    """Send finished trials to W&B, now or again. Trials that were sent before are not sent twice."""
    from clray.tracking import asked_mode, publish

    mode = wandb.value if wandb else asked_mode() or "online"
    target, store = target_of(name, selected(quick, only, seeds, set_), results), store_at(results, reading=True)
    if mode == "off":
        say("W&B: nothing is published: " + ("--wandb off" if wandb else f"WANDB_MODE={os.environ['WANDB_MODE']}"))
        return
    require("wandb", "clray publish")
    comparison = target.compare(store)
    tables = _ready_tables(comparison)
    publications = _publications(target, store, mode, project, entity, page)
    failed = False
    for publication in publications:
        # The page shows the runs of all sweeps, so it is made with the last.
        last = publication is publications[-1]
        wanted = _dashboard(target, store, mode, comparison) if last and page is not False else None
        outcome = publish(publication, tables, wanted)
        say(outcome.message(publication.again))
        failed |= bool(outcome.failures) or bool(page and outcome.no_page)
    if failed:
        raise typer.Exit(1)
