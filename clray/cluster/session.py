"""A connection to Ray: to an embedded Ray on this machine, or to a cluster."""

from __future__ import annotations

import functools
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from clray.cluster.temporary import NAMED_BY, ray_folder
from clray.errors import ClusterError
from clray.folders import ensure_home, home_folder, is_file
from clray.machine import cores_given

# These are set before ray is imported, because it reads them then. A value in the user's environment has precedence.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # trials read their data by paths relative to the folder that the user is in
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial that asked for no GPU sees none
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_enable_metrics_collection": "0",  # with ray[default] every machine would serve them to anyone who asks
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # records are in the store; Tune's copies can take more time than trials
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # clray.interrupt is in its place
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # Tune's snapshots of the experiment: nobody reads them
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
_OBJECT_STORE_BYTES = 128 * 2**20  # clray sends nothing through it
_ANSWER_SECONDS = 10.0
_REPORT_SECONDS = 15.0
_ON_DEMAND = "ray_bootstrap_config.yaml"
"""The name under which `ray up` copies the cluster's file into the home folder on the cluster's head."""


@contextmanager
def session(
    address: str | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Any]:
    """Connect to Ray for the duration of a ``with`` block, and return the module ``ray``.

    Args:
        address: the address of a cluster (``auto`` for the one that ``ray start`` made this machine part of), or None
            for an embedded Ray.
        cpus: logical CPUs of an embedded Ray; by default the cores that this process was given.
        gpus: logical GPUs of an embedded Ray; by default those that Ray finds.
        say: called with a line that the user should read.

    Raises:
        ClusterError: the cluster cannot be reached, or an embedded Ray cannot be started here.
    """
    ensure_home()
    if not embedded(address):
        assert address is not None
        address = _address_from_ray_start() if address == "auto" else address
        _require_listening(address)
        with _authentication_as_before(), _environment(_ENVIRONMENT):
            ray = _started(f"no Ray cluster answers at {address!r}", address=address)
            try:
                yield ray
            finally:
                ray.shutdown()
        return
    with (
        ray_folder(say) as folder,
        _authentication_as_before(),
        _environment(_ENVIRONMENT | _authentication()),
    ):
        ray = _started(
            f"an embedded Ray could not be started in {folder} ({NAMED_BY})",
            address="local",
            include_dashboard=False,
            num_cpus=cores_given() if cpus is None else cpus,
            num_gpus=gpus,
            object_store_memory=_OBJECT_STORE_BYTES,
            _temp_dir=str(folder),
        )
        try:
            yield ray
        finally:
            ray.shutdown()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Within, the environment has these variables; those that it had before keep their values.

    Afterwards it is as it was, without what Ray adds to it: a program that is started later, such as a cluster's own
    Ray, gets none of it.
    """
    before = dict(os.environ)
    for name, value in variables.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _authentication() -> dict[str, str]:
    """The variables that make an embedded Ray demand a token; none where the user's environment says what it demands.

    Without them Ray would write a token into the home folder. A cluster that is started there later would silently
    require it.
    """
    if "RAY_AUTH_MODE" in os.environ:
        return {}
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token()}


@functools.cache
def _token() -> str:
    """The token of every Ray that this process embeds: Ray reads it once and keeps it."""
    return secrets.token_hex(16)


@contextmanager
def _authentication_as_before() -> Iterator[None]:
    """Afterwards Ray reads again what the environment says of tokens, which is then the user's environment."""
    try:
        yield
    finally:
        if "ray" in sys.modules:
            _read_authentication()


def _read_authentication() -> None:
    """Let Ray read what the environment says of tokens, also where it has read that before.

    Ray reads it when it is first imported, and keeps it. A notebook that imports ray before it calls clray, or a
    process that has used another cluster, would come without the token that the embedded Ray demands.
    """
    try:
        from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
    except ImportError:  # a Ray that knows of no tokens
        return
    Config.initialize("")  # in this order: with the mode of before, a late thread of Ray's would miss its token
    AuthenticationTokenLoader.instance().reset_cache()


def embedded(address: str | None) -> bool:
    """True where an address means an embedded Ray."""
    return address in (None, "local")


def _started(otherwise: str, **arguments: Any) -> Any:
    """Connect to Ray, and return the module ``ray``.

    Args:
        otherwise: the beginning of an error's message.

    Raises:
        ClusterError: Ray raised any error. Its errors are of many types, some of the operating system.
    """
    try:
        import ray

        _read_authentication()
        ray.init(log_to_driver=False, logging_level="ERROR", ignore_reinit_error=False, **arguments)
    except Exception as error:
        told = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ClusterError(f"{otherwise}: {told}") from None
    return ray


def _address_from_ray_start() -> str:
    """The address of the cluster that ``ray start`` made this machine part of.

    Where no address is recorded, Ray itself would look for any Ray among the machine's processes and join it, even one
    that another program, another user or another launch of clray has embedded.

    Raises:
        ClusterError: no address is recorded.
    """
    if (named := os.environ.get("RAY_ADDRESS", "auto")) != "auto":
        return named
    try:
        from ray._private.utils import get_ray_address_file

        file = Path(get_ray_address_file(None))
    except ImportError:  # a private name, which other versions of Ray may not have
        file = Path(os.environ.get("RAY_TMPDIR") or "/tmp") / "ray" / "ray_current_cluster"
    if not is_file(file):
        raise ClusterError(
            f"--address auto: `ray start` has made this machine part of no cluster ({file} does not exist); "
            "clray does not join a Ray that another program has embedded: name the head, --address HOST:PORT"
        )
    return file.read_text().strip()


def _require_listening(address: str) -> None:
    """Fail at once where nothing listens at an address: Ray itself would try for minutes.

    Raises:
        ClusterError: the address has a form that clray does not accept, or nothing listens there.
    """
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise ClusterError(
            f"--address {address}: expected HOST:PORT of the cluster's head, such as 10.0.0.1:6379, or auto"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
    except OSError as error:
        raise ClusterError(f"no Ray cluster answers at {address!r}: {error.strerror or error}") from None


def machines(ray: Any, address: str | None = None) -> list[dict[str, float]]:
    """The ``CPU`` and ``GPU`` of each machine; on a cluster's head, also of each type that it can start on demand."""
    offers = [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    declared = (home_folder() or Path("/")) / _ON_DEMAND
    if not embedded(address) and is_file(declared):
        kinds = (yaml.safe_load(declared.read_text()) or {}).get("available_node_types", {}).values()
        offers += [dict(kind.get("resources", {})) for kind in kinds if kind.get("max_workers")]
    return offers


def may_grow(ray: Any, address: str | None = None) -> bool:
    """True where an autoscaler may add machines to the cluster; False only where there certainly is no autoscaler.

    A machine that an autoscaler starts belongs to a group of nodes. Without an autoscaler, the report
    on the cluster gives each node a type of its own, ``node_ID``.
    """
    if embedded(address):
        return False
    if any(node.get("Labels", {}).get("ray.io/node-group") for node in ray.nodes() if node["Alive"]):
        return True
    deadline = time.monotonic() + _REPORT_SECONDS
    while not (types := _node_types()) and time.monotonic() < deadline:
        time.sleep(0.5)  # a cluster's first report comes some seconds after its start
    ids = {f"node_{node['NodeID']}" for node in ray.nodes()}
    return not types or not types <= ids


def _node_types() -> set[str]:
    """The types of nodes that the cluster's autoscaler reports; empty where it reports nothing."""
    try:
        from ray.experimental.internal_kv import _internal_kv_get

        report = json.loads(_internal_kv_get(b"__autoscaling_status") or b"{}").get("autoscaler_report") or {}
        return {kind for key in ("active_nodes", "idle_nodes") for kind in report.get(key) or {}}
    except (ImportError, ValueError, AttributeError):  # private names, which other versions of Ray may not have
        return set()
