"""Trials that wait half-way until the test lets them continue, so that a process is surely killed half-way.

A process that runs or launches such trials needs a shared folder in its environment (``CLRAY_TEST_MEET``) and this
folder in ``PYTHONPATH``. Run as a script, this file is the command ``clray`` with such trials.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "CLRAY_TEST_MEET"


class Meeting:
    """A folder in which trials wait, and the test that looks on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        return {VARIABLE: str(self.folder)}

    def waiting(self) -> dict[str, str]:
        """The ids of the trials that wait, or have waited, in this folder, and the host on which each ran."""
        return {file.stem: file.read_text() for file in self.folder.glob("*.waits")}

    def go(self) -> None:
        """Let everybody go on, also those who come later."""
        (self.folder / "go").touch()

    def wait(self, id: str) -> None:
        """Say that a trial waits, and wait until the test says go."""
        made = self.folder / f"{id}.{os.getpid()}"  # renamed when it is whole
        made.write_text(socket.gethostname())
        made.rename(self.folder / f"{id}.waits")
        while not (self.folder / "go").exists():
            time.sleep(0.02)


def hold_trials() -> None:
    """The trials that this process launches on Ray wait. Ray itself is imported as late as ever: clray sets it up."""
    from clray.cluster import tune as module

    tune = module._tune

    def tune_held(*arguments: Any) -> Any:
        from clray.cluster import trainable

        class PackTrainable(trainable.PackTrainable):
            """Waits in a step of every trial that has come some of its way, with a checkpoint if those are dense."""

            def step(self) -> dict[str, Any]:
                if VARIABLE in os.environ and self._current is not None and 0 < self._current.progress < 1:
                    Meeting(Path(os.environ[VARIABLE])).wait(self._current.task.id)
                return super().step()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainable, "PackTrainable", PackTrainable)
            return tune(*arguments)

    module._tune = tune_held


if __name__ == "__main__":
    hold_trials()
    from clray.cli import main

    sys.argv[0] = "clray"
    main()
