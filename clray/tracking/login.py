"""The W&B server, the key for it and the mode, found without wandb.

Every launch asks if there is a key. wandb's own answer would cost it the import of wandb, some 0.7 CPU seconds.
"""

from __future__ import annotations

import configparser
import contextlib
import netrc
import os
import socket
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Literal

from clray.errors import ClrayError
from clray.folders import home_folder

Mode = Literal["online", "offline", "off"]
CLOUD = "https://api.wandb.ai"
CONNECT_SECONDS = 10.0


class TrackingError(ClrayError):
    """W&B cannot be used as asked: no key, no server, or a server that refuses."""


def settings_file() -> Path | None:
    """The file in which ``wandb login --host`` notes the server; None for a user without a home folder."""
    if folder := os.environ.get("WANDB_CONFIG_DIR"):
        return Path(folder) / "settings"
    own = home_folder()
    return own / ".config" / "wandb" / "settings" if own else None


def base_url() -> str:
    """The address of the W&B server: WANDB_BASE_URL, else the one from ``wandb login --host``, else the public one."""
    if url := os.environ.get("WANDB_BASE_URL"):
        return url.rstrip("/")
    noted = configparser.ConfigParser(interpolation=None)
    with contextlib.suppress(configparser.Error, OSError, UnicodeDecodeError):
        noted.read(settings_file() or ())
    return noted.get("default", "base_url", fallback=CLOUD).rstrip("/")


def logged_in() -> bool:
    """True where there is a key for the server, in the environment or in netrc. Opens no connection."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    own = home_folder()
    path = os.environ.get("NETRC") or (str(own / ".netrc") if own else "")
    try:
        found = netrc.netrc(os.path.expanduser(path)).authenticators(urllib.parse.urlsplit(base_url()).netloc)
    except (OSError, netrc.NetrcParseError):
        return False
    return bool(found and found[2])


_MODES: dict[str, Mode] = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "off",
}
"""W&B's values of WANDB_MODE, with those of its older releases."""


def asked_mode() -> Mode | None:
    """The mode that WANDB_MODE asks for; None where it is not set or W&B does not know its value."""
    return _MODES.get(os.environ.get("WANDB_MODE", "").strip().lower())


def default_mode() -> Mode:
    """The mode of a launch without ``--wandb``: WANDB_MODE, else ``online`` with a key, else ``off``."""
    asked = asked_mode()
    if asked in ("offline", "off"):
        return asked
    return "online" if logged_in() else "off"


def require_key() -> None:
    """Check that there is a key.

    Raises:
        TrackingError: there is none.
    """
    if not logged_in():
        raise TrackingError(
            f"W&B: no API key for {base_url()}: run `wandb login` or set WANDB_API_KEY, "
            "or use --wandb offline (runs are kept on disk) or --wandb off"
        )


def require_server() -> None:
    """Check that the server can be reached; wandb itself would notice it only after ``INIT_SECONDS`` for each run.

    Raises:
        TrackingError: it cannot be reached.
    """
    url = urllib.parse.urlsplit(base_url())
    if urllib.request.getproxies():
        return  # only the proxy knows if it can reach the server
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection((url.hostname or "", port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise TrackingError(f"W&B: {base_url()} cannot be reached: {error}") from None
