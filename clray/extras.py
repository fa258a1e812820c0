"""The extras of clray: packages that only some commands need, and the one line that says which are missing."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec

from clray.errors import ClrayError


@dataclass(frozen=True)
class Extra:
    """An extra that ``pip install 'clray[NAME]'`` installs.

    Attributes:
        packages: the names under which its packages are imported.
        purpose: the part of clray that needs them.
    """

    packages: tuple[str, ...]
    purpose: str


EXTRAS = {
    "ray": Extra(("ray",), "several trials at once, GPUs and clusters"),
    "wandb": Extra(("wandb", "wandb_workspaces"), "W&B"),
    "language": Extra(("transformers", "tokenizers", "rouge_score", "sacrebleu"), "the track language"),
    "cloud": Extra(("obstore",), "stores in S3, Google Cloud and Azure"),
    "search": Extra(("optuna",), "the search algorithm optuna"),
    "pandas": Extra(("pandas",), "data frames in Python"),
    "gguf": Extra(("accelerate", "gguf"), "weights in llama.cpp's format"),
}
"""By the names in pyproject.toml; tests/test_extras.py compares the two. ``cluster`` and ``all`` are made of others."""


class ExtraMissing(ClrayError):
    """A command needs an extra that is not installed here."""


def lacking(name: str) -> list[str]:
    """The packages of an extra that are not installed here. Nothing is imported to find out."""
    return [package for package in EXTRAS[name].packages if not is_here(package)]


def is_here(package: str) -> bool:
    """True where a package can be imported, or has been."""
    try:
        return sys.modules.get(package) is not None or find_spec(package) is not None
    except (ImportError, ValueError):  # ValueError: an entry of sys.modules without a spec, or None
        return False


def require(name: str, who: str, otherwise: str = "") -> None:
    """Check that an extra is installed here.

    Args:
        who: the command, flag or place that needs it, for the message.
        otherwise: a way without the extra; empty where there is none.

    Raises:
        ExtraMissing: some of its packages are not here.
    """
    if missing := lacking(name):
        raise ExtraMissing(message(name, who, missing, otherwise))


def require_ray() -> None:
    """Check that Ray is installed here, for a launch without ``--local``.

    Raises:
        ExtraMissing: it is not.
    """
    require(
        "ray",
        "a launch without --local",
        "use --local (in Python ray=False): one trial after the other, in this process",
    )


def message(name: str, who: str, missing: Iterable[str], otherwise: str = "") -> str:
    """The line that says what is missing, and the ways to go on."""
    ways = " or ".join(filter(None, [f"pip install 'clray[{name}]'", otherwise]))
    packages = list(missing)
    verb = "is" if len(packages) == 1 else "are"
    return f"{who} needs {', '.join(packages)}, which {verb} not installed here: {ways}"


def of_package(module: str | None) -> str | None:
    """The extra that has the package of a module; None where no extra has it."""
    package = (module or "").partition(".")[0]
    return next((name for name, extra in EXTRAS.items() if package in extra.packages), None)
