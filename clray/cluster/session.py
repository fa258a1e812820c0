"""A connection to Ray: an embedded one on this machine, or a cluster's."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clray.errors import ClusterError

# Set before ray is imported: it reads them then. Each is a default that the user's own environment overrides.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # trials read their data by paths relative to where the user stands
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial that asked for no GPU sees none
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our records are in the store; Tune's copies cost more than trials
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
}
_OBJECT_STORE_BYTES = 128 * 2**20  # nothing of ours travels through it


@contextmanager
def session(address: str | None = None, cpus: float | None = None, gpus: float | None = None) -> Iterator[Any]:
    """Connect to Ray for the duration of a ``with`` block, and give its module.

    Args:
        address: a cluster's (``auto`` for the one this machine belongs to), or None for an embedded Ray.
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
    import ray

    shared: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "ignore_reinit_error": False}
    try:
        if embedded:
            ray.init(
                address="local",
                include_dashboard=False,
                num_cpus=cpus,  # type: ignore[arg-type]
                num_gpus=gpus,  # type: ignore[arg-type]
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
