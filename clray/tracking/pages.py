"""The page of a reproduction at W&B, made from the same declaration as the HTML report.

W&B draws the page's panels from the published runs, so they change while a sweep runs. Its text and verdicts are those
of the last publication. Publishing again replaces the page of the same title, with all changes made to it by hand.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from clray.dashboards import Dashboard, Panel, Section
from clray.tracking.content import digest
from clray.tracking.login import TrackingError, require_key, require_server
from clray.tracking.notes import Notes
from clray.tracking.publication import SUPERSEDED, Publication, sweep_tag
from clray.tracking.wandb_runs import INIT_SECONDS, MATRIX, first_line

_COLUMNS = 24
"""The columns of W&B's grid."""
_SIZES = {"spread": (8, 8), "curve": (12, 9), "matrices": (24, 10)}
"""The columns and rows that a panel takes."""
_TITLE = 128
"""The most characters of a page's title."""


def page(dashboard: Dashboard, entity: str = "", project: str = "") -> list[Any]:
    """The page's blocks, as objects of wandb-workspaces.

    Args:
        entity, project: the place of the runs. Without them no server is asked, and the runs are those of the project
            that the page is in.
    """
    import wandb_workspaces.reports.v2 as wr

    text = dashboard.text or "Ours beside the published numbers: written here when the launch ends."
    blocks: list[Any] = [wr.TableOfContents(), wr.MarkdownBlock(text)]
    for section in dashboard.sections:
        grid = wr.PanelGrid(
            runsets=[_runs(section, entity, project)],
            panels=[_draw(panel, x, y) for panel, x, y in _placed(section)],
        )
        blocks += [wr.H2(section.heading), wr.MarkdownBlock(_legend(section)), grid]
    return blocks


def _legend(section: Section) -> str:
    """The captions of the panels, and the labels of the variants: W&B's panels have no room for captions."""
    named = [f"{label}: `{variant}`" for variant, label in section.variants.items() if label != variant]
    shown = [f"- **{panel.title}**: {panel.caption}" for panel in section.panels if panel.kind != "verdicts"]
    return "\n".join([*shown, *([f"- **Variants**: {', '.join(named)}"] if named else [])])


def _placed(section: Section) -> list[tuple[Panel, int, int]]:
    """The panels that W&B draws, each with its column and row on the grid: from left to right, then down."""
    placed, x, y, low = [], 0, 0, 0
    for panel in section.panels:
        if panel.kind not in _SIZES:
            continue  # the verdicts are text, and the runs are the table below the grid
        width, height = _SIZES[panel.kind]
        if x + width > _COLUMNS:
            x, y = 0, low
        placed.append((panel, x, y))
        x, low = x + width, max(low, y + height)
    return placed


def _draw(panel: Panel, x: int, y: int) -> Any:
    import wandb_workspaces.reports.v2 as wr

    width, height = _SIZES[panel.kind]
    layout = wr.Layout(x=x, y=y, w=width, h=height)
    over_runs: dict[str, Any] = {
        "groupby": wr.Config("variant"), "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev", "layout": layout,
    }  # fmt: skip
    if panel.kind == "spread":
        return wr.BarPlot(title=panel.title, metrics=[panel.value], title_x=f"{panel.value}, fraction", **over_runs)
    if panel.kind == "curve":
        return wr.LinePlot(
            title=panel.title,
            x="trained_tasks",
            y=[panel.value],
            title_x="tasks learned",
            title_y="fraction",
            smoothing_type="none",
            max_runs_to_show=1000,
            **over_runs,
        )
    return wr.WeavePanelSummaryTable(table_name=MATRIX, layout=layout)


def _runs(section: Section, entity: str, project: str) -> Any:
    """The runs of a section, and their table by variant."""
    import wandb_workspaces.expr as expr
    import wandb_workspaces.reports.v2 as wr

    columns = ["run:displayName", "config:variant.value", "config:seed.value"]
    columns += [f"summary:{metric}" for metric in section.metrics]
    columns += ["summary:status", "summary:seconds", "config:data.value.source", "run:tags"]
    filters = [
        expr.Tags().isin([sweep_tag(section.sweep)]),
        expr.Tags().notin([SUPERSEDED]),
        expr.Metric("JobType").isin(list(section.variants)),
    ]
    if section.data:
        filters.append(expr.Config("data.value.fingerprint").isin(list(section.data)))
    return wr.Runset(
        entity=entity,
        project=project,
        name=section.sweep,
        filters=expr.And(*filters),
        groupby=["config.variant"],
        order=[wr.OrderBy("Name", ascending=True)],
        pinned_columns=columns,
    )


# --------------------------------------------------------------------------------------------------------------
# Sending it


def send_page(publication: Publication, dashboard: Dashboard) -> str:
    """Create a page, or renew it where it has changed, and return its address.

    Args:
        publication: one of the publications whose runs the page shows; all are in one project.

    Raises:
        TrackingError: the page cannot be made. Nothing else depends on it.
    """
    if publication.mode != "online":
        raise TrackingError(
            "W&B: it is drawn by W&B from runs that are there: `wandb sync` them, then publish with --wandb online"
        )
    require_key()
    require_server()
    notes = Notes(publication, "page-" + digest(dashboard.name))
    if not notes.acquire():
        raise TrackingError("W&B: another process is writing it")
    try:
        return _send(publication, dashboard, notes)
    except Exception as error:  # wandb and wandb-workspaces raise what their parts raise
        raise TrackingError(f"W&B: it could not be written: {first_line(error)}") from None
    finally:
        notes.release()


def _send(publication: Publication, dashboard: Dashboard, notes: Notes) -> str:
    import wandb
    import wandb_workspaces.reports.v2 as wr

    api = wandb.Api(timeout=int(INIT_SECONDS))
    entity, project = publication.entity or api.default_entity, publication.project
    title = dashboard.title if len(dashboard.title) <= _TITLE else f"{dashboard.title[: _TITLE - 1]}…"
    report = wr.Report(entity=entity, project=project, title=title, width="fluid")
    pages = api.reports(f"{entity}/{project}")
    report.id = next((found.id for found in pages if found.display_name == title), "")
    note, content = notes.read(), digest(asdict(dashboard))
    if report.id and (note.get("page"), note.get("content")) == (report.id, content):
        return note["where"]
    report.description = dashboard.command
    report.blocks = page(dashboard, entity, project)
    report.save()
    notes.write({"page": report.id, "content": content, "where": report.url})
    return report.url
