"""``clray sweep`` and ``clray reproduce``: two names of one command, and their reports of failures."""

from __future__ import annotations

import inspect
import io
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from rich.console import Console

from clray.commands import run
from clray.launch import Outcome


def test_both_names_take_the_same_flags():
    assert inspect.signature(run.reproduce_command) == inspect.signature(run.sweep_command)
    assert run.reproduce_command.__doc__ != run.sweep_command.__doc__


def test_trials_that_failed_for_one_reason_have_one_line(monkeypatch):
    monkeypatch.setattr(run, "print_table", lambda *_: None)
    monkeypatch.setattr(run, "_report", lambda *_: "nowhere")
    console: Any = Console(file=io.StringIO(), width=200)
    target: Any = SimpleNamespace(selection=SimpleNamespace(suffix=""), reproduction=None, name="it", in_store="")
    outcome = Outcome(failed={"a" * 16: "other code", "b" * 16: "it burned", "c" * 16: "other code"})
    with pytest.raises(typer.Exit) as caught:
        run._show_outcome(outcome, [], target, SimpleNamespace(), SimpleNamespace(), console)  # type: ignore[arg-type]
    assert caught.value.exit_code == 1
    lines = console.file.getvalue().splitlines()
    assert lines[-3:] == [
        "3 trials failed:",
        f"  {'a' * 16} and 1 more: other code   (clray show {'a' * 16})",
        f"  {'b' * 16}: it burned   (clray show {'b' * 16})",
    ]
