"""A launch in its own process, to be killed: driver.py SWEEP_FILE RESULTS [ADDRESS]. Ends with its outcome, as JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from held import hold_trials
from launching import planned
from rich.console import Console

from clray.cluster.tune import run_on_ray
from clray.launch import Options
from clray.store import Store

if __name__ == "__main__":
    hold_trials()
    store = Store(sys.argv[2])
    address = sys.argv[3] if len(sys.argv) > 3 else None
    options = Options(address=address, cpus=2, checkpoint_seconds=0)
    outcome = run_on_ray(planned(Path(sys.argv[1]), store), store, Console(file=sys.stdout, width=200), options)
    print(json.dumps(asdict(outcome)))
