"""Pretrained models and tokenizers: their place on this machine, and the fingerprint of their content.

A model is named by a folder, or by its name on the Hugging Face hub (``gpt2``, ``HuggingFaceTB/SmolLM2-135M``). A hub
name is searched below ``CLRAY_DATA`` (``$CLRAY_DATA/lamol/models/NAME``), then in the hub's own cache. The hub is
contacted only where the caller allows it, and never for a folder.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from clray import cache
from clray.data_files import given_folder, is_file, is_folder, reading
from clray.errors import DataError

_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "*_tokens*.json",
)
_READ = ("config.json", "generation_config.json", "*.index.json", *_TOKENIZER)
"""The files of a model that are read besides its weights."""
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
"""The file formats of weights, the preferred one first."""


class Place(NamedTuple):
    """A folder that holds a model.

    Attributes:
        source: ``folder``, ``CLRAY_DATA``, ``hub cache`` or ``hub``.
    """

    source: str
    folder: Path


def locate(name: str, gguf: str | None = None, fetch: bool = False) -> Place:
    """Find a model on this machine.

    Args:
        name: a folder, or a model's name on the hub.
        gguf: the file with the weights, where they are quantised in llama.cpp's format.
        fetch: True to download missing files from the hub.

    Raises:
        DataError: the model is not on this machine and was not or could not be downloaded, the folder holds no model,
            or a package that reads it is not installed.
    """
    lacking = [package for package in ("gguf", "accelerate") if gguf and find_spec(package) is None]
    if lacking:
        raise DataError(f"model {name}: to read {gguf}, transformers needs: pip install {' '.join(lacking)}")
    folder = _expanded(name)
    if is_folder(folder):
        return _holding(Place("folder", folder), gguf)
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise DataError(f"model {name}: no such folder")
    given = given_folder()
    if given is not None and is_folder(given / "lamol" / "models" / name):
        return _holding(Place("CLRAY_DATA", given / "lamol" / "models" / name), gguf)
    cached = _snapshot(name, gguf, fetch=False)
    if isinstance(cached, Path) and _weights(cached, gguf):
        return _holding(Place("hub cache", cached), gguf)
    reason = f"is not here: not below CLRAY_DATA (lamol/models/{name}), nor in the hub's cache"
    if fetch:
        fetched = _snapshot(name, gguf, fetch=True)
        if isinstance(fetched, Path):
            return _holding(Place("hub", fetched), gguf)
        reason += f", and the hub did not give it: {fetched}"
    raise DataError(
        f"model {name}: {reason}; give a folder that holds it as model.name, fetch it where there is a network, "
        "or take name: scratch"
    )


def _expanded(name: str) -> Path:
    """A name as a path, with the user's home for ``~``."""
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise DataError(f"model {name}: {error}") from None


def _holding(place: Place, gguf: str | None) -> Place:
    """Check that a place holds the files of a model, and return it."""
    folder = place.folder
    if not _weights(folder, gguf):
        raise DataError(f"{folder}: no weights: expected {gguf or ' or '.join(_WEIGHTS)}")
    if not gguf and not is_file(folder / "config.json"):
        raise DataError(f"{folder}: no config.json: not a model that transformers can load")
    return place


def _weights(folder: Path, gguf: str | None) -> list[Path]:
    """The weight files of the folder, in the preferred format that it has."""
    for pattern in (gguf,) if gguf else _WEIGHTS:
        if found := sorted(folder.glob(pattern)):
            return found
    return []


def is_pickled(folder: Path, gguf: str | None = None) -> bool:
    """True where the model's weights are read from pickles, because it has no safetensors."""
    return not gguf and all(path.suffix == ".bin" for path in _weights(folder, gguf))


def fingerprint(folder: Path, gguf: str | None = None) -> str:
    """The SHA-256 of the content of all files of a model that are read; it does not depend on their place.

    Only new and changed files are read, so it is fast the second time.
    """
    beside = {path.name for pattern in _READ for path in folder.glob(pattern)}
    files = sorted(beside | {path.name for path in _weights(folder, gguf)})
    noted = cache.noted(folder, files, "model")
    if noted and "fingerprint" in noted:
        return str(noted["fingerprint"])
    with reading(folder, "see that its files can be read"):
        about = "".join(f"{name} {cache.sha256(folder / name)}\n" for name in files)
    found = hashlib.sha256(about.encode()).hexdigest()
    cache.take_note(folder, files, {"fingerprint": found}, "model")
    return found


# --------------------------------------------------------------------------------------------------------------
# The hub


def _snapshot(name: str, gguf: str | None, fetch: bool) -> Path | str:
    """The folder of the hub's cache that holds the model; the reason as text where there is none."""
    forms = [gguf] if gguf else list(_WEIGHTS)
    reason: Path | str = ""
    for weights in forms:
        reason = _downloaded(name, [*_READ, weights], fetch)
        if isinstance(reason, str) or _weights(reason, gguf):
            return reason
    return "it has no weights there" if not gguf else f"it has no {gguf} there"


def _downloaded(name: str, patterns: list[str], fetch: bool) -> Path | str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        with _briefly():
            folder = snapshot_download(
                name, allow_patterns=patterns, ignore_patterns=["*/*"], local_files_only=not fetch, etag_timeout=5
            )
        return Path(folder)
    except HFValidationError:
        raise DataError(f"model {name!r}: neither a folder nor a name as the hub has them (owner/model)") from None
    except LocalEntryNotFoundError:
        return "no connection" if fetch else "not in its cache"
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        return f"{status}: no such model, or not an open one"
    except OSError as error:
        return str(error).splitlines()[0]


@contextlib.contextmanager
def _briefly() -> Iterator[None]:
    """A context without progress bars and warnings."""
    from huggingface_hub.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
