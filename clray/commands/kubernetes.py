"""``clray kubernetes``: the manifest that runs a sweep on Kubernetes, by KubeRay."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from clray.commands.elsewhere import (
    complain_of_phases,
    is_shipped,
    launch_arguments,
    most_cpus,
    store_uri,
    typed,
    write_or_print,
)
from clray.commands.options import MaxHours, Name, Only, Quick, RequireGpu, RerunStale, Seeds, Set
from clray.commands.target import Target, selected, target_of
from clray.errors import DeclarationError


def kubernetes_command(
    name: Name,
    image: Annotated[
        str, typer.Option("--image", metavar="IMAGE", help="The container image, with clray and its extra 'cluster'.")
    ],
    results: Annotated[
        str | None,
        typer.Option("--results", metavar="URI", help="The results store: s3://…, gs://…, or a path below /clray on "
                     "the volume of --claim (default: /clray/results)."),
    ] = None,
    claim: Annotated[
        str, typer.Option("--claim", metavar="NAME", help="A persistent volume claim (ReadWriteMany) for results and "
                          "data, mounted at /clray.")
    ] = "",
    secret: Annotated[
        str, typer.Option("--secret", metavar="NAME", help="A Secret with the credentials of the store.")
    ] = "",
    account: Annotated[
        str, typer.Option("--service-account", metavar="NAME", help="A service account whose role may use the store.")
    ] = "",
    workers: Annotated[int, typer.Option("--workers", min=1, metavar="N", help="The number of worker pods.")] = 2,
    cpus: Annotated[int, typer.Option("--cpus", min=1, metavar="N", help="The cores of each worker.")] = 4,
    memory: Annotated[str, typer.Option("--memory", metavar="SIZE", help="The memory of each worker.")] = "8GiB",
    gpus: Annotated[int, typer.Option("--gpus", min=0, metavar="N", help="The GPUs of each worker.")] = 0,
    retries: Annotated[
        int, typer.Option("--retries", min=0, max=100, metavar="N", help="How often a failed job is tried again, on a "
                          "new cluster. Never with --max-hours.")
    ] = 1,
    job_name: Annotated[str, typer.Option("--name", metavar="NAME", help="The job's name. Default: the sweep's.")] = "",
    namespace: Annotated[str, typer.Option("--namespace", metavar="NAME", help="The namespace.")] = "",
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="The manifest to write. Default: print it.")
    ] = None,
    quick: Quick = False, only: Only = None, seeds: Seeds = None, set_: Set = None,
    rerun_stale: RerunStale = False, require_gpu: RequireGpu = False, max_hours: MaxHours = None,
) -> None:  # fmt: skip
    """Write a RayJob for KubeRay that runs a sweep on Kubernetes, and continues it when it is applied again. Nothing is
    run."""
    from clray import kubernetes
    from clray.limits import bytes_of

    try:
        size = bytes_of(memory)
    except ValueError as error:
        raise DeclarationError(f"--memory: {error}") from None
    if results is None and not claim:
        raise DeclarationError(
            "--results: no store is named; allowed: an address such as s3://BUCKET/clray, or --claim"
        )
    place = f"{kubernetes.MOUNT}/results" if results is None else store_uri(results)
    target = target_of(name, selected(quick, only, seeds, set_), results or place)
    if (most := most_cpus(target)) > cpus:
        raise DeclarationError(f"--cpus {cpus}: a trial asks for {most} CPUs ('resources'); allowed: {most} or more")
    path = Path(name).absolute()
    complain_of_phases(target)
    files = _files(target, path)
    there = name if is_shipped(target) else f"{kubernetes.SWEEP_MOUNT}/{path.parent.name}/{path.name}"
    job = kubernetes.Job(
        name=job_name or _name(target),
        image=image,
        command=launch_arguments(target, there) + ["--rerun-stale"] * rerun_stale + ["--require-gpu"] * require_gpu,
        results=place,
        made_by=typed(),
        workers=workers,
        cpus=cpus,
        memory=size,
        gpus=gpus,
        folder=path.parent.name,
        files=files,
        namespace=namespace,
        claim=claim,
        secret=secret,
        account=account,
        max_hours=max_hours,
        retries=retries,
    )
    write_or_print(kubernetes.manifest(job), output, "start it: kubectl apply -f FILE")


def _files(target: Target, path: Path) -> dict[str, str]:
    """The file of a sweep or reproduction, the sweeps that a reproduction names, and the user's own code that they
    name, by their paths in the file's folder; for a ConfigMap.

    Raises:
        DeclarationError: some code or sweep lies outside of this folder.
    """
    from clray.provenance import own_texts

    files = {} if is_shipped(target) else {path.name: path.read_text(encoding="utf-8-sig")}
    named = target.reproduction.sweep_names if target.reproduction and not is_shipped(target) else []
    for sweep in map(Path, named):
        if sweep.suffix == ".yaml" and sweep.is_file():
            within = os.path.relpath(sweep.absolute(), path.parent)
            if within.startswith(".."):
                raise DeclarationError(f"{sweep}: lies outside of the folder of {path.name}; allowed: in this folder")
            files[within] = sweep.read_text(encoding="utf-8-sig")
    firsts = {(name, cell.variant): cell for name, sweep in target.sweeps.items() for cell in sweep.cells}
    for cell in firsts.values():
        for own in own_texts(cell.trial).values():
            within = os.path.relpath(own["folder"], path.parent)
            if is_shipped(target) or within.startswith(".."):
                raise DeclarationError(
                    f"{own['folder']}: the code of variant {cell.variant} lies outside of the folder of the sweep "
                    "file; allowed: in this folder, or in a package that the image has"
                )
            files |= {os.path.normpath(f"{within}/{name}"): text for name, text in own["files"].items()}
    return files


def _name(target: Target) -> str:
    """A target's name as the name of a job."""
    words = re.sub(r"[^a-z0-9]+", "-", target.name.lower()).strip("-")[:34].strip("-")
    return f"clray-{words or 'sweep'}"
