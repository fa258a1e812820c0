"""The process behind ``clray.tracking.start``: not for the command line."""

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
from clray.tracking.following import Orders, follow, read_json, write_json
from clray.tracking.publication import Outcome, Publication


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m clray.tracking < JOB``: follow the sweeps of a job until told to stop, or its sender is gone."""
    accept_every_letter()
    parser = argparse.ArgumentParser(prog="python -m clray.tracking", description=main.__doc__)
    parser.add_argument("job", nargs="?", type=argparse.FileType("r"), default=sys.stdin, help="JSON; default: stdin")
    job = json.load(parser.parse_args(argv).job)
    folder, parent = Path(job["folder"]), job["parent"]
    publications = [Publication(**publication) for publication in job["publications"]]

    dashboard = Dashboard.of_plain(job["dashboard"]) if job["dashboard"] else None

    def orders() -> Orders | None:
        if told := read_json(folder / "orders.json"):
            return Orders.of_plain(told)
        return Orders() if os.getppid() != parent else None

    def report(outcomes: Sequence[Outcome], error: str) -> None:
        reached = any(outcome.sent or outcome.unchanged for outcome in outcomes)
        status = {"outcomes": [asdict(outcome) for outcome in outcomes], "error": error, "reached": reached}
        write_json(folder / "status.json", status)
        if error:
            print(shown(error), flush=True)

    outcomes = follow(publications, orders, report, job["poll"], str(folder), dashboard)
    return 0 if all(outcome.published == outcome.declared and not outcome.failures for outcome in outcomes) else 1


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # wandb's exit hooks would wait for uploads that were already given up
