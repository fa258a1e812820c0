"""The manifest for Kubernetes: its form, what it runs, and that it holds no key."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from clray import own_code
from clray.cli import app
from clray.loading import load_sweep
from clray.reproduction import load_reproduction

NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|[KMGTPE]i?)?")
TEXT = re.compile(r".+", re.DOTALL)
KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
PATH = re.compile(r"(?!/)(?!.*\.\.).+")
LABELS = {"*": TEXT}

# The fields that clray uses, as the definitions of RayJob (ray.io/v1, KubeRay 1.5 and later) and of pods
# have them. A key that ends with ! must be there; * stands for any key. A list has one form for all of its items.
RESOURCES = {"requests": {"cpu!": QUANTITY, "memory!": QUANTITY, "nvidia.com/gpu": re.compile("[0-9]+")}}
RESOURCES["limits"] = RESOURCES["requests"]
CONTAINER = {
    "name!": NAME,
    "image!": TEXT,
    "env": [
        {
            "name!": re.compile(r"[A-Za-z_][A-Za-z0-9_]*"),
            "value": str,
            "valueFrom": {"secretKeyRef!": {"name!": NAME, "key!": re.compile(r"[-._A-Za-z0-9]+"), "optional": bool}},
        }
    ],
    "resources": RESOURCES,
    "securityContext": {"allowPrivilegeEscalation": bool},
    "volumeMounts": [{"name!": NAME, "mountPath!": re.compile(r"/[^:]+"), "readOnly": bool}],
}
VOLUME = {
    "name!": NAME,
    "persistentVolumeClaim": {"claimName!": NAME},
    "configMap": {"name!": NAME, "items": [{"key!": KEY, "path!": PATH}]},
}
POD = {
    "metadata": {"labels": LABELS},
    "spec!": {"containers!": [CONTAINER], "volumes": [VOLUME], "serviceAccountName": NAME},
}
RAY_JOB = {
    "apiVersion!": re.compile("ray.io/v1"),
    "kind!": re.compile("RayJob"),
    "metadata!": {"name!": re.compile(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?"), "namespace": NAME, "labels": LABELS},
    "spec!": {
        "entrypoint": TEXT,
        "submissionMode": re.compile("K8sJobMode|HTTPMode|SidecarMode|InteractiveMode"),
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "backoffLimit": int,
        "activeDeadlineSeconds": int,
        "rayClusterSpec": {
            "rayVersion": re.compile(r"[0-9]+\.[0-9]+\.[0-9]+"),
            "authOptions": {"mode": re.compile("disabled|token")},
            "headGroupSpec!": {
                "serviceType": re.compile("ClusterIP|NodePort|LoadBalancer"),
                "rayStartParams": {"*": str},
                "template!": POD,
            },
            "workerGroupSpecs": [
                {
                    "groupName!": NAME,
                    "replicas": int,
                    "minReplicas!": int,
                    "maxReplicas!": int,
                    "rayStartParams": {"*": str},
                    "template!": POD,
                }
            ],
        },
    },
}
CONFIG_MAP = {
    "apiVersion!": re.compile("v1"),
    "kind!": re.compile("ConfigMap"),
    "metadata!": {"name!": NAME, "namespace": NAME, "labels": LABELS},
    "data": {"*": str},
}


def faults(form: Any, value: Any, place: str = "") -> list[str]:
    """The places at which a value has not the form."""
    if isinstance(form, Mapping):
        if not isinstance(value, dict):
            return [f"{place}: no mapping"]
        known = {key.rstrip("!"): part for key, part in form.items()}
        found = [f"{place}.{key[:-1]}: missing" for key in form if key.endswith("!") and key[:-1] not in value]
        found += [f"{place}.{key}: unknown" for key in value if key not in known and "*" not in known]
        for key, part in value.items():
            if key in known or "*" in known:
                found += faults(known.get(key, known.get("*")), part, f"{place}.{key}")
        return found
    if isinstance(form, list):
        if not isinstance(value, list):
            return [f"{place}: no list"]
        return [fault for i, item in enumerate(value) for fault in faults(form[0], item, f"{place}[{i}]")]
    if isinstance(form, re.Pattern):
        fits = isinstance(value, str) and form.fullmatch(value) is not None
    else:
        fits = isinstance(value, form) and (form is bool or not isinstance(value, bool))
    return [] if fits else [f"{place}: {value!r}"]


def made(*arguments: str) -> list[dict[str, Any]]:
    done = CliRunner().invoke(app, ["kubernetes", *arguments])
    assert done.exit_code == 0, done.exception
    return list(yaml.safe_load_all(done.stdout))


def job_of(*arguments: str) -> dict[str, Any]:
    return next(document for document in made(*arguments) if document["kind"] == "RayJob")


def pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"]["template"]["spec"], cluster["workerGroupSpecs"][0]["template"]["spec"]]


S3 = ("--image", "registry.example/lab/clray:1", "--results", "s3://bucket/clray")


@pytest.mark.parametrize(
    "arguments",
    [
        ("mer_rotations", *S3),
        ("mer_rotations", *S3, "--secret", "store-keys", "--gpus", "1", "--namespace", "lab", "--max-hours", "5.5"),
        ("mer_rotations", "--image", "a/b@sha256:0123", "--claim", "shared", "--quick", "--workers", "7"),
        ("tag/rotated_mnist", "--image", "c:1", "--results", "gs://bucket/x", "--service-account", "writer"),
        ("tag/rotated_mnist", "--image", "c:1", "--results", "az://container/x", "--secret", "keys", "--retries", "0"),
    ],
)
def test_it_has_the_form_of_a_ray_job(arguments: tuple[str, ...]) -> None:
    job = job_of(*arguments)
    assert faults(RAY_JOB, job) == []
    spec = job["spec"]
    if "--max-hours" in arguments:
        assert spec["backoffLimit"] == 0, "a launch whose time was over is not tried again"
        assert spec["activeDeadlineSeconds"] > 5.5 * 3600
    for replicas in ("replicas", "minReplicas", "maxReplicas"):
        assert spec["rayClusterSpec"]["workerGroupSpecs"][0][replicas] == (7 if "--workers" in arguments else 2)


def test_the_form_finds_faults() -> None:
    job = job_of("mer_rotations", *S3)
    job["spec"]["shutdownAfterJobFinish"] = True
    job["spec"]["ttlSecondsAfterFinished"] = "600"
    del job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["groupName"]
    pods(job)[0]["containers"][0]["env"][0]["value"] = 0
    assert {fault.partition(":")[0] for fault in faults(RAY_JOB, job)} == {
        ".spec.shutdownAfterJobFinish",
        ".spec.ttlSecondsAfterFinished",
        ".spec.rayClusterSpec.workerGroupSpecs[0].groupName",
        ".spec.rayClusterSpec.headGroupSpec.template.spec.containers[0].env[0].value",
    }


def test_it_runs_the_sweep_that_was_selected() -> None:
    job = job_of("mer_rotations", *S3, "--quick", "--seeds", "0,1", "--set", "resources.hours=2")
    assert shlex.split(job["spec"]["entrypoint"]) == [
        "clray", "reproduce", "mer_rotations", "--quick", "--seeds", "0,1", "--set", "resources.hours=2",
        "--results", "s3://bucket/clray", "--address", "auto", "--wandb", "off",
    ]  # fmt: skip


def unpacked(documents: list[dict[str, Any]], folder: Path) -> Path:
    """The files of a ConfigMap as the head's pod has them, below a folder in place of the root."""
    config, job = documents
    assert faults(CONFIG_MAP, config) == []
    assert faults(RAY_JOB, job) == []
    head, worker = pods(job)
    assert "volumes" not in worker
    [mount], [volume] = head["containers"][0]["volumeMounts"], head["volumes"]
    assert volume["configMap"]["name"] == config["metadata"]["name"]
    assert len({item["key"] for item in volume["configMap"]["items"]}) == len(config["data"])
    for item in volume["configMap"]["items"]:
        place = folder / mount["mountPath"].lstrip("/") / item["path"]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(config["data"][item["key"]], encoding="utf-8")
    return folder / shlex.split(job["spec"]["entrypoint"])[2].lstrip("/")


def test_a_sweep_file_travels_with_it(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "my sweep é.yaml"
    file.write_text("# Größe: { }\n" + tiny.read_text(), encoding="utf-8")
    copy = unpacked(made(str(file), *S3), tmp_path / "pod")
    assert copy.name == file.name
    assert copy.read_text(encoding="utf-8") == file.read_text(encoding="utf-8")
    assert [c.trial for c in load_sweep(copy).cells] == [c.trial for c in load_sweep(file).cells]


def test_a_reproduction_file_travels_with_its_sweeps(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    (folder / "sweeps").mkdir(parents=True)
    (folder / "sweeps" / "tiny.yaml").write_text(tiny.read_text(), encoding="utf-8")
    table = folder / "table.yaml"
    table.write_text(
        "{version: 1, paper: mer, title: T, runs: 1, spread: sd, known: paper, margins: {}, tables: [{title: T, "
        "sweep: sweeps/tiny.yaml, source: T, metrics: [RA], rows: [{label: L, variant: online, note: n}]}]}",
        encoding="utf-8",
    )
    documents = made(str(table), *S3)
    assert len(documents[0]["data"]) == 2
    assert " reproduce " in documents[1]["spec"]["entrypoint"]
    copy = unpacked(documents, tmp_path / "pod")
    here, there = (load_reproduction(file).sweeps() for file in (table, copy))
    trials = [[cell.trial for sweep in sweeps.values() for cell in sweep.cells] for sweeps in (here, there)]
    assert trials[0] == trials[1] != []
    (folder / "sweeps" / "tiny.yaml").rename(tmp_path / "tiny2.yaml")
    table.write_text(table.read_text().replace("sweeps/tiny.yaml", "../tiny2.yaml"), encoding="utf-8")
    done = CliRunner().invoke(app, ["kubernetes", str(table), *S3])
    assert "lies outside of the folder of table.yaml" in str(done.exception)


def test_a_phase_that_chooses_is_not_in_the_job() -> None:
    for command in (["kubernetes", "online/tuning_mnist", *S3], ["slurm", "online/tuning_mnist", "--results", "r"]):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        assert "not `clray tune`" in done.stderr


def test_so_does_code_of_one_s_own(tmp_path: Path) -> None:
    folder = tmp_path / "my-method"
    assert CliRunner().invoke(app, ["init", str(folder), "--like", "er"]).exit_code == 0
    file = folder / "sweep.yaml"
    with (folder / "method.py").open("a") as method:
        method.write("from . import losses  # noqa\n")
    (folder / "losses.py").write_text("HALF = 0.5\n")
    trials = [cell.trial.declaration for cell in load_sweep(file).cells]
    documents = made(str(file), *S3)
    assert set(documents[0]["data"]) == {"sweep.yaml", "method.py", "losses.py"}
    shutil.move(folder, tmp_path / "elsewhere")
    own_code.forget()
    copy = unpacked(documents, tmp_path / "pod")
    assert [cell.trial.declaration for cell in load_sweep(copy).cells] == trials
    own_code.forget()


def test_code_that_lies_elsewhere_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my-method"
    assert CliRunner().invoke(app, ["init", str(folder), "--like", "er"]).exit_code == 0
    sweep = tmp_path / "sweeps" / "sweep.yaml"
    sweep.parent.mkdir()
    sweep.write_text((folder / "sweep.yaml").read_text().replace("./method.py", "../my-method/method.py"))
    done = CliRunner().invoke(app, ["kubernetes", str(sweep), *S3])
    assert done.exception.exit_code == 2  # type: ignore[union-attr]
    assert "lies outside of the folder of the sweep file; allowed: in this folder" in str(done.exception)
    own_code.forget()


def test_a_volume_holds_results_and_data() -> None:
    job = job_of("mer_rotations", "--image", "c:1", "--claim", "shared")
    assert "--results /clray/results" in job["spec"]["entrypoint"]
    for pod in pods(job):
        assert pod["volumes"] == [{"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}}]
        assert {"name": "CLRAY_DATA", "value": "/clray/data"} in pod["containers"][0]["env"]


def test_keys_are_references(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    monkeypatch.setenv("WANDB_API_KEY", "very-secret")
    done = CliRunner().invoke(app, ["kubernetes", "mer_rotations", *S3, "--secret", "store-keys"])
    assert "very-secret" not in done.stdout
    for pod in pods(next(yaml.safe_load_all(done.stdout))):
        keys = {entry["name"]: entry["valueFrom"] for entry in pod["containers"][0]["env"] if "valueFrom" in entry}
        assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= set(keys)
        assert {reference["secretKeyRef"]["name"] for reference in keys.values()} == {"store-keys"}
        required = {name for name, reference in keys.items() if not reference["secretKeyRef"].get("optional")}
        assert required == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def test_the_dashboard_asks_for_a_token_and_is_no_public_service() -> None:
    cluster = job_of("mer_rotations", *S3)["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", "the head runs no trial"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("mer_rotations", "--image", "c:1"), "--results: no store is named; allowed: an address such as s3://"),
        (("mer_rotations", "--image", "c:1", "--results", "here"), "pods share no folder; allowed: an address"),
        (("mer_rotations", "--image", "c:1", "--results", "/x", "--claim", "p"), "allowed: a path below it"),
        (("mer_rotations", "--image", "c:1", "--results", "s3://a:b@bucket/x"), "the address holds a key"),
        (("mer_rotations", "--image", "c:1", "--results", "gs://b/x", "--secret", "k"), "--service-account"),
        (("mer_rotations", "--image", "c:1", "--claim", "p", "--secret", "k"), "needs no credentials"),
        (("mer_rotations", "--image", "c 1", "--claim", "p"), "expected REGISTRY/NAME:TAG"),
        (("mer_rotations", *S3, "--name", "My_Job"), "no name of Kubernetes; allowed: at most 40"),
        (("mer_rotations", *S3, "--memory", "8Gi"), "--memory: expected a number with a unit, such as 4GiB"),
        (("mer_rotations", *S3, "--set", "resources.cpu=8"), "--cpus 4: a trial asks for 8 CPUs"),
        (("no_such", *S3), "no such reproduction, sweep or file"),
    ],
)
def test_one_error(arguments: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(app, ["kubernetes", *arguments])
    assert done.exception.exit_code == 2  # type: ignore[union-attr]
    assert said in str(done.exception)
    assert "\n" not in str(done.exception)
    assert done.stdout == ""


def test_it_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    done = CliRunner().invoke(app, ["kubernetes", "mer_rotations", *S3, "-o", str(file)])
    assert done.exit_code == 0
    assert done.stdout == f"{file}: start it: kubectl apply -f {file}\n"
    assert faults(RAY_JOB, yaml.safe_load(file.read_text())) == []
    done = CliRunner().invoke(app, ["kubernetes", "mer_rotations", *S3, "-o", str(tmp_path / "no" / "job.yaml")])
    assert done.exception.exit_code == 2  # type: ignore[union-attr]
    assert "cannot be written" in str(done.exception)
    assert CliRunner().invoke(app, ["kubernetes", "mer_rotations"]).exit_code == 2, "an image is needed"
