"""A publication: the trials of a sweep and the place where they are published; and its outcome."""

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
"""The tag of a run whose trial has newer numbers in another run. W&B cannot rewrite it, and pages leave it out."""
TAG = 64
"""The most characters of a tag: W&B refuses longer ones."""


def sweep_tag(sweep: str) -> str:
    """The tag of every run of a sweep. A trial that two sweeps share has the tags of both."""
    return f"sweep:{sweep}"[:TAG]


@dataclass(frozen=True)
class Publication:
    """A sweep's trials, the store their records are in, and where they are published.

    Attributes:
        sweep: the W&B group: the sweep's name, with the suffix of ``--quick`` or ``--set`` where it is changed by one.
        variants: the variant of each trial, by the trial's ``declaration``.
        store: the store's URI.
        mode: ``online`` or ``offline``.
        project: the W&B project.
        entity: the W&B user or team; None for the owner of the key.
        folder: a local folder; it holds offline runs in ``wandb/`` and the notes of published trials in ``published/``.
        paper: the paper's key, which becomes a tag.
        table: the reproduction or table it belongs to, which becomes a tag; empty for none.
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
        """The publication of a sweep. Without ``project`` and ``entity``, WANDB_PROJECT and WANDB_ENTITY are used.

        Raises:
            TrackingError: the mode is ``online`` and there is no key. Nothing has been started or written.
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
        """The server and the project that the runs go to, as the notes of each published trial have it."""
        return f"{base_url() if self.mode == 'online' else 'offline'} {self.entity or ''}/{self.project}"


@dataclass
class PublicationResult:
    """The outcome of publishing a sweep's trials.

    Attributes:
        declared: the number of trials of the sweep.
        sent: the ids of trials that were published completely.
        unchanged: the ids of trials that were published before and have not changed since.
        busy: the ids of trials that another process is publishing.
        failures: a message for each trial or table that could not be published.
        where: the project's address, or the folder of offline runs.
        page: the address of the reproduction's page.
        no_page: the reason why a wanted page could not be made.
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
        """One line for the user: how much was published, why the rest was not, and the command that publishes it.

        Args:
            again: the command; without it none is named.
        """
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
