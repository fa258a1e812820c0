"""``python -m clray.reproduce NAME`` is ``clray reproduce NAME``."""

from __future__ import annotations

import typer

from clray.cli import run_app
from clray.commands.run import reproduce_command


def main() -> None:
    """Run the one command."""
    app = typer.Typer(pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})
    app.command("reproduce")(reproduce_command)
    run_app(app)


if __name__ == "__main__":
    main()
