"""Ray accepts ray_cluster.yaml; the file opens no port, and exposes no secret and no results."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import pytest
import yaml
from launching import ROOT

FILE = ROOT / "ray_cluster.yaml"


@pytest.fixture
def cluster() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text())


def texts(node: Any) -> Iterator[str]:
    """Every key and value."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield str(key)
            yield from texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from texts(value)
    else:
        yield str(node)


def test_ray_takes_it(cluster: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(cluster))
    with pytest.raises(Exception, match="Additional properties"):
        validate_config(prepare_config({**cluster, "file_mount": {}}))


def test_there_is_a_kind_of_worker_for_cpus_and_one_for_gpus(cluster: dict[str, Any]) -> None:
    kinds = cluster["available_node_types"]
    assert kinds[cluster["head_node_type"]]["resources"] == {"CPU": 0}
    assert {bool(kind["resources"].get("GPU")) for name, kind in kinds.items() if kind.get("max_workers")} == {
        True,
        False,
    }


def test_what_is_mounted_exists_and_is_code(cluster: dict[str, Any]) -> None:
    mounts = dict(cluster["file_mounts"])
    assert mounts.pop("~/.ray/auth_token") == "~/.ray/auth_token"
    for remote, here in mounts.items():
        assert (ROOT / here).exists(), here
        assert remote == "~/clray/" + here.removeprefix("./")
        assert not re.search(r"results|data|wandb|\.git|\.venv|^\.?/?$", here)
    assert {"results", "data", "wandb"} <= set(cluster["rsync_exclude"])
    build = (ROOT / "pyproject.toml").read_text()
    for folder in ("clray", "analysis", "sweeps", "reproduce"):
        assert f'"{folder}"' in build
        assert f"./{folder}" in mounts.values(), "what the wheel is built from"
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        assert f"./{file}" in mounts.values(), "the wheel cannot be built without it"


def test_it_holds_no_secret(cluster: dict[str, Any]) -> None:
    for text in texts(cluster):
        assert not re.search(r"WANDB_API_KEY|AKIA[0-9A-Z]{16}|aws_secret|PRIVATE KEY", text)
        assert not re.search(r"\b[0-9a-f]{32,}\b|\b[A-Za-z0-9+/]{40,}\b", text)
    assert "ssh_private_key" not in cluster["auth"]


def test_authentication_usage_and_dashboard_are_said(cluster: dict[str, Any]) -> None:
    head, worker = (" ".join(cluster[f"{kind}_start_ray_commands"]) for kind in ("head", "worker"))
    for command in (head, worker):
        assert "RAY_AUTH_MODE=token" in command
        assert "RAY_USAGE_STATS_ENABLED=0" in command
    assert "--dashboard-host=127.0.0.1" in head
    assert "RAY_enable_metrics_collection=0" in head
    (installs,) = cluster["head_setup_commands"]
    assert "[all,cluster]" in installs  # jobs are submitted on the head, and only it installs what that needs
    assert "0.0.0.0" not in FILE.read_text()


def test_every_machine_installs_the_versions_of_the_checkout(cluster: dict[str, Any]) -> None:
    (installs,) = [command for command in cluster["setup_commands"] if "pip install" in command]
    assert "pip install --quiet -c constraints.txt '.[ray,language,cloud]'" in installs, "trials, and results in S3"
    (pinned,) = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned == metadata.version("ray"), "the tests ran with the Ray that the machines get"
    assert f"Ray {'.'.join(pinned.split('.')[:2])}" in FILE.read_text().splitlines()[0]
