"""What is published where, and what came of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from clray.dashboards import published_name
from clray.store import Store
from clray.sweep import Sweep
from clray.tracking.login import Mode, base_url, require_key

PROJECT = "clray"
SUPERSEDED = "superseded"
"""The tag of a run whose trial was run again with other numbers: W&B cannot rewrite it, and pages leave it out."""
TAG = 64
"""Letters of a tag, at most: W&B refuses longer ones."""


def sweep_tag(sweep: str) -> str:
    """The tag that every run of a sweep carries. A trial that two sweeps share has both of theirs."""
    return f"sweep:{sweep}"[:TAG]


@dataclass(frozen=True)
class Publication:
    """A sweep's trials, the store their records are in, and where they are published.

    Attributes:
        sweep: its name, and for a changed sweep (``--quick``, ``--set``) the change's suffix: the W&B group.
        variants: each trial's variant by the trial's ``declaration``.
        store: the store's URI.
        mode: ``online`` or ``offline``.
        project: the W&B project.
        entity: the W&B user or team; None for the key's own.
        folder: a local folder: offline runs go to ``wandb/`` in it, notes of what was published to ``published/``.
        paper: the paper's key: a tag.
        table: the reproduction or table it belongs to: a tag where given.
        again: the command that publishes the sweep later.
    """

    sweep: str
    variants: dict[str, str]
    store: str
    mode: Mode
    project: str
    entity: str | None
    folder: str
    paper: str = ""
    table: str = ""
    again: str = ""

    @classmethod
    def of(
        cls,
        sweep: Sweep,
        store: Store,
        mode: Mode,
        *,
        project: str | None = None,
        entity: str | None = None,
        folder: str | os.PathLike[str] | None = None,
        table: str = "",
        again: str | None = None,
    ) -> Publication:
        """The publication of a sweep; what is not given is taken from WANDB_PROJECT and WANDB_ENTITY.

        Raises:
            TrackingError: the mode is ``online`` and there is no key. Nothing was started or written then.
        """
        if mode == "online":
            require_key()
        local = "://" not in store.uri or store.uri.startswith("file://")
        return cls(
            sweep=published_name(sweep),
            variants={cell.trial.declaration: cell.variant for cell in sweep.cells},
            store=store.uri,
            mode=mode,
            project=project or os.environ.get("WANDB_PROJECT") or PROJECT,
            entity=entity or os.environ.get("WANDB_ENTITY") or None,
            folder=str(Path(folder or (store.path() if local else ".")).resolve()),
            paper=sweep.paper,
            table=table,
            again=again if again is not None else f"clray publish {sweep.name} --wandb {mode}",
        )

    @property
    def target(self) -> str:
        """Where the runs go, as noted of each published trial."""
        return f"{base_url() if self.mode == 'online' else 'offline'} {self.entity or ''}/{self.project}"


@dataclass
class Outcome:
    """What a pass over the store came to.

    Attributes:
        declared: trials of the sweep.
        sent: ids that were published to the end.
        unchanged: ids that were published before and have not changed since.
        busy: ids that another process is publishing.
        failures: one message a trial (or table) that could not be published.
        where: the project's address, or the folder of offline runs.
        page: the address of the reproduction's page.
        no_page: why there is none, where one was wanted.
    """

    declared: int = 0
    sent: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    where: str = ""
    page: str = ""
    no_page: str = ""

    @property
    def published(self) -> int:
        return len(set(self.sent) | set(self.unchanged))

    def message(self, again: str = "") -> str:
        """One line for the user: what was published, what was not, why, and the command that does it later."""
        text = f"W&B: {self.published} of {self.declared} trials published"
        if self.sent and self.unchanged:
            text += f" ({len(self.sent)} now, {len(self.unchanged)} before)"
        if self.where:
            text += f": {self.where}"
        if self.page:
            text += f"; page: {self.page}"
        if self.no_page:
            text += f"; no page: {self.no_page.removeprefix('W&B: ')}"
        if self.busy:
            text += f"; {len(self.busy)} left to the process that is publishing them"
        if self.failures:
            more = len(self.failures) - 1
            text += f"; {self.failures[0].removeprefix('W&B: ')}" + (f" (and {more} more)" if more else "")
        if again and (self.failures or self.published < self.declared):
            text += f"; the rest later: {again}"
        return text
