"""Who is logged in, at which W&B server, and whether that server answers: found out without wandb."""

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

Mode = Literal["online", "offline", "off"]
CLOUD = "https://api.wandb.ai"
CONNECT_SECONDS = 10.0


class TrackingError(ClrayError):
    """W&B cannot be used as asked: no key, no server, or a server that refuses."""


def home() -> Path | None:
    """The user's folder; None where there is none: no HOME, and no entry in the list of users."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def settings_file() -> Path | None:
    """Where ``wandb login --host`` notes the server."""
    if folder := os.environ.get("WANDB_CONFIG_DIR"):
        return Path(folder) / "settings"
    own = home()
    return own / ".config" / "wandb" / "settings" if own else None


def base_url() -> str:
    """The W&B server: WANDB_BASE_URL, else the one that ``wandb login --host`` noted, else the public one."""
    if url := os.environ.get("WANDB_BASE_URL"):
        return url.rstrip("/")
    noted = configparser.ConfigParser(interpolation=None)
    with contextlib.suppress(configparser.Error, OSError, UnicodeDecodeError):
        noted.read(settings_file() or ())
    return noted.get("default", "base_url", fallback=CLOUD).rstrip("/")


def logged_in() -> bool:
    """Whether a key for the server is at hand (environment or netrc). Asks nobody and opens no connection."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    own = home()
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
"""W&B's words for WANDB_MODE, those of its older releases among them."""


def asked_mode() -> Mode | None:
    """What WANDB_MODE asks for; None where it says nothing that W&B knows."""
    return _MODES.get(os.environ.get("WANDB_MODE", "").strip().lower())


def default_mode() -> Mode:
    """What a sweep does where nothing was said: WANDB_MODE, else ``online`` when logged in, else ``off``."""
    asked = asked_mode()
    if asked in ("offline", "off"):
        return asked
    return "online" if logged_in() else "off"


def require_key() -> None:
    if not logged_in():
        raise TrackingError(
            f"W&B: no API key for {base_url()}: run `wandb login` or set WANDB_API_KEY, "
            "or use --wandb offline (runs are kept on disk) or --wandb off"
        )


def require_server() -> None:
    """Finds out in no time what wandb would take ``INIT_SECONDS`` a run to notice."""
    url = urllib.parse.urlsplit(base_url())
    if urllib.request.getproxies():
        return  # then the way to the server is the proxy's affair
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection((url.hostname or "", port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise TrackingError(f"W&B: {base_url()} cannot be reached: {error}") from None
