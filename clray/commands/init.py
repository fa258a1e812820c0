"""``clray init``: a folder with a method of one's own, a sweep that compares it, a test and a README."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clray.errors import DeclarationError
from clray.extras import lacking
from clray.output import say
from clray.tracks import TRACKS, find, track

if TYPE_CHECKING:
    from clray.track_interface import BenchmarkFamily

_VARIANT = "mine"
"""The name of the variant that has the copied method."""


def init_command(
    folder: Annotated[Path, typer.Argument(help="A new folder.")] = Path("my-method"),
    like: Annotated[
        str,
        typer.Option(metavar="METHOD", help="The method to start from; TRACK/METHOD where several tracks have it."),
    ] = "er",
    variant: Annotated[
        str,
        typer.Option(
            metavar="V",
            help="The variant whose settings to start with, of the sweep that ships with clray. "
            "Default: the first one that has the method.",
        ),
    ] = "",
) -> None:
    """Make a folder for a method of your own: a copy of one of clray's to change, a sweep that runs it beside the
    original, a test, and a README with the commands."""
    kinds = {name: track(name).kinds() for name in TRACKS}
    offered = {name: [method for kind in of for method in kind.methods] for name, of in kinds.items()}
    of, method = find(like, offered, "method")
    if os.path.lexists(folder):
        raise DeclarationError(f"{folder}: it exists already; name a new folder")
    kind = next(kind for kind in kinds[of] if method in kind.methods)
    _write_new(folder, _files(folder, of, kind, method, variant))
    command = f"clray sweep {shlex.quote(f'{folder}/sweep.yaml')} --quick" + (" --local" if lacking("ray") else "")
    say(f"{folder}: a copy of {method} to change (method.py), a sweep (sweep.yaml), a test (test_method.py), a README")
    say(f"try: {command}")


def _files(folder: Path, of: str, kind: BenchmarkFamily, method: str, wanted: str) -> dict[str, str]:
    """The texts of the new files, by their names."""
    import importlib
    import inspect

    methods = importlib.import_module(f"clray.{of}.methods").METHODS
    source = Path(inspect.getfile(methods[method])).read_text(encoding="utf-8")
    sweep, variant, data = _start(kind, method, wanted)
    reference = f"./method.py:{methods[method].__name__}"
    facts = {
        "folder": folder.name,
        "quoted": shlex.quote(str(folder)),
        "method": method,
        "reference": reference,
        "variant": variant,
        "mine": _VARIANT,
        "shipped": sweep,
        "metric": data.get("metrics", ["RA"])[0],
        "eager": kind.has_plain_form,
        "short": [f"variants.{name}.episodes=40" for name in (variant, _VARIANT)] if _is_long(data, variant) else [],
    }
    return {
        "method.py": source,
        "sweep.yaml": _filled("sweep.yaml", **facts) + _sweep(data, variant, reference),
        "test_method.py": _filled("test_method.py", **facts),
        "README.md": _filled("README.md", **facts),
    }


def _is_long(data: Mapping[str, Any], variant: str) -> bool:
    """True where the quick form still takes too long for a test."""
    return "episodes" in data.get("quick", {}).get("variants", {}).get(variant, {})


def _filled(template: str, **facts: Any) -> str:
    import jinja2

    text = (Path(__file__).parent / "templates" / f"{template}.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False)
    return environment.from_string(text).render(facts)


def _sweep(data: Mapping[str, Any], variant: str, reference: str) -> str:
    """A sweep file's keys: those of a sweep that ships with clray, with one of its variants and the copied method."""
    import yaml

    settings = data["variants"][variant]
    mine = {"method": reference, **{key: value for key, value in settings.items() if key != "method"}}
    kept = {key: value for key, value in data.items() if key not in ("paper", "title", "variants", "quick")}
    quick = {key: value for key, value in data.get("quick", {}).items() if key != "only"}
    if variant in quick.get("variants", {}):
        changes = quick["variants"][variant]
        quick["variants"] = {variant: changes, _VARIANT: dict(changes)}
    else:
        quick.pop("variants", None)
    whole = {**kept, "variants": {variant: settings, _VARIANT: mine}, "quick": quick}

    class Plain(yaml.SafeDumper):
        """Writes mappings that occur twice out twice."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    return yaml.dump(whole, Dumper=Plain, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)


def _write_new(folder: Path, files: Mapping[str, str]) -> None:
    """Make a folder and files in it. If that fails, nothing is left behind.

    Raises:
        DeclarationError: it cannot be made there.
    """
    highest = next((path for path in reversed((folder, *folder.parents)) if not os.path.lexists(path)), folder)
    try:
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        if not isinstance(error, FileExistsError):
            shutil.rmtree(highest, ignore_errors=True)
        from clray.documents import shorter

        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise DeclarationError(
            f"{shorter(folder)}: cannot be made: {reason}; name a folder that you may write"
        ) from None


def _start(kind: BenchmarkFamily, method: str, wanted: str) -> tuple[str, str, dict[str, Any]]:
    """A sweep, the name of a variant in it that has the method, and the sweep's content.

    Args:
        wanted: the variant's name; empty for the first one.
    """
    from clray.documents import Document, one_of, shorter
    from clray.loading import find_sweep

    names: list[str] = []
    for sweep in kind.sweeps:
        data = Document(find_sweep(sweep)).data
        for variant, settings in data["variants"].items():
            if settings.get("method") == method:
                names.append(variant)
                if wanted in ("", variant):
                    return sweep, variant, data
    if names:
        problem = f"no variant of {method} in {', '.join(kind.sweeps)}; {one_of(wanted, dict.fromkeys(names))}"
        raise DeclarationError(f"--variant {shorter(wanted)}: {problem}")
    raise DeclarationError(f"--like {method}: none of {', '.join(kind.sweeps)} has a variant of it to start from")
