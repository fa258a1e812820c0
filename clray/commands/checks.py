"""The checks of ``clray doctor``: conditions of the machine that keep trials from running, or make them slow."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from clray.errors import ClrayError
from clray.extras import EXTRAS, lacking
from clray.folders import can_be_written, home_folder, nearest, private_path

_LITTLE = 2**30
"""A disk with fewer free bytes than this is reported."""


@dataclass(frozen=True)
class Finding:
    """The outcome of a check.

    Attributes:
        subject: the thing that was checked.
        text: the finding.
        remedy: an instruction; empty where all is well.
        fatal: no trial can run until it is mended.
    """

    subject: str
    text: str
    remedy: str = ""
    fatal: bool = False

    def __str__(self) -> str:
        mark = "FAULT" if self.fatal else "note" if self.remedy else "ok"
        return f"{mark:5}  {self.subject}: {self.text}" + (f": {self.remedy}" if self.remedy else "")


def checks(results: str) -> Iterator[Finding]:
    """Make every check, one after the other. A check that fails with an error gives a finding, too.

    Args:
        results: the store, as the user named it.
    """
    made: dict[str, Callable[[], Finding]] = {
        "cores": cores, "GPUs": gpus, "extras": extras, "Ray": ray, "TMPDIR": temporary, "HOME": home, "cache": cache,
        "compiled kernels": kernels, "results": lambda: store(results), "output": output, "matplotlib": figures,
        "W&B": tracking,
    }  # fmt: skip
    for subject, check in made.items():
        try:
            yield check()
        except Exception as error:  # the other checks are still made
            yield Finding(subject, f"could not be checked ({type(error).__name__}: {error})", "please report it")


def cores() -> Finding:
    from clray.machine import cgroup_quota, cores_given, cores_of_machine

    given, there, quota = cores_given(), cores_of_machine(), cgroup_quota()
    limit = f"; the cgroup's quota is {quota:g}" if quota is not None else ""
    return Finding("cores", f"{given} for this process, of {there} that the machine has{limit}")


def gpus() -> Finding:
    from clray.gpu import device_files, names, why_unusable

    if usable := names():
        return Finding("GPUs", ", ".join(usable))
    if there := device_files():
        remedy = "mend the driver, install a torch with CUDA, or list it in CUDA_VISIBLE_DEVICES"
        return Finding("GPUs", f"{', '.join(there)} is here and cannot be used ({why_unusable()})", remedy)
    return Finding("GPUs", "none")


def extras() -> Finding:
    """The extras of clray (``clray.extras``). None of them has to be here."""
    missing = [name for name in EXTRAS if lacking(name)]
    here = ", ".join(name for name in EXTRAS if name not in missing) or "none"
    if not missing:
        return Finding("extras", here)
    told = ", ".join(f"{name} ({EXTRAS[name].purpose})" for name in missing)
    remedy = f"where you need them, pip install 'clray[{','.join(missing)}]'"
    return Finding("extras", f"{here}; not here: {told}", remedy)


def ray() -> Finding:
    if lacking("ray"):
        return Finding("Ray", "not here: launches run with --local")
    if address := os.environ.get("RAY_ADDRESS"):
        return Finding("Ray", f"the cluster at {address} (RAY_ADDRESS)", "unset it for an embedded Ray")
    return Finding("Ray", "embedded in the command")


def temporary() -> Finding:
    """The folders for temporary files. Ray's sockets need a folder with a shorter path than other files do."""
    general = _temporary([])
    if general.fatal or lacking("ray"):
        return general
    from clray.cluster.temporary import LONGEST, PLACES, fault_of

    asked = {name: Path(os.environ[name]).absolute() for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)}
    faults = {f"{name}={place}": fault for name, place in asked.items() if (fault := fault_of(place))}
    usable = next((place for place in (*asked.values(), *PLACES) if not fault_of(place)), None)
    told = "; ".join(f"{name}: {fault}" for name, fault in faults.items())
    if usable is None:
        text = f"Ray's sockets and logs have no place ({told or 'none of the usual places can be written'})"
        remedy = f"set RAY_TMPDIR to a folder with a path of at most {LONGEST} ASCII characters, or use --local"
        return Finding("TMPDIR", text, remedy, fatal=True)
    if faults:
        remedy = f"set RAY_TMPDIR to a folder with a path of at most {LONGEST} ASCII characters"
        return Finding("TMPDIR", f"{told}. Ray's files go to {usable} instead", remedy)
    return _temporary([usable])


def _temporary(others: list[Path]) -> Finding:
    """The room in the folder for temporary files, and in other ones."""
    try:
        places = list(dict.fromkeys([*others, Path(tempfile.gettempdir())]))
    except OSError as error:
        return Finding("TMPDIR", f"{error.strerror}", "set TMPDIR to a folder that can be written", fatal=True)
    little = [place for place in places if shutil.disk_usage(place).free < _LITTLE]
    free = ", ".join(f"{place} ({_free(place)})" for place in places)
    return Finding("TMPDIR", free, "make room there, or set TMPDIR to another folder" if little else "")


def home() -> Finding:
    folder = home_folder()
    if folder is None or folder == private_path("home"):
        return Finding("HOME", f"you have none, {folder or 'nothing'} is used instead", "set HOME to a folder of yours")
    if not can_be_written(folder):
        return Finding("HOME", f"{folder} cannot be written", "nothing, if the caches below have another place")
    return Finding("HOME", str(folder))


def cache() -> Finding:
    from clray.cache import cache_folder

    folder = cache_folder()
    if not can_be_written(folder):
        text = f"{folder} cannot be written: downloads have no place, and data is decoded anew by every process"
        return Finding("cache", text, "set CLRAY_CACHE to a folder that can be")
    remedy = "make room, or set CLRAY_CACHE to another folder" if _is_little(folder) else ""
    return Finding("cache", f"{folder}, {_free(folder)}", remedy)


def kernels() -> Finding:
    """The folder in which numba stores compiled kernels."""
    folder = _kernels_folder()
    if folder is None:
        remedy = "set NUMBA_CACHE_DIR to a folder that can be written"
        return Finding("compiled kernels", "no folder can keep them: every process compiles them anew", remedy)
    return Finding("compiled kernels", str(folder))


def _kernels_folder() -> Path | None:
    from clray.vision import kernels

    if chosen := getattr(kernels, "kernel_cache", None):
        return chosen()[0]
    named = os.environ.get("NUMBA_CACHE_DIR")
    home = home_folder()
    places = [Path(named)] if named else [Path(kernels.__file__).parent, *([home / ".cache"] if home else [])]
    return next((place for place in places if can_be_written(place)), None)


def store(results: str) -> Finding:
    from clray.commands.answers import opened, require_writable

    remedy = "set --results to a folder or a bucket that can be written"
    try:
        found = opened(results)
        if "://" in results:
            require_writable(found)
            return Finding("results", f"{found.uri}, writable")
    except ClrayError as error:
        return Finding("results", str(error), remedy, fatal=True)
    folder = Path(found.path())
    if not can_be_written(folder):
        return Finding("results", f"{folder} cannot be written", remedy, fatal=True)
    return Finding("results", f"{folder}, {_free(folder)}", "make room there" if _is_little(folder) else "")


def output() -> Finding:
    encoding = sys.stdout.encoding or "ascii"
    try:
        "±‡–…·é".encode(encoding)
    except (UnicodeError, LookupError):
        return Finding("output", f"{encoding} lacks letters that tables are printed with", "set PYTHONIOENCODING=utf-8")
    return Finding("output", encoding)


def figures() -> Finding:
    """The user's settings of matplotlib. Figures do not use them, but matplotlib needs its cache folder."""
    told = []
    if backend := os.environ.get("MPLBACKEND"):
        told.append(f"MPLBACKEND={backend}")
    base = home_folder()
    folder = Path(os.environ.get("MPLCONFIGDIR") or (base or Path("/")) / ".config" / "matplotlib")
    named = os.environ.get("MATPLOTLIBRC")
    for file in [Path("matplotlibrc"), *([Path(named)] if named else []), folder / "matplotlibrc"]:
        if nearest(file.absolute()) == file.absolute():
            told.append(str(file))
            break
    settings = f"your settings ({', '.join(told)}) are not used for figures" if told else "no settings of yours"
    if not can_be_written(folder):
        remedy = "set MPLCONFIGDIR to a folder that can be"
        return Finding("matplotlib", f"{settings}; {folder} cannot be written, its fonts are looked up anew", remedy)
    return Finding("matplotlib", settings)


def tracking() -> Finding:
    from clray.tracking import default_mode

    if lacking("wandb"):
        return Finding("W&B", "off: the extra wandb is not here")
    known = ("online", "run", "shared", "offline", "dryrun", "disabled")
    asked = os.environ.get("WANDB_MODE", "").strip().lower()
    if asked and asked not in known:
        return Finding(
            "W&B", f"{default_mode()}; WANDB_MODE={asked} is none of its modes", f"one of {', '.join(known)}"
        )
    return Finding("W&B", default_mode() + (f" (WANDB_MODE={asked})" if asked else ""))


def _free(folder: Path) -> str:
    return f"{shutil.disk_usage(nearest(folder)).free / 2**30:.0f} GiB free"


def _is_little(folder: Path) -> bool:
    return shutil.disk_usage(nearest(folder)).free < _LITTLE
