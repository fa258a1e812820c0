"""A connection to Ray: an embedded one on this machine, or a cluster's."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from clray.errors import ClusterError

# Set before ray is imported: it reads them then. Each is a default that the user's own environment overrides.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # trials read their data by paths relative to where the user stands
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial that asked for no GPU sees none
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_enable_metrics_collection": "0",  # with ray[default] every machine would serve them to anyone who asks
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our records are in the store; Tune's copies cost more than trials
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # clray.cluster.interrupt is in its place
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # Tune's snapshots of the experiment: nobody reads them
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
_OBJECT_STORE_BYTES = 128 * 2**20  # nothing of ours travels through it
_ANSWER_SECONDS = 10.0
_HEAD_LOOK_SECONDS = 2.0
_HEAD_SILENCE_SECONDS = 30.0
"""Of the 60 that Ray gives its head; then it ends the process with a message that says nothing of what to do."""
_ON_DEMAND = "~/ray_bootstrap_config.yaml"
"""Where `ray up` leaves the cluster's file on its head."""


@contextmanager
def session(address: str | None = None, cpus: float | None = None, gpus: float | None = None) -> Iterator[Any]:
    """Connect to Ray for the duration of a ``with`` block, and give its module.

    Args:
        address: a cluster's (``auto`` for the one this machine was made part of by ``ray start``), or None for an
            embedded Ray.
        cpus: logical CPUs of an embedded Ray; by default the machine's.
        gpus: logical GPUs of an embedded Ray; by default the machine's.

    Raises:
        ClusterError: the cluster cannot be reached.
    """
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    embedded = address in (None, "local")
    if embedded and "RAY_AUTH_MODE" not in os.environ:
        # Ray would write a token into the home folder, which a cluster started there later would silently enforce.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(16))
    if address is not None and not embedded:
        address = _recorded() if address == "auto" else address
        _knock(address)
    import ray

    shared: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "ignore_reinit_error": False}
    try:
        if embedded:
            ray.init(
                address="local",
                include_dashboard=False,
                num_cpus=cpus,
                num_gpus=gpus,
                object_store_memory=_OBJECT_STORE_BYTES,
                **shared,
            )
        else:
            ray.init(address=address, **shared)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        where = "an embedded Ray could not be started" if embedded else f"no Ray cluster answers at {address!r}"
        raise ClusterError(f"{where}: {str(error).splitlines()[0]}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def workers_as_started(address: str | None) -> Iterator[None]:
    """Within, trials of an embedded Ray run in the worker processes that it has started already.

    Tune would give them environment variables of their own, for which Ray starts other processes while the first ones
    idle: with two CPUs that costs some 1.5 CPU seconds and seconds of waiting. One of the variables is for PyTorch
    Lightning, which is not here; the others are this process's own, and every worker of an embedded Ray has them
    anyway. A cluster is left as it is: there the keys of an S3 store reach other machines that way.

    Args:
        address: as for ``session``.
    """
    if address not in (None, "local"):
        yield
        return
    from ray.tune.execution import class_cache

    kept = class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = {}, set()
    try:
        yield
    finally:
        class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = kept


def _recorded() -> str:
    """The cluster that ``ray start`` made this machine part of.

    Ray itself would look for any Ray among the machine's processes where none was recorded, and join it: another
    program's embedded one, another user's, another clray's.

    Raises:
        ClusterError: none was recorded.
    """
    if (named := os.environ.get("RAY_ADDRESS", "auto")) != "auto":
        return named
    from ray._private.utils import get_ray_address_file

    file = Path(get_ray_address_file(None))
    if not file.is_file():
        raise ClusterError(
            f"--address auto: `ray start` has made this machine part of no cluster ({file} is not there); a Ray that "
            "somebody's program has embedded is not joined: name the head, --address HOST:PORT"
        )
    return file.read_text().strip()


def _knock(address: str) -> None:
    """Fail at once where nobody listens: Ray itself goes on trying for minutes.

    Raises:
        ClusterError: the address is of no kind that clray takes, or nothing listens there.
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
    """What each machine offers (``CPU``, ``GPU``); on a cluster's head, also those that it would start on demand."""
    offers = [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    declared = Path(_ON_DEMAND).expanduser()
    if address not in (None, "local") and declared.is_file():
        kinds = (yaml.safe_load(declared.read_text()) or {}).get("available_node_types", {}).values()
        offers += [dict(kind.get("resources", {})) for kind in kinds if kind.get("max_workers")]
    return offers


@contextmanager
def watched(ray: Any, address: str | None, results: str, farewell: Callable[[], None]) -> Iterator[None]:
    """Within, the loss of the cluster's head ends this process with exit code 1 and says how to go on.

    Ray itself ends the process a minute after its head is gone, from C++: no exception can be caught, and until then
    the main thread hangs in Ray, where no signal reaches it. So a thread has to do it.

    Args:
        address: as the user gave it.
        results: the store, to be named.
        farewell: gives the terminal back.
    """
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    over = threading.Event()

    def watch() -> None:
        silent_since = None  # counted from a first failure: this process may itself have been stopped for a while
        while not over.wait(_HEAD_LOOK_SECONDS):
            try:
                socket.create_connection((host.strip("[]"), int(port)), _HEAD_LOOK_SECONDS).close()
                silent_since = None
            except OSError as error:
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > _HEAD_SILENCE_SECONDS and not over.is_set():
                    _leave(address, error, results, farewell)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


def _leave(address: str | None, error: OSError, results: str, farewell: Callable[[], None]) -> None:
    farewell()
    reason = error.strerror or error
    if address in (None, "local"):
        what, how = f"the embedded Ray died ({reason})", ""
    else:
        what, how = f"the head of the Ray cluster at {address} is lost ({reason})", "start the cluster again; then "
    # sys.stderr is where Tune's own output goes, for the time being.
    print(
        f"error: {what}: {how}the same command goes on from here: what is finished or saved is in {results}",
        file=sys.__stderr__,
        flush=True,
    )
    os._exit(1)
