"""``--max-hours`` ends a launch as Ctrl-C does, and a large launch is asked about, at a terminal only."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner
from waiting import GUARD

from clray.cli import app
from clray.commands import run
from clray.execution import Execution
from clray.launch import Deadline, Options, run_here
from clray.leases import acquire
from clray.loading import load_sweep
from clray.planning import Plan, plan
from clray.selection import Selection
from clray.store import Store

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def planned(file: Path, store: Store) -> Plan:
    return plan({"tiny": load_sweep(file, Selection(only=("er", "online")))}, store)


def numbers(store: Store) -> dict[str, Any]:
    return {record.id: (record.measurements, record.status) for record in store.records()[0]}


@pytest.mark.usefixtures("kernels")
class TestMaxHours:
    def test_trials_save_and_another_launch_ends_with_the_same_bits(self, tiny: Path, tmp_path: Path) -> None:
        store, whole, console = Store(tmp_path / "results"), Store(tmp_path / "whole"), Console(file=io.StringIO())
        step, steps = Execution.step, []
        deadline = Deadline(2.5)

        def third_step_is_late(self: Execution) -> None:
            steps.append(self)
            if len(steps) == 3:
                object.__setattr__(deadline, "begun", deadline.begun - 2.5 * 3600)
            step(self)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Execution, "step", third_step_is_late)
            outcome = run_here(planned(tiny, store), store, console, Options(deadline=deadline))
        assert outcome.interrupted
        assert outcome.out_of_time
        assert len(steps) == 3
        assert console.file.getvalue().count("2.5 hours (--max-hours) are over. Stopping: trials save") == 1  # type: ignore[attr-defined]
        assert "half-done" in {trial.state for trial in planned(tiny, store).trials}
        assert store.leased() == set()
        assert not run_here(planned(tiny, store), store, console).interrupted
        run_here(planned(tiny, whole), whole, console)
        assert numbers(store) == numbers(whole)

    def test_the_command_says_what_is_left(self, tiny: Path, store: Store) -> None:
        command = ["sweep", str(tiny), "--local", "--only", "er,online", "--wandb", "off", "--results", store.uri]
        done = CliRunner().invoke(app, [*command, "--max-hours", "0.0000001"])
        assert done.exit_code == 130
        assert "Stopped by --max-hours: 4 trials are left, 1 of them half-done, about 0." in done.stdout
        assert done.stdout.rstrip().endswith("at most. The same command continues from here.")
        done = CliRunner().invoke(app, [*command, "--max-hours", "1"])
        assert done.exit_code == 0, done.stdout
        assert len(store.finished()) == 4

    @pytest.mark.parametrize("hours", ["0", "-1", "nan", "inf"])
    @pytest.mark.parametrize("verb", ["sweep", "reproduce", "tune"])
    def test_no_time_at_all_is_refused(self, tiny: Path, verb: str, hours: str) -> None:
        done = CliRunner().invoke(app, [verb, str(tiny), "--max-hours", hours])
        assert done.exception.exit_code == 2  # type: ignore[union-attr]
        assert "--max-hours" in str(done.exception)
        assert "expected a number of hours above 0, such as 3.5" in str(done.exception)


@pytest.mark.usefixtures("kernels")
def test_without_waiting_others_keep_what_they_run(tiny: Path, store: Store) -> None:
    trials = planned(tiny, store).trials
    hold = acquire(store, trials[0].id, "another launch")
    command = ["sweep", str(tiny), "--local", "--only", "er,online", "--wandb", "off", "--results", store.uri]
    done = CliRunner().invoke(app, [*command, "--no-wait"])
    assert done.exit_code == 0, done.stdout
    assert f"Left to other launches (--no-wait): {trials[0].name} (" in " ".join(done.stdout.split())
    assert store.finished() == {trial.id for trial in trials[1:]}
    hold.release()
    assert CliRunner().invoke(app, [*command, "--no-wait"]).exit_code == 0
    assert len(store.finished()) == len(trials)


class TestQuestion:
    COMMAND = "import clray.commands.run as run; run.ASKED_HOURS = 0.0; from clray.cli import main; main()"

    def at_terminal(self, answer: str, *arguments: str) -> tuple[int, str]:
        """The exit code and output of a command at a terminal, for which any launch is a large one."""
        main, side = pty.openpty()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb"}
        process = subprocess.Popen([sys.executable, "-c", self.COMMAND, *arguments], stdin=side, stdout=side,
                                   stderr=side, env=environment)  # fmt: skip
        os.close(side)
        os.write(main, answer.encode())
        output = b""
        while True:
            try:
                part = os.read(main, 4096)
            except OSError:  # the other side is closed
                break
            if not part:
                break
            output += part
        os.close(main)
        return process.wait(GUARD), output.decode()

    def arguments(self, tiny: Path, store: Store) -> list[str]:
        return [
            "sweep",
            str(tiny),
            "--local",
            "--only",
            "online",
            "--seeds",
            "0",
            "--wandb",
            "off",
            "--results",
            store.uri,
        ]

    @pytest.mark.parametrize("answer", ["n\n", "\n", "\x04"])
    def test_no_launches_nothing(self, tiny: Path, store: Store, answer: str) -> None:
        code, output = self.at_terminal(answer, *self.arguments(tiny, store))
        assert code == 130
        assert "core hours. Launch it? [y/N]" in output
        assert "Nothing was launched. --yes launches without this question." in output
        assert not store.finished()

    @pytest.mark.parametrize(("answer", "more"), [("y\n", []), ("", ["--yes"])])
    def test_yes_launches(self, tiny: Path, store: Store, answer: str, more: list[str], kernels: None) -> None:
        code, output = self.at_terminal(answer, *self.arguments(tiny, store), *more)
        assert code == 0, output
        assert ("Launch it?" in output) == bool(answer)
        assert len(store.finished()) == 1

    def test_a_script_is_not_asked(self, tiny: Path, store: Store, kernels: None) -> None:
        command = [sys.executable, "-c", self.COMMAND, *self.arguments(tiny, store)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, input="n\n", text=True, capture_output=True, timeout=GUARD)
        assert done.returncode == 0, done.stderr
        assert "Launch it?" not in done.stdout

    def test_a_dry_run_is_not_asked(self, tiny: Path, store: Store) -> None:
        code, output = self.at_terminal("", *self.arguments(tiny, store), "--dry-run")
        assert code == 0
        assert "Launch it?" not in output

    def test_a_day_of_core_hours_is_no_question(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", type("In", (io.StringIO,), {"isatty": lambda _: True})("n\n"))
        monkeypatch.setattr("sys.stdout", type("Out", (io.StringIO,), {"isatty": lambda _: True})())
        run.confirm(24.0, False, Console(file=io.StringIO()))
        with pytest.raises(Exception) as asked:  # noqa: PT011  typer.Exit
            run.confirm(24.1, False, Console(file=io.StringIO()))
        assert getattr(asked.value, "exit_code", None) == 130
