"""A manifest for Kubernetes: a RayJob of KubeRay, which starts a Ray cluster, runs a sweep there, and removes it.

The manifest has no key. Credentials of a store come from a Secret that the pods refer to, or from the role of their
service account; Ray's token is made by the operator. docs/kubernetes.md is for users.
"""

from __future__ import annotations

import re
import shlex
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import yaml

from clray.errors import DeclarationError

MOUNT = "/clray"
"""The place of a persistent volume in every pod: results and data lie below it."""
SWEEP_MOUNT = "/etc/clray"
"""The place of the sweep file's folder in the head's pod. The folder keeps its name, which may be part of an id."""
MOST_FILE_BYTES = 900_000
"""The largest sweep file that a ConfigMap takes: 1 MiB, with some room for the rest of it."""
KEYS = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "az": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"),
}
"""The keys of a Secret that stores need, by the scheme of their address; each is also the name of the variable."""
_SCHEMES = {"s3": "s3", "az": "az", "abfs": "az", "abfss": "az"}
_OTHER_KEYS = {"s3": ("AWS_SESSION_TOKEN", "AWS_REGION")}
"""Keys that a Secret may have as well."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_IMAGE = re.compile(r"[\w][\w.:/@-]*", re.ASCII)
_HEAD = {"cpu": "2", "memory": "4Gi"}
"""The head runs Ray's own processes and the driver, and no trial."""


@dataclass(frozen=True)
class Job:
    """The job that a manifest declares.

    Attributes:
        name: of the job, and of what belongs to it.
        image: the container image, which has clray[cluster] and the extras that the sweep and the store need.
        command: the arguments of clray's launch, without the store.
        results: the store: a URI, or a path below ``MOUNT``.
        made_by: the command that made the manifest, for a comment.
        workers: the number of worker pods.
        cpus, memory, gpus: of each worker: cores, bytes and whole GPUs.
        folder: the name of the sweep file's folder; empty where the sweep ships with clray.
        files: the sweep file and the code of the user's own that it names, by their paths in this folder.
        namespace, claim, secret, account: the names of a namespace, a persistent volume claim, a Secret with
            credentials and a service account; empty where there is none.
        max_hours: the time after which the launch ends; None for no end.
        retries: how often the job is tried again, on a new cluster, when it fails.
    """

    name: str
    image: str
    command: Sequence[str]
    results: str
    made_by: str
    workers: int = 2
    cpus: int = 4
    memory: int = 8 * 2**30
    gpus: int = 0
    folder: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    namespace: str = ""
    claim: str = ""
    secret: str = ""
    account: str = ""
    max_hours: float | None = None
    retries: int = 1


class _Dumper(yaml.SafeDumper):
    """Writes a text of several lines as a block, so that a sweep file can be read in the manifest."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def check(job: Job) -> None:
    """Check what can be checked without a cluster.

    Raises:
        DeclarationError: a name is not one of Kubernetes', or the store cannot be reached from the pods.
    """
    for flag, name in (
        ("--name", job.name),
        ("--namespace", job.namespace),
        ("--claim", job.claim),
        ("--secret", job.secret),
        ("--service-account", job.account),
    ):
        most = 40 if flag == "--name" else 63  # KubeRay adds to the name of a job, and the sum has at most 63
        if name and not (_NAME.fullmatch(name) and len(name) <= most):
            raise DeclarationError(
                f"{flag} {shlex.quote(name)}: no name of Kubernetes; allowed: at most {most} of a-z, 0-9 and -, "
                "with a letter or digit at both ends"
            )
    if not _IMAGE.fullmatch(job.image):
        raise DeclarationError(f"--image {shlex.quote(job.image)}: expected REGISTRY/NAME:TAG")
    scheme, separator, _ = job.results.partition("://")
    if separator and job.secret and scheme not in _SCHEMES:
        raise DeclarationError(
            f"--secret {job.secret}: keys in a Secret are for s3, az, abfs and abfss; for {scheme} let the role of a "
            "service account give the right (--service-account)"
        )
    if not separator and job.secret:
        raise DeclarationError(f"--secret {job.secret}: a store on a volume needs no credentials; leave it out")
    if not separator and not job.claim:
        raise DeclarationError(
            f"--results {job.results}: pods share no folder; allowed: an address such as s3://BUCKET/clray, or a "
            "persistent volume that all pods may write (--claim NAME)"
        )
    if not separator and not (job.results == MOUNT or job.results.startswith(f"{MOUNT}/")):
        raise DeclarationError(f"--results {job.results}: the volume is at {MOUNT}; allowed: a path below it")
    if (size := sum(len(text.encode()) for text in job.files.values())) > MOST_FILE_BYTES:
        raise DeclarationError(
            f"{', '.join(job.files)}: {size:,} bytes, and a ConfigMap takes {MOST_FILE_BYTES:,}; put the code into the "
            "image, as a package"
        )


def manifest(job: Job) -> str:
    """The manifest as YAML: the RayJob, and a ConfigMap with the sweep file where there is one.

    Raises:
        DeclarationError: a part of it is not possible.
    """
    check(job)
    documents = [_files(job)] if job.files else []
    documents.append(_ray_job(job))
    about = [
        "A RayJob of KubeRay (1.5.1 or later): a Ray cluster that runs a sweep, and goes when it has ended.",
        "Start it: kubectl apply -f FILE. Again, after kubectl delete -f FILE: it continues what is left.",
        f"Made by: {job.made_by}",
    ]
    if job.secret:
        about.append(f"The Secret {job.secret} has the keys {', '.join(_keys(job))}; make it beside this file.")
    texts = [yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
             for document in documents]  # fmt: skip
    return "".join(f"# {line}\n" for line in about) + "".join(f"---\n{text}" for text in texts)


def _metadata(job: Job, name: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": "clray", "app.kubernetes.io/instance": job.name}
    return {"name": name, **({"namespace": job.namespace} if job.namespace else {}), "labels": labels}


def _files(job: Job) -> dict[str, Any]:
    """The sweep file, and what belongs to it."""
    data = {_key(path): text for path, text in job.files.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(job, f"{job.name}-sweep"), "data": data}


def _key(path: str) -> str:
    """A file's key in a ConfigMap, which has fewer letters than a path. No two paths have the same."""
    plain = re.sub(r"[^-._a-zA-Z0-9]", "-", path).lstrip(".")
    return plain if plain == path else f"{zlib.crc32(path.encode()):08x}-{plain}"[-200:].lstrip(".")


def _ray_job(job: Job) -> dict[str, Any]:
    hours = [] if job.max_hours is None else ["--max-hours", f"{job.max_hours:g}"]
    entrypoint = ["clray", *job.command, "--results", job.results, "--address", "auto", "--wandb", "off", *hours]
    spec: dict[str, Any] = {
        "entrypoint": shlex.join(entrypoint),
        "submissionMode": "K8sJobMode",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 600,  # so long its logs can be read
    }
    if job.max_hours is None:
        spec["backoffLimit"] = job.retries
    else:  # a launch that stops for its time has failed, as Kubernetes sees it, and must not be tried again
        spec["backoffLimit"] = 0
        spec["activeDeadlineSeconds"] = int(3600 * job.max_hours) + 1800
    spec["rayClusterSpec"] = _cluster(job)
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": _metadata(job, job.name), "spec": spec}


def _cluster(job: Job) -> dict[str, Any]:
    """The Ray cluster. The dashboard, which takes the job, is a service within Kubernetes that asks for the token."""
    try:
        version = {"rayVersion": metadata.version("ray")}
    except metadata.PackageNotFoundError:
        version = {}
    worker = {"cpu": str(job.cpus), "memory": f"{job.memory // 2**20}Mi"}
    worker |= {"nvidia.com/gpu": str(job.gpus)} if job.gpus else {}
    store = {"object-store-memory": "200000000"}  # nothing of clray's travels through it
    return {
        **version,
        "authOptions": {"mode": "token"},
        "headGroupSpec": {
            "serviceType": "ClusterIP",
            "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0", **store},
            "template": _pod(job, "ray-head", _HEAD, head=True),
        },
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                "replicas": job.workers,
                "minReplicas": job.workers,
                "maxReplicas": job.workers,
                "rayStartParams": store,
                "template": _pod(job, "ray-worker", worker, head=False),
            }
        ],
    }


def _pod(job: Job, name: str, resources: Mapping[str, str], head: bool) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": name,
        "image": job.image,
        "env": _environment(job),
        "resources": {"requests": dict(resources), "limits": dict(resources)},
        "securityContext": {"allowPrivilegeEscalation": False},
    }
    mounts: list[dict[str, Any]] = []
    volumes: list[dict[str, Any]] = []
    if job.claim:
        mounts.append({"name": "shared", "mountPath": MOUNT})
        volumes.append({"name": "shared", "persistentVolumeClaim": {"claimName": job.claim}})
    if head and job.files:
        items = [{"key": _key(path), "path": path} for path in job.files]
        mounts.append({"name": "sweep", "mountPath": f"{SWEEP_MOUNT}/{job.folder}", "readOnly": True})
        volumes.append({"name": "sweep", "configMap": {"name": f"{job.name}-sweep", "items": items}})
    pod: dict[str, Any] = {"containers": [container]}
    if mounts:
        container["volumeMounts"] = mounts
        pod["volumes"] = volumes
    if job.account:
        pod["serviceAccountName"] = job.account
    return {"metadata": {"labels": _metadata(job, name)["labels"]}, "spec": pod}


def _keys(job: Job) -> tuple[str, ...]:
    return KEYS[_SCHEMES[job.results.partition("://")[0]]] if job.secret else ()


def _environment(job: Job) -> list[dict[str, Any]]:
    """The variables of a container; those that hold a key refer to the Secret."""
    plain = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_metrics_collection": "0"}
    plain |= {"CLRAY_DATA": f"{MOUNT}/data"} if job.claim else {}
    found: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in plain.items()]
    other = _OTHER_KEYS.get(job.results.partition("://")[0], ()) if job.secret else ()
    for name in (*_keys(job), *other):
        reference: dict[str, Any] = {"name": job.secret, "key": name}
        if name in other:
            reference["optional"] = True
        found.append({"name": name, "valueFrom": {"secretKeyRef": reference}})
    return found
