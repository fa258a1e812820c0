"""The process that ``clray.tracking.start`` starts. It is not meant for the command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from clray.dashboards import Dashboard
from clray.output import accept_every_letter, shown
from clray.tracking.following import FINAL_UPDATE, FinalUpdate, follow, read_json, write_json
from clray.tracking.publication import Publication, PublicationResult


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m clray.tracking < JOB``: publish a job's sweeps until asked to stop, or until its sender is gone."""
    accept_every_letter()
    parser = argparse.ArgumentParser(prog="python -m clray.tracking", description=main.__doc__)
    parser.add_argument("job", nargs="?", type=argparse.FileType("r"), default=sys.stdin, help="JSON; default: stdin")
    job = json.load(parser.parse_args(argv).job)
    folder, parent = Path(job["folder"]), job["parent"]
    publications = [Publication(**publication) for publication in job["publications"]]

    dashboard = Dashboard.of_plain(job["dashboard"]) if job["dashboard"] else None

    def stop_requested() -> FinalUpdate | None:
        if content := read_json(folder / FINAL_UPDATE):
            return FinalUpdate.of_plain(content)
        return FinalUpdate() if os.getppid() != parent else None

    def report(outcomes: Sequence[PublicationResult], error: str) -> None:
        reached = any(outcome.sent or outcome.unchanged for outcome in outcomes)
        status = {"outcomes": [asdict(outcome) for outcome in outcomes], "error": error, "reached": reached}
        write_json(folder / "status.json", status)
        if error:
            print(shown(error), flush=True)

    outcomes = follow(publications, stop_requested, report, job["poll"], str(folder), dashboard)
    return 0 if all(outcome.published == outcome.declared and not outcome.failures for outcome in outcomes) else 1


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # wandb's exit hooks would wait for uploads that have already failed
