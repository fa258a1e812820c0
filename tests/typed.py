"""A command line typed in this process."""

from __future__ import annotations

from typer.testing import CliRunner

from clray.cli import app


def here(*arguments: object) -> str:
    """Run a command: its stdout. clray's own errors are raised."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout
