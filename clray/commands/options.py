"""The options that several commands have."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Format(StrEnum):
    text = "text"
    md = "md"
    latex = "latex"
    csv = "csv"
    json = "json"


class Records(StrEnum):
    own = "own"
    reference = "reference"
    both = "both"


class Tracking(StrEnum):
    online = "online"
    offline = "offline"
    off = "off"


Name = Annotated[str, typer.Argument(metavar="NAME|FILE", help="A reproduction, a sweep, or a file of one.")]
Quick = Annotated[
    bool, typer.Option("--quick", help="The declared quick form: minutes, not comparable with the paper.")
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only", metavar="VARIANT[,VARIANT…]", help="Only these variants; * stands for any letters, as in 'mer*'."
    ),
]
Seeds = Annotated[
    str | None, typer.Option("--seeds", metavar="0,1,…|0-4", help="These seeds instead of the declared ones.")
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a key of the sweep file, dotted: benchmark.tasks=5. Repeatable."
    ),
]
Results = Annotated[str, typer.Option("--results", metavar="URI", help="The results store: a folder, s3://…, gs://…")]
ShownRecords = Annotated[
    Records | None,
    typer.Option(
        "--records",
        help="The runs to show: the store's own, the reference runs that ship with clray, or both side by side. "
        "Default: own, and where the store has none of these trials the reference runs.",
    ),
]
RunsFrom = Annotated[
    Records,
    typer.Option(
        "--records",
        help="The runs to compare: the store's own, the reference runs that ship with clray, or both: the store's, and "
        "the reference run of each trial that the store has not finished.",
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric", metavar="METRIC[,METRIC…]", help="The metrics, such as ACC. Default: the first declared one."
    ),
]
Address = Annotated[
    str | None,
    typer.Option("--address", envvar="RAY_ADDRESS", help="A Ray cluster, or auto; by default an embedded Ray."),
]


def _gpu_share(asked: float | None) -> float | None:
    from clray.resources import gpu_share

    return None if asked is None else gpu_share(asked)


def _hours(asked: float | None) -> float | None:
    from clray.errors import DeclarationError

    if asked is not None and not 0 < asked < float("inf"):
        raise DeclarationError(f"--max-hours {asked:g}: expected a number of hours above 0, such as 3.5")
    return asked


Gpu = Annotated[
    float | None,
    typer.Option("--gpu", callback=_gpu_share, help="GPU share of a trial instead of the declared one."),
]
Cpus = Annotated[
    int | None,
    typer.Option(
        "--cpus", min=1, metavar="N", help="CPUs of the embedded Ray. Default: the cores this process was given."
    ),
]
Gpus = Annotated[
    int | None, typer.Option("--gpus", min=0, metavar="N", help="GPUs of the embedded Ray. Default: the machine's.")
]
RequireGpu = Annotated[
    bool,
    typer.Option("--require-gpu", help="Refuse to run a trial on the CPU that asks for a GPU."),
]
MaxHours = Annotated[
    float | None,
    typer.Option(
        "--max-hours",
        metavar="H",
        callback=_hours,
        help="Stop cleanly after so many hours, as Ctrl-C does: exit code 130, and the same command continues.",
    ),
]
NoWait = Annotated[
    bool,
    typer.Option("--no-wait", help="End when only trials are left that other launches run, and leave these to them."),
]
Yes = Annotated[
    bool,
    typer.Option("--yes", "-y", help="Launch more than a day of core hours without asking; scripts are never asked."),
]
Wandb = Annotated[
    Tracking | None, typer.Option("--wandb", help="Publish to W&B. Default: online when logged in, else off.")
]
Local = Annotated[bool, typer.Option("--local", help="One trial after the other in this process, without Ray.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")]
RerunLacking = Annotated[
    bool,
    typer.Option(
        "--rerun-lacking",
        help="Also run finished trials that lack what `keep` in the sweep file asks for, such as their weights.",
    ),
]
RerunStale = Annotated[
    bool, typer.Option("--rerun-stale", help="Also run trials whose records were made by other code.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
