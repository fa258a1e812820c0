"""The command line: ``clray …``. Each command reads its arguments, asks the rooms behind it, and prints.

Exit codes: 0 done, 1 some trials failed or something could not be read or reached, 2 wrong usage or declaration,
130 interrupted: by Ctrl-C, SIGTERM, --max-hours, or a question that was answered with no. Heavy packages are imported
inside the commands that use them, so that every ``--help`` is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from clray import __version__
from clray.commands import (
    compare,
    compare_stores,
    data,
    doctor,
    garbage,
    init,
    kubernetes,
    leaderboard,
    overview,
    plan,
    publish,
    records,
    run,
    samples,
    search,
    slurm,
    tables,
    trials,
    tune,
    verify,
)
from clray.errors import ClrayError
from clray.extras import message, of_package
from clray.folders import ensure_home
from clray.output import accept_every_letter, complain, deliver, shown

app = typer.Typer(
    name="clray",
    help="Reproduces the tables of continual-learning papers: declared sweeps, run by Ray, a verdict for every cell.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
records_app = typer.Typer(no_args_is_help=True, help="The reference runs that ship with clray.")
data_app = typer.Typer(no_args_is_help=True, help="The data sets: what is here, and where it comes from.")

COMMANDS: dict[str, Callable[..., None]] = {
    "plan": plan.plan_command,
    "costs": plan.costs_command,
    "sweep": run.sweep_command,
    "reproduce": run.reproduce_command,
    "run": run.run_command,
    "tune": tune.tune_command,
    "search": search.search_command,
    "slurm": slurm.slurm_command,
    "kubernetes": kubernetes.kubernetes_command,
    "table": tables.table_command,
    "report": tables.report_command,
    "compare": compare.compare_command,
    "leaderboard": leaderboard.leaderboard_command,
    "verify": verify.verify_command,
    "list": overview.list_command,
    "show": trials.show_command,
    "export": trials.export_command,
    "samples": samples.samples_command,
    "status": overview.status_command,
    "compare-stores": compare_stores.compare_stores_command,
    "gc": garbage.gc_command,
    "publish": publish.publish_command,
    "doctor": doctor.doctor_command,
    "init": init.init_command,
}
"""In the order of ``clray --help``."""
DATA_COMMANDS: dict[str, Callable[..., None]] = {
    "list": data.list_command,
    "fetch": data.fetch_command,
    "verify": data.verify_command,
}
RECORDS_COMMANDS: dict[str, Callable[..., None]] = {
    "list": records.list_command,
    "add": records.add_command,
    "pages": records.pages_command,
}

for _name, _command in COMMANDS.items():
    app.command(_name)(_command)
for _name, _command in DATA_COMMANDS.items():
    data_app.command(_name)(_command)
for _name, _command in RECORDS_COMMANDS.items():
    records_app.command(_name)(_command)
app.add_typer(data_app, name="data")
app.add_typer(records_app, name="records")


def main() -> None:
    """The ``clray`` command. Errors that are not clray's own fault end in one message, without a traceback."""
    run_app(app)


def run_app(application: Any) -> None:
    """Run a typer application, turning clray's errors into their message and exit code.

    Output that reaches nobody is one message too, or none where its reader has ended: ``clray list | head -1``.
    """
    ensure_home()
    accept_every_letter()
    code = _exit_code(application)
    try:
        deliver()
    except ClrayError as error:
        complain(f"error: {shown(str(error))}")
        code = error.exit_code
    except BrokenPipeError:
        code = 1
    sys.exit(code)


def _exit_code(application: Any) -> Any:
    try:
        application()
    except ClrayError as error:
        complain(f"error: {shown(str(error))}")
        return error.exit_code
    except ModuleNotFoundError as error:
        extra = of_package(error.name)
        if extra is None:
            raise
        complain(f"error: {shown(message(extra, 'this', [str(error.name).partition('.')[0]]))}")
        return 1
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    except SystemExit as end:
        return end.code
    return 0


def _version(value: bool) -> None:
    if value:
        print(f"clray {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
