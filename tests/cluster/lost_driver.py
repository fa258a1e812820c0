"""A launch that loses workers in the given way: lost_driver.py WAY SWEEP_FILE RESULTS. Prints its outcome."""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from launching import planned
from rich.console import Console

from clray.cluster import tune as cluster_tune
from clray.cluster.tune import run_on_ray
from clray.launch import Options
from clray.store import Store


class Unreadable(MemoryError):
    """An error that can be pickled, and not read back."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


class Unpicklable(MemoryError):
    """An error that cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


def lose(way: str) -> None:
    """Have workers, or Tune itself, fail in this way."""
    from ray import tune

    from clray.cluster import trainable

    class Odd(trainable.PackTrainable):
        """Raises errors that do not travel: seed 1 one that cannot be read back, seed 2 one that cannot be pickled."""

        def step(self) -> dict[str, Any]:
            seed = self._waiting[0].trial.seed
            if seed == 1:
                raise Unreadable("of two", "parts")
            if seed == 2:
                raise Unpicklable("it holds a lock")
            return super().step()

    class Preempted(trainable.PackTrainable):
        """A process that ends after two steps, as if its machine had been taken away each time."""

        steps = 0

        def step(self) -> dict[str, Any]:
            Preempted.steps += 1
            if Preempted.steps > 2:
                os._exit(7)
            return super().step()

    class Full(tune.Tuner):
        """Tune when the disk with its own notes is full."""

        def fit(self) -> Any:
            super().fit()
            raise OSError(28, "No space left on device")

    cluster_tune.RETRIES = 0
    if way == "full":
        tune.Tuner = Full
    else:
        trainable.PackTrainable = {"odd": Odd, "preempted": Preempted}[way]  # type: ignore[misc]


if __name__ == "__main__":
    way, file, results = sys.argv[1:]
    os.environ["RAY_AUTH_MODE"] = "disabled"
    import clray.cluster.session  # sets what Ray reads when it is imported

    for variable, value in clray.cluster.session._ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    lose(way)
    store = Store(results)
    options = Options(cpus=1, checkpoint_seconds=0)
    outcome = run_on_ray(planned(Path(file), store), store, Console(file=sys.stdout, width=200), options)
    print(json.dumps(asdict(outcome)))
