"""``clray publish``, and the publisher beside a launch: trials, tables and pages go to W&B."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clray.commands.options import Name, Only, Quick, Results, Seeds, Set, Tracking
from clray.commands.target import Target, selected, store_at, target_of

if TYPE_CHECKING:
    from rich.console import Console

    from clray.analysis.tables import Comparison
    from clray.dashboards import Dashboard
    from clray.results import Store
    from clray.tracking import Follower


def _publications(
    target: Target, store: Store, mode: str, project: str | None = None, entity: str | None = None
) -> list[Any]:
    from clray.analysis.tables import shell_flags
    from clray.tracking import Publication

    table = target.name if target.reproduction else ""
    flags = " ".join([*shell_flags(target.selection), "--results", shlex.quote(store.uri), "--wandb", mode])
    again = f"clray publish {target.name} {flags}"
    return [
        Publication.of(sweep, store, mode, project=project, entity=entity, table=table, again=again)  # type: ignore[arg-type]
        for sweep in target.sweeps.values()
    ]


def _ready_tables(comparison: Comparison) -> dict[str, str]:
    from clray.analysis import tables

    return {
        "table.md": tables.markdown(comparison),
        "table.csv": tables.csv(comparison),
        "table.json": tables.json(comparison),
    }


def start_publisher(target: Target, store: Store, wandb: Tracking | None, console: Console) -> Follower | None:
    from clray.tracking import default_mode, start

    mode = wandb.value if wandb else default_mode()
    if mode == "off":
        return None
    console.print(f"W&B: publishing {mode}")
    return start(_publications(target, store, mode), dashboard=_dashboard(target, store))


def stop_publisher(
    publisher: Follower | None, target: Target, comparison: Comparison, store: Store, console: Console
) -> None:
    if publisher is None:
        return
    ready = _ready_tables(comparison)
    tables = {publication.sweep: ready for publication in publisher._publications}
    message = publisher.stop(tables, dashboard=_dashboard(target, store, comparison))
    console.print(message, soft_wrap=True, markup=False)


def _dashboard(target: Target, store: Store, comparison: Comparison | None = None) -> Dashboard:
    """The page of all that the target stands for: a launch of a part of it does not leave a page of that part alone.

    Args:
        comparison: the target's, where there is one already.
    """
    from clray.analysis import tables
    from clray.dashboards import dashboard
    from clray.spec import Selection

    asked = target.selection
    if asked.only or asked.seeds:
        target = target_of(target.file, Selection(quick=asked.quick, set=asked.set))
        comparison = None
    comparison = comparison or target.compare(store)
    data = {table.title: table.gathered.data.fingerprint for table in comparison.tables if table.gathered.data}
    return dashboard(target.name, target.sweeps, target.reproduction, tables.markdown(comparison), data)


def publish_command(
    name: Name, quick: Quick = False, only: Only = None, seeds: Seeds = None, set_: Set = None,
    results: Results = "results",
    wandb: Annotated[Tracking, typer.Option("--wandb", help="Where to.")] = Tracking.online,
    project: Annotated[str | None, typer.Option("--project", help="Default: WANDB_PROJECT, else clray.")] = None,
    entity: Annotated[str | None, typer.Option("--entity", help="W&B user or team.")] = None,
    page: Annotated[
        bool | None,
        typer.Option("--dashboard/--no-dashboard", help="Make or renew its page at W&B. Default: where it can be."),
    ] = None,
) -> None:  # fmt: skip
    """Send finished trials to W&B, now or again: what was sent before is not sent twice."""
    from clray.tracking import publish

    target, store = target_of(name, selected(quick, only, seeds, set_)), store_at(results)
    tables = _ready_tables(target.compare(store))
    publications = _publications(target, store, wandb.value, project, entity)
    failed = False
    for publication in publications:
        # The page shows the runs of all sweeps: it comes with the last.
        last = publication is publications[-1]
        outcome = publish(publication, tables, _dashboard(target, store) if last and page is not False else None)
        print(outcome.message(publication.again))
        failed |= bool(outcome.failures) or bool(page and outcome.no_page)
    if failed:
        raise typer.Exit(1)
