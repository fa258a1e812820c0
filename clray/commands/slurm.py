"""``clray slurm``: the batch file that runs a sweep on a cluster with Slurm."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from clray.commands.elsewhere import (
    cells,
    complain_of_phases,
    is_shipped,
    job_name,
    launch_arguments,
    most_cpus,
    store_uri,
    typed,
    write_or_print,
)
from clray.commands.options import Name, NoWait, Only, Quick, RequireGpu, RerunStale, Results, Seeds, Set
from clray.commands.target import Target, selected, target_of
from clray.errors import DeclarationError
from clray.extras import require
from clray.output import complain, counted

ELEMENTS = 10
"""The elements of an array where none are named; fewer where there are fewer trials."""


def slurm_command(
    name: Name,
    array: Annotated[
        int | None,
        typer.Option("--array", min=1, metavar="N", help="An array of N jobs without Ray; each trial runs once. "
                     "The default, with at most 10 jobs."),
    ] = None,
    ray: Annotated[bool, typer.Option("--ray", help="One job with a Ray cluster on its nodes.")] = False,
    nodes: Annotated[int | None, typer.Option("--nodes", min=1, metavar="N", help="The nodes of --ray.")] = None,
    time: Annotated[
        str | None,
        typer.Option("--time", metavar="TIME", help="The limit of a job's time, as sbatch takes it: 04:00:00. "
                     "The launch ends some minutes before, and the job goes back into the queue."),
    ] = None,
    cpus_per_task: Annotated[
        int | None,
        typer.Option("--cpus-per-task", min=1, metavar="N", help="The cores of each job of an array (default: those "
                     "of a trial), or of each node with --ray."),
    ] = None,
    gres: Annotated[
        str | None,
        typer.Option("--gres", metavar="GRES", help="GPUs of each job or node, such as gpu:1. Jobs of an array then "
                     "each embed a Ray."),
    ] = None,
    partition: Annotated[str | None, typer.Option("--partition", metavar="NAME", help="The partition.")] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option("--sbatch", metavar="KEY=VALUE", help="Another long option of sbatch, without dashes: "
                     "account=lab, mem=8G, exclusive. Repeatable."),
    ] = None,
    requeues: Annotated[
        int,
        typer.Option("--requeues", min=0, max=1000, metavar="N", help="How often a job whose time was over goes back "
                     "into the queue. 0: never."),
    ] = 20,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="The batch file to write. Default: print it.")
    ] = None,
    quick: Quick = False, only: Only = None, seeds: Seeds = None, set_: Set = None, results: Results = "results",
    rerun_stale: RerunStale = False, require_gpu: RequireGpu = False, no_wait: NoWait = False,
) -> None:  # fmt: skip
    """Write a batch file for Slurm that runs a sweep, and continues it when it is submitted again. Nothing is run."""
    from clray import slurm

    _refuse_contradictions(array, ray, nodes, cpus_per_task)
    if ray or gres is not None:  # the file uses this Python
        require("ray", "--ray" if ray else f"--gres {gres}", "an array without --gres, whose jobs need no Ray")
    seconds = None if time is None else slurm.seconds_of(time)
    target = target_of(name, selected(quick, only, seeds, set_), results)
    options = {
        flag.removeprefix("--"): slurm.checked(flag, value)
        for flag, value in (("--partition", partition), ("--gres", gres))
        if value is not None
    }
    cores = cpus_per_task or most_cpus(target)
    _require_room(target, cores)
    complain_of_phases(target)
    file = name if is_shipped(target) else str(Path(name).absolute())
    command = [*launch_arguments(target, file), "--results", store_uri(results)]
    command += ["--rerun-stale"] * rerun_stale + ["--require-gpu"] * require_gpu
    command += ["--no-wait"] * no_wait
    job = slurm.Job(
        name=job_name(target),
        folder=str(Path.cwd()),
        python=sys.executable,
        command=command,
        made_by=typed(),
        seconds=seconds,
        cpus=cores,
        requeues=requeues,
        environment={name: os.environ[name] for name in ("PYTHONPATH", "CLRAY_DATA") if os.environ.get(name)},
        options={**options, **slurm.options_of(sbatch or ())},
    )
    if ray:
        text = slurm.ray_job(job, nodes or 1)
    else:
        text = slurm.array_job(job, _elements(target, array), gpus=gres is not None)
        if gres is None and any(cell.resources.gpu for cell in cells(target)):
            complain("trials ask for a GPU: without --gres they run on the CPU")
    write_or_print(text, output, "submit it: sbatch FILE")


def _refuse_contradictions(array: int | None, ray: bool, nodes: int | None, cpus: int | None) -> None:
    """Check that flags of one kind of job are not given with the other.

    Raises:
        DeclarationError: they are, or one is missing.
    """
    if ray and array is not None:
        raise DeclarationError("--array with --ray: allowed: one of them; a Ray cluster is one job on several nodes")
    if nodes is not None and not ray:
        raise DeclarationError(f"--nodes {nodes}: only a Ray cluster has several nodes; allowed with --ray")
    if ray and cpus is None:
        raise DeclarationError("--ray needs --cpus-per-task N: the cores of each node that Ray gets")


def _require_room(target: Target, cores: int) -> None:
    """Check that each trial has room on the cores of a job.

    Raises:
        DeclarationError: one has not.
    """
    if (most := most_cpus(target)) > cores:
        raise DeclarationError(
            f"--cpus-per-task {cores}: a trial asks for {most} CPUs ('resources'); allowed: {most} or more"
        )


def _elements(target: Target, asked: int | None) -> int:
    """The number of elements of an array: never more than there are trials."""
    trials = len(cells(target))
    if asked is not None and asked > trials:
        complain(
            f"--array {asked}: there are only {counted(trials, 'trial')}, so that more jobs would have nothing to do"
        )
    return max(1, min(asked or ELEMENTS, trials))
