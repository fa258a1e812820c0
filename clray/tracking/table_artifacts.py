"""Publishes a sweep's table as a W&B artifact."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from clray.tracking.content import digest
from clray.tracking.login import TrackingError
from clray.tracking.notes import Notes
from clray.tracking.publication import TAG, Publication, sweep_tag
from clray.tracking.wandb_runs import (
    FINISH_SECONDS,
    discard,
    end_service,
    finish,
    first_line,
    folder_name,
    offline_folders,
    open_run,
    sending,
)


def publish_table(publication: Publication, files: Mapping[str, str], scratch: str) -> None:
    """Log a sweep's table as an artifact of type ``table``. A sweep always uses the same run for it.

    Args:
        files: a text for each file name.
        scratch: a folder that wandb may write to while it is online.

    Raises:
        TrackingError: it could not be sent.
    """
    run_id = "table-" + hashlib.sha256(publication.sweep.encode()).hexdigest()[:12]
    notes, content = Notes(publication, run_id), digest(dict(files))
    if not notes.acquire():
        return
    try:
        note = notes.read()
        folders = [path.name for path in offline_folders(publication, run_id)] + [""]
        if note.get("content") == content and note["directory"] in folders:
            return
        if publication.mode == "offline":
            discard(publication, run_id, notes)
        run = _log_table(publication, run_id, files, scratch)
        if publication.mode == "offline" and not end_service(FINISH_SECONDS):
            raise TrackingError(f"W&B: run {run_id}: not on disk after {FINISH_SECONDS:.0f} seconds")
        notes.write({"run": run_id, "content": content, "directory": folder_name(publication, run)})
    finally:
        notes.release()


def _log_table(publication: Publication, run_id: str, files: Mapping[str, str], scratch: str) -> Any:
    import wandb

    tags = [*(tag[:TAG] for tag in (publication.paper, publication.table) if tag), sweep_tag(publication.sweep)]
    labels = {"name": f"{publication.sweep} table", "group": publication.sweep, "job_type": "table", "tags": tags}
    run = open_run(publication, run_id, scratch, **labels)
    with sending(run):
        artifact = wandb.Artifact(re.sub(r"[^\w.-]", "-", publication.sweep) + "-table", type="table")
        for name, text in files.items():
            with artifact.new_file(name, mode="w", encoding="utf-8") as file:
                file.write(text)
        logged = run.log_artifact(artifact)
    if publication.mode == "online":
        _wait(logged, run)
    finish(run, 0)
    return run


def _wait(artifact: Any, run: Any) -> None:
    try:
        artifact.wait(timeout=int(FINISH_SECONDS))
    except Exception as error:  # wandb names no common base for what wait raises
        with contextlib.suppress(TrackingError):
            finish(run, 1)
        raise TrackingError(f"W&B: run {run.id}: the table was not sent: {first_line(error)}") from None
